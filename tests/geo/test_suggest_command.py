"""`co2s suggest`: a table, footprints and a sheet of pictures."""

import csv

import numpy as np
import pyogrio
import pytest
from PIL import Image

from co2s_hf.__main__ import main
from co2s_hf.geo.suggest_command import FILES
from co2s_hf.raster.colours import class_colours


@pytest.fixture
def suggest(model_folder, tmp_path, capsys):
    """Runs the command; gives its status and what it said."""

    def run(*inputs, output="out", options=("--tile_px", "32")):
        command = ["suggest", *map(str, inputs), "--model", model_folder, "--output", str(tmp_path / output)]
        status = main([*command, *options])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def table(folder):
    with open(folder / "suggestions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_suggestion(suggest, write_scene, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, (3, 64, 96), dtype=np.uint8)
    pixels[:, :32, :32] = 0
    path = write_scene("in/a.tif", pixels, nodata=0)
    write_scene("in/b.png", size=(32, 40), driver="PNG", placed=False)
    status, said = suggest(tmp_path / "in", options=["--tile_px", "32", "--count", "5"])
    assert status == 0 and "5 of 7 tiles by disagreement of two students (0 labelled and 1 without enough" in said
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(FILES)
    rows = table(tmp_path / "out")
    assert [row["rank"] for row in rows] == list("12345") and float(rows[0]["score"]) >= float(rows[-1]["score"])
    for row in rows:
        shares = [float(row[f"share_{name}"]) for name in ("road", "water", "tree")]
        assert sum(shares) == pytest.approx(1, abs=1e-3) and row["most_disputed"] in ("road", "water", "tree")
        assert (row["height"], row["width"]) == ("32", "32") and 0 <= float(row["disagreement"]) <= 1
    placed = [row for row in rows if row["file"] == str(path)]
    made = pyogrio.raw.read(tmp_path / "out" / "suggestions.gpkg", layer="suggestions")
    assert made[0]["crs"] == "EPSG:32633" and made[3][0].tolist() == [int(row["rank"]) for row in placed]
    corner = 500_000 + 2 * int(placed[0]["column"]), 5_000_000 - 2 * int(placed[0]["row"])
    bounds = pyogrio.read_bounds(tmp_path / "out" / "suggestions.gpkg", layer="suggestions")[1][:, 0]
    np.testing.assert_allclose(bounds, (corner[0], corner[1] - 64, corner[0] + 64, corner[1]))
    with Image.open(tmp_path / "out" / "suggestions.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert set(class_colours(["road", "water", "tree"])) <= colours


def test_it_is_deterministic_and_goes_on_with_the_next_ones(suggest, write_scene, tmp_path):
    path = write_scene(size=(64, 128))
    for output in ("one", "two"):
        assert suggest(path, output=output, options=["--tile_px", "32", "--count", "3"])[0] == 0
    for name in ("suggestions.csv", "suggestions.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for ending in ("csv", "gpkg"):
        exclude = ["--tile_px", "32", "--exclude", str(tmp_path / "one" / f"suggestions.{ending}")]
        status, said = suggest(path, output=ending, options=exclude)
        first, then = ({(r["row"], r["column"]) for r in table(tmp_path / one)} for one in ("one", ending))
        assert status == 0 and len(then) == 5 and not first & then and "(3 labelled" in said


def test_errors_are_one_line_and_leave_what_is_there(suggest, write_scene, tmp_path):
    path = write_scene()
    assert suggest(path)[0] == 0
    before = {one: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    four = write_scene("four.tif", np.ones((4, 20, 20), np.uint8), photometric="MINISBLACK")
    tried = [
        ((path,), [], "already. Name another output, or replace with --force"),
        ((four,), ["--force"], "has 4 bands; expected 3"),
        ((tmp_path / "missing.tif",), ["--force"], "cannot be read"),
        ((path,), ["--force", "--exclude", str(tmp_path / "missing")], "says nothing of labels"),
        ((path,), ["--force", "--count", "0"], "--count is 0; expected at least 1"),
        ((path,), ["--force", "--diversity", "-1"], "--diversity is -1.0; expected 0 or more"),
        ((path,), ["--force", "--min_data", "2"], "--min_data is 2.0; expected a share"),
    ]
    for inputs, options, expected in tried:
        status, said = suggest(*inputs, options=options)
        errors = [line for line in said.splitlines() if line.startswith("co2s: error:")]
        assert status == 2 and len(errors) == 1 and expected in errors[0]
        assert {one: one.read_bytes() for one in (tmp_path / "out").iterdir()} == before
