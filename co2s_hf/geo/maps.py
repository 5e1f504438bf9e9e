"""From an open dataset to a finished map, by one process, by several of `accelerate launch`, or by shards."""

import os
from pathlib import Path
from typing import Any

from ..raster.areas import ground_areas
from ..raster.cog import opened
from ..raster.read import gdal_environment, quiet
from .domain import require_plausible
from .memory import give_back
from .outputs import ENDINGS, SceneMap, finish, refuse_existing
from .polygons import PolygonSettings
from .predict import PredictSettings, ScenePrediction, fingerprint
from .scene import scene_of
from .windows import share


def predict_scene(
    dataset: Any,
    model: Any,
    processor: Any,
    output: str | Path,
    stem: str,
    *,
    settings: PredictSettings | None = None,
    polygons: PolygonSettings | None = None,
    with_polygons: bool = True,
    shard: tuple[int, int] | None = None,
    merge: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    source: dict[str, Any] | None = None,
) -> SceneMap | None:
    """Map the land cover of an open scene, of any size.

    Memory does not grow with the scene; files appear in `output` when all of them are whole. Processes that
    `accelerate launch` or torchrun have started share the bands, and the first one makes the files.

    Args:
        dataset: an open rasterio dataset; or an open raster, of `co2s_hf.geo.scene.open_scene`.
        model: any model of this package, in eval mode and on its device.
        processor: its image processor.
        output: folder of the map.
        stem: first part of the names of its files.
        settings: how a dataset is read, and what becomes of it; default: those of `PredictSettings`.
        polygons: what becomes of outlines; default: all of them, unsimplified.
        with_polygons: also write a GeoPackage.
        shard: (i, n): predict the share i of n, counted from 0, and no more.
        merge: predict nothing and make the files from the bands of all shards.
        resume: go on with an unfinished run of the same task.
        force: replace a finished map, or start over an unfinished one.
        progress: show a bar with megapixels per second and the time left.
        source: what the work folder notes of the scene; see `ScenePrediction`.

    Returns:
        The map; None for a shard, and in all processes but the first.

    Raises:
        RasterError: the dataset does not fit the model, is damaged, or files would be replaced.
    """
    output, settings = Path(output), settings or PredictSettings()
    if not (shard or merge or resume):
        refuse_existing(output, stem, force=force)
    with quiet(), gdal_environment():
        scene = scene_of(dataset, settings, model.config)
        require_plausible(scene, model.config)
        ground = ground_areas(scene.grid)  # what cannot be measured is said before hours of work
        state = _processes(model)
        is_first = state is None or state.is_main_process
        if not is_first:
            state.wait_for_everyone()  # until the first process has made the folder
        prediction = ScenePrediction(scene, model, processor, output, stem, settings, source)
        index, count = shard or ((0, 1) if state is None else (state.process_index, state.num_processes))
        if not merge and is_first:
            prediction.work.check_room(prediction.bands if shard is None else share(prediction.bands, index, count))
        prediction.work.begin(resume=resume or shard is not None or merge or not is_first, force=force and is_first)
        if state is not None and is_first:
            state.wait_for_everyone()
        if not merge:
            prediction.run(index, count, progress=progress)
        if state is not None:
            state.wait_for_everyone()
        if shard is not None or not is_first:
            return None
        outlines = (polygons or PolygonSettings()) if with_polygons else None
        tags = {"model": str(prediction.work.task["model"])}
        done = finish(prediction, output, stem, ground, polygons=outlines, tags=tags)
    give_back()
    return done


def is_finished(output: Path, stem: str, model: Any, processor: Any) -> bool:
    """Whether a map of this model is there, and nothing of it unfinished."""
    path = output / f"{stem}{ENDINGS[0]}"
    if not path.is_file() or (output / f".{stem}.predict").exists():
        return False
    with opened(path) as dataset:
        return bool(dataset.tags().get("model") == fingerprint(model, processor))


def _processes(model: Any) -> Any:
    """Accelerate's view of the processes; None where there is one only."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import PartialState

    return PartialState(cpu=model.device.type == "cpu")


__all__ = ["is_finished", "predict_scene"]
