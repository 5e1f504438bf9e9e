"""The `co2s suggest` command: which tiles should be labelled next."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..raster.errors import RasterError
from .inputs import DTYPES, load_model, say, scene_paths
from .labelled import Labelled
from .results import files_together
from .scene import add_scene_options, scene_options
from .suggest import StudentTiles, Suggestions, SuggestSettings, suggest
from .suggestion_files import write_geopackage, write_sheet, write_table

if TYPE_CHECKING:
    from argparse import _SubParsersAction

FILES = ("suggestions.gpkg", "suggestions.csv", "suggestions.png")


def add_suggest(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `suggest` to the `co2s` command."""
    parser = commands.add_parser("suggest", help="rank the tiles of scenes: which to label next")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="scenes, folders or globs; whatever GDAL opens")
    parser.add_argument("--model", required=True, help="folder or Hub id")
    parser.add_argument("--output", type=Path, required=True, help=f"folder for {', '.join(FILES)}")
    labelled = "what has labels: folders of masks, .txt of names, .csv of suggestions, polygons"
    parser.add_argument("--exclude", nargs="+", type=Path, default=[], metavar="LABELLED", help=labelled)
    parser.add_argument("--tile_px", type=int, help="side of a tile; default: the model's window")
    parser.add_argument("--count", type=int, default=20, help="how many tiles; default: 20")
    parser.add_argument("--diversity", type=float, default=1.0, help="0: by disagreement alone; default: 1")
    parser.add_argument("--min_data", type=float, default=0.5, help="share of a tile with data; default: 0.5")
    add_scene_options(parser)
    parser.add_argument("--batch_size", type=int, default=8, help="tiles at once; default: 8")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model's weights; default: float32")
    parser.add_argument("--force", action="store_true", help="replace earlier suggestions")
    parser.set_defaults(run=_suggest)


def _suggest(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    paths = scene_paths(arguments.inputs)
    labelled = Labelled()
    for source in arguments.exclude:
        labelled.add(source)
    with files_together(arguments.output, FILES, force=arguments.force) as folder:
        model, processor = load_model(arguments.model, arguments.device, arguments.dtype)
        students = StudentTiles(model, processor)
        found = suggest(paths, model, processor, settings, labelled, progress=True, say=say)
        write_geopackage(folder / FILES[0], found.chosen, students.classes)
        write_table(folder / FILES[1], found.chosen, students.classes)
        write_sheet(folder / FILES[2], found.chosen, students, settings)
    print(_report(found, students, arguments.output))
    return 0


def _settings(arguments: argparse.Namespace) -> SuggestSettings:
    for name in ("tile_px", "count", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise RasterError(f"--{name} is {value}; expected at least 1.")
    if not 0 <= arguments.diversity < math.inf:
        raise RasterError(f"--diversity is {arguments.diversity}; expected 0 or more.")
    if not 0 <= arguments.min_data <= 1:
        raise RasterError(f"--min_data is {arguments.min_data}; expected a share from 0 to 1.")
    return SuggestSettings(
        tile_px=arguments.tile_px,
        count=arguments.count,
        batch=arguments.batch_size,
        diversity=arguments.diversity,
        min_data=arguments.min_data,
        **vars(scene_options(arguments)),
    )


def _report(found: Suggestions, students: StudentTiles, output: Path) -> str:
    what = "disagreement of two students" if len(students.fields) == 2 else "uncertainty of one student"
    lines = [
        f"{len(found.chosen)} of {found.tiles} tiles by {what} ({found.labelled} labelled and {found.empty} without "
        f"enough data left out): {output / FILES[1]}",
        "rank  score  disagreement  most disputed   file, row, column",
    ]
    for one in found.chosen[:10]:
        disputed = students.classes[int(one.summary.by_class.argmax())]
        tile = one.tile
        lines.append(
            f"{one.rank:>4}  {one.score:.3f}  {one.summary.disagreement:>12.3f}  {disputed:<14}  "
            f"{Path(tile.path).name}, {tile.box[0]}, {tile.box[1]}"
        )
    return "\n".join([*lines, *(["…"] if len(found.chosen) > 10 else [])])


__all__ = ["FILES", "add_suggest"]
