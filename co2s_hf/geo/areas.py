"""How much ground a pixel covers, and how much each class does."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.cog import NODATA
from ..raster.errors import RasterError
from ..raster.grid import Grid

M2_PER_HA = 10_000

# A projection whose areas are wrong by more than this is corrected: those of web maps are, by 70 % at 40 degrees.
AREA_TOLERANCE = 0.01


@dataclass(frozen=True)
class GroundAreas:
    """The ground that a pixel covers.

    Attributes:
        pixel_m2: (height,) of a pixel of each row, in square metres; None where the raster does not say where it lies.
        method: how it was found, in words.
    """

    pixel_m2: NDArray[np.float64] | None
    method: str

    @property
    def gsd_m(self) -> float | None:
        """Metres per pixel in the middle of the scene."""
        return None if self.pixel_m2 is None else math.sqrt(self.pixel_m2[len(self.pixel_m2) // 2])


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
    """Area of the pixels of each row.

    Geographic: the area between two parallels of the ellipsoid, exactly. Projected: that of the plane, divided by the
    scale of areas along the middle column where that is off by more than 1 % anywhere (Mercator, web maps).

    Raises:
        RasterError: a raster in degrees that is rotated or reaches beyond a pole, or pyproj is missing.
    """
    if grid.crs is None:
        return GroundAreas(None, "no CRS: pixels only")
    crs = _crs(grid.crs)
    a, b, _, d, e, f = grid.transform
    if crs.is_geographic:
        if b != 0 or d != 0:
            raise RasterError("The raster is rotated and in degrees; expected rows along parallels. Reproject it.")
        to_radians = crs.axis_info[0].unit_conversion_factor
        latitudes = (f + e * np.arange(grid.height + 1)) * to_radians
        if np.abs(latitudes).max() > math.pi / 2 + abs(e) * to_radians:  # half a pixel beyond a pole is usual
            raise RasterError(
                f"The raster reaches latitudes of {f:g} to {f + e * grid.height:g}, beyond a pole; expected degrees "
                "from -90 to 90. Give it the CRS or the place that it has."
            )
        zones = _area_from_equator(latitudes, crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre)
        return GroundAreas(np.abs(np.diff(zones)) * abs(a) * to_radians, "ellipsoid, between parallels")
    if not crs.is_projected:
        return GroundAreas(None, "a CRS without units on the ground: pixels only")
    plane = abs(a * e - b * d) * crs.axis_info[0].unit_conversion_factor ** 2
    areas = np.full(grid.height, plane)
    scale = _scale_of_areas(grid, crs)
    if not np.isfinite(scale).all() or np.abs(scale - 1).max() <= AREA_TOLERANCE:
        return GroundAreas(areas, "plane of the projection")
    return GroundAreas(areas / scale, f"projected, corrected for its scale of areas ({scale[grid.height // 2]:.4f})")


def _crs(wkt: str) -> Any:
    try:
        from pyproj import CRS
        from pyproj.exceptions import CRSError
    except ImportError:
        raise RasterError(
            'Areas need pyproj, which is not installed. Run `pip install "co2s_hf[geo]"`, or `pip install pyproj`.'
        ) from None
    try:
        crs = CRS.from_wkt(wkt)
    except CRSError as error:
        raise RasterError(f"{wkt[:80]!r} is no CRS that PROJ knows ({error}); expected WKT.") from None
    return crs.sub_crs_list[0] if crs.is_compound else crs


def _area_from_equator(latitudes: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """Square metres per radian of longitude between the equator and latitudes in radians (Snyder 1987, 3-12)."""
    eccentricity = math.sqrt(max(1 - (b / a) ** 2, 0.0))
    sine = np.sin(latitudes)
    if eccentricity == 0:
        return a * a * sine
    inner = eccentricity * sine
    return b * b / 2 * (sine / (1 - inner**2) + np.arctanh(inner) / eccentricity)


def _scale_of_areas(grid: Grid, crs: Any) -> NDArray[np.float64]:
    """(height,) true scale of areas along the middle column; NaN where the projection does not reach."""
    from pyproj import Proj, Transformer

    a, b, c, d, e, f = grid.transform
    rows, column = np.arange(grid.height) + 0.5, grid.width / 2
    to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    longitudes, latitudes = to_degrees.transform(a * column + b * rows + c, d * column + e * rows + f)
    return np.asarray(Proj(crs).get_factors(longitudes, latitudes).areal_scale, dtype=np.float64)


def class_areas(
    blocks: Iterable[tuple[int, int, NDArray[np.uint8]]], classes: Sequence[str], ground: GroundAreas
) -> list[ClassArea]:
    """Add up pixels and areas of each class over (top, left, class ids) blocks of a map, `NODATA` left out."""
    pixels, areas = np.zeros(len(classes), np.int64), np.zeros(len(classes))
    for top, _, block in blocks:
        rows = np.arange(len(block))[:, None] * (NODATA + 1)
        counts = np.bincount((rows + block).ravel(), minlength=len(block) * (NODATA + 1))
        by_row = counts.reshape(len(block), NODATA + 1)[:, : len(classes)]
        pixels += by_row.sum(axis=0)
        if ground.pixel_m2 is not None:
            areas += (by_row * ground.pixel_m2[top : top + len(block), None]).sum(axis=0)
    known = ground.pixel_m2 is not None
    return [
        ClassArea(index, name, int(pixels[index]), float(areas[index]) if known else None)
        for index, name in enumerate(classes)
    ]


__all__ = ["AREA_TOLERANCE", "ClassArea", "GroundAreas", "M2_PER_HA", "class_areas", "ground_areas"]
