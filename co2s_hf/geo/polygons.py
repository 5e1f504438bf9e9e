"""A class map as polygons in a GeoPackage: shapely and pyogrio live here.

The map is traced block by block. A region inside a block is written at once; the pieces of one that touches a block's
border wait, and are joined when all are there. So memory holds one block and the outlines of what crosses borders, not
the map; one region that winds through all of a scene is in memory as a whole, as it is one feature of the file.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .areas import GroundAreas
from .scenes import Grid, Rings, SceneError, blocks, traced

BLOCK_PX = 2048
FEATURES_AT_ONCE = 20_000
LAYER = "land_cover"
FIXED_DATE = "2000-01-01T00:00:00.000Z"  # in the file's table of contents, so that equal maps are equal bytes


@dataclass(frozen=True)
class PolygonSettings:
    """What becomes of outlines.

    Attributes:
        min_area_m2: smaller polygons are left out (and counted); they leave holes and no polygon grows into them.
        simplify_m: outlines may move by so much; each polygon by itself, so that neighbours may overlap or part by as
            much. The field `area_m2` stays that of the pixels.
    """

    min_area_m2: float = 0.0
    simplify_m: float = 0.0


@dataclass
class PolygonSummary:
    """How many polygons were written, and what was left out: for each class how many, and their square metres."""

    written: int = 0
    left_out: dict[int, tuple[int, float]] = field(default_factory=dict)

    def leave_out(self, class_id: int, area: float) -> None:
        """Count one that is too small."""
        count, total = self.left_out.get(class_id, (0, 0.0))
        self.left_out[class_id] = (count + 1, total + area)


def write_polygons(
    path: Path,
    class_map: Path,
    grid: Grid,
    ground: GroundAreas,
    classes: Sequence[str],
    settings: PolygonSettings,
    *,
    block_px: int = BLOCK_PX,
) -> PolygonSummary:
    """Trace a class map into a GeoPackage with the fields class_id, class, area_m2 and area_ha.

    Without a CRS the areas are missing (NaN), and the settings in metres must be 0.

    Args:
        path: the GeoPackage to write.
        class_map: the class map.
        grid: its grid.
        ground: area of its pixels.
        classes: names.
        settings: see there.
        block_px: side of the blocks that are traced one at a time; decides about the order of polygons only.

    Raises:
        SceneError: a setting in metres without a CRS, or a library is missing.
    """
    pyogrio = _library()
    if ground.gsd_m is None and (settings.min_area_m2 > 0 or settings.simplify_m > 0):
        raise SceneError(
            f"{class_map.name} has no CRS, so that --min_area_m2 and --simplify_m mean nothing. Leave them out, or "
            "give the scene its CRS, for example with `rio edit-info --crs`."
        )
    summary, writer = PolygonSummary(), _Writer(path, grid, classes)
    heights = np.ones(grid.height) if ground.pixel_m2 is None else ground.pixel_m2
    above = np.concatenate([[0.0], np.cumsum(heights)])
    tolerance = settings.simplify_m / ground.gsd_m if ground.gsd_m else 0.0
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_DATE})
    try:
        for class_id, polygon in _polygons(class_map, grid, block_px):
            area = polygon_area(polygon, above)
            if ground.pixel_m2 is not None and area < settings.min_area_m2:
                summary.leave_out(class_id, area)
                continue
            simple = polygon.simplify(tolerance) if tolerance > 0 else polygon
            writer.add(class_id, simple, area if ground.pixel_m2 is not None else np.nan)
            summary.written += 1
        writer.flush(last=True)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    return summary


def _polygons(class_map: Path, grid: Grid, block_px: int) -> Iterator[tuple[int, Any]]:
    """(class, polygon in pixel coordinates) of every region of the map."""
    import shapely

    waiting: dict[int, list[Any]] = defaultdict(list)
    for top, left, block in blocks(class_map, block_px):
        height, width = block.shape
        # Sides of the block with a neighbour behind them.
        inner = (left > 0, top > 0, left + width < grid.width, top + height < grid.height)
        for class_id, rings in traced(block):
            moved = _moved(rings, left, top)
            low, high = moved[0].min(axis=0), moved[0].max(axis=0)
            touches = (low[0] == left, low[1] == top, high[0] == left + width, high[1] == top + height)
            polygon = shapely.Polygon(moved[0], moved[1:])
            if any(side and touched for side, touched in zip(inner, touches, strict=True)):
                waiting[class_id].append(polygon)
            else:
                yield class_id, polygon
    for class_id in sorted(waiting):
        for polygon in shapely.get_parts(shapely.union_all(waiting.pop(class_id))):
            yield class_id, polygon.simplify(0)  # without the points where a border was


def _moved(rings: Rings, left: int, top: int) -> list[NDArray[np.float64]]:
    return [np.asarray(ring) + (left, top) for ring in rings]


def polygon_area(polygon: Any, above: NDArray[np.float64]) -> float:
    """Exact area of a polygon along pixel borders.

    Green's theorem: only horizontal edges count, each with the area of one column above it.

    Args:
        polygon: shapely polygon in pixel coordinates.
        above: (height + 1,) area of one column of pixels above each row.
    """
    outer, *holes = (np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors))
    return _ring_area(outer, above) - sum(_ring_area(hole, above) for hole in holes)


def _ring_area(ring: NDArray[np.float64], above: NDArray[np.float64]) -> float:
    return abs(float(np.sum(np.diff(ring[:, 0]) * above[ring[:-1, 1].astype(np.int64)])))


class _Writer:
    """Collects features and appends them to the file many at a time."""

    def __init__(self, path: Path, grid: Grid, classes: Sequence[str]) -> None:
        self.path, self.grid, self.classes = path, grid, classes
        self._features: list[tuple[int, Any, float]] = []
        self._begun = False

    def add(self, class_id: int, polygon: Any, area: float) -> None:
        self._features.append((class_id, polygon, area))
        if len(self._features) == FEATURES_AT_ONCE:
            self.flush()

    def flush(self, *, last: bool = False) -> None:
        import shapely
        from pyogrio.raw import write

        if not self._features and self._begun and last:
            return
        a, b, c, d, e, f = self.grid.transform
        ids = np.array([one[0] for one in self._features], np.int32)
        areas = np.array([one[2] for one in self._features], np.float64)
        placed = shapely.transform(
            np.array([one[1] for one in self._features], dtype=object),
            lambda xy: np.stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            write(
                self.path,
                geometry=shapely.to_wkb(placed),
                field_data=[ids, np.array([self.classes[i] for i in ids], dtype=object), areas, areas / 10_000],
                fields=np.array(["class_id", "class", "area_m2", "area_ha"], dtype=object),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self.grid.crs,
                append=self._begun,
            )
        self._features, self._begun = [], True


def _library() -> Any:
    try:
        import pyogrio
        import shapely  # noqa: F401  # used below; missing ones are said before any work
    except ImportError as error:
        raise SceneError(
            f'Polygons need {error.name}, which is not installed. Run `pip install "co2s_hf[geo]"`, or leave polygons '
            "out with --no_polygons."
        ) from None
    return pyogrio


__all__ = ["LAYER", "PolygonSettings", "PolygonSummary", "polygon_area", "write_polygons"]
