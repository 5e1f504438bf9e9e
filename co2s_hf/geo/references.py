"""What a map is compared with: polygons, another raster, or a sample of points, on the grid of the map."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from ..raster.cog import NODATA, named_classes, opened
from ..raster.errors import RasterError
from ..raster.grid import Grid
from ..raster.ids import ids_on
from ..raster.image import Reading
from ..raster.read import RasterFile
from ..raster.vectors import (
    CLASS_FIELDS,
    WGS84,
    Features,
    Table,
    ids_of,
    layers_of,
    on_grid,
    points_at,
    points_of,
    rasterized,
    read_features,
    table_of,
)

IGNORE = "ignore"
"""What a class is renamed to if it is not to be compared."""


@dataclass(frozen=True)
class ClassLookup:
    """From the classes of a reference to those of a map.

    Attributes:
        classes: names, in the order of their ids.
        rename: name or id in the reference -> name or id in the map, or `ignore`.
    """

    classes: Sequence[str]
    rename: Mapping[str, str]

    def ids(self, values: NDArray[Any], source: str, *, names_only: bool = False) -> NDArray[np.uint8]:
        """Class ids of values; 255 for what is to be ignored.

        A number is an id. A text is a name (compared without regard to case), and an id only where no class has that
        name.

        Args:
            values: (n,) numbers, texts, or None for a missing one.
            source: where they are from, for errors.
            names_only: no text is an id, since the source names its own classes.

        Raises:
            RasterError: a class that the map does not know.
        """
        keys = [(isinstance(value, str), text_of(value)) for value in values.tolist()]
        ids = {key: self._id(*key, names_only=names_only) for key in dict.fromkeys(keys)}
        unknown = sorted({text or "(empty)" for (_, text), one in ids.items() if one is None})
        if unknown:
            raise RasterError(
                f"{source} has {', '.join(unknown[:6])}{' …' if len(unknown) > 6 else ''}; expected "
                f"{', '.join(self.classes)}, or ids 0 to {len(self.classes) - 1}. Say what they are with --rename "
                f"{unknown[0]}=CLASS, or leave them out with --rename {unknown[0]}={IGNORE}."
            )
        return np.array([ids[key] for key in keys], np.uint8)

    def _id(self, is_text: bool, text: str, *, names_only: bool) -> int | None:
        renamed = {key.lower(): value for key, value in self.rename.items()}.get(text.lower() or "(empty)")
        if renamed is not None:
            if renamed == IGNORE:
                return NODATA
            is_text, text, names_only = True, renamed, False
        names = [name.lower() for name in self.classes]
        if is_text and text.lower() in names:
            return names.index(text.lower())
        number = text.removesuffix(".0")  # as tables are written whose ids went through floating point
        is_id = number.isdecimal() and not (is_text and names_only)
        return int(number) if is_id and int(number) < len(names) else None


def text_of(value: Any) -> str:
    """A value as text: whole numbers without decimals, nothing for a missing one."""
    if value is None or value != value:  # a missing value, also of numbers
        return ""
    return str(int(value)) if isinstance(value, float | np.floating) and value.is_integer() else str(value).strip()


class Reference(Protocol):
    """True classes on the grid of a map."""

    kind: str

    def read(self, rows: slice, columns: slice, inner: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Class ids of a rectangle, 255 where nothing is known; `inner` is the part that no other call reads."""
        ...


class ReferencePolygons:
    """Polygons with a class; a pixel has that of the polygon that holds its centre, none where two classes do.

    All polygons are in memory; their pixels are made block by block.

    Attributes:
        contested: pixels that polygons of two classes hold, among all that were read.
    """

    kind = "polygons"

    def __init__(self, features: Features, grid: Grid, name: str, lookup: ClassLookup) -> None:
        """Place the polygons on the grid."""

        assert features.values is not None
        self._ids = lookup.ids(features.values, features.path)
        self._polygons = on_grid(features, grid, name)
        self._tree = shapely.STRtree(self._polygons)
        self.contested = 0
        if not len(self._tree.query(shapely.box(0, 0, grid.width, grid.height))):
            raise RasterError(f"{features.path} and {name} do not overlap; expected polygons on the map.")

    def read(self, rows: slice, columns: slice, inner: tuple[slice, slice]) -> NDArray[np.uint8]:
        """See `Reference.read`."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        found, holders = np.full(shape, NODATA, np.uint8), np.zeros(shape, np.uint8)
        hits = self._tree.query(shapely.box(columns.start, rows.start, columns.stop, rows.stop))
        hits = hits[self._ids[hits] != NODATA]
        for class_id in np.unique(self._ids[hits]).tolist():
            mask = rasterized(self._polygons[hits[self._ids[hits] == class_id]], rows, columns)
            found[mask] = class_id
            holders += mask
        self.contested += int((holders[inner] > 1).sum())
        found[holders > 1] = NODATA
        return found


class ReferenceRaster:
    """Classes of another raster, at the centres of the map's pixels: those of the pixels that hold them."""

    kind = "raster"

    def __init__(self, file: RasterFile, grid: Grid, names: list[str] | None, lookup: ClassLookup) -> None:
        """Remember the file, the grid of the map, and what the file's ids are called if it says so."""
        self._file, self._grid, self._names, self._lookup = file, grid, names, lookup

    def read(self, rows: slice, columns: slice, inner: tuple[slice, slice]) -> NDArray[np.uint8]:
        """See `Reference.read`."""
        ids = ids_on(self._file, self._grid.window(rows, columns))
        known = ids.known & (ids.values != NODATA)
        found = np.full(known.shape, NODATA, np.uint8)
        held, places = np.unique(ids.values[known], return_inverse=True)
        named = np.array([self._named(value) for value in held.tolist()], dtype=object)
        found[known] = self._lookup.ids(named, self._file.name, names_only=True)[places]
        return found

    def _named(self, class_id: int) -> str | int:
        """The name of a class, if the raster has names, else its id."""
        names = self._names or ()
        return names[class_id] if 0 <= class_id < len(names) else class_id


@contextmanager
def reference_raster(
    path: str, grid: Grid, name: str, lookup: ClassLookup, band: int | None = None
) -> Iterator[ReferenceRaster]:
    """Open a raster of classes, to be read on the grid of a map.

    Args:
        path: the raster.
        grid: of the map.
        name: of the map, for errors.
        lookup: of its classes.
        band: counted from 1; None where there is one only.

    Raises:
        RasterError: which band is open, the raster does not lie where the map can be compared with it, or there is no
            way from its CRS to that of the map.
    """
    with opened(path) as dataset:
        if (band is None and dataset.count != 1) or (band is not None and not 1 <= band <= dataset.count):
            raise RasterError(
                f"{path} has {dataset.count} bands; expected one of classes"
                f"{', or its number in --reference_band' if band is None else f', not number {band}'}."
            )
        file = RasterFile(dataset, path, Reading(numbers=(band or 1,)))
        if not file.grid.is_same(grid) and (file.grid.crs is None or grid.crs is None):
            raise RasterError(
                f"{path} ({file.height} x {file.width} px{'' if file.grid.crs else ', no CRS'}) and {name} "
                f"({grid.height} x {grid.width} px{'' if grid.crs else ', no CRS'}) have other grids, and a CRS is "
                "missing; expected equal grids, or a CRS in both. Give it to them, for example with `rio edit-info "
                "--crs`."
            )
        try:
            grid.window(slice(0, 1), slice(0, 1)).places_on(file.grid)
        except RasterError as error:  # a plan of a building site, for example, says not where the site is
            raise RasterError(f"{path} cannot be laid on {name}. {error}") from None
        yield ReferenceRaster(file, grid, named_classes(dataset), lookup)


@dataclass(frozen=True)
class SamplePoints:
    """Points with true classes on the grid of a map.

    Attributes:
        rows, columns: (n,) of the pixels that hold them.
        class_ids: (n,) true classes.
        outside: how many more lie off the map, or are ignored.
        strata: (n,) names of the strata that they were drawn in; None where these are the classes of the map.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    class_ids: NDArray[np.uint8]
    outside: int
    strata: NDArray[np.str_] | None = None


def place_points(features: Features, grid: Grid, name: str, lookup: ClassLookup) -> SamplePoints:
    """Find the pixels of points.

    Raises:
        RasterError: none of them lies on the map.
    """
    assert features.values is not None
    ids = lookup.ids(features.values, features.path)
    x, y = points_of(on_grid(features, grid, name)).T
    inside = (x >= 0) & (x < grid.width) & (y >= 0) & (y < grid.height)
    if not inside.any():
        raise RasterError(f"{features.path} and {name} do not overlap; expected points on the map.")
    kept = inside & (ids != NODATA)
    rows, columns = np.floor(y[kept]).astype(np.int64), np.floor(x[kept]).astype(np.int64)
    strata = None if features.strata is None else np.array([text_of(one) for one in features.strata[kept].tolist()])
    return SamplePoints(rows, columns, ids[kept], int((~kept).sum()), strata)


def read_reference_features(
    path: str,
    grid: Grid,
    *,
    field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
    strata: str | None = None,
) -> Features | None:
    """Points or polygons of a file, with their classes; None for a file that holds no features.

    A table (.csv, .tsv or .txt) has a column with the class, and `x` and `y` (or `easting` and `northing`) in the CRS
    of the map, or in `crs`, or `lon` and `lat` (or `longitude` and `latitude`) in degrees.

    Raises:
        RasterError: see `co2s_hf.raster.vectors.read_features`.
    """
    if path.lower().endswith((".csv", ".tsv", ".txt")):
        table = table_of(path)
        if len(table.columns) > 1 or not path.lower().endswith(".txt"):  # any other text is no table
            return _points_of_table(table, grid, field, crs, strata)
    if not layers_of(path):
        return None
    return read_features(path, classes=True, field=field, layer=layer, crs=crs, strata=strata)


def _points_of_table(table: Table, grid: Grid, field: str | None, crs: str | None, strata: str | None) -> Features:
    wanted = (field,) if field else CLASS_FIELDS
    column = table.column(*wanted)
    if strata is not None and table.column(strata) is None:
        raise RasterError(f"{table}; expected {strata}. Name the one that holds the stratum with --strata.")
    for x, y, system in COORDINATES:
        if column is not None and table.column(x) and table.column(y) and table.lines:
            values = np.array([line[column] for _, line in table.lines], dtype=object)
            points = points_at(table.numbers(x), table.numbers(y))
            drawn = None
            if strata is not None:
                drawn = np.array([line[strata.strip().lower()] for _, line in table.lines], dtype=object)
            return Features(table.path, points, ids_of(column, values), system or crs or grid.crs, drawn)
    raise RasterError(f"{table}; expected {field or 'class'}, and x and y or lon and lat, and a line for each point.")


COORDINATES = (
    ("x", "y", None),
    ("easting", "northing", None),
    ("lon", "lat", WGS84),
    ("long", "lat", WGS84),
    ("longitude", "latitude", WGS84),
)
"""Columns of coordinates, and their CRS; None: that of the map."""


def read_strata_areas(path: str, column: str) -> dict[str, float]:
    """Area of each stratum, in any unit, from a table with a column for its name and one for its area.

    Args:
        path: the table; the first of two columns is the name, the second one the area. Of more, these are `stratum` or
            `column`, and `area`, `area_m2`, `area_ha`, `area_km2` or `pixels`.
        column: what the strata are called in the sample.

    Raises:
        RasterError: it is no such table, a stratum stands there twice, or an area is none.
    """
    table = table_of(path)
    name, area = table.column("stratum", column), table.column("area", "area_m2", "area_ha", "area_km2", "pixels")
    if (name is None or area is None) and len(table.columns) == 2:
        name, area = table.columns
    if name is None or area is None or not table.lines:
        raise RasterError(f"{table}; expected stratum and area, and a line for each stratum.")
    areas: dict[str, float] = {}
    for (number, line), value in zip(table.lines, table.numbers(area), strict=True):
        stratum = line[name]
        if stratum in areas or not 0 < value < math.inf:
            found = "a second time" if stratum in areas else f"with the area {value:g}"
            raise RasterError(
                f"{path}, line {number}: {stratum} {found}; expected each stratum once, and an area above 0."
            )
        areas[stratum] = value
    return areas


def is_missing(path: str) -> bool:
    """Whether a path names no file of this machine, and nothing that GDAL fetches from elsewhere."""
    return not (path.startswith("/vsi") or "://" in path or Path(path).exists())


__all__ = [
    "ClassLookup",
    "IGNORE",
    "Reference",
    "ReferencePolygons",
    "ReferenceRaster",
    "SamplePoints",
    "is_missing",
    "place_points",
    "read_reference_features",
    "read_strata_areas",
    "reference_raster",
    "text_of",
]
