"""The commands of this folder: `co2s predict`, scenes in, maps out; `suggest` and `evaluate-map` are next door."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..raster.errors import RasterError
from .domain import check_scene
from .evaluate_command import add_evaluate_map
from .inputs import DTYPES, is_first, load_model, say, scene_paths
from .maps import is_finished, predict_scene
from .outputs import ENDINGS, SceneMap, refuse_existing
from .polygons import PolygonSettings
from .predict import PredictSettings
from .scene import SceneOptions, add_scene_options, open_scene, scene_options
from .suggest_command import add_suggest
from .work import OtherTaskError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

FAILED = "failed.csv"


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `predict`, `suggest` and `evaluate-map` to the `co2s` command."""
    _add_predict(commands)
    add_suggest(commands)
    add_evaluate_map(commands)


def _add_predict(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = commands.add_parser("predict", help="map the land cover of scenes of any size")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="scenes, folders or globs; whatever GDAL opens")
    predict.add_argument("--model", required=True, help="folder or Hub id")
    predict.add_argument("--output", type=Path, required=True, help="folder for the maps, named after the scenes")
    predict.set_defaults(run=_predict)

    scene = predict.add_argument_group("what the model sees")
    add_scene_options(scene)

    layers = predict.add_argument_group("what is written")
    layers.add_argument("--probabilities", action="store_true", help="also the probability of every class")
    layers.add_argument("--disagreement", action="store_true", help="also how much the two students of Co2S disagree")
    layers.add_argument("--no_polygons", action="store_true", help="no GeoPackage")
    layers.add_argument("--min_area_m2", type=float, default=0.0, help="leave smaller polygons out")
    layers.add_argument("--simplify_m", type=float, default=0.0, help="let outlines move by so many metres")
    layers.add_argument("--force", action="store_true", help="replace finished maps, start unfinished ones over")

    work = predict.add_argument_group("how it is computed")
    work.add_argument("--window_px", type=int, help="side of a window; default: the model's")
    work.add_argument("--overlap_px", type=int, help="of neighbouring windows; default: that of the model")
    work.add_argument("--batch_size", type=int, help="windows at once; default: 8, or what --max-memory allows")
    work.add_argument("--max-memory", "--max_memory", type=int, metavar="MB", help="bound of the process's memory")
    work.add_argument("--band_px", type=int, default=1024, help="rows finished together; default: 1024")
    work.add_argument("--device", help="default: a GPU where there is one")
    work.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model's weights; default: float32")
    work.add_argument("--resume", action="store_true", help="go on with what was interrupted, to the same bytes")
    keep_going = f"map the other scenes where some fail, and name these in {FAILED}; once more: those alone"
    work.add_argument("--keep_going", action="store_true", help=keep_going)
    share = work.add_mutually_exclusive_group()
    share.add_argument("--shard", type=_shard, metavar="I/N", help="predict share I (from 0) of N only, then --merge")
    share.add_argument("--merge", action="store_true", help="make the maps of what all shards have predicted")


@dataclass(frozen=True)
class _Job:
    """A scene and the stem of its map."""

    path: str
    stem: str


def _predict(arguments: argparse.Namespace) -> int:
    arguments.resumes = arguments.resume or arguments.shard is not None or arguments.keep_going
    _refuse_options(arguments)
    options, jobs = scene_options(arguments), _jobs(arguments.inputs, arguments.output)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RasterError(
            f"{arguments.output} cannot be made ({error}); expected a folder. Name another one."
        ) from None
    joins = arguments.resume or arguments.shard is not None or arguments.merge
    goes_on = arguments.keep_going and not arguments.force
    if not joins and not arguments.keep_going:
        for job in jobs:
            refuse_existing(arguments.output, job.stem, force=arguments.force)
    model, processor = load_model(arguments.model, arguments.device, arguments.dtype)
    todo, failed = [], _Failures(arguments.keep_going)
    for job in jobs:  # all of them before the first one is predicted
        with failed.noting(job):
            if (joins or goes_on) and is_finished(arguments.output, job.stem, model, processor):
                say(f"{job.stem}: finished already")
                continue
            if not joins:
                refuse_existing(arguments.output, job.stem, force=arguments.force)
            _check(job, options, model.config)
            todo.append(job)
    for job in todo:
        with failed.noting(job):
            try:
                _map(job, options, model, processor, arguments, resume=arguments.resume or goes_on)
            except OtherTaskError:
                if joins or not goes_on:
                    raise
                # What could not be read then has been mended since.
                _map(job, options, model, processor, arguments, resume=False, force=True)
    return failed.report(None if arguments.shard else arguments.output / FAILED)


def _map(
    job: "_Job",
    options: SceneOptions,
    model: Any,
    processor: Any,
    arguments: argparse.Namespace,
    *,
    resume: bool,
    force: bool = False,
) -> None:
    with open_scene(job.path, options, model.config) as scene:
        done = predict_scene(
            scene,
            model,
            processor,
            arguments.output,
            job.stem,
            settings=_settings(arguments),
            polygons=PolygonSettings(arguments.min_area_m2, arguments.simplify_m),
            with_polygons=not arguments.no_polygons,
            shard=arguments.shard,
            merge=arguments.merge,
            resume=resume,
            force=force or arguments.force,
            progress=is_first(),
            source=_source(job.path, arguments.gsd),
        )
    if done is not None:
        print(_summary(job.stem, done))


def _check(job: "_Job", options: SceneOptions, config: Any) -> None:
    """Say in how far the scene is none of those that the model knows; raise RasterError where it cannot be mapped."""
    with open_scene(job.path, options, config) as scene:
        for note in check_scene(scene, options, config):
            say(f"{job.stem}: {note}")
        if scene.grid.crs is None:
            say(f"{job.stem}: no CRS, so the map has none and areas are in pixels only")


def _refuse_options(arguments: argparse.Namespace) -> None:
    for name in ("batch_size", "band_px", "max_memory"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise RasterError(f"--{name} is {value}; expected at least 1.")
    if arguments.keep_going and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RasterError("--keep_going is for one process; start the others with --shard I/N instead, then --merge.")


class _Failures:
    """Which scenes failed, and why.

    Args:
        go_on: whether to note them; otherwise the first one ends the command.
    """

    def __init__(self, go_on: bool) -> None:
        self.go_on = go_on
        self.found: list[tuple[_Job, str]] = []

    @contextmanager
    def noting(self, job: "_Job") -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            if not self.go_on:
                raise
            self.found.append((job, " ".join(str(error).split())))
            say(f"{job.stem}: failed, going on with the others")

    def report(self, table: Path | None) -> int:
        """Say what failed, here and in a table, which vanishes when nothing does; gives the exit status."""
        if table is not None and self.go_on:
            table.unlink(missing_ok=True)
        if not self.found:
            return 0
        print(f"co2s: {len(self.found)} scenes failed; the same command tries them again:", file=sys.stderr)
        for job, reason in self.found:
            print(f"  {job.path}: {reason}", file=sys.stderr)
        if table is not None:
            with table.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("scene", "reason"), *((job.path, reason) for job, reason in self.found)])
        return 1


def _settings(arguments: argparse.Namespace) -> PredictSettings:
    return PredictSettings(
        window_px=arguments.window_px,
        overlap_px=arguments.overlap_px,
        batch=arguments.batch_size,
        band_px=arguments.band_px,
        probabilities=arguments.probabilities,
        disagreement=arguments.disagreement,
        max_memory_mb=arguments.max_memory,
    )


def _jobs(inputs: Sequence[str], output: Path) -> list[_Job]:
    """The scenes, each once; refuses two maps of one name, and maps in the place of scenes."""
    jobs = [_Job(path, Path(path).stem) for path in scene_paths(inputs)]
    stems: dict[str, str] = {}
    for job in jobs:
        if job.stem in stems:
            raise RasterError(
                f"{stems[job.stem]} and {job.path} would both become {job.stem}{ENDINGS[0]}. Rename one, or give them "
                "outputs of their own."
            )
        stems[job.stem] = job.path
    scenes = {os.path.realpath(job.path): job.path for job in jobs}
    for job in jobs:
        for ending in ENDINGS:
            path = os.path.realpath(output / f"{job.stem}{ending}")
            if path in scenes:
                raise RasterError(
                    f"The map of {job.path} would replace the scene {scenes[path]}. Name another --output."
                )
    return jobs


def _source(path: str, gsd: str | None) -> dict[str, Any]:
    """What tells a scene from another one, or from itself after a change."""
    known: dict[str, Any] = {"name": os.path.basename(path), "gsd": gsd}
    if os.path.isfile(path):
        status = os.stat(path)
        known |= {"bytes": status.st_size, "changed": status.st_mtime_ns}
    return known


def _summary(stem: str, done: SceneMap) -> str:
    total = max(1, sum(area.pixels for area in done.areas))
    shares = ", ".join(f"{area.name} {area.pixels / total:.1%}" for area in done.areas)
    if not any(area.pixels for area in done.areas):
        shares = "no pixel holds data: the map is empty"
    return f"{done.classes}: {shares}"


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no share; expected I/N with I from 0 to N - 1, as 0/4")
    return int(index), int(count)


__all__ = ["add_commands"]
