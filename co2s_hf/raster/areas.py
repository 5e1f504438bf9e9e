"""How much ground a pixel covers, and how much each class does."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from .cog import NODATA
from .errors import RasterError
from .grid import Grid

M2_PER_HA = 10_000

# The area of a pixel is interpolated between nodes. They are made denser until halfway between two of them the error
# is this share, at most so many, and none closer than so many halvings make them; where it then is more than
# `MAX_ERROR` nothing is measured at all.
TOLERANCE = 1e-6
MAX_NODES = 2**16
MAX_HALVINGS = 10
MAX_ERROR = 5e-5
# A projection that is as true as this everywhere in the scene is taken at its word: pixels of 2 m have 4 square metres.
PLANE_TOLERANCE = 9e-4
TILES_PX = (256, 64)
TILE_TOLERANCE = (
    1e-4  # of the area of pixels from one tile to the next: half of it from the middle of one to its border
)
GSD_TOLERANCE = 0.01  # of areas: pixels of 2 m are pixels of 2 m in all of a zone of UTM
FIRST_CELLS = 8
STEP_M = 100.0  # of derivatives: far more than the rounding of PROJ, far less than what projections change over

_Lattice = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
Density = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Square metres of ground per pixel at pixel coordinates (rows, columns) that broadcast; NaN where there is none."""


@dataclass(frozen=True)
class GroundAreas:
    """The ground that pixels cover: bilinear between nodes, so that memory does not grow with the scene.

    Attributes:
        method: how it was found, in words, or why it was not.
        rows: (n,) of the nodes, increasing, in pixel coordinates: 0 is the outer border of the first pixel.
        columns: (m,) of the nodes.
        density: (n, m) square metres of ground per pixel; None where the raster does not say where it lies.
        plane_m2: of a pixel in the plane of a projection.
    """

    method: str
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    density: NDArray[np.float64] | None
    plane_m2: float | None = None

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel in the middle of the scene; those of the projection where its areas are right within 1 %."""
        if self.density is None:
            return None
        row, column = int(self.rows[-1] / 2), int(self.columns[-1] / 2)
        middle = self.pixel_m2(slice(row, row + 1), slice(column, column + 1))
        assert middle is not None
        is_true = self.plane_m2 is not None and abs(middle[0, 0] / self.plane_m2 - 1) <= GSD_TOLERANCE
        return math.sqrt(self.plane_m2 if is_true and self.plane_m2 is not None else middle[0, 0])

    def pixel_m2(self, rows: slice, columns: slice) -> NDArray[np.float64] | None:
        """(H, W) square metres of each pixel of a rectangle; None where the raster does not say where it lies."""
        if self.density is None:
            return None
        if self.uniform_m2 is not None:
            return np.full((rows.stop - rows.start, columns.stop - columns.start), self.uniform_m2)
        return self._between(np.arange(rows.start, rows.stop + 1), np.arange(columns.start, columns.stop + 1))

    def _between(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Square metres between each row and column and the next one."""
        assert self.density is not None
        vertical, first, last = _weights(self.rows, rows)
        horizontal, left, right = _weights(self.columns, columns)
        areas: NDArray[np.float64] = vertical @ self.density[first:last, left:right] @ horizontal.T
        return areas

    def counted(self, top: int, left: int, block: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pixels and square metres, (256,) each, of each class id of a block of a map; 0 m2 where these are unknown.

        Where the area of pixels hardly changes over tiles of the block, they are counted instead of added up.
        """
        if self.density is None or self.uniform_m2 is not None:
            pixels = np.bincount(block.ravel(), minlength=NODATA + 1)
            return pixels, pixels * (self.uniform_m2 or 0.0)
        height, width = block.shape
        for side in TILES_PX if block.size > TILES_PX[0] ** 2 else ():
            rows, columns = (np.append(np.arange(0, size, side), size) for size in block.shape)
            mean = self._between(rows + top, columns + left) / np.outer(np.diff(rows), np.diff(columns))
            steps = [np.abs(np.diff(mean, axis=axis)).max(initial=0) for axis in (0, 1)]
            if sum(steps) <= TILE_TOLERANCE * mean.min():
                tiles = [
                    np.bincount(block[i : i + side, j : j + side].ravel(), minlength=NODATA + 1)
                    for i in rows[:-1]
                    for j in columns[:-1]
                ]
                return np.sum(tiles, axis=0), mean.ravel() @ np.array(tiles)
        pixel_m2 = self._between(np.arange(top, top + height + 1), np.arange(left, left + width + 1))
        ids = block.ravel().astype(np.intp)
        return np.bincount(ids, minlength=NODATA + 1), np.bincount(ids, pixel_m2.ravel(), minlength=NODATA + 1)

    @cached_property
    def uniform_m2(self) -> float | None:
        """Square metres of any pixel; None where they differ or are unknown."""
        if self.density is None or self.density.min() != self.density.max():
            return None
        return float(self.density[0, 0])

    def before(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) square metres of the rectangles from the first pixel to (row, column), both excluded.

        Sums over any set of pixels follow from it by Green's theorem, and are those of `pixel_m2`.
        """
        assert self.density is not None
        above, left, corner = self._integrals
        i, down, height = _cells(self.rows, rows)
        j, across, width = _cells(self.columns, columns)

        def at_row(whole: NDArray[np.float64], slope: NDArray[np.float64], j: NDArray[np.int64]) -> Any:
            return whole[i, j] + down * slope[i, j] + down**2 / (2 * height) * (slope[i + 1, j] - slope[i, j])

        here, next_ = at_row(above, self.density, j), at_row(above, self.density, j + 1)
        return at_row(corner, left, j) + across * here + across**2 / (2 * width) * (next_ - here)

    @cached_property
    def _integrals(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(n, m) each: of the density from the first to each node, down the columns, along the rows, and over both."""
        assert self.density is not None
        above = _running_integral(self.density, self.rows)
        left = _running_integral(self.density.T, self.columns).T
        return above, left, _running_integral(left, self.rows)


def _running_integral(values: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    pieces = (values[1:] + values[:-1]) / 2 * np.diff(nodes)[:, None]
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(pieces, axis=0)])


def _cells(nodes: NDArray[np.float64], places: NDArray[np.int64]) -> tuple[Any, Any, Any]:
    """Which cell holds a place, how far the place is from its beginning, and how long the cell is."""
    cell = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    return cell, places - nodes[cell], nodes[cell + 1] - nodes[cell]


def _weights(nodes: NDArray[np.float64], borders: NDArray[np.int64]) -> tuple[NDArray[np.float64], int, int]:
    """(n - 1, some nodes) integral between n borders of what is 1 at a node and 0 at the others, and which nodes."""
    first = max(0, int(np.searchsorted(nodes, borders[0], side="right")) - 1)
    last = min(len(nodes), max(first + 2, int(np.searchsorted(nodes, borders[-1], side="left")) + 1))
    near = nodes[first:last]
    sizes = np.diff(near)
    covered = np.clip(borders[:, None] - near[:-1], 0, sizes)
    to_next = covered**2 / (2 * sizes)
    weights = np.zeros((len(borders), len(near)))
    weights[:, :-1] += covered - to_next
    weights[:, 1:] += to_next
    return np.diff(weights, axis=0), first, last


@dataclass(frozen=True)
class ClassArea:
    """What a class covers; areas are None where the raster does not say where it lies."""

    class_id: int
    name: str
    pixels: int
    area_m2: float | None

    @property
    def area_ha(self) -> float | None:
        """In hectares."""
        return None if self.area_m2 is None else self.area_m2 / M2_PER_HA


def ground_areas(grid: Grid) -> GroundAreas:
    """Area on the ellipsoid of the pixels of a raster, within 0.1 % of that of geodesics at any place of it.

    The CRS may be any that PROJ can turn into longitudes and latitudes of its own datum. Where it cannot, or the
    raster reaches beyond what the projection does, there are pixels only, and `method` says so.

    Raises:
        RasterError: the CRS is none, or in degrees and the raster reaches beyond a pole.
    """
    rows, columns = (np.array([0.0, size]) for size in (grid.height, grid.width))
    if grid.crs is None:
        return GroundAreas("no CRS: pixels only", rows, columns, None)
    crs, geographic = _systems(grid.crs)
    if geographic is None:
        return GroundAreas("a CRS without a place on the ground: pixels only", rows, columns, None)
    found = _in_degrees(grid, geographic) if crs == geographic else _projected(grid, crs, geographic)
    if found is None:
        reason = f"the raster reaches beyond what {crs.name} does, or PROJ cannot tell where it lies"
        return GroundAreas(f"{reason}: pixels only", rows, columns, None)
    if crs == geographic:
        return GroundAreas("ellipsoid, between parallels", *found)
    a, b, _, d, e, _ = grid.transform
    plane = abs(a * e - b * d) * crs.axis_info[0].unit_conversion_factor ** 2
    if crs.is_projected and np.abs(found[2] / plane - 1).max() <= PLANE_TOLERANCE:
        return GroundAreas("plane of the projection", rows, columns, np.full((2, 2), plane), plane)
    scale = plane / found[2][len(found[0]) // 2, len(found[1]) // 2]
    method = f"projected, corrected for its scale of areas ({scale:.4f} in the middle)"
    return GroundAreas(method if crs.is_projected else "ellipsoid", *found, plane if crs.is_projected else None)


def _systems(wkt: str) -> tuple[Any, Any]:
    """The horizontal CRS, and the one of longitudes and latitudes that it is made from; None for a local one."""
    try:
        crs: Any = CRS.from_wkt(wkt)
    except CRSError as error:
        raise RasterError(f"{wkt[:80]!r} is no CRS that PROJ knows ({error}); expected WKT.") from None
    while crs.is_compound or crs.is_bound:
        crs = crs.sub_crs_list[0] if crs.is_compound else crs.source_crs
    root = crs
    while root.source_crs is not None:  # of a projected one its base, of a derived one what it is derived from
        root = root.source_crs
    return crs, root if root.is_geographic else None


def _pole_rows(grid: Grid, geographic: Any) -> list[float]:
    """Rows on which the poles lie, none for a rotated raster; refuse one that reaches beyond them."""
    _, _, _, d, e, f = grid.transform
    quarter = math.pi / 2 / geographic.axis_info[0].unit_conversion_factor
    corners = [f + d * column + e * row for row in (0, grid.height) for column in (0, grid.width)]
    if max(map(abs, corners)) > quarter + abs(d) + abs(e):  # half a pixel beyond a pole is usual
        raise RasterError(
            f"The raster reaches latitudes of {corners[0]:g} to {corners[-1]:g}, beyond a pole; expected "
            f"{-quarter:g} to {quarter:g}. Give it the CRS or the place that it has."
        )
    poles = [(sign * quarter - f) / e for sign in (-1, 1)] if d == 0 else []
    return [row for row in poles if 0 < row < grid.height]


def _density_in_degrees(grid: Grid, geographic: Any) -> Density:
    a, b, _, d, e, f = grid.transform
    to_radians = geographic.axis_info[0].unit_conversion_factor
    size = abs(a * e - b * d) * to_radians**2
    axis, flat = _ellipsoid(geographic)

    def density(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        latitudes = (d * columns + e * rows + f) * to_radians
        # Radii of curvature along the meridian and across it (Snyder 1987, 4-18 to 4-21); no ground beyond a pole.
        radii = axis**2 * (1 - flat) / (1 - flat * np.sin(latitudes) ** 2) ** 2
        return size * radii * np.maximum(np.cos(latitudes), 0)

    return density


def _in_degrees(grid: Grid, geographic: Any) -> _Lattice | None:
    rows = np.unique(np.concatenate([np.linspace(0, grid.height, FIRST_CELLS + 1), _pole_rows(grid, geographic)]))
    return _refined(_density_in_degrees(grid, geographic), rows, np.array([0.0, grid.width]))


def _projected(grid: Grid, crs: Any, geographic: Any) -> _Lattice | None:

    nodes = (np.linspace(0, size, FIRST_CELLS + 1) for size in (grid.height, grid.width))
    try:
        to_degrees = Transformer.from_crs(crs, geographic, always_xy=True)
        return _refined(_density_projected(grid, crs, geographic, to_degrees), *nodes)
    except ProjError:  # some projections of the registry have no formulas in PROJ
        return None


def _density_projected(grid: Grid, crs: Any, geographic: Any, to_degrees: Any) -> Density:
    """From places in space, among which poles and the antimeridian are like any other."""
    a, b, c, d, e, f = grid.transform
    to_radians = geographic.axis_info[0].unit_conversion_factor
    axis, flat = _ellipsoid(geographic)
    metres = crs.axis_info[0].unit_conversion_factor * (
        axis if crs.is_geographic else 1
    )  # of a unit; poles are rotated
    step = STEP_M / (math.sqrt(abs(a * e - b * d)) * metres)

    def places(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 3) metres from the centre of the ellipsoid."""
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
        longitudes, latitudes = np.stack(to_degrees.transform(x, y)) * to_radians
        reached = np.isfinite(longitudes) & (np.abs(latitudes) <= math.pi / 2 + 1e-9)
        longitudes, latitudes = np.where(reached, longitudes, np.nan), np.where(reached, latitudes, np.nan)
        across = axis / np.sqrt(1 - flat * np.sin(latitudes) ** 2)
        plane = across * np.cos(latitudes)
        return np.stack(
            [plane * np.cos(longitudes), plane * np.sin(longitudes), across * (1 - flat) * np.sin(latitudes)], axis=-1
        )

    def density(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, columns = np.broadcast_arrays(rows, columns)
        # To the inside of the scene, as the projection may end at its border.
        down = np.where(rows < grid.height / 2, step, -step)
        across = np.where(columns < grid.width / 2, step, -step)
        here = places(rows, columns)

        def slope(down: Any, across: Any, by: NDArray[np.float64]) -> NDArray[np.float64]:
            ahead = 4 * places(rows + down, columns + across) - places(rows + 2 * down, columns + 2 * across)
            return (ahead - 3 * here) / (2 * by[..., None])

        normal = np.cross(slope(down, 0, down), slope(0, across, across))
        areas: NDArray[np.float64] = np.linalg.norm(normal, axis=-1)
        return areas

    return density


def _ellipsoid(geographic: Any) -> tuple[float, float]:
    """Semi-major axis in metres, and square of the eccentricity."""
    a, b = geographic.ellipsoid.semi_major_metre, geographic.ellipsoid.semi_minor_metre
    return a, 1 - (b / a) ** 2


def _refined(density: Density, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> _Lattice | None:
    """Nodes as dense as need be, and the density there; None where it is unknown somewhere, or changes too suddenly."""
    for halvings in range(MAX_HALVINGS + 1):
        values = density(rows[:, None], columns)
        down = _errors(values, density(_middles(rows)[:, None], columns))
        across = _errors(values.T, density(rows[:, None], _middles(columns)).T)
        if not (np.isfinite(down).all() and np.isfinite(across).all()):
            return None
        finer_rows, finer_columns = _denser(rows, down), _denser(columns, across)
        finer = len(finer_rows) * len(finer_columns)
        if finer == values.size or finer > MAX_NODES or halvings == MAX_HALVINGS:
            break
        rows, columns = finer_rows, finer_columns
    return (rows, columns, values) if max(down.max(), across.max()) <= MAX_ERROR else None


def _middles(nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (nodes[1:] + nodes[:-1]) / 2


def _errors(values: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n - 1,) relative error of interpolation halfway between (n, m) values along the first axis."""
    expected = (values[1:] + values[:-1]) / 2
    least = 1e-9 * np.nanmax(values, initial=0) + np.finfo(np.float64).tiny  # at a pole there is none
    return np.max(np.abs(expected - middle) / np.maximum(middle, least), axis=1)


def _denser(nodes: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    halved = np.flatnonzero(errors > TOLERANCE)
    return np.insert(nodes, halved + 1, _middles(nodes)[halved])


def class_areas(
    blocks: Iterable[tuple[int, int, NDArray[np.uint8]]], classes: Sequence[str], ground: GroundAreas
) -> list[ClassArea]:
    """Add up pixels and areas of each class over (top, left, class ids) blocks of a map, `NODATA` left out."""
    known = ground.density is not None
    pixels, areas = np.zeros(NODATA + 1, np.int64), np.zeros(NODATA + 1)
    for top, left, block in blocks:
        counts, square_metres = ground.counted(top, left, block)
        pixels += counts
        areas += square_metres
    return [
        ClassArea(index, name, int(pixels[index]), float(areas[index]) if known else None)
        for index, name in enumerate(classes)
    ]


__all__ = ["ClassArea", "GroundAreas", "M2_PER_HA", "class_areas", "ground_areas"]
