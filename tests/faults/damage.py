"""Files that change by themselves: a bit, an end, a place. Each is refused by name, or does no harm."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from co2s_hf.data import synthetic
from co2s_hf.data.description import Bands, DatasetDescription, LandCoverClass
from co2s_hf.data.folders import check_split
from co2s_hf.data.label_map import LabelMap
from co2s_hf.geo import outputs
from co2s_hf.geo.windows import WindowGrid, cut_bands
from co2s_hf.geo.work import WorkFolder
from co2s_hf.publish.folder import verify_checksums
from co2s_hf.raster.image import Reading
from tests.faults import jobs
from tests.faults.children import Moment, fresh, start, wait
from training.arguments import FREE, parse_arguments
from training.checkpoints import newest_good_checkpoint
from training.purification.cache import RegionCache
from training.train_semi import fingerprint_of, listed_data

Check = Callable[[Path], Any]
"""Looks at a folder: gives what it found, the same as in a sound one, or raises ValueError or OSError, or ends."""

SMALL = ("loveda", "RS-MTDF", "original")


def damaged(how: str, base: Path, tries: int) -> Iterator[str]:
    """Damage one file of a copy, and look."""
    subjects = [subject(fresh(base / subject.__name__)) for subject in SUBJECTS]
    sound = [check(_copy(folder, base / "copy")) for folder, check in subjects]
    for seed in range(tries):
        random, which = np.random.default_rng(seed), seed % len(subjects)
        folder, check = subjects[which]
        copy = _copy(folder, base / "copy")
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
        changed = _damage(how, files, random)
        if changed is None:  # two equal files changed places
            yield ""
            continue
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                found = check(copy)
        except (ValueError, OSError):
            yield ""
        except SystemExit as end:
            yield "" if end.code == 2 else f"seed {seed}: {changed} ended with {end.code}"
        except Exception as error:
            yield f"seed {seed}: {changed} escaped as {type(error).__name__}: {error}"
        else:
            yield "" if found == sound[which] else f"seed {seed}: {changed} was taken for sound"


def _copy(folder: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(folder, copy, copy_function=os.link))


def _damage(how: str, files: list[Path], random: np.random.Generator) -> str | None:
    """Change a file, which is a link to the sound one; returns what was done."""
    path = files[int(random.integers(len(files)))]
    content = bytearray(path.read_bytes())
    if how == "flip":
        place, bit = int(random.integers(len(content))), int(random.integers(8))
        content[place] ^= 1 << bit
        done = f"bit {bit} of byte {place} of {path.name}"
    elif how == "truncate":
        del content[int(random.integers(len(content))) :]
        done = f"{path.name} cut to {len(content)} bytes"
    else:
        other = files[int(random.integers(len(files)))]
        if other.read_bytes() == bytes(content):
            return None
        swapped = bytes(content)
        content = bytearray(other.read_bytes())
        other.unlink()
        other.write_bytes(swapped)
        done = f"{path.name} and {other.name} swapped"
    path.unlink()
    path.write_bytes(content)
    return done


# ---------------------------------------------------------------------------------------------------------------------
# What is damaged
# ---------------------------------------------------------------------------------------------------------------------


def checkpoints(base: Path) -> tuple[Path, Check]:
    """The two checkpoints of a run: a damaged one is not chosen."""
    _train(base)
    sound = _hashes(base / "run" / "checkpoints")

    def check(folder: Path) -> Any:
        good, _ = newest_good_checkpoint(folder)
        if good is None:
            raise ValueError("refused")
        return {name: value for name, value in _hashes(good).items()} == {
            name.partition("/")[2]: value for name, value in sound.items() if name.startswith(good.name)
        }

    return base / "run" / "checkpoints", check


def model(base: Path) -> tuple[Path, Check]:
    """The best model of a run, as pushes, resumes and evaluation look at it, without its card and pictures."""
    _train(base)
    for path in (base / "run" / "best").iterdir():
        if path.suffix == ".png" or path.name == "README.md":
            path.unlink()

    def check(folder: Path) -> Any:
        verify_checksums(folder)
        return _hashes(folder)

    return base / "run" / "best", check


def scores(base: Path) -> tuple[Path, Check]:
    """The cache of a purification, as training reads it."""
    work = jobs.Purification(base, images=6)
    _in_child(partial(work.run, base), base / "log")
    (base / "run" / "audit.json").unlink()  # nobody reads it
    shutil.rmtree(base / "run" / "labelled")  # what calibration began from; a check of the same kind

    def check(folder: Path) -> Any:
        cache = RegionCache(folder)
        cache.names = {(str(path), path.stat().st_size, path.stat().st_mtime_ns): name for path, name in names.items()}
        looked_up = [cache.lookup(path) for path in work.images[1:]]
        return [cache.classes, *((regions.tolist(), table.nan_to_num(-1).tolist()) for regions, table in looked_up)]

    cache = RegionCache(base / "run")
    names = {path: cache._name(path) for path in work.images}
    return base / "run", check


def description(base: Path) -> tuple[Path, Check]:
    """dataset.yaml and split lists: a resume refuses what changes images, masks, classes or the reading of masks."""
    data = base / "data"
    synthetic.write_scenes(data, seed=0, num_labelled=3, num_unlabelled=3, num_validation=1, size_px=16)
    kept = base / "described"
    kept.mkdir()
    lists = {"labelled": [], "unlabelled": [], "validation": []}
    for path in sorted((data / "images").iterdir()):
        mask = data / "labels" / path.name
        part = "validation" if path.name.startswith("val") else "labelled" if mask.is_file() else "unlabelled"
        lists[part].append(f"images/{path.name}" + (f" labels/{path.name}" if mask.is_file() else ""))
    for part, lines in lists.items():
        (kept / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines))
    classes = tuple(LandCoverClass(name, None) for name in synthetic.CLASSES)
    DatasetDescription(
        root=data,
        classes=classes,
        label_map=LabelMap(tuple((number, number) for number in range(len(classes))) + ((255, 255),)),
        bands=Bands(("red", "green", "blue"), rgb=(0, 1, 2)),
        **{part: (str(base / "copy_of_lists" / f"{part}.txt"),) for part in lists},
    ).save(kept / "dataset.yaml")

    def check(folder: Path) -> Any:
        shutil.rmtree(base / "copy_of_lists", ignore_errors=True)
        shutil.copytree(folder, base / "copy_of_lists")
        arguments = parse_arguments(["--dataset", str(folder / "dataset.yaml")])
        split = listed_data(arguments)
        check_split(split, Reading(count=3))
        found = {name: value for name, value in vars(arguments).items() if name not in (*FREE, "dataset")}
        found = {**json.loads(json.dumps(found)), "images": fingerprint_of(split)}
        if before and found != before[0]:
            raise ValueError("another fingerprint: a resume refuses it")
        before.append(found)
        return found

    before: list[Any] = []
    return kept, check


def journal(base: Path) -> tuple[Path, Check]:
    """An interrupted preparation: going on makes the same files."""
    work = jobs.Preparation(base, SMALL)
    (base / "parts").mkdir()
    _in_child(partial(work.run, fresh(base / "whole")), base / "log")
    # A finished one has no journal: interrupt another one at its end.
    moment = Moment(call=0, function=(jobs.Journal, "finish"))
    wait([start(partial(work.run, base / "parts"), base / "log", moment=moment)])

    def check(folder: Path) -> Any:
        work.run(folder)
        differences = jobs.tree_differences(base / "whole", folder)
        shutil.rmtree(folder)
        return differences

    return base / "parts", check


def unfinished_map(base: Path) -> tuple[Path, Check]:
    """A map whose bands are all there, and its files not: a damaged band is not used."""
    work = jobs.Mapping(base, height_px=160, width_px=96)
    (base / "whole").mkdir()
    moment = Moment(call=0, function=(outputs, "write_cog"))
    wait([start(partial(work.run, base / "whole"), base / "log", moment=moment)])
    sound = _hashes(base / "whole" / "run")
    (parts,) = (base / "whole" / "run").iterdir()
    task = json.loads((parts / "task.json").read_text())
    task.pop("sha256")
    layers, (height, width) = len(task["layers"]), (160, 96)
    windows = WindowGrid(height, width, task["window_px"], task["overlap_px"])
    bands = cut_bands(windows, task["band_px"])
    if WorkFolder(base / "whole" / "run", "scene", task, layers=layers, width=width).missing(bands):
        raise SystemExit(f"the map to be damaged lacks bands:\n{(base / 'log').read_text()}")

    def check(folder: Path) -> Any:
        map_parts = WorkFolder(folder, "scene", task, layers=layers, width=width)
        map_parts.begin(resume=True)
        used = [map_parts.part(band).path for band in bands if band not in map_parts.missing([band])]
        found = _hashes(folder)
        return all(found[name] == sound[name] for name in (path.relative_to(folder).as_posix() for path in used))

    return base / "whole" / "run", check


SUBJECTS: tuple[Callable[[Path], tuple[Path, Check]], ...] = (
    checkpoints, model, scores, description, journal, unfinished_map,
)  # fmt: skip


def _train(base: Path) -> None:
    _in_child(partial(jobs.Training(base).run, base), base / "log")


def _in_child(work: Callable[[], None], log: Path) -> None:
    if wait([start(work, log)]) != [0]:
        raise SystemExit(f"the work to be damaged failed:\n{log.read_text()}")


def _hashes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): hash(path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


torch.set_num_threads(1)
