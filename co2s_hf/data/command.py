"""The `co2s data` commands: describe a data set, check it, split it; prepare a public one, or fetch one of the Hub."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..raster.image import NoData
from .description import (
    DatasetDescription,
    open_questions,
    refuse_existing,
    root_as_seen_from,
    write_document,
    write_text,
)
from .discover import Answers, discover
from .hub import fetch
from .prepare import prepare
from .report import check_dataset, update_statistics
from .samples import count_class_pixels
from .show import add_show
from .splits import Blocks, Grouping, class_shares, draw_split, leaks, write_split

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `data` and what it can do to the `co2s` command."""
    actions = commands.add_parser("data", help="describe and check data sets").add_subparsers(
        required=True, metavar="init|show|check|split|prepare|fetch"
    )

    init = actions.add_parser("init", help="write the dataset.yaml of a folder of images and masks")
    init.add_argument("folder", type=Path, help="folder of the data set; nothing in it is changed")
    init.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="in the order of the ids in the masks, 255 ignored; or NAME=VALUE with an id or '#RRGGBB', ignore=VALUE",
    )
    init.add_argument("--images", help="folder or glob of the images, below the folder; default: by its usual names")
    init.add_argument("--masks", help="folder or glob of the masks, below the folder; default: by its usual names")
    init.add_argument("--bands", nargs="+", default=[], metavar="NAME", help="names of the bands, in their order")
    init.add_argument(
        "--alpha", choices=["band", "transparency"], help="what a band is that files call alpha; default: by its values"
    )
    init.add_argument("--nodata", type=float, help="value of pixels that show nothing, besides what the files say")
    init.add_argument(
        "--nodata_within",
        type=float,
        default=0.0,
        metavar="N",
        help="so far from --nodata, what is connected to the border of an image shows nothing either",
    )
    init.add_argument("--scene_pattern", help="regular expression whose first group is the scene; '' for none")
    init.add_argument("--accept", action="store_true", help="take the scene pattern that is proposed")
    init.add_argument("-o", "--output", type=Path, help="what to write; default: dataset.yaml in the folder")
    init.add_argument("--force", action="store_true", help="replace an existing file")
    init.set_defaults(run=_init)

    add_show(actions)

    check = actions.add_parser("check", help="check a data set; status 1 if it is not fit")
    check.add_argument("description", type=Path, help="dataset.yaml, or its folder")
    check.add_argument("--html", type=Path, help="also write the report as a page")
    check.add_argument("--json", type=Path, help="also write the report for programs, with every finding")
    check.add_argument(
        "--update_statistics", action="store_true", help="write the measured mean and std of the bands to dataset.yaml"
    )
    check.add_argument("--force", action="store_true", help="replace existing reports")
    check.set_defaults(run=_check)

    split = actions.add_parser("split", help="draw labelled and validation images; writes lists and their dataset.yaml")
    split.add_argument(
        "description", type=Path, help="dataset.yaml, or its folder; its validation images stay, if it names any"
    )
    split.add_argument("output", type=Path, help="folder for labelled.txt, unlabelled.txt, val.txt and dataset.yaml")
    size = split.add_mutually_exclusive_group(required=True)
    size.add_argument("--fraction", type=float, help="labelled share of the training images with a mask")
    size.add_argument("--count", type=int, help="number of labelled images")
    split.add_argument("--seed", type=int, default=0, help="draws both; default: 0")
    split.add_argument(
        "--group", choices=["tile", "scene", "block"], default="scene", help="what validation takes whole"
    )
    split.add_argument("--validation_fraction", type=float, help="share held out; default: that of the description")
    split.add_argument(
        "--tile_pattern", help="of blocks: regular expression with the groups column and row, or x and y"
    )
    split.add_argument("--block_tiles", type=int, default=4, help="of blocks: tiles on one side; default: 4")
    split.add_argument(
        "--tile_step", type=int, default=1, help="of blocks: from tile to tile, in the units of the names"
    )
    split.add_argument("--force", action="store_true", help="replace existing lists")
    split.set_defaults(run=_split)

    ready = actions.add_parser("prepare", help="turn a downloaded public data set into images and labels")
    ready.add_argument("name", help="data set, such as LoveDA")
    ready.add_argument("source", type=Path, help="the unpacked download")
    ready.add_argument("output", type=Path, help="folder to make")
    ready.add_argument("--protocol", required=True, help="whose tiles, such as RS-MTDF")
    ready.add_argument("--force", action="store_true", help="replace what an earlier run made, or began")
    ready.set_defaults(run=_prepare, resumes=True)

    hub = actions.add_parser("fetch", help="turn a labelled data set of the Hub into images and labels")
    hub.add_argument("source", metavar="hub_id", help="id on the Hub, such as user/name; or a folder laid out like one")
    hub.add_argument("output", type=Path, help="folder to make")
    hub.add_argument(
        "--split", nargs="+", default=["train"], help="default: train; give a test split a folder of its own"
    )
    hub.add_argument("--image_column", help="column of the images; default: the only one, or the one named like that")
    hub.add_argument("--mask_column", help="column of the masks; default: the one named like that")
    hub.add_argument("--config", help="configuration, of a data set with several")
    hub.add_argument("--revision", help="commit, branch or tag; default: the newest")
    hub.add_argument("--skip_broken", action="store_true", help="leave out rows that cannot be used, and name them")
    hub.add_argument("--force", action="store_true", help="replace what an earlier run made, or began")
    hub.set_defaults(run=_fetch, resumes=True)


def _init(arguments: argparse.Namespace) -> int:
    output = arguments.output or arguments.folder / "dataset.yaml"
    refuse_existing(output, force=arguments.force)
    if arguments.nodata_within and arguments.nodata is None:
        raise ValueError("--nodata_within needs the value that it is about: --nodata, such as 0.")
    answers = Answers(
        **{name: getattr(arguments, name) for name in ("images", "masks", "classes", "bands", "alpha", "accept")},
        nodata=None if arguments.nodata is None else NoData(arguments.nodata, arguments.nodata_within),
        scene_pattern=arguments.scene_pattern,
    )
    found = discover(arguments.folder, answers)
    found.document["root"] = root_as_seen_from(output, Path(found.document["root"]))
    write_document(output, found.document, force=arguments.force)
    for note in found.notes:
        print(note)
    questions = open_questions(found.document)
    print(f"Wrote {output}" + ("; what is left to say, there or with the argument named:" if questions else "."))
    for question in questions:
        print(f"  {question}")
    print(f"Next: co2s data check {output}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    outputs = [path for path in (arguments.html, arguments.json) if path is not None]
    for path in outputs:
        refuse_existing(path, force=arguments.force)
    described = _described(arguments.description)
    report = check_dataset(described)
    print(report.to_text(), end="")
    if arguments.html:
        write_text(arguments.html, report.to_html(), force=arguments.force)
    if arguments.json:
        write_text(arguments.json, report.to_json(), force=arguments.force)
    if arguments.update_statistics:
        update_statistics(described, report.bands)
        print(f"Wrote mean and std of the bands to {described}.")
    return 1 if report.errors else 0


def _split(arguments: argparse.Namespace) -> int:
    described = arguments.output / "dataset.yaml"
    refuse_existing(described, force=arguments.force)
    source = _described(arguments.description)
    description = DatasetDescription.load(source)
    fraction = arguments.validation_fraction or description.validation_fraction
    if description.validation is not None:
        if arguments.validation_fraction is not None:
            raise ValueError(
                f"{source} names its validation images already; leave out --validation_fraction, or set "
                "splits.validation to null."
            )
        fraction = None
    # Without a validation of its own, the description gives one pool.
    pool = replace(description, labelled=None, validation=description.validation or ()).find_split()
    training = pool.labelled + pool.unlabelled
    group = _grouping(arguments)
    pixels = count_class_pixels(training + pool.validation, len(pool.classes), description.reading)
    split = draw_split(
        training,
        classes=pool.classes,
        fraction=arguments.fraction,
        count=arguments.count,
        seed=arguments.seed,
        group=group,
        validation_fraction=fraction,
        class_pixels=pixels,
    )
    if pool.validation:
        split = replace(split, validation=pool.validation)
    lists = write_split(split, arguments.output, description.root, force=arguments.force)
    entries = {path.name: (str(path.absolute()),) for path in lists}
    replace(
        description,
        labelled=entries["labelled.txt"],
        unlabelled=entries["unlabelled.txt"],
        validation=entries.get("val.txt"),
        validation_fraction=None,
        seed=arguments.seed,
    ).save(described, force=arguments.force)
    found = leaks(split, group)
    counts = f"{len(split.labelled)} labelled, {len(split.unlabelled)} unlabelled, {len(split.validation)} validation"
    print(f"{counts} images.")
    for line in class_shares(split, pixels):
        print(line)
    print(f"{'warning: ' if found else ''}{found}")
    print(f"Wrote {arguments.output}. Next: co2s data check {described}")
    return 0


def _described(path: Path) -> Path:
    """The dataset.yaml itself, where its folder is given."""
    return path / "dataset.yaml" if path.is_dir() else path


def _grouping(arguments: argparse.Namespace) -> Grouping:
    if arguments.group == "block":
        if arguments.tile_pattern is None:
            raise ValueError("--group block needs --tile_pattern, such as '_(?P<column>\\d+)_(?P<row>\\d+)'.")
        return Blocks(arguments.tile_pattern, arguments.block_tiles, arguments.tile_step)
    return "scene" if arguments.group == "scene" else "tile"


def _prepare(arguments: argparse.Namespace) -> int:
    record = prepare(arguments.name, arguments.protocol, arguments.source, arguments.output, force=arguments.force)
    print(f"{record['images']} images of {record['dataset']}, protocol {record['protocol']}, in {arguments.output}.")
    for key in ("licence", "citation", "note"):
        if record[key]:
            print(f"{key.capitalize()}: {record[key]}")
    print(f"Next: co2s data init {arguments.output}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    record = fetch(
        arguments.source,
        arguments.output,
        splits=arguments.split,
        image_column=arguments.image_column,
        mask_column=arguments.mask_column,
        config=arguments.config,
        revision=arguments.revision,
        skip_broken=arguments.skip_broken,
        force=arguments.force,
    )
    for split, counts in record["counts"].items():
        print(f"{split}: {counts['images']} images, {counts['masks']} of them with a mask.")
    for error in record["left_out"]:
        print(f"Left out: {error}")
    for key in ("licence", "citation"):
        if record[key]:
            print(f"{key.capitalize()}: {record[key]}")
    print(f"Next: co2s data init {arguments.output}")
    return 0


__all__ = ["add_commands"]
