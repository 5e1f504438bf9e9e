"""Points and polygons of files that OGR reads: where they lie on the grid of a raster, and footprints to write."""

import csv
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.errors import RasterError
from ..raster.grid import Grid

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
    """

    path: str
    geometries: NDArray[Any]
    values: NDArray[Any] | None
    crs: str | None

    @property
    def are_points(self) -> bool:
        """Whether all are points; otherwise all are polygons."""
        import shapely

        return bool((shapely.get_type_id(self.geometries) == shapely.GeometryType.POINT).all())


def lines_of(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a CSV by the names of its columns.

    Raises:
        RasterError: it is no table in UTF-8.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RasterError(f"{path} cannot be read ({error}); expected a CSV in UTF-8. Save it again as such.") from None


@contextmanager
def _refusals(path: str | Path) -> Iterator[None]:
    """Turn what OGR, GEOS and PROJ say of a file into one `RasterError`."""
    pyogrio = _library()
    from pyproj.exceptions import ProjError
    from shapely.errors import ShapelyError

    try:
        yield
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
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
    pyogrio = _library()
    with _refusals(path):
        try:
            return [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        except pyogrio.errors.DataSourceError:
            return []


def read_features(
    path: str | Path, *, classes: bool, field: str | None = None, layer: str | None = None, crs: str | None = None
) -> Features:
    """Read points or polygons, all of them.

    Args:
        path: the file.
        classes: also read the field that names the class of each.
        field: that field; None: `class`, else `class_id`.
        layer: None where there is one only.
        crs: of coordinates in a file that does not say.

    Raises:
        RasterError: it is no such file, or holds nothing, or no such field or layer, or other geometries.
    """
    pyogrio = _library()
    import shapely

    layers = layers_of(path)
    if layer is None and len(layers) != 1 or layer is not None and layer not in layers:
        raise RasterError(
            f"{path} has the layers {', '.join(layers) or '(none)'}; expected "
            f"{'one of features, or its name in --reference_layer' if layer is None else layer}."
        )
    layer = layer or layers[0]
    if classes:
        field = _field(path, layer, field)
    columns = [field] if classes else []
    with _refusals(path):
        meta, _, geometry, values = pyogrio.raw.read(path, layer=layer, columns=columns, force_2d=True)
        geometries = shapely.from_wkb(geometry)
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    kinds = set(shapely.get_type_id(geometries[kept]).tolist())
    allowed = ({shapely.GeometryType.POINT}, {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON})
    if not any(kinds and kinds <= one for one in allowed):
        found = ", ".join(sorted(shapely.GeometryType(kind).name.lower() for kind in kinds)) or "nothing"
        raise RasterError(f"{path} holds {found}; expected polygons, or one point each.")
    return Features(str(path), geometries[kept], values[0][kept] if classes else None, meta["crs"] or crs)


def _field(path: str | Path, layer: str, wanted: str | None) -> str:
    with _refusals(path):
        fields = [str(name) for name in _library().read_info(path, layer=layer)["fields"]]
    for name in CLASS_FIELDS if wanted is None else (wanted,):
        if name in fields:
            return name
    raise RasterError(
        f"{path} has the fields {', '.join(fields) or '(none)'}; expected {wanted or ' or '.join(CLASS_FIELDS)}. Name "
        "the one that holds the class with --reference_field."
    )


def on_grid(features: Features, grid: Grid, name: str) -> NDArray[Any]:
    """Geometries in pixel coordinates: x = column, y = row, (0, 0) = the outer corner of the first pixel.

    Args:
        features: in any CRS.
        grid: of a raster.
        name: of that raster, for errors.

    Raises:
        RasterError: one of both has no CRS.
    """
    import shapely

    geometries = features.geometries
    if (features.crs is None) != (grid.crs is None):
        without, other = (features.path, name) if features.crs is None else (name, features.path)
        raise RasterError(
            f"{without} has no CRS and {other} has one, so nobody knows where one lies on the other. Give it the CRS "
            f"that it was made in{', with --reference_crs' if features.crs is None else ''}."
        )
    with _refusals(features.path):
        if features.crs is not None and grid.crs is not None:
            geometries = _reprojected(geometries, features.crs, grid.crs)
        geometries = _finite(geometries)  # beyond what the projection reaches there is no place
        to_pixel = np.linalg.inv(np.array([grid.transform[:3], grid.transform[3:], (0, 0, 1)]))
        placed = shapely.transform(geometries, lambda xy: xy @ to_pixel[:2, :2].T + to_pixel[:2, 2])
        return _finite(placed)


def _finite(geometries: NDArray[Any]) -> NDArray[Any]:
    """Geometries, empty ones in the place of those with a coordinate that is not finite."""
    import shapely

    finite: NDArray[np.bool_] = np.isfinite(shapely.bounds(geometries)).all(axis=1)
    return np.where(finite, geometries, shapely.from_wkt("POINT EMPTY"))


def _reprojected(geometries: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    import shapely
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        one, other = CRS.from_user_input(source), CRS.from_user_input(target)
    except CRSError as error:
        raise RasterError(f"{source} is no CRS that PROJ knows ({error}); expected one like EPSG:32633.") from None
    if one == other:
        return geometries
    transformer = Transformer.from_crs(one, other, always_xy=True)
    return shapely.transform(geometries, lambda xy: np.stack(transformer.transform(xy[:, 0], xy[:, 1]), axis=1))


def points_of(geometries: NDArray[Any]) -> NDArray[np.float64]:
    """Coordinates (n, 2) of points; NaN for an empty one."""
    import shapely

    places = np.full((len(geometries), 2), np.nan)
    holds = ~shapely.is_empty(geometries)  # GEOS refuses to say where an empty one is
    places[holds] = shapely.get_coordinates(geometries[holds])
    return places


def points_at(x: Sequence[float], y: Sequence[float]) -> NDArray[Any]:
    """Points (n,) from coordinates."""
    import shapely

    points: NDArray[Any] = shapely.points(np.stack([x, y], axis=1))
    return points


def covered(geometries: NDArray[Any], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) share of boxes (n, 4) of x0, y0, x1, y1 that polygons cover; where they overlap it is counted twice."""
    import shapely

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
    pyogrio = _library()
    import shapely

    polygons = []
    for one in footprints:
        polygon = np.array([shapely.Polygon(one.corners)])
        polygons.append((_reprojected(polygon, one.grid.crs, crs) if one.grid.crs and crs else polygon)[0])
    names = list(footprints[0].fields)
    columns = [[one.fields[name] for one in footprints] for name in names]
    data = [np.array(column, dtype=object if isinstance(column[0], str) else None) for column in columns]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write(
            path,
            geometry=shapely.to_wkb(np.array(polygons)),
            field_data=data,
            fields=np.array(names, dtype=object),
            layer=layer,
            driver="GPKG",
            geometry_type="Polygon",
            crs=crs,
            append=path.exists(),
        )


def _library() -> Any:
    try:
        import pyogrio
        import pyproj  # noqa: F401
        import shapely  # noqa: F401  # missing ones are said before any work
    except ImportError as error:
        raise RasterError(
            f'Points and polygons need {error.name}, which is not installed. Run `pip install "co2s_hf[geo]"`.'
        ) from None
    return pyogrio


__all__ = [
    "CLASS_FIELDS",
    "Features",
    "Footprint",
    "WGS84",
    "covered",
    "layers_of",
    "lines_of",
    "on_grid",
    "points_at",
    "points_of",
    "read_features",
    "write_footprints",
]
