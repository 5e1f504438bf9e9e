"""Polygons, rasters and points on the grid of a map."""

import numpy as np
import pytest
import rasterio
import shapely

from co2s_hf.geo.references import (
    ClassLookup,
    ReferencePolygons,
    place_points,
    read_reference_features,
    read_strata_areas,
    reference_raster,
)
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.vectors import Features, points_at

NAMES = ("water", "road", "tree")
WHERE = (2, 0, 500_000, 0, -2, 5_000_000)
GRID = Grid(20, 30, WHERE, "EPSG:32633")
EVERYTHING = (slice(None), slice(None))
ALL = (slice(0, 20), slice(0, 30), EVERYTHING)


def lookup(**rename):
    return ClassLookup(NAMES, rename)


def polygons(*boxes):
    """In pixels of the grid: x0, y0, x1, y1, class."""
    boxes = np.array(boxes, dtype=object)
    x, y = 500_000 + 2 * boxes[:, [0, 2]].astype(float), 5_000_000 - 2 * boxes[:, [1, 3]].astype(float)
    made = shapely.box(x[:, 0], y[:, 1], x[:, 1], y[:, 0])
    return Features("ref.gpkg", made, boxes[:, 4], "EPSG:32633")


def test_classes_by_name_id_or_renamed():
    values = np.array(["Water", " road ", "2", 1, 2.0, "sea", "cloud", None], dtype=object)
    found = lookup(sea="water", cloud="ignore", **{"(empty)": "2"}).ids(values, "ref")
    assert found.tolist() == [0, 1, 2, 1, 2, 0, 255, 2]
    for value, said in (("sea", "has sea"), (3, "has 3"), (None, r"has \(empty\)"), (0.5, "has 0.5")):
        with pytest.raises(
            RasterError, match=f"ref {said}; expected water, road, tree, or ids 0 to 2.*--rename .*=ignore"
        ):
            lookup().ids(np.array([value], dtype=object), "ref")


def test_numbers_are_ids_and_texts_are_names_first():
    numbered = ClassLookup(("1", "2", "10"), {})
    assert numbered.ids(np.array([0, 1, 2]), "ref").tolist() == [0, 1, 2]
    assert numbered.ids(np.array([1.0, np.float32(2)], dtype=object), "ref").tolist() == [1, 2]
    assert numbered.ids(np.array(["1", "2", "10", "0"], dtype=object), "ref").tolist() == [0, 1, 2, 0]
    renamed = ClassLookup(("1", "2", "10"), {"7": "10", "8": "0", "2": "1", "9": "ignore"})
    assert renamed.ids(np.array([7, 8, 2, 9]), "ref").tolist() == [2, 0, 0, 255]
    with pytest.raises(RasterError, match="ref has 0; expected 1, 2, 10"):
        numbered.ids(np.array(["0"], dtype=object), "ref", names_only=True)


def test_polygons_hold_pixel_centres_and_contested_ones_count_for_nobody():
    features = polygons(
        (0, 0, 4.4, 5, "water"), (3, 2, 8, 8.6, "road"), (3, 3, 4, 4, "water"), (20, 0, 30, 9, "ignore")
    )
    reference = ReferencePolygons(features, GRID, "map", lookup(ignore="ignore"))
    expected = np.full((20, 30), 255)
    expected[:5, :4] = 0
    expected[2:9, 3:8] = 1
    expected[2:5, 3:4] = 255
    np.testing.assert_array_equal(reference.read(*ALL), expected)
    assert reference.contested == 3
    part = reference.read(slice(2, 6), slice(2, 9), (slice(0, 1), slice(0, 7)))
    np.testing.assert_array_equal(part, expected[2:6, 2:9])
    assert reference.contested == 4
    with pytest.raises(RasterError, match=r"ref.gpkg and map do not overlap"):
        ReferencePolygons(polygons((40, 0, 50, 5, "water")), GRID, "map", lookup())


def raster(write_scene, pixels, **profile):
    return str(write_scene("ref.tif", np.atleast_3d(pixels).reshape(-1, *np.shape(pixels)[-2:]), **profile))


def read(path, grid=GRID, band=None, **rename):
    with reference_raster(path, grid, "map", lookup(**rename), band) as reference:
        return reference.read(slice(0, grid.height), slice(0, grid.width), EVERYTHING)


@pytest.mark.parametrize("nodata", [None, 2])
def test_a_raster_on_another_grid(write_scene, nodata):
    own = np.random.default_rng(0).integers(0, 3, (5, 8), dtype=np.uint8)
    path = raster(write_scene, own, transform=rasterio.Affine(6, 0, 500_010, 0, -6, 4_999_992), nodata=nodata)
    expected = np.full((20, 30), 255)
    expected[4:19, 5:29] = np.where(own == nodata, 255, own).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(read(path), expected)


def test_a_raster_of_the_same_grid_needs_no_crs(write_scene):
    own = np.random.default_rng(0).integers(0, 3, (4, 6)).astype(np.float32)
    own[0, 0], own[1, 1] = np.nan, 255
    path = raster(write_scene, own, placed=False)
    expected = np.where(np.isnan(own), 255, own)
    np.testing.assert_array_equal(read(path, Grid(4, 6, (1, 0, 0, 0, 1, 0), None)), expected)
    with pytest.raises(RasterError, match="have other grids, and a CRS is missing"):
        read(path, Grid(5, 6, (1, 0, 0, 0, 1, 0), None))


def test_a_map_of_this_package_has_names_and_another_order(write_scene):
    own = np.arange(600).reshape(20, 30).astype(np.uint8) % 3
    path = raster(write_scene, own)
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes='["tree", "sea", "water"]')
    np.testing.assert_array_equal(read(path, sea="road"), 2 - own)


def test_rasters_of_ids_whose_classes_are_called_by_numbers(write_scene):
    own = np.arange(600).reshape(20, 30).astype(np.uint8) % 2
    path, lookup = raster(write_scene, own), ClassLookup(("1", "2"), {})
    with reference_raster(path, GRID, "map", lookup) as reference:
        np.testing.assert_array_equal(reference.read(*ALL), own)
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes='["2", "1"]')  # a raster that names its classes is compared by these
    with reference_raster(path, GRID, "map", lookup) as reference:
        np.testing.assert_array_equal(reference.read(*ALL), 1 - own)


def test_rasters_that_cannot_be_used(write_scene):
    two = raster(write_scene, np.array([np.zeros((20, 30)), np.ones((20, 30))], np.uint8))
    assert (read(two, band=2) == 1).all()
    for band, said in ((None, "has 2 bands; expected one of classes, or its number"), (3, "not number 3")):
        with pytest.raises(RasterError, match=said):
            read(two, band=band)
    with pytest.raises(RasterError, match="holds 0.5; expected whole numbers"):
        read(raster(write_scene, np.full((20, 30), 0.5, np.float32)))
    with pytest.raises(RasterError, match="has 7; expected water"):
        read(raster(write_scene, np.full((20, 30), 7, np.uint8)))
    site = write_scene("site.tif", np.zeros((1, 20, 30), np.uint8), crs='LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(RasterError, match=r"site\.tif cannot be laid on map\. There is no way from .* expected CRSs"):
        read(site)


def test_points_and_the_pixels_that_hold_them():
    x, y = np.array([0.0, 29.9, 30, 4, 5, np.inf]), np.array([0.0, 19.9, 3, -1, 5, 0])
    values = np.array(["water", "tree", "tree", "tree", "cloud", "water"], dtype=object)
    features = Features("p", points_at(500_000 + 2 * x, 5_000_000 - 2 * y), values, "EPSG:32633")
    found = place_points(features, GRID, "map", lookup(cloud="ignore"))
    assert found.rows.tolist() == [0, 19] and found.columns.tolist() == [0, 29] and found.class_ids.tolist() == [0, 2]
    assert found.outside == 4
    away = Features("p", features.geometries[2:4], values[2:4], "EPSG:32633")
    with pytest.raises(RasterError, match="p and map do not overlap"):
        place_points(away, GRID, "map", lookup())


@pytest.mark.parametrize(
    ("name", "table", "expected"),
    [
        ("p.csv", "x,y,class\n500001,4999999,road\n", (0, 0)),
        ("p.csv", "Lon,LAT,class_id\n15.0001,45,1\n", (8524, 3)),
        ("p.csv", "\ufeffID;X;Y;Class\n7;500001,5;4999999,5;road\n;;;\n", (0, 0)),
        ("p.tsv", "easting\tNorthing\tclass\n500001,5\t4999999.5\troad\n", (0, 0)),
        ("p.csv", "x\ty\tclass\r\n500001\t4999999\troad\r\n", (0, 0)),
        ("p.txt", "Latitude|longitude|CLASS\n45|15.0001|1.0\n", (8524, 3)),
        ("p.csv", "lon,lat,Class_ID\n15.0001,45,1.0\n", (8524, 3)),
        ("p.csv", 'x,y,class,note\n500001,4999999,road,"a; b; c; d; e"\n', (0, 0)),
    ],
)
def test_points_of_a_table(tmp_path, name, table, expected):
    path = tmp_path / name
    path.write_text(table, encoding="utf-8", newline="")
    grid = Grid(10_000, 30, WHERE, "EPSG:32633")
    found = place_points(read_reference_features(str(path), grid), grid, "map", lookup())
    assert (found.rows[0], found.columns[0], found.class_ids[0]) == (*expected, 1)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("x,class\n1,road\n", r"\(delimiter comma\) has the columns x, class; expected class, and x and y"),
        ("x,y,class\n1,?,road\n", "line 2: y is '\\?', which is no number"),
        ("x;y;class\n1;2;road\n1;1.234,5;road\n", "line 3: y is '1.234,5', which is no number .delimiter semicolon"),
        ('x,y,class\n"1,5",2,road\n', "line 2: x is '1,5', which is no number .delimiter comma"),
        ("x,y,class\n500001,5,4999999,5,road\n", "line 2: 5 values for 3 columns .delimiter comma"),
        ("x y class\n1 2 road\n", "has the columns x y class; expected class, and x and y"),
        ("", "none"),
    ],
)
def test_tables_that_hold_no_points(tmp_path, table, said):
    path = tmp_path / "points.csv"
    path.write_text(table)
    with pytest.raises(RasterError, match=said):
        read_reference_features(str(path), GRID)


@pytest.mark.parametrize(
    "table",
    [
        "stratum,area\nold forest,10.5\n2,3\n",
        "Name;ha\nold forest;10,5\n2;3\n",
        "pixels\tkind\tnote\n10.5\told forest\t\n3\t2\tb\n",
    ],
)
def test_areas_of_strata(tmp_path, table):
    (tmp_path / "strata.csv").write_text(table)
    assert read_strata_areas(str(tmp_path / "strata.csv"), "Kind") == {"old forest": 10.5, "2": 3}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a,b,c\n1,2,3\n", "has the columns a, b, c; expected stratum and area"),
        ("stratum,area\n", "and a line for each stratum"),
        ("stratum,area\na,1\na,2\n", "line 3: a a second time"),
        ("stratum,area\na,0\n", "line 2: a with the area 0"),
        ("stratum,area\na,much\n", "line 2: area is 'much', which is no number"),
    ],
)
def test_areas_of_strata_that_are_none(tmp_path, table, said):
    (tmp_path / "strata.csv").write_text(table)
    with pytest.raises(RasterError, match=said):
        read_strata_areas(str(tmp_path / "strata.csv"), "kind")
