"""`co2s predict`: scenes in, maps out, one clear error for everything else."""

import csv
import json
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio

from co2s_hf.__main__ import main
from co2s_hf.geo.outputs import ENDINGS
from co2s_hf.raster.cog import opened

WHERE = ["--window_px", "48", "--no_polygons"]


@pytest.fixture
def predict(model_folder, tmp_path, capsys):
    """Runs the command; gives its status and what it wrote to stderr."""

    def run(*inputs, output="out", options=()):
        command = ["predict", *map(str, inputs), "--model", model_folder, "--output", str(tmp_path / output)]
        status = main([*command, *WHERE, *options])
        return status, capsys.readouterr().err

    return run


def snapshot(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_folders_globs_and_formats(predict, write_scene, tmp_path):
    write_scene("in/a.tif")
    write_scene("in/b.png", driver="PNG", placed=False)
    write_scene("in/c.jpg", driver="JPEG", placed=False)
    (tmp_path / "in" / "note.txt").write_text("no scene")
    status, said = predict(tmp_path / "in", tmp_path / "in" / "*.tif")
    assert status == 0 and "b: no CRS" in said and "a: no CRS" not in said
    kept = [ending for ending in ENDINGS if ending not in (".disagreement.tif", ".probabilities.tif", ".polygons.gpkg")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{x}{e}" for x in "abc" for e in kept)
    for name in ("a.tif", "b.png", "c.jpg"):
        with opened(tmp_path / "in" / name) as scene, opened(tmp_path / f"out/{name[0]}.classes.tif") as made:
            assert (made.shape, made.transform, made.crs) == (scene.shape, scene.transform, scene.crs)
    assert json.loads((tmp_path / "out" / "b.areas.json").read_text())["classes"][0]["area_m2"] is None


def test_maps_in_the_folder_of_the_scenes_are_no_scenes(predict, write_scene, tmp_path):
    write_scene("in/a.tif")
    assert predict(tmp_path / "in", output="in")[0] == 0
    before = snapshot(tmp_path / "in")
    status, said = predict(tmp_path / "in" / "a.tif", output="in")
    assert status == 2 and "holds a.classes.tif" in said and snapshot(tmp_path / "in") == before
    assert predict(tmp_path / "in" / "a.tif", output="in", options=["--force"])[0] == 0
    assert snapshot(tmp_path / "in") == before
    assert "a: finished already" in predict(tmp_path / "in" / "a.tif", output="in", options=["--resume"])[1]


def test_shards_and_merge(predict, write_scene, tmp_path):
    path, options = write_scene(size=(150, 60)), ["--band_px", "40"]
    assert predict(path, output="one", options=options)[0] == 0
    for index in (1, 0):
        assert predict(path, output="many", options=[*options, "--shard", f"{index}/2"])[0] == 0
        assert not (tmp_path / "many" / "scene.classes.tif").exists()
    assert predict(path, output="many", options=[*options, "--merge"])[0] == 0
    for made in (tmp_path / "one").iterdir():
        assert made.read_bytes() == (tmp_path / "many" / made.name).read_bytes()


def test_an_unfinished_map_of_an_unknown_task_is_refused_and_can_be_started_over(predict, write_scene, tmp_path):
    path, options = write_scene(), ["--shard", "0/1"]
    assert predict(path, options=options)[0] == 0
    task = tmp_path / "out/.scene.predict/task.json"
    task.write_text(task.read_text().replace('"batch": 8', '"batch": 9'))
    status, said = predict(path, options=["--resume"])
    assert status == 2 and "task.json is damaged" in said and "start over with --force" in said
    assert predict(path, options=["--force"])[0] == 0 and (tmp_path / "out/scene.classes.tif").exists()


def test_resampling(predict, write_scene, tmp_path):
    path = write_scene(size=(60, 80), nodata=0)  # pixels of 2 m
    assert predict(path, options=["--gsd", "4"])[0] == 0
    with rasterio.open(tmp_path / "out" / "scene.classes.tif") as made:
        assert made.shape == (30, 40) and made.res == (4, 4)
    for gsd, message in (
        ("training", "does not record"),
        ("-1", "expected metres per pixel"),
        ("x", "expected metres"),
        ("inf", "expected metres"),
        ("nan", "expected metres"),
        ("1e-9", "would have 1.6e+11 px on a side"),
    ):
        status, said = predict(path, output="other", options=["--gsd", gsd])
        assert status == 2 and message in said


def no_crs(write_scene):
    return write_scene(placed=False)


def rotated_degrees(write_scene):
    return write_scene(crs="EPSG:4326", transform=rasterio.Affine(0.1, 0.01, 10, 0.01, -0.1, 50))


def rotated(write_scene):
    return write_scene(transform=rasterio.Affine(2, 1, 500_000, 1, -2, 5_000_000))


def all_nodata(write_scene):
    return write_scene(pixels=np.zeros((3, 40, 40), np.uint8), nodata=0)


@pytest.mark.parametrize(
    ("make", "says"),
    [(no_crs, "areas are in pixels only"), (rotated, ""), (rotated_degrees, ""), (all_nodata, "the map may be empty")],
)
def test_odd_scenes_get_a_stated_correct_map(predict, write_scene, tmp_path, make, says):
    path = make(write_scene)
    status, said = predict(path)
    assert status == 0 and says in said
    with opened(path) as scene, opened(tmp_path / "out" / "scene.classes.tif") as made:
        assert (made.shape, made.transform, made.crs) == (scene.shape, scene.transform, scene.crs)
        assert (made.read(1) == 255).all() == (make is all_nodata)


def four_bands(write_scene, folder):
    return write_scene(pixels=np.ones((4, 20, 20), np.uint8), photometric="MINISBLACK"), "has 4 bands; expected 3"


def truncated(write_scene, folder):
    path = write_scene(size=(200, 200), tiled=False)
    path.write_bytes(path.read_bytes()[:60_000])
    return path, "cannot be read"


def zero_size(write_scene, folder):
    path = folder / "empty.vrt"
    path.write_text('<VRTDataset rasterXSize="0" rasterYSize="0"></VRTDataset>')
    return path, "cannot be read"


def no_raster(write_scene, folder):
    path = folder / "text.tif"
    path.write_text("no raster")
    return path, "cannot be read"


def missing(write_scene, folder):
    return folder / "missing.tif", "cannot be read"


def empty_folder(write_scene, folder):
    (folder / "nothing").mkdir()
    return folder / "nothing", "holds no scene"


def floats_of_reflectance(write_scene, folder):
    return write_scene(pixels=np.full((3, 20, 20), 3000, np.float32)), "--scale"


def signed(write_scene, folder):
    return write_scene(pixels=np.full((3, 20, 20), 3000, np.int16)), "--scale"


@pytest.mark.parametrize(
    "make",
    [
        four_bands,
        truncated,
        zero_size,
        no_raster,
        missing,
        empty_folder,
        floats_of_reflectance,
        signed,
    ],
)
def test_bad_scenes_get_one_error_and_nothing_is_damaged(predict, write_scene, tmp_path, make):
    path, message = make(write_scene, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").write_text("mine")
    before = snapshot(path.parent)
    status, said = predict(path)
    errors = [line for line in said.splitlines() if line.startswith("co2s: error:")]
    assert status == 2 and len(errors) == 1 and message in errors[0]
    after = {file: data for file, data in snapshot(path.parent).items() if ".predict" not in file.parent.name}
    assert after == before


def test_maps_that_would_replace_something_are_refused(predict, write_scene, tmp_path):
    write_scene("in/a.png", driver="PNG", placed=False)
    status, said = predict(tmp_path / "in" / "a.png", output="in")
    assert status == 2 and "would replace the scene" in said
    write_scene("other/a.tif")
    status, said = predict(tmp_path / "in" / "a.png", tmp_path / "other")
    assert status == 2 and "would both become a.classes.tif" in said
    (tmp_path / "file").write_text("mine")
    status, said = predict(tmp_path / "other", output="file")
    assert status == 2 and "cannot be made" in said and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", [["--shard", "2/2"], ["--shard", "x"]])
def test_shards_that_are_none(predict, write_scene, option):
    with pytest.raises(SystemExit) as error:
        predict(write_scene(), options=option)
    assert error.value.code == 2


@pytest.mark.parametrize("option", ["--batch_size", "--band_px", "--max-memory", "--window_px"])
def test_numbers_below_one_are_refused(predict, write_scene, option):
    assert predict(write_scene(), options=[option, "0"])[0] == 2


def test_a_bound_of_memory_sets_the_batch_or_is_refused(predict, write_scene, tmp_path):
    status, said = predict(write_scene(), options=["--max-memory", "1"])
    assert status == 2 and "--max-memory is 1 MB, but one window of 48 x 48 px" in said
    assert predict(write_scene(), options=["--max-memory", "100000", "--shard", "0/1"])[0] == 0
    assert json.loads((tmp_path / "out/.scene.predict/task.json").read_text())["batch"] == 64


def test_a_scene_that_no_disk_holds_the_map_of_is_refused_before_it_is_begun(predict, tmp_path):
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{number}"/>' for number in (1, 2, 3))
    large = f'<VRTDataset rasterXSize="9000000" rasterYSize="9000000">{bands}</VRTDataset>'
    (tmp_path / "large.vrt").write_text(large)
    status, said = predict(tmp_path / "large.vrt")
    assert status == 2 and "The map of large takes more than 162000.0 GB while it is made" in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("limit", [4000, 12000])  # bytes of a file: too few for a band, for a file of the map
def test_a_full_disk_is_one_error_and_the_old_map_stays(predict, write_scene, tmp_path, limit):
    path = write_scene()
    assert predict(path)[0] == 0
    before, (soft, hard) = snapshot(tmp_path / "out"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status, said = predict(path, options=["--force"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and "co2s: error:" in said.splitlines()[-1]
    assert {file: data for file, data in snapshot(tmp_path / "out").items() if file in before} == before
    assert predict(path, options=["--resume"])[0] == 0
    assert snapshot(tmp_path / "out") == before


def damaged(write_scene, name):
    """A scene whose last rows are cut off."""
    path = write_scene(name, size=(200, 60), blockysize=1)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def failures(folder):
    with open(folder / "failed.csv", newline="", encoding="utf-8") as file:
        return {Path(row["scene"]).name: row["reason"] for row in csv.DictReader(file)}


def test_other_scenes_are_mapped_where_some_fail_and_a_second_run_does_those_alone(
    predict, write_scene, tmp_path, monkeypatch
):
    monkeypatch.setattr("co2s_hf.geo.domain.SAMPLE_PX", 4)  # the damage is found while the scene is mapped
    write_scene("in/a.tif")
    (tmp_path / "in/b.tif").write_text("no raster")
    damaged(write_scene, "in/c.tif")
    write_scene("in/d.tif")
    assert predict(tmp_path / "in", output="strict")[0] == 2 and not list((tmp_path / "strict").iterdir())
    status, said = predict(tmp_path / "in", options=["--keep_going"])
    out = tmp_path / "out"
    assert status == 1 and "2 scenes failed" in said and sorted(failures(out)) == ["b.tif", "c.tif"]
    assert all("cannot be read" in reason and reason in said for reason in failures(out).values())
    made = {path.name for path in out.glob("*.classes.tif")}
    assert made == {"a.classes.tif", "d.classes.tif"} and (out / ".c.predict").exists()
    before = snapshot(out)
    write_scene("in/c.tif", size=(200, 60))
    status, said = predict(tmp_path / "in", options=["--keep_going"])
    assert status == 1 and list(failures(out)) == ["b.tif"] and "a: finished already" in said
    assert (out / "c.classes.tif").exists() and not (out / ".c.predict").exists()
    kept = {path: data for path, data in before.items() if path.name[:2] in ("a.", "d.")}
    assert kept and {path: data for path, data in snapshot(out).items() if path in kept} == kept
    write_scene("in/b.tif")
    status, said = predict(tmp_path / "in", options=["--resume", "--keep_going"])
    assert status == 0 and not (out / "failed.csv").exists() and (out / "b.classes.tif").exists()


def test_a_map_of_another_model_is_not_replaced_by_going_on(predict, write_scene, tmp_path):
    path = write_scene()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scene.classes.tif").write_bytes(write_scene("map.tif", np.ones((1, 9, 9), np.uint8)).read_bytes())
    status, said = predict(path, options=["--keep_going"])
    assert status == 1 and "holds scene.classes.tif already" in failures(tmp_path / "out")["scene.tif"]
    assert predict(path, options=["--keep_going", "--force"])[0] == 0


def test_masked_ground_is_never_mapped_whatever_the_resolution(predict, write_scene, tmp_path):
    path, mask = write_scene(size=(64, 80)), np.full((64, 80), 255, np.uint8)
    mask[:, :30] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    for gsd, factor in (("1", 2), ("4", 0.5)):
        assert predict(path, output=gsd, options=["--gsd", gsd])[0] == 0
        with rasterio.open(tmp_path / gsd / "scene.classes.tif") as made:
            classes = made.read(1)
        split = int(30 * factor)
        assert (classes[:, :split] == 255).all() and (classes[:, split:] != 255).all()
        table = json.loads((tmp_path / gsd / "scene.areas.json").read_text())["classes"]
        assert sum(row["area_m2"] for row in table) == pytest.approx(64 * 50 * 4)


def test_nothing_is_written_beside_a_scene_and_its_sidecar_is_read(predict, write_scene, tmp_path):
    path = write_scene("in/a.png", driver="PNG")  # with a.png.aux.xml
    before = snapshot(tmp_path / "in")
    assert len(before) == 2
    status, said = predict(path, options=["--gsd", "4"])
    assert status == 0 and "no CRS" not in said and snapshot(tmp_path / "in") == before
    with rasterio.open(tmp_path / "out/a.classes.tif") as made:
        assert made.crs == "EPSG:32633" and made.res == (4, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodata_within", "12"], "--nodata_within is 12 without --nodata"),
        (["--nodata", "0", "--nodata_within", "-1"], "nodata within -1.0 of 0.0; expected a tolerance"),
        (["--scale", "0"], "--scale is 0.0; expected a factor above 0"),
        (["--offset", "nan"], "--offset is nan; expected a finite number"),
    ],
)
def test_what_cannot_be_said_of_a_scene(predict, write_scene, options, said):
    status, found = predict(write_scene(), options=options)
    assert status == 2 and said in found
