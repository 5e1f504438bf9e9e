"""`co2s evaluate-map`: polygons, rasters and points; one clear error for everything else."""

import csv
import json

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from co2s_hf.__main__ import main
from co2s_hf.geo.evaluate_command import FILES

NAMES = ["water", "road", "tree"]


@pytest.fixture
def the_map(write_scene):
    pixels = np.zeros((1, 60, 80), np.uint8)
    pixels[:, :, 40:], pixels[:, 50:], pixels[:, :, :5] = 1, 2, 255
    path = write_scene("map.classes.tif", pixels, nodata=255)
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes=json.dumps(NAMES))
    return path


@pytest.fixture
def evaluate(the_map, tmp_path, capsys):
    """Runs the command; gives its status, what it said, and the numbers."""

    def run(reference, *options, output="out"):
        status = main(["evaluate-map", str(the_map), str(reference), "--output", str(tmp_path / output), *options])
        said = capsys.readouterr()
        path = tmp_path / output / "metrics.json"
        return status, said.out + said.err, json.loads(path.read_text()) if status == 0 else None

    return run


def polygons(folder, *features):
    """A GeoJSON without a CRS of its own would be in degrees: name that of the map."""
    made = [
        {"type": "Feature", "properties": {"kind": kind}, "geometry": json.loads(shapely.to_geojson(box))}
        for box, kind in features
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = folder / "ref.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": made}))
    return path


def test_polygons(evaluate, tmp_path):
    west = shapely.box(500_000, 4_999_900, 500_080, 5_000_000)  # columns 0 to 39, rows 0 to 49
    east = shapely.box(500_080, 4_999_880, 500_160, 5_000_000)
    path = polygons(tmp_path, (west, "sea"), (east, "road"))
    status, said, found = evaluate(path, "--reference_field", "kind", "--rename", "sea=water", "--boundary_m", "3.9")
    assert status == 0 and sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(FILES)
    counts = [[35 * 50, 0, 0], [0, 40 * 50, 0], [0, 40 * 10, 0]]
    assert found["confusion"] == counts and found["kind"] == "pixels" and found["pixels_of_two_classes"] == 0
    assert (found["boundary_width_px"], found["boundary_width_m"]) == (2, 4)
    assert found["overall_accuracy"] == pytest.approx(3750 / 4150)
    road = found["classes"][1]
    assert road["iou"] == pytest.approx(5 / 6) and road["users_accuracy"] == 1 and road["f1"] == pytest.approx(10 / 11)
    # In the reference 2 columns of 52 px, past the corner of water; in the map 2 of 50 and 2 rows along the trees.
    assert road["boundary_iou"] == pytest.approx(100 / (104 + 100 + 76 - 100))
    assert found["classes"][2]["boundary_iou"] is None
    assert "4,150 pixels compared" in said and "within 2 px (4 m)" in said and "random sample of points" in said
    with open(tmp_path / "out" / "confusion.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0][1:] == NAMES and [[int(one) for one in line[1:]] for line in lines[1:]] == counts
    with Image.open(tmp_path / "out" / "confusion.png") as image:
        assert min(image.size) > 200


def test_the_map_against_itself_is_perfect(evaluate, the_map):
    status, said, found = evaluate(the_map)
    assert status == 0 and found["overall_accuracy"] == 1 and found["mean_boundary_iou"] == 1
    assert found["pixels_compared"] == 60 * 75 and "note" not in said


def test_points(evaluate, tmp_path):
    places = [(10, 10, 0), (12, 30, 0), (20, 20, 1), (50, 10, 1), (60, 20, 1), (70, 55, 2), (2, 2, 0)]
    rows = [(500_000 + 2 * x + 1, 5_000_000 - 2 * y - 1, NAMES[kind]) for x, y, kind in places]
    path = tmp_path / "points.csv"
    path.write_text("x,y,class\n" + "".join(f"{x},{y},{kind}\n" for x, y, kind in rows))
    status, said, found = evaluate(path)
    assert status == 0 and found["confusion"] == [[2, 1, 0], [0, 2, 0], [0, 0, 1]]
    assert (found["points"], found["points_left_out"], found["unit_of_area"]) == (6, 1, "ha")
    weights = np.array([1750, 2000, 750]) / 4500
    assert found["overall_accuracy"]["value"] == pytest.approx(weights @ [2 / 3, 1, 1])
    assert found["overall_accuracy"]["standard_error"] is None  # of a class with a single point
    water = found["classes"][0]
    assert water["mapped_area"] == pytest.approx(1750 * 4 / 10_000)
    assert water["estimated_area"]["value"] == pytest.approx(1750 * 4 / 10_000 * 2 / 3)
    error = (2 / 3 * 1 / 3 / 2) ** 0.5
    assert water["users_accuracy"]["high_95"] == pytest.approx(2 / 3 + 1.96 * error)
    assert "66.7 ± 65.3" in said
    assert "single point in tree" in said and "Olofsson et al. (2014)" in said


def test_a_class_without_a_point_is_said(evaluate, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,class\n500021,4999979,water\n500023,4999979,0\n")
    status, said, found = evaluate(path)
    assert status == 0 and found["sampled_share"] == pytest.approx(1750 / 4500)
    assert "no point in road, tree of the map: the estimates are of the other 38.9 %" in said
    assert found["classes"][0]["estimated_area"]["value"] == pytest.approx(0.7)


def test_a_sample_drawn_in_strata_of_an_older_map(evaluate, tmp_path):
    places = [(10, 10, 0, "old"), (12, 30, 1, "old"), (60, 20, 1, "new"), (70, 55, 1, "new"), (61, 20, 1, "new")]
    rows = [(500_001 + 2 * x, 4_999_999 - 2 * y, NAMES[kind], where) for x, y, kind, where in places]
    path, strata = tmp_path / "points.csv", tmp_path / "strata.csv"
    path.write_text("x;y;class;Drawn_in\n" + "".join(";".join(map(str, row)) + "\n" for row in rows))
    strata.write_text("stratum;area\nold;300,0\nnew;100\ngone;100\n")
    status, said, found = evaluate(path, "--strata", "drawn_in", "--strata_areas", str(strata))
    assert status == 0 and found["method"].startswith("Stehman (2014)")
    assert found["overall_accuracy"]["value"] == pytest.approx(0.75 * 1 / 2 + 0.25 * 2 / 3)
    error = (0.75**2 * 0.25 / 1 + 0.25**2 * (2 / 9) / 2) ** 0.5
    assert found["overall_accuracy"]["standard_error"] == pytest.approx(error)
    assert found["strata"][2] == {"stratum": "gone", "area": 100, "points": 0}
    assert "no point in gone: the estimates are of the other 80.0 % of the area" in said
    for text, expected in (
        ("stratum,area\nold,300\n", "points in the strata new; expected one of old"),
        ("stratum,area\nold,-1\n", "line 2: old with the area -1"),
    ):
        strata.write_text(text)
        status, said, _ = evaluate(path, "--strata", "Drawn_in", "--strata_areas", str(strata), output="other")
        assert status == 2 and expected in said
    assert "go together" in evaluate(path, "--strata", "Drawn_in", output="other")[1]
    assert "expected elsewhere" in evaluate(path, "--strata", "elsewhere", "--strata_areas", str(strata), output="o")[1]


def test_a_map_whose_classes_are_called_by_numbers(evaluate, the_map, tmp_path, write_scene):
    with rasterio.open(the_map) as file:
        pixels = file.read()
    reference = write_scene("ids.tif", pixels, nodata=255)
    status, _, found = evaluate(reference, "--classes", "1", "2", "3")
    assert status == 0 and found["overall_accuracy"] == 1


def strata_of_a_raster(folder, write_scene):
    (folder / "s.csv").write_text("stratum,area\na,1\n")
    return folder / "map.classes.tif", ["--strata", "a", "--strata_areas", str(folder / "s.csv")], "holds no points"


def elsewhere(folder, write_scene):
    return polygons(folder, (shapely.box(0, 0, 9, 9), "water")), ["--reference_field", "kind"], "do not overlap"


def far_raster(folder, write_scene):
    pixels = np.zeros((1, 9, 9), np.uint8)
    path = write_scene("far.tif", pixels, transform=rasterio.Affine(2, 0, 600_000, 0, -2, 5_000_000))
    return path, [], "no pixel in common"


def unknown_class(folder, write_scene):
    path = polygons(folder, (shapely.box(500_000, 4_999_900, 500_080, 5_000_000), "sea"))
    return path, ["--reference_field", "kind"], "has sea; expected water, road, tree"


def unknown_id(folder, write_scene):
    return write_scene("ref.tif", np.full((1, 60, 80), 9, np.uint8)), [], "has 9; expected water"


def no_crs(folder, write_scene):
    return write_scene("ref.tif", np.zeros((1, 9, 9), np.uint8), placed=False), [], "a CRS is missing"


def wrong_band(folder, write_scene):
    return write_scene("ref.tif", size=(60, 80)), ["--reference_band", "4"], "has 3 bands; expected one of classes, not"


def no_field(folder, write_scene):
    return polygons(folder, (shapely.box(500_000, 4_999_900, 500_080, 5_000_000), "sea")), [], "has the fields kind"


def missing(folder, write_scene):
    return folder / "missing.gpkg", [], "is not there"


def no_reference(folder, write_scene):
    (folder / "ref.txt").write_text("nothing")
    return folder / "ref.txt", [], "cannot be read"


def bad_pair(folder, write_scene):
    return folder / "map.classes.tif", ["--rename", "sea"], "--rename sea is no pair"


def bad_width(folder, write_scene):
    return folder / "map.classes.tif", ["--boundary_px", "0"], "boundary width is 0 px"


BAD = [elsewhere, far_raster, unknown_class, unknown_id, no_crs, wrong_band, no_field, missing, no_reference]


@pytest.mark.parametrize("make", [*BAD, bad_pair, bad_width, strata_of_a_raster])
def test_what_cannot_be_compared_is_one_error(evaluate, write_scene, tmp_path, make):
    reference, options, expected = make(tmp_path, write_scene)
    status, said, _ = evaluate(reference, *options)
    errors = [line for line in said.splitlines() if line.startswith("co2s: error:")]
    assert status == 2 and len(errors) == 1 and expected in errors[0]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_nothing_is_replaced_unasked(evaluate, the_map, tmp_path):
    assert evaluate(the_map)[0] == 0
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    status, said, _ = evaluate(the_map, "--boundary_px", "1")
    assert status == 2 and "holds metrics.json, confusion.csv, confusion.png already" in said
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    assert evaluate(the_map, "--boundary_px", "1", "--force")[2]["boundary_width_px"] == 1
