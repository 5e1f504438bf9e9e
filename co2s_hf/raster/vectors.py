"""Points and polygons of files that OGR reads: where they lie on the grid of a raster, and footprints to write."""

import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import ProjError
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely.errors import ShapelyError

from .errors import RasterError
from .grid import Grid, transformed

CLASS_FIELDS = ("class", "class_id")
"""Where classes are looked for if nobody says."""

WGS84 = "EPSG:4326"


@dataclass(frozen=True)
class Features:
    """Features of a layer.

    Attributes:
        path: the file.
        geometries: (n,) shapely geometries, in the units of `crs`.
        values: (n,) of the field that was asked for; None if none was.
        crs: as WKT or authority code; None if the file does not say.
        strata: (n,) of a second field, the strata that points were drawn in; None if none was asked for.
    """

    path: str
    geometries: NDArray[Any]
    values: NDArray[Any] | None
    crs: str | None
    strata: NDArray[Any] | None = None

    @property
    def are_points(self) -> bool:
        """Whether all are points; otherwise all are polygons."""

        return bool((shapely.get_type_id(self.geometries) == shapely.GeometryType.POINT).all())


@dataclass(frozen=True)
class Table:
    """A file of separated values.

    Attributes:
        path: the file.
        delimiter: between values.
        columns: names, in lower case.
        lines: (number of the line in the file, value of each column) of all lines that are not blank.
    """

    path: str
    delimiter: str
    columns: list[str]
    lines: list[tuple[int, dict[str, str]]]

    def __str__(self) -> str:
        """What was found, for errors."""
        found = ", ".join(self.columns) or "(none)"
        return f"{self.path} (delimiter {DELIMITERS[self.delimiter]}) has the columns {found}"

    def column(self, *names: str) -> str | None:
        """The first of the names that is a column."""
        return next((name.strip().lower() for name in names if name.strip().lower() in self.columns), None)

    def numbers(self, column: str) -> list[float]:
        """A column as numbers; between semicolons and tabs decimals may have a comma.

        Raises:
            RasterError: a value is no number.
        """
        return [self._number(column, number, line[column]) for number, line in self.lines]

    def _number(self, column: str, number: int, text: str) -> float:
        plain = text.replace(",", ".") if self.delimiter != "," and "." not in text else text
        try:
            return float(plain)
        except ValueError:
            raise RasterError(
                f"{self.path}, line {number}: {column} is {text!r}, which is no number (delimiter "
                f"{DELIMITERS[self.delimiter]}); expected one like 500001.5"
                f"{', or 500001,5 between semicolons or tabs' if ',' in text else ''}."
            ) from None


DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar"}


def table_of(path: str | Path) -> Table:
    """Read a file of values between tabs, semicolons, commas or bars; the first line names the columns.

    The delimiter is the one that makes most columns of that line.

    Raises:
        RasterError: it is no table in UTF-8, or a line holds more values than there are columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            delimiter = max(DELIMITERS, key=lambda one: (len(next(csv.reader([head], delimiter=one), [])), one == ","))
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            lines = []
            for line in reader:
                more = [value for value in line.pop(None, ()) if value.strip()]
                if more:
                    raise RasterError(
                        f"{path}, line {reader.line_num}: {len(columns) + len(more)} values for {len(columns)} columns "
                        f"(delimiter {DELIMITERS[delimiter]}); expected as many, and decimals with a point."
                    )
                values = {name: value.strip() for name, value in zip(columns, line.values(), strict=False)}
                if any(values.values()):
                    lines.append((reader.line_num, values))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RasterError(f"{path} cannot be read ({error}); expected a CSV in UTF-8. Save it again as such.") from None
    return Table(str(path), delimiter, columns, lines)


def lines_of(path: str | Path) -> list[dict[str, str]]:
    """The lines of a table by the names of its columns, in lower case; see `table_of`."""
    return [line for _, line in table_of(path).lines]


@contextmanager
def _refusals(path: str | Path) -> Iterator[None]:
    """Turn what OGR, GEOS and PROJ say of a file into one `RasterError`."""
    try:
        yield
    except (
        DataSourceError,
        DataLayerError,
        ProjError,
        ShapelyError,
        UnicodeDecodeError,
    ) as error:
        raise RasterError(
            f"{path} cannot be read ({error}); expected whole points or polygons that OGR opens. Export it again."
        ) from error


def layers_of(path: str | Path) -> list[str]:
    """Names of the layers of features in a file; none if it is no file of features.

    Raises:
        RasterError: they are no UTF-8.
    """
    with _refusals(path):
        try:
            return [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        except DataSourceError:
            return []


def read_features(
    path: str | Path,
    *,
    classes: bool,
    field: str | None = None,
    layer: str | None = None,
    crs: str | None = None,
    strata: str | None = None,
) -> Features:
    """Read points or polygons, all of them; each point of a multipoint is a point with the values of its feature.

    Args:
        path: the file.
        classes: also read the field that names the class of each.
        field: that field; None: `class`, else `class_id`.
        layer: None where there is one only.
        crs: of coordinates in a file that does not say.
        strata: also read this field.

    Raises:
        RasterError: it is no such file, or holds nothing, or no such field or layer, or other geometries.
    """
    layers = layers_of(path)
    if layer is None and len(layers) != 1 or layer is not None and layer not in layers:
        raise RasterError(
            f"{path} has the layers {', '.join(layers) or '(none)'}; expected "
            f"{'one of features, or its name in --reference_layer' if layer is None else layer}."
        )
    layer = layer or layers[0]
    if classes:
        field = _field(path, layer, (field,) if field else CLASS_FIELDS, "class", "--reference_field")
    if strata is not None:
        strata = _field(path, layer, (strata,), "stratum", "--strata")
    columns = list(dict.fromkeys(name for name in (field if classes else None, strata) if name is not None))
    with _refusals(path):
        meta, _, geometry, read = pyogrio.raw.read(path, layer=layer, columns=columns, force_2d=True)
        geometries = shapely.from_wkb(geometry)
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    kinds = set(shapely.get_type_id(geometries[kept]).tolist())
    point, points = shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT
    allowed = ({point, points}, {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON})
    if not any(kinds and kinds <= one for one in allowed):
        found = ", ".join(sorted(shapely.GeometryType(kind).name.lower() for kind in kinds)) or "nothing"
        raise RasterError(f"{path} holds {found}; expected polygons, or points.")
    geometries, owners = geometries[kept], np.flatnonzero(kept)
    if kinds <= {point, points}:
        geometries, parts = shapely.get_parts(geometries, return_index=True)
        owners = owners[parts]
    values = {str(name): column[owners] for name, column in zip(meta["fields"], read, strict=True)}
    return Features(
        str(path),
        geometries,
        ids_of(str(field), values[str(field)]) if classes else None,
        meta["crs"] or crs,
        None if strata is None else values[strata],
    )


def ids_of(field: str, values: NDArray[Any]) -> NDArray[Any]:
    """The values of a field; those of `class_id` are numbers, although some formats know only texts."""
    if field.lower() != "class_id":
        return values
    texts = [value.strip().removesuffix(".0") if isinstance(value, str) else "" for value in values.tolist()]
    whole = [int(text) if text.isdecimal() else value for text, value in zip(texts, values.tolist(), strict=True)]
    return np.array(whole, dtype=object)


def _field(path: str | Path, layer: str, wanted: Sequence[str], holds: str, option: str) -> str:
    with _refusals(path):
        fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
    for name in wanted:
        found = [one for one in fields if one == name] or [one for one in fields if one.lower() == name.lower()]
        if len(found) == 1:
            return found[0]
    raise RasterError(
        f"{path} has the fields {', '.join(fields) or '(none)'}; expected {' or '.join(wanted)}. Name the one that "
        f"holds the {holds} with {option}."
    )


def on_grid(features: Features, grid: Grid, name: str) -> NDArray[Any]:
    """Geometries in pixel coordinates: x = column, y = row, (0, 0) = the outer corner of the first pixel.

    Args:
        features: in any CRS.
        grid: of a raster.
        name: of that raster, for errors.

    Raises:
        RasterError: one of both has no CRS, or there is no way from one to the other.
    """
    geometries = features.geometries
    if (features.crs is None) != (grid.crs is None):
        without, other = (features.path, name) if features.crs is None else (name, features.path)
        raise RasterError(
            f"{without} has no CRS and {other} has one, so nobody knows where one lies on the other. Give it the CRS "
            f"that it was made in{', with --reference_crs' if features.crs is None else ''}."
        )
    with _refusals(features.path):
        if features.crs is not None and grid.crs is not None:
            try:
                geometries = _reprojected(geometries, features.crs, grid.crs)
            except RasterError as error:
                raise RasterError(f"{features.path} cannot be laid on {name}. {error}") from None
        geometries = _finite(geometries)  # beyond what the projection reaches there is no place
        to_pixel = np.linalg.inv(np.array([grid.transform[:3], grid.transform[3:], (0, 0, 1)]))
        placed = shapely.transform(geometries, lambda xy: xy @ to_pixel[:2, :2].T + to_pixel[:2, 2])
        return _finite(placed)


def _finite(geometries: NDArray[Any]) -> NDArray[Any]:
    """Geometries, empty ones in the place of those with a coordinate that is not finite."""
    finite: NDArray[np.bool_] = np.isfinite(shapely.bounds(geometries)).all(axis=1)
    return np.where(finite, geometries, shapely.from_wkt("POINT EMPTY"))


def _reprojected(geometries: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    if source == target:
        return geometries
    return shapely.transform(geometries, lambda xy: transformed(xy, source, target))


def points_of(geometries: NDArray[Any]) -> NDArray[np.float64]:
    """Coordinates (n, 2) of points; NaN for an empty one."""
    places = np.full((len(geometries), 2), np.nan)
    holds = ~shapely.is_empty(geometries)  # GEOS refuses to say where an empty one is
    places[holds] = shapely.get_coordinates(geometries[holds])
    return places


def points_at(x: Sequence[float], y: Sequence[float]) -> NDArray[Any]:
    """Points (n,) from coordinates."""
    points: NDArray[Any] = shapely.points(np.stack([x, y], axis=1))
    return points


def covered(geometries: NDArray[Any], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) share of boxes (n, 4) of x0, y0, x1, y1 that polygons cover; where they overlap it is counted twice."""
    rectangles = shapely.box(*boxes.T)
    which, polygon = shapely.STRtree(geometries).query(rectangles)
    shared = shapely.area(shapely.intersection(rectangles[which], shapely.make_valid(geometries[polygon])))
    return np.bincount(which, shared, minlength=len(boxes)) / shapely.area(rectangles)


@dataclass(frozen=True)
class Footprint:
    """A rectangle of pixels of a raster, with the values of its fields."""

    grid: Grid
    rows: slice
    columns: slice
    fields: dict[str, Any]

    @property
    def corners(self) -> NDArray[np.float64]:
        """(5, 2) in the CRS of the grid, closed."""
        rows, columns = self.rows, self.columns
        x = np.array([columns.start, columns.stop, columns.stop, columns.start, columns.start], np.float64)
        y = np.array([rows.start, rows.start, rows.stop, rows.stop, rows.start], np.float64)
        a, b, c, d, e, f = self.grid.transform
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def write_footprints(path: Path, layer: str, footprints: Sequence[Footprint]) -> None:
    """Write rectangles as polygons of a GeoPackage.

    In the CRS of the rasters where they have one in common, else in longitudes and latitudes; those of rasters without
    CRS are in pixels, in a layer of their own if there are others.

    Args:
        path: a file that is not there yet.
        layer: its name; that in pixels is `LAYER_in_pixels`.
        footprints: at least one, all with the same fields.
    """
    systems = list(dict.fromkeys(one.grid.crs for one in footprints if one.grid.crs is not None))
    common = systems[0] if len(systems) == 1 else WGS84
    placed = [one for one in footprints if one.grid.crs is not None]
    others = [one for one in footprints if one.grid.crs is None]
    if placed:
        _write(path, layer, placed, common)
    if others:
        _write(path, f"{layer}_in_pixels" if placed else layer, others, None)


def _write(path: Path, layer: str, footprints: Sequence[Footprint], crs: str | None) -> None:
    polygons = []
    for one in footprints:
        polygon = np.array([shapely.Polygon(one.corners)])
        polygons.append((_reprojected(polygon, one.grid.crs, crs) if one.grid.crs and crs else polygon)[0])
    columns = {name: [one.fields[name] for one in footprints] for name in footprints[0].fields}
    fields = {name: np.array(one, dtype=object if isinstance(one[0], str) else None) for name, one in columns.items()}
    write_features(path, layer, np.array(polygons), crs, fields, append=path.exists())


def write_features(
    path: Path, layer: str, polygons: NDArray[Any], crs: str | None, fields: Mapping[str, NDArray[Any]], *, append: bool
) -> None:
    """Write (n,) polygons and the (n,) values of each of their fields to a layer of a GeoPackage.

    Args:
        path: the file.
        layer: its name.
        polygons: in the units of `crs`.
        crs: as WKT or a code; None for none.
        fields: by their names.
        append: add to a layer that is there, instead of making one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write(
            path,
            geometry=shapely.to_wkb(polygons),
            field_data=list(fields.values()),
            fields=np.array(list(fields), dtype=object),
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
            append=append,
        )


@contextmanager
def fixed_date(date: str) -> Iterator[None]:
    """Let files say that they were made at this time, so that equal features are equal bytes."""
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": date})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def rasterized(polygons: NDArray[Any], rows: slice, columns: slice) -> NDArray[np.bool_]:
    """(H, W) of a rectangle of pixels: whether one of the polygons, in pixel coordinates, holds the pixel's centre."""
    shape, place = (rows.stop - rows.start, columns.stop - columns.start), Affine.translation(columns.start, rows.start)
    return np.asarray(rasterize(polygons, out_shape=shape, transform=place, dtype="uint8") != 0)


__all__ = [
    "CLASS_FIELDS",
    "Features",
    "Footprint",
    "Table",
    "WGS84",
    "covered",
    "fixed_date",
    "ids_of",
    "layers_of",
    "lines_of",
    "on_grid",
    "points_at",
    "points_of",
    "rasterized",
    "read_features",
    "table_of",
    "write_features",
    "write_footprints",
]
