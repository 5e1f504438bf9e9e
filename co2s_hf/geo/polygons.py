"""A class map as polygons in a GeoPackage.

The map is traced block by block. A region inside a block is written at once; the pieces of one that touches a block's
border wait, and are joined when all are there. So memory holds one block and the outlines of what crosses borders, not
the map; one region that winds through all of a scene is in memory as a whole, as it is one feature of the file.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..raster.areas import M2_PER_HA, GroundAreas
from ..raster.cog import blocks, traced
from ..raster.errors import RasterError
from ..raster.grid import Grid
from ..raster.vectors import fixed_date, write_features

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

    def __post_init__(self) -> None:
        """Refuse what is no area and no length."""
        for name, value in (("min_area_m2", self.min_area_m2), ("simplify_m", self.simplify_m)):
            if not 0 <= value < math.inf:
                raise RasterError(f"--{name} is {value}; expected 0 or more.")


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
        RasterError: a setting in metres without a CRS.
    """
    gsd_m = ground.gsd_m
    if gsd_m is None and (settings.min_area_m2 > 0 or settings.simplify_m > 0):
        raise RasterError(
            f"{class_map.name} has no CRS, so that --min_area_m2 and --simplify_m mean nothing. Leave them out, or "
            "give the scene its CRS, for example with `rio edit-info --crs`."
        )

    summary, writer = PolygonSummary(), _Writer(path, grid, classes)
    tolerance = settings.simplify_m / gsd_m if gsd_m else 0.0
    with fixed_date(FIXED_DATE):
        for class_ids, polygons in _polygons(class_map, grid, block_px):
            areas = polygon_areas(polygons, ground)
            kept = ~(areas < settings.min_area_m2)  # without a CRS no area is known, and none too small
            for class_id, area in zip(class_ids[~kept], areas[~kept], strict=True):
                summary.leave_out(int(class_id), float(area))
            simple = shapely.simplify(polygons[kept], tolerance) if tolerance > 0 else polygons[kept]
            writer.add(class_ids[kept], simple, areas[kept])
            summary.written += int(kept.sum())
        writer.flush()
    return summary


def _polygons(class_map: Path, grid: Grid, block_px: int) -> Iterator[tuple[NDArray[np.int32], NDArray[Any]]]:
    """Classes and polygons (in pixel coordinates) of the regions of the map, many at a time."""

    waiting: dict[int, list[Any]] = defaultdict(list)
    for top, left, block in blocks(class_map, block_px):
        height, width = block.shape
        class_ids, polygons = _traced(block, left, top)
        low_x, low_y, high_x, high_y = shapely.bounds(polygons).T
        # Whether a polygon touches a side of the block that has a neighbour behind it.
        crosses = (low_x == left) & (left > 0) | (low_y == top) & (top > 0)
        crosses |= (high_x == left + width) & (left + width < grid.width)
        crosses |= (high_y == top + height) & (top + height < grid.height)
        for class_id in np.unique(class_ids[crosses]).tolist():
            waiting[class_id].append(polygons[crosses & (class_ids == class_id)])
        yield class_ids[~crosses], polygons[~crosses]
    for class_id in sorted(waiting):
        whole = shapely.get_parts(shapely.union_all(np.concatenate(waiting.pop(class_id))))
        # simplify(0) drops the points where a border was
        yield np.full(len(whole), class_id, np.int32), shapely.simplify(whole, 0)


def _traced(block: NDArray[np.uint8], left: int, top: int) -> tuple[NDArray[np.int32], NDArray[Any]]:

    regions = list(traced(block))
    rings = [ring for _, rings in regions for ring in rings]
    if not rings:
        return np.empty(0, np.int32), np.empty(0, object)
    points = np.array(list(chain.from_iterable(rings)), np.float64) + (left, top)
    outlines = shapely.linearrings(points, indices=np.repeat(np.arange(len(rings)), [len(ring) for ring in rings]))
    owners = np.repeat(np.arange(len(regions)), [len(rings) for _, rings in regions])
    return np.array([class_id for class_id, _ in regions], np.int32), shapely.polygons(outlines, indices=owners)


def polygon_areas(polygons: NDArray[Any], ground: GroundAreas) -> NDArray[np.float64]:
    """Areas of polygons along pixel borders: the sums of their pixels' areas.

    Green's theorem: only horizontal edges count, each with the area between it and the top of the scene.

    Args:
        polygons: (n,) shapely polygons in pixel coordinates.
        ground: area of the pixels.

    Returns:
        (n,) square metres; NaN where the raster does not say where it lies.
    """

    if ground.density is None or not len(polygons):
        return np.full(len(polygons), np.nan)
    rings, owners = shapely.get_rings(polygons, return_index=True)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    columns, rows = points.astype(np.int64).T
    edges = ground.before(rows[:-1], columns[1:]) - ground.before(rows[:-1], columns[:-1])
    edges[of_ring[1:] != of_ring[:-1]] = 0  # from one ring to the next
    areas = np.abs(np.bincount(of_ring[:-1], edges, minlength=len(rings)))
    outer = np.ones(len(rings), np.bool_)
    outer[1:] = owners[1:] != owners[:-1]  # the first ring of a polygon; the others are holes
    return np.bincount(owners, np.where(outer, areas, -areas), minlength=len(polygons)).astype(np.float64)


class _Writer:
    """Collects features and appends them to the file many at a time."""

    def __init__(self, path: Path, grid: Grid, classes: Sequence[str]) -> None:
        self.path, self.grid, self.classes = path, grid, classes
        self._waiting: list[tuple[NDArray[np.int32], NDArray[Any], NDArray[np.float64]]] = []
        self._begun = False

    def add(self, class_ids: NDArray[np.int32], polygons: NDArray[Any], areas: NDArray[np.float64]) -> None:
        self._waiting.append((class_ids, polygons, areas))
        if sum(len(one[0]) for one in self._waiting) >= FEATURES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        ids, polygons, areas = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        fields = {
            "class_id": ids,
            "class": np.array(self.classes, dtype=object)[ids],
            "area_m2": areas,
            "area_ha": areas / M2_PER_HA,
        }
        placed = shapely.transform(polygons, self.grid.to_ground)
        write_features(self.path, LAYER, placed, self.grid.crs, fields, append=self._begun)
        self._waiting, self._begun = [], True


__all__ = ["LAYER", "PolygonSettings", "PolygonSummary", "polygon_areas", "write_polygons"]
