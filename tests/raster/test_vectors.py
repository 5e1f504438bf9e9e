"""Features on the grid of a raster, and footprints as a file."""

import json

import numpy as np
import pyogrio
import pytest
import shapely

from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.vectors import (
    Features,
    Footprint,
    covered,
    layers_of,
    lines_of,
    on_grid,
    points_of,
    read_features,
    write_footprints,
)

UTM = Grid(100, 200, (2, 0, 500_000, 0, -2, 5_000_000), "EPSG:32633")
DEGREES = Grid(10, 10, (0.001, 0, 15, 0, -0.001, 45), "EPSG:4326")
PIXELS = Grid(10, 10, (1, 0, 0, 0, 1, 0), None)


@pytest.fixture
def geojson(tmp_path):
    """Writes geometries with properties; GeoJSON is in longitudes and latitudes."""

    def write(*features, name="features.geojson"):
        made = [
            {"type": "Feature", "properties": values, "geometry": None if one is None else json.loads(one)}
            for one, values in ((shapely.to_geojson(geometry), values) for geometry, values in features)
        ]
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": made}))
        return tmp_path / name

    return write


def test_features_in_pixels_of_another_crs(geojson):
    # The central meridian of zone 33 is x = 500 km; one pixel of 2 m.
    path = geojson((shapely.Point(15, 45), {"class": "a"}), (None, {"class": "b"}), (shapely.Point(15.001, 45), {}))
    features = read_features(path, classes=True)
    assert features.are_points and list(features.values) == ["a", None]
    (x, y), (further, _) = points_of(on_grid(features, UTM, "map"))
    assert x == pytest.approx(0, abs=1e-6) and further == pytest.approx(39.4, abs=0.1)  # 78.8 m per 0.001 degrees
    northing = 5_000_000 - 2 * y
    assert northing == pytest.approx(4_982_950, abs=2)


def test_features_that_cannot_be_used(geojson, tmp_path):
    square = shapely.box(0, 0, 1, 1)
    path = geojson((square, {"kind": "a"}), (shapely.Point(0, 0), {"kind": "b"}))
    with pytest.raises(RasterError, match="has the fields kind; expected class or class_id.*--reference_field"):
        read_features(path, classes=True)
    with pytest.raises(RasterError, match="expected other"):
        read_features(path, classes=True, field="other")
    with pytest.raises(RasterError, match="holds point, polygon; expected"):
        read_features(path, classes=True, field="kind")
    with pytest.raises(RasterError, match="has the layers features; expected x"):
        read_features(path, classes=False, layer="x")
    features = read_features(geojson((square, {"class": 1})), classes=True)
    with pytest.raises(RasterError, match="scene.tif has no CRS and .*features.geojson has one"):
        on_grid(features, PIXELS, "scene.tif")
    (tmp_path / "no.tif").write_text("nothing")
    assert layers_of(tmp_path / "no.tif") == layers_of(tmp_path / "missing") == []


def test_multipoints_are_points(geojson):
    path = geojson(
        (shapely.MultiPoint([(15, 45)]), {"Class": "a"}),
        (shapely.MultiPoint([(16, 45, 7), (17, 45, 8)]), {"Class": "b"}),
        (shapely.Point(18, 45, 9), {"Class": "c"}),
        (shapely.MultiPoint(), {"Class": "d"}),
    )
    features = read_features(path, classes=True, strata="class")
    assert features.are_points and list(features.values) == ["a", "b", "b", "c"] == list(features.strata)
    np.testing.assert_array_equal(points_of(features.geometries)[:, 0], [15, 16, 17, 18])
    with pytest.raises(RasterError, match="holds linestring, multipoint; expected polygons, or points"):
        read_features(
            geojson((shapely.MultiPoint([(1, 1)]), {"class": 1}), (shapely.LineString([(0, 0), (1, 1)]), {"class": 1})),
            classes=True,
        )


def test_texts_in_a_field_of_ids_are_numbers(geojson):
    path = geojson((shapely.Point(0, 0), {"class_id": "1"}), (shapely.Point(0, 0), {"class_id": "road"}))
    assert list(read_features(path, classes=True).values) == [1, "road"]


def test_how_much_polygons_cover():
    boxes = np.array([(0, 0, 2, 2), (2, 0, 4, 2), (4, 0, 6, 2)], np.float64)
    found = covered(np.array([shapely.box(1, 0, 2, 2), shapely.box(1.9, 0, 2.1, 2)]), boxes)
    np.testing.assert_allclose(found, [0.55, 0.05, 0])


def footprint(grid, rank):
    return Footprint(grid, slice(0, 10), slice(5, 10), {"rank": rank, "file": "a.tif", "score": 0.5})


def test_footprints_keep_a_common_crs(tmp_path):
    write_footprints(tmp_path / "f.gpkg", "tiles", [footprint(UTM, 1), footprint(UTM, 2)])
    features = read_features(tmp_path / "f.gpkg", classes=True, field="rank")
    assert features.crs == "EPSG:32633" and list(features.values) == [1, 2]
    assert shapely.equals(features.geometries[0], shapely.box(500_010, 4_999_980, 500_020, 5_000_000))
    assert shapely.equals(on_grid(features, UTM, "")[1], shapely.box(5, 0, 10, 10))


def test_footprints_of_several_crs_are_in_degrees_and_those_of_none_in_pixels(tmp_path):
    path = tmp_path / "f.gpkg"
    write_footprints(path, "tiles", [footprint(UTM, 1), footprint(DEGREES, 2), footprint(PIXELS, 3)])
    assert layers_of(path) == ["tiles", "tiles_in_pixels"]
    assert pyogrio.read_info(path, layer="tiles")["crs"] == "EPSG:4326"
    placed = read_features(path, classes=False, layer="tiles")
    assert shapely.equals(placed.geometries[1], shapely.box(15.005, 44.99, 15.01, 45))
    np.testing.assert_allclose(shapely.bounds(placed.geometries[0])[0], 15.0001, atol=1e-4)
    flat = read_features(path, classes=False, layer="tiles_in_pixels")
    assert flat.crs is None and shapely.equals(flat.geometries[0], shapely.box(5, 0, 10, 10))


def test_a_polygon_beyond_the_projection_leaves_the_others_where_they_are(geojson):
    far = shapely.Polygon([(15, 1e20), (16, 1e20), (16, 1.1e20)])
    features = Features("a.geojson", np.array([far, shapely.box(15, 45, 15.001, 45.001)]), None, "EPSG:4326")
    placed = on_grid(features, UTM, "map")
    assert shapely.is_empty(placed).tolist() == [True, False] and placed[1].area == pytest.approx(2191, rel=0.01)


def test_what_ogr_and_proj_refuse_is_one_error_that_names_the_file(geojson, tmp_path):
    path = geojson((shapely.Point(0, 0), {"class": "a"}))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(RasterError, match="features.geojson"):
        read_features(path, classes=True)
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    features = Features("a.geojson", np.array([shapely.Point(0, 0)]), None, site)
    with pytest.raises(RasterError, match="a.geojson cannot be laid on"):
        on_grid(features, UTM, "map")


def test_names_that_are_no_utf8_are_one_error_that_names_the_file(geojson):
    path = geojson((shapely.Point(0, 0), {"class": "a"}))
    path.write_bytes(path.read_bytes().replace(b'"class"', b'"cl\x91ss"'))
    with pytest.raises(RasterError, match="features.geojson cannot be read"):
        read_features(path, classes=True)


@pytest.mark.parametrize("content", [b"x,y\n1,\xff\n", b"x,y\n" + b"1" * 200_000])
def test_lines_that_are_no_table(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(RasterError, match=r"a.csv cannot be read .*expected a CSV in UTF-8"):
        lines_of(tmp_path / "a.csv")
