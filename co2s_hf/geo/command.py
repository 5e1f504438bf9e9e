"""The commands of this folder: `co2s predict`, scenes in, maps out; `suggest` and `evaluate-map` are next door."""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .areas import ground_areas
from .domain import domain_differences
from .evaluate_command import add_evaluate_map
from .inputs import DTYPES, load_model, scene_paths
from .maps import is_finished, predict_scene
from .outputs import ENDINGS, SceneMap, refuse_existing
from .polygons import PolygonSettings
from .predict import PredictSettings
from .scenes import Grid, SceneError, SceneReader, choose_bands, opened
from .suggest_command import add_suggest

if TYPE_CHECKING:
    from argparse import _SubParsersAction


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
    scene.add_argument("--bands", type=int, nargs="+", help="of the scene, counted from 1, in the model's order")
    scene.add_argument("--nodata", type=float, help="value of bands without data, besides what the file says")
    scene.add_argument("--scale", type=float, help="factor to [0, 1], as 1e-4 for reflectances of 16 bits")
    scene.add_argument("--gsd", help="resample to so many metres per pixel, or to those of `training`")

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
    share = work.add_mutually_exclusive_group()
    share.add_argument("--shard", type=_shard, metavar="I/N", help="predict share I (from 0) of N only, then --merge")
    share.add_argument("--merge", action="store_true", help="make the maps of what all shards have predicted")


@dataclass(frozen=True)
class _Job:
    """A scene and the stem of its map."""

    path: str
    stem: str


def _predict(arguments: argparse.Namespace) -> int:
    arguments.resumes = arguments.resume or arguments.shard is not None
    jobs = _jobs(arguments.inputs, arguments.output)
    for name in ("batch_size", "band_px", "max_memory"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise SceneError(f"--{name} is {value}; expected at least 1.")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SceneError(f"{arguments.output} cannot be made ({error}); expected a folder. Name another one.") from None
    joins = arguments.resume or arguments.shard is not None or arguments.merge
    if not joins:
        for job in jobs:
            refuse_existing(arguments.output, job.stem, force=arguments.force)
    model, processor = load_model(arguments.model, arguments.device, arguments.dtype)
    for job in jobs:  # all of them before the first one is predicted
        with _scene(job, arguments, model) as (dataset, gsd_m):
            _check(job, dataset, gsd_m, model, arguments)
    for job in jobs:
        if joins and is_finished(arguments.output, job.stem, model, processor):
            _say(f"{job.stem}: finished already")
            continue
        with _scene(job, arguments, model) as (dataset, _):
            done = predict_scene(
                dataset,
                model,
                processor,
                arguments.output,
                job.stem,
                settings=_settings(arguments),
                polygons=PolygonSettings(arguments.min_area_m2, arguments.simplify_m),
                with_polygons=not arguments.no_polygons,
                shard=arguments.shard,
                merge=arguments.merge,
                resume=arguments.resume,
                force=arguments.force,
                progress=_is_first(),
                source=_source(job.path, arguments.gsd),
            )
        if done is not None:
            print(_summary(job.stem, done))
    return 0


def _settings(arguments: argparse.Namespace) -> PredictSettings:
    return PredictSettings(
        window_px=arguments.window_px,
        overlap_px=arguments.overlap_px,
        batch=arguments.batch_size,
        band_px=arguments.band_px,
        bands=None if arguments.bands is None else tuple(arguments.bands),
        nodata=arguments.nodata,
        scale=arguments.scale,
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
            raise SceneError(
                f"{stems[job.stem]} and {job.path} would both become {job.stem}{ENDINGS[0]}. Rename one, or give them "
                "outputs of their own."
            )
        stems[job.stem] = job.path
    scenes = {os.path.realpath(job.path): job.path for job in jobs}
    for job in jobs:
        for ending in ENDINGS:
            path = os.path.realpath(output / f"{job.stem}{ending}")
            if path in scenes:
                raise SceneError(
                    f"The map of {job.path} would replace the scene {scenes[path]}. Name another --output."
                )
    return jobs


@contextmanager
def _scene(job: _Job, arguments: argparse.Namespace, model: Any) -> Iterator[tuple[Any, float | None]]:
    """The open dataset, resampled if asked for, and its metres per pixel."""
    with opened(job.path) as dataset:
        own_m = ground_areas(Grid.of(dataset)).gsd_m
        wanted_m = _wanted_gsd(job, arguments.gsd, own_m, model)
        if wanted_m is None:
            yield dataset, own_m
            return
    with opened(job.path, gsd_m=wanted_m, own_m=own_m) as resampled:
        yield resampled, wanted_m


def _wanted_gsd(job: _Job, gsd: str | None, own_m: float | None, model: Any) -> float | None:
    if gsd is None:
        return None
    if own_m is None:
        raise SceneError(f"{job.path} does not say how large its pixels are, so --gsd means nothing. Leave it out.")
    if gsd == "training":
        trained: float | None = (model.config.training_images or {}).get("gsd_m")
        if trained is None:
            raise SceneError("The model does not record its metres per pixel of training. Give --gsd as a number.")
        return trained
    try:
        wanted = float(gsd)
    except ValueError:
        wanted = 0.0
    if not 0 < wanted < math.inf:
        raise SceneError(f"--gsd is {gsd}; expected metres per pixel above 0, or `training`.")
    return wanted


def _check(job: _Job, dataset: Any, gsd_m: float | None, model: Any, arguments: argparse.Namespace) -> None:
    """Say in how far the scene is none of those that the model knows; errors end the command."""
    bands = choose_bands(dataset, arguments.bands, model.config.num_channels, model.config.bands)
    reader = SceneReader(dataset, bands, nodata=arguments.nodata, scale=arguments.scale)
    for difference in domain_differences(reader, gsd_m, model.config):
        _say(f"{job.stem}: {difference}")
    if dataset.crs is None:
        _say(f"{job.stem}: no CRS, so the map has none and areas are in pixels only")


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


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    if _is_first():
        print(f"note: {text}", file=sys.stderr)


__all__ = ["add_commands"]
