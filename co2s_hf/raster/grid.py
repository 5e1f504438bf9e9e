"""Where the pixels of a raster lie, and where those of another one lie on them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio.transform import from_gcps

from .errors import PlaceError, RasterError

# The Earth at 2 m per pixel; a number is kept for each row. A few bytes of a file can say that it is larger.
MAX_SIDE_PX = 20_000_000
GCP_TOLERANCE_PX = 1.0
"""How far ground control points may lie from where six numbers put them; beyond, a scene has to be warped."""
SAME_PX = 0.01
"""Grids that differ by less, anywhere, are the same: what is left of a place in the decimals of a text file."""

_STRIPE_PX = 1 << 20

NO_PLACE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie.

    Attributes:
        height, width: in px.
        transform: a, b, c, d, e, f of x = a * column + b * row + c and y = d * column + e * row + f.
        crs: as WKT; None for a raster that does not say.
    """

    height: int
    width: int
    transform: Transform = NO_PLACE
    crs: str | None = None

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """The grid of an open rasterio dataset; of one with ground control points alone, where these put it.

        Raises:
            RasterError: it has no band, or a side beyond `MAX_SIDE_PX`.
            PlaceError: its pixels have no area, or no six numbers fit its control points.
        """
        if not dataset.count or max(dataset.shape) > MAX_SIDE_PX:
            raise RasterError(
                f"{dataset.name} is {dataset.height} x {dataset.width} px of {dataset.count} bands; expected at least "
                f"one band and at most {MAX_SIDE_PX} px on a side."
            )
        transform: Transform = tuple(dataset.transform)[:6]
        crs = dataset.crs.to_wkt() if dataset.crs else None
        if crs is None and transform == NO_PLACE and dataset.gcps[0]:
            transform, crs = _from_control_points(dataset)
        a, b, _, d, e, _ = transform
        if not (np.isfinite(transform).all() and np.isfinite(area := a * e - b * d) and area):
            raise PlaceError(
                f"{dataset.name} lies at {', '.join(f'{value:g}' for value in transform)}, where its pixels have no "
                "area; expected six numbers of a place. Give it one, for example with `rio edit-info --transform`."
            )
        return cls(dataset.height, dataset.width, transform, crs)

    @property
    def is_placed(self) -> bool:
        """Whether the raster says where it lies, be it without a CRS."""
        return self.transform != NO_PLACE

    @property
    def crs_name(self) -> str | None:
        """What people call the CRS, such as "EPSG:32633 (WGS 84 / UTM zone 33N)"; None without one."""
        if self.crs is None:
            return None
        crs = CRS.from_user_input(self.crs)
        code = crs.to_epsg()
        return f"EPSG:{code} ({crs.name})" if code else crs.name

    def window(self, rows: slice, columns: slice) -> "Grid":
        """The grid of a rectangle of the pixels."""
        if not self.is_placed:
            return Grid(rows.stop - rows.start, columns.stop - columns.start)
        a, b, c, d, e, f = self.transform
        corner = (
            a * columns.start + b * rows.start + c,
            d * columns.start + e * rows.start + f,
        )
        return Grid(rows.stop - rows.start, columns.stop - columns.start, (a, b, corner[0], d, e, corner[1]), self.crs)

    def resized(self, height: int, width: int) -> "Grid":
        """The same place in other pixels."""
        if not self.is_placed:
            return Grid(height, width)
        a, b, c, d, e, f = self.transform
        across, down = self.width / width, self.height / height
        return replace(self, height=height, width=width, transform=(a * across, b * down, c, d * across, e * down, f))

    def is_same(self, other: "Grid") -> bool:
        """Whether the pixels of another grid lie where those of this one do."""
        if (self.height, self.width) != (other.height, other.width) or not _is_same_crs(self.crs, other.crs):
            return False
        corners = np.array([(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)], np.float64)
        differences = self.to_pixels(other.to_ground(corners)) - corners
        return bool(np.abs(differences).max() < SAME_PX)

    def to_ground(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) of column, row -> (n, 2) of x, y; the outer corner of the first pixel is at (0, 0)."""
        a, b, c, d, e, f = self.transform
        column, row = pixels.T
        return np.stack([a * column + b * row + c, d * column + e * row + f], axis=1)

    def to_pixels(self, ground: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) of x, y -> (n, 2) of column, row."""
        a, b, c, d, e, f = self.transform
        return (ground - np.array([c, f])) @ np.linalg.inv(np.array([[a, d], [b, e]]))

    def places_on(self, other: "Grid") -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Which pixels of another grid hold the centres of the pixels of this one.

        Returns:
            (height, width) int32 rows and columns of the other grid, -1 where a centre lies outside of it.

        Raises:
            RasterError: There is no way from one CRS to the other.
        """
        turns = self.crs is not None and other.crs is not None and not _is_same_crs(self.crs, other.crs)
        places = np.empty((2, self.height, self.width), np.int32)
        step = max(1, _STRIPE_PX // self.width)
        for top in range(0, self.height, step):
            rows, columns = np.mgrid[top : min(top + step, self.height), : self.width] + 0.5
            ground = self.to_ground(np.stack([columns.ravel(), rows.ravel()], axis=1))
            if turns:
                ground = transformed(ground, str(self.crs), str(other.crs))
            with np.errstate(invalid="ignore"):
                found = np.floor(other.to_pixels(ground))
                inside = np.logical_and(found >= 0, found < (other.width, other.height)).all(axis=1, keepdims=True)
            found = np.where(inside, found, -1)
            places[:, top : top + len(rows)] = found.T[::-1].reshape(2, *rows.shape)
        return places[0], places[1]


def transformed(places: NDArray[np.float64], source: str, target: str) -> NDArray[np.float64]:
    """(n, 2) of x, y in one CRS (WKT or a code) -> the same in another one; infinite where that does not reach.

    Raises:
        RasterError: PROJ does not know one of the two, or no way from one to the other.
    """
    try:
        transformer = Transformer.from_crs(CRS.from_user_input(source), CRS.from_user_input(target), always_xy=True)
        return np.stack(transformer.transform(places[:, 0], places[:, 1]), axis=1)
    except ProjError as error:
        raise RasterError(
            f"There is no way from {_short(source)} to {_short(target)} ({error}); expected CRSs that PROJ knows, such "
            "as EPSG:32633, of which one can be turned into the other. Give the file the right one."
        ) from None


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else f"{crs[:40]}…"


def _is_same_crs(one: str | None, other: str | None) -> bool:
    """Whether coordinates mean the same; a raster that names no CRS is taken to use that of the other one."""
    if one is None or other is None or one == other:
        return True
    try:
        return bool(CRS.from_user_input(one).equals(CRS.from_user_input(other), ignore_axis_order=True))
    except CRSError:
        return False


def _from_control_points(dataset: Any) -> tuple[Transform, str | None]:
    points, crs = dataset.gcps
    if len(points) >= 3:
        transform: Transform = tuple(from_gcps(points))[:6]
        a, b, _, d, e, _ = transform
        if np.isfinite(transform).all() and a * e - b * d:
            grid = Grid(dataset.height, dataset.width, transform)
            places = grid.to_pixels(np.array([(point.x, point.y) for point in points]))
            residuals = np.abs(places - np.array([(point.col, point.row) for point in points]))
            if residuals.max() <= GCP_TOLERANCE_PX:
                return transform, crs.to_wkt() if crs else None
    raise PlaceError(
        f"{dataset.name} has {len(points)} ground control points and no other place, and no six numbers put them "
        f"within {GCP_TOLERANCE_PX:g} px of where they are. Warp it first: `gdalwarp -tps {dataset.name} warped.tif`."
    )


__all__ = ["Grid", "MAX_SIDE_PX", "NO_PLACE", "Transform", "transformed"]
