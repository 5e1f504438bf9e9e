"""From the bands of a prediction to the files of a map: made beside the output, renamed into place once whole."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..raster.areas import ClassArea, GroundAreas, class_areas
from ..raster.cog import blocks, thinned, write_cog
from ..raster.colours import class_colours, natural_picture
from ..raster.errors import RasterError
from .polygons import PolygonSettings, PolygonSummary, write_polygons
from .predict import ScenePrediction
from .quicklook import SIDE_PX, write_quicklook

ENDINGS = (
    ".classes.tif",
    ".confidence.tif",
    ".disagreement.tif",
    ".probabilities.tif",
    ".polygons.gpkg",
    ".areas.csv",
    ".areas.json",
    ".png",
)
"""What the files of a map are called after its stem."""

READ_PX = 1024


@dataclass(frozen=True)
class SceneMap:
    """A finished map.

    Attributes:
        files: ending -> file.
        areas: what each class covers.
        polygons: of the GeoPackage; None where it was not asked for.
    """

    files: dict[str, Path]
    areas: list[ClassArea]
    polygons: PolygonSummary | None

    @property
    def classes(self) -> Path:
        """The class map."""
        return self.files[".classes.tif"]


def refuse_existing(output: Path, stem: str, *, force: bool) -> None:
    """Raise RasterError where files of a finished map would be replaced without `force`, and no run has begun to."""
    found = [f"{stem}{ending}" for ending in ENDINGS if (output / f"{stem}{ending}").exists()]
    if found and not force and not (output / f".{stem}.predict").exists():
        raise RasterError(
            f"{output} holds {', '.join(found)} already. Name another output, or replace them with --force; they stay "
            "until the new ones are whole."
        )


def finish(
    prediction: ScenePrediction,
    output: Path,
    stem: str,
    ground: GroundAreas,
    *,
    polygons: PolygonSettings | None = PolygonSettings(),  # noqa: B008  # frozen
    tags: dict[str, str] | None = None,
) -> SceneMap:
    """Make all files of the map from its bands, move them to `output` and delete the bands.

    Args:
        prediction: every band of it done.
        output: folder.
        stem: first part of the names.
        ground: area of the scene's pixels.
        polygons: settings; None for no GeoPackage.
        tags: metadata of the class map, besides the names of the classes.

    Raises:
        RasterError: bands are missing, or a file cannot be written.
    """
    missing = prediction.missing()
    if missing:
        raise RasterError(
            f"{prediction.work.folder} lacks {len(missing)} of {len(prediction.bands)} bands (the first one is "
            f"{missing[0].index}). Predict them with --resume or --shard, then merge."
        )
    folder, grid = prediction.work.folder, prediction.scene.grid
    made = {}
    for ending, layers in _rasters(prediction).items():
        is_classes = ending == ".classes.tif"
        made[ending] = folder / f"{stem}{ending}"
        write_cog(
            made[ending],
            grid,
            [prediction.work.part(band) for band in prediction.bands],
            layers,
            names=[prediction.layers[layer] for layer in layers],
            colours=class_colours(prediction.classes) if is_classes else None,
            tags={**_class_tags(prediction.classes), **(tags or {})} if is_classes else dict(tags or {}),
        )
    class_map = made[".classes.tif"]
    areas = class_areas(blocks(class_map, READ_PX), prediction.classes, ground)
    summary = None
    if polygons is not None:
        made[".polygons.gpkg"] = folder / f"{stem}.polygons.gpkg"
        made[".polygons.gpkg"].unlink(missing_ok=True)  # of a run that was killed here
        summary = write_polygons(made[".polygons.gpkg"], class_map, grid, ground, prediction.classes, polygons)
    made |= _write_areas(folder, stem, areas, ground, summary)
    made[".png"] = folder / f"{stem}.png"
    write_quicklook(made[".png"], _picture(prediction), thinned(class_map, SIDE_PX), areas)
    return SceneMap(_move(made, output, stem, prediction), areas, summary)


def _rasters(prediction: ScenePrediction) -> dict[str, list[int]]:
    """Ending of each raster -> its layers."""
    named = {name: [index] for index, name in enumerate(prediction.layers)}
    rasters = {f".{name}.tif": named[name] for name in ("classes", "confidence")}
    if prediction.settings.disagreement:
        rasters[".disagreement.tif"] = [2]
    if prediction.settings.probabilities:
        first = len(prediction.layers) - len(prediction.classes)
        rasters[".probabilities.tif"] = list(range(first, len(prediction.layers)))
    return rasters


def _class_tags(classes: Sequence[str]) -> dict[str, str]:
    return {"classes": json.dumps(list(classes)), **{f"class_{index}": name for index, name in enumerate(classes)}}


def _picture(prediction: ScenePrediction) -> Any:
    """The scene as small as the map in the quick-look."""
    grid = prediction.scene.grid
    factor = max(1.0, max(grid.height, grid.width) / SIDE_PX)
    shape = (max(1, math.floor(grid.height / factor)), max(1, math.floor(grid.width / factor)))
    return natural_picture(prediction.scene.read(shape=shape))


def _write_areas(
    folder: Path, stem: str, areas: list[ClassArea], ground: GroundAreas, summary: PolygonSummary | None
) -> dict[str, Path]:
    total = max(1, sum(area.pixels for area in areas))
    rows = [
        {
            "class_id": area.class_id,
            "class": area.name,
            "pixels": area.pixels,
            "area_m2": area.area_m2,
            "area_ha": area.area_ha,
            "share": area.pixels / total,
        }
        for area in areas
    ]
    table, values = folder / f"{stem}.areas.csv", folder / f"{stem}.areas.json"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    content: dict[str, Any] = {"method": ground.method, "gsd_m": ground.gsd_m, "classes": rows}
    if summary is not None:
        left_out = {
            areas[class_id].name: {"polygons": count, "area_m2": area}
            for class_id, (count, area) in sorted(summary.left_out.items())
        }
        content["polygons"] = {"written": summary.written, "left_out": left_out}
    values.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return {".areas.csv": table, ".areas.json": values}


def _move(made: dict[str, Path], output: Path, stem: str, prediction: ScenePrediction) -> dict[str, Path]:
    files = {}
    for ending in ENDINGS:
        target = output / f"{stem}{ending}"
        if ending in made:
            files[ending] = made[ending].replace(target)
        else:
            target.unlink(missing_ok=True)  # a layer of an older map, which this one has not
    prediction.work.discard()
    return files


__all__ = ["ENDINGS", "SceneMap", "finish", "refuse_existing"]
