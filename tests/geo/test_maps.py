"""A scene through a model: one map, however it is cut, shared out or interrupted."""

import copy
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate

from co2s_hf import Co2SImageProcessor, Dinov2DPTForSemanticSegmentation
from co2s_hf.geo.maps import is_finished, predict_scene
from co2s_hf.geo.outputs import ENDINGS
from co2s_hf.geo.polygons import PolygonSettings
from co2s_hf.geo.predict import PredictSettings, ScenePrediction
from co2s_hf.geo.scene import open_scene
from co2s_hf.raster.cog import NODATA, opened
from co2s_hf.raster.colours import class_colours
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.read import RasterFile
from tests.geo.pixel_model import PixelModel, pixel_processor

STEP = 1 / 65535  # of the probabilities that are summed up

EVERYTHING = dict(probabilities=True, disagreement=True)


def predicted(path, output, model=None, *, stem="map", **options):
    setting = PredictSettings(**options.pop("settings", {}))
    with opened(path) as dataset:
        return predict_scene(
            dataset, model or PixelModel().eval(), pixel_processor(), output, stem, settings=setting, **options
        )


def layers(path, output, settings):
    """(layers, H, W) of the bands, before they are made into files."""
    model = PixelModel().eval()
    with open_scene(path, settings, model.config) as scene:
        prediction = ScenePrediction(scene, model, pixel_processor(), output, "map", settings)
        prediction.work.begin(resume=False)
        prediction.run()
        parts = [prediction.work.part(band) for band in prediction.bands]
        bands = [np.fromfile(one.path, np.uint8).reshape(6, one.rows, scene.width) for one in parts]
    return np.concatenate(bands, axis=1)


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    window=st.integers(8, 24),
    overlap=st.floats(0, 0.75),
    band_px=st.integers(1, 60),
    batch=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    seed=st.integers(0, 999),
)
def test_a_tiled_scene_equals_an_untiled_one(
    size, window, overlap, band_px, batch, dtype, seed, write_scene, tmp_path_factory
):
    rng = np.random.default_rng(seed)
    pixels = rng.random((3, *size)).astype(np.float32)
    if dtype != "float32":
        pixels = (pixels * np.iinfo(dtype).max).astype(dtype)
    pixels[:, rng.random(size) < 0.2] = 0
    path = write_scene(pixels=pixels, nodata=0)
    found = []
    for cut in (
        dict(window_px=64, overlap_px=0),
        dict(window_px=window, overlap_px=int(window * overlap), band_px=band_px, batch=batch),
    ):
        output = tmp_path_factory.mktemp("map")
        done = predicted(path, output, settings={**cut, **EVERYTHING}, with_polygons=False)
        found.append(
            [read(done.files[f".{name}.tif"]) for name in ("classes", "confidence", "disagreement", "probabilities")]
        )
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    classes, empty = found[1][0][0], (pixels == 0).all(axis=0)
    np.testing.assert_array_equal(classes == NODATA, empty)
    np.testing.assert_array_equal(classes[~empty], pixels.argmax(axis=0)[~empty])


def test_the_files_of_a_map(write_scene, tmp_path):
    fields = np.random.default_rng(0).integers(1, 256, (3, 6, 6), dtype=np.uint8)
    path = write_scene(pixels=fields.repeat(100, 1).repeat(90, 2))
    done = predicted(path, tmp_path / "out", settings=EVERYTHING)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"map{ending}" for ending in ENDINGS}
    assert list(done.files) == list(ENDINGS)
    with rasterio.open(path) as scene:
        for ending in ENDINGS[:4]:
            assert cog_validate(done.files[ending], strict=True) == (True, [], [])
            with rasterio.open(done.files[ending]) as made:
                assert (made.shape, made.transform, made.crs) == (scene.shape, scene.transform, scene.crs)
                assert set(made.dtypes) == {"uint8"} and set(made.nodatavals) == {NODATA} and made.overviews(1) == [2]
    with rasterio.open(done.classes) as made:
        assert json.loads(made.tags()["classes"]) == ["water", "road", "tree"] and made.tags()["class_1"] == "road"
        assert made.colormap(1)[0][:3] == class_colours(["water", "road", "tree"])[0]
    with rasterio.open(done.files[".probabilities.tif"]) as made:
        assert made.descriptions == ("water", "road", "tree") and made.scales == (0.004,) * 3
        confidence, classes = read(done.files[".confidence.tif"])[0], read(done.classes)[0]
        shares = made.read()
        np.testing.assert_array_equal(np.take_along_axis(shares, classes[None], 0)[0], confidence)
        assert np.abs(shares.sum(axis=0, dtype=int) - 250).max() <= 2


def test_areas_are_written_with_what_polygons_leave_out(write_scene, tmp_path):
    pixels = np.full((3, 20, 20), 10, np.uint8)
    pixels[0] = 200
    pixels[:2, 3, 3] = pixels[:2, 10, 5] = pixels[:2, 11, 5] = (10, 200)  # 4 m2 and 8 m2 of road
    done = predicted(write_scene(pixels=pixels), tmp_path / "out", polygons=PolygonSettings(min_area_m2=5))
    content = json.loads(done.files[".areas.json"].read_text())
    assert content["polygons"] == {"written": 2, "left_out": {"road": {"polygons": 1, "area_m2": 4.0}}}
    with open(done.files[".areas.csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["water", "road", "tree"] and [row["pixels"] for row in rows] == [
        "397",
        "3",
        "0",
    ]
    assert (
        float(rows[0]["area_m2"]) == 1588 and float(rows[1]["area_ha"]) == 0.0012 and float(rows[1]["share"]) == 3 / 400
    )


def test_confidence_and_disagreement_by_hand(write_scene, tmp_path):
    pixels = np.full((3, 4, 4), 0.5, np.float32)
    pixels[0] = 1.0  # (1 - 0.5) / 0.25 * gain 2 = 4: probabilities e^4 : 1 : 1, the other student's 1 : e^4 : 1
    done = predicted(write_scene(pixels=pixels), tmp_path / "out", settings=dict(disagreement=True))
    sure = np.exp(4) / (np.exp(4) + 2)
    assert (read(done.files[".confidence.tif"]) == round(sure * 250)).all()
    assert (read(done.files[".disagreement.tif"]) == round((sure - 1 / (np.exp(4) + 2)) * 250)).all()


def test_nodata_is_skipped_and_never_leaks(write_scene, tmp_path):
    class Smearing(PixelModel):
        """Every pixel sees the mean of its window."""

        def forward(self, pixel_values):
            return super().forward(pixel_values.mean((2, 3), keepdim=True).expand_as(pixel_values))

    pixels = np.random.default_rng(0).random((3, 64, 64)).astype(np.float32)
    maps = []
    for value in (np.nan, 1e30, 0.25):
        model = Smearing().eval()
        pixels[:, :, 32:] = value
        path = write_scene(pixels=pixels, nodata=value)
        done = predicted(path, tmp_path / "out", model, settings=dict(window_px=32, overlap_px=0), force=True)
        assert model.seen == 2, "windows without data were predicted"
        maps.append([read(done.classes), read(done.files[".confidence.tif"])])
    for one in maps[1:]:
        np.testing.assert_array_equal(one, maps[0])
    assert (maps[0][0][0, :, 32:] == NODATA).all() and (maps[0][0][0, :, :32] != NODATA).all()


def test_shards_and_one_process_give_the_same_bytes(write_scene, tmp_path):
    path = write_scene(size=(300, 120))
    cut = dict(window_px=32, overlap_px=20, band_px=40, **EVERYTHING)
    predicted(path, tmp_path / "one", settings=cut)
    for index in (2, 0, 1):
        assert predicted(path, tmp_path / "many", settings=cut, shard=(index, 3)) is None
        if index == 0:
            with pytest.raises(RasterError, match="lacks 2 of 6 bands"):
                predicted(path, tmp_path / "many", settings=cut, merge=True)
    predicted(path, tmp_path / "many", settings=cut, merge=True)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "many")


def test_the_height_of_bands_changes_no_byte(write_scene, tmp_path):
    path = write_scene(size=(200, 100))
    for band_px in (1, 50, 1000):
        predicted(path, tmp_path / str(band_px), settings=dict(window_px=32, overlap_px=20, band_px=band_px))
    assert hashes(tmp_path / "1") == hashes(tmp_path / "50") == hashes(tmp_path / "1000")


def test_an_interrupted_run_leaves_the_old_map_and_goes_on(write_scene, tmp_path, monkeypatch):
    path, out = write_scene(size=(300, 60)), tmp_path / "out"
    cut = dict(window_px=32, band_px=40)
    predicted(path, out, settings=cut)
    before, windows = hashes(out), RasterFile.read
    reads = []

    def interrupted(self, *arguments):
        reads.append(arguments)
        if len(reads) == 8:
            raise KeyboardInterrupt
        return windows(self, *arguments)

    monkeypatch.setattr(RasterFile, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predicted(path, out, settings=cut, force=True)
    monkeypatch.undo()
    work = out / ".map.predict"
    done = sorted(file.name for file in work.iterdir())
    assert len(done) > 1 and hashes(out) == before
    with pytest.raises(RasterError, match="unfinished run. Go on with --resume"):
        predicted(path, out, settings=cut)
    for other in (dict(cut, overlap_px=3), dict(cut, probabilities=True)):
        with pytest.raises(RasterError, match="unfinished run of another task"):
            predicted(path, out, settings=other, resume=True)
    with pytest.raises(RasterError, match=r"unfinished run of another task \(model"):
        changed = PixelModel().eval()
        changed.gain.data += 1
        predicted(path, out, changed, settings=cut, resume=True)
    model = PixelModel().eval()
    predicted(path, out, model, settings=cut, resume=True)
    assert hashes(out) == before and 0 < model.seen < 13 * 3
    with pytest.raises(RasterError, match=r"holds map.classes.tif.*--force"):
        predicted(path, out, settings=cut)


def test_force_starts_over(write_scene, tmp_path):
    path, out = write_scene(), tmp_path / "out"
    predicted(path, out, shard=(0, 1))
    with pytest.raises(RasterError, match="unfinished run. Go on"):
        predicted(path, out)
    predicted(path, out, settings=dict(probabilities=True), force=True)
    done = predicted(path, out, force=True)
    assert ".probabilities.tif" not in done.files and not (out / "map.probabilities.tif").exists()


def test_what_is_finished(write_scene, tmp_path, model, processor):
    path, out = write_scene(), tmp_path / "out"
    assert not is_finished(out, "map", model, processor)
    predicted(path, out, model)
    assert is_finished(out, "map", model, processor)
    model.gain.data += 1
    assert not is_finished(out, "map", model, processor)


def test_a_scene_without_data_gives_an_empty_map(write_scene, tmp_path):
    path = write_scene(pixels=np.zeros((3, 40, 40), np.uint8), nodata=0)
    done = predicted(path, tmp_path / "out")
    assert (read(done.classes) == NODATA).all() and done.polygons.written == 0
    assert [area.pixels for area in done.areas] == [0, 0, 0] and done.files[".polygons.gpkg"].exists()


def test_models_that_do_not_fit_are_refused(write_scene, tmp_path, processor):
    with pytest.raises(RasterError, match="has 3 bands; expected 4, as the model.*--bands"):
        predicted(write_scene(), tmp_path / "out", PixelModel(4).eval())
    one = PixelModel().eval()
    one.students = {"dino": "logits"}
    with pytest.raises(RasterError, match="needs two students"):
        predicted(write_scene(), tmp_path / "out", one, settings=dict(disagreement=True))
    abstaining = PixelModel().eval()
    abstaining.predictions = {"clip": "clip_logits", "fused": "logits"}  # as after set_classes with a new class
    with pytest.raises(RasterError, match="needs two students.*clip predicts alone"):
        predicted(write_scene(), tmp_path / "out", abstaining, settings=dict(disagreement=True))
    resizing = pixel_processor()
    resizing.do_resize = True
    settings = PredictSettings()
    with open_scene(write_scene(), settings, one.config) as scene, pytest.raises(RasterError, match="resizes"):
        ScenePrediction(scene, one, resizing, tmp_path, "map", settings)
    with pytest.raises(RasterError, match="band 1 has values from 4000 to 4000 .*--scale"):
        predicted(write_scene(pixels=np.full((3, 9, 9), 4000, np.float32)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


WORKER = """
import sys, time, rasterio
from co2s_hf.geo.maps import predict_scene
from co2s_hf.geo.predict import PredictSettings
from tests.geo.pixel_model import PixelModel, pixel_processor
path, out, resume, pause = sys.argv[1], sys.argv[2], sys.argv[3] == "resume", float(sys.argv[4])
class Slow(PixelModel):
    def forward(self, pixel_values):
        time.sleep(pause)
        return super().forward(pixel_values)
with rasterio.open(path) as dataset:
    print("ready", flush=True)
    predict_scene(dataset, Slow().eval(), pixel_processor(), out, "map", resume=resume,
                  settings=PredictSettings(window_px=32, overlap_px=16, band_px=60, batch=4))
"""


def start(path, out, mode, pause=0.0):
    command = [sys.executable, "-c", WORKER, str(path), str(out), mode, str(pause)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


@pytest.mark.slow
def test_ten_kills_at_random_moments_cost_no_byte(write_scene, tmp_path):
    path = write_scene(size=(600, 300))
    predicted(path, tmp_path / "whole", settings=dict(window_px=32, overlap_px=16, band_px=60, batch=4))
    expected, rng, bands_seen = hashes(tmp_path / "whole"), np.random.default_rng(0), set()
    out = tmp_path / "out"
    begun = False
    for _ in range(10):
        process = start(path, out, "resume" if begun else "new", pause=0.02)
        process.stdout.readline()
        time.sleep(rng.uniform(0.1, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        begun = (out / ".map.predict" / "task.json").exists() or (out / "map.png").exists()
        bands_seen.add(len(list(out.glob(".map.predict/band_*.raw"))))
    assert start(path, out, "resume").wait() == 0
    assert hashes(out) == expected and len(bands_seen) > 2, bands_seen


@pytest.mark.slow
def test_two_processes_equal_one(write_scene, tmp_path):
    path = write_scene(size=(300, 120))
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "ACCELERATE_USE_CPU": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    base = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
    for count, port in ((1, "29621"), (2, "29622")):
        command = [
            *base,
            str(count),
            "--master_port",
            port,
            str(script),
            str(path),
            str(tmp_path / f"{count}"),
            "new",
            "0",
        ]
        subprocess.run(command, check=True, env=environment, timeout=240, capture_output=True)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


# ---- one image, one map ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blots():
    """An image of 150 x 211 px with blots and grain, (bands, height, width)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (3, 10, 14)).repeat(16, 1).repeat(16, 2)[:, :150, :211]
    return (coarse + rng.normal(0, 12, coarse.shape)).clip(1, 255).astype(np.uint8)


@pytest.mark.parametrize("window", [(64, None), (64, 30), (48, 4), (96, 96), (256, None)])
@pytest.mark.parametrize("kind", ["confidence", "mean", "clip", "dinov3", "dinov2_dpt"])
def test_the_map_of_a_scene_is_that_of_the_model(tiny_model, blots, write_scene, tmp_path, kind, window):
    if kind == "dinov2_dpt":
        torch.manual_seed(0)
        model = Dinov2DPTForSemanticSegmentation.from_backbones(None, ("a", "b", "c"), window_px=window[0]).eval()
    else:
        model = copy.deepcopy(tiny_model)
        model.config.fusion, model.config.window_px = kind, window[0]
    model.config.window_stride_px = window[1] or int(window[0] * 5 / 6)
    processor = Co2SImageProcessor(image_mean=model.config.image_mean, image_std=model.config.image_std)
    settings = PredictSettings(probabilities=True)
    with opened(write_scene(pixels=blots)) as dataset:
        done = predict_scene(dataset, model, processor, tmp_path / "out", "map", settings=settings, with_polygons=False)
    pixel_values = processor(blots, input_data_format="channels_first", return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        probabilities = model(pixel_values).logits[0].softmax(0).numpy()
    classes = read(done.classes)[0]
    differs = classes != probabilities.argmax(0)
    if window[0] < 211:
        assert not differs.any()
    else:  # one window: the model gives its logits as they are, and the map takes the first of what rounds to one step
        best, second = np.sort(probabilities, axis=0)[[-1, -2]]
        assert not (differs & (best - second > STEP)).any() and differs.mean() < 1e-3
    np.testing.assert_allclose(read(done.files[".probabilities.tif"]) / 250, probabilities, atol=0.5 / 250 + 4 * STEP)
    assert len(np.unique(classes)) > 1 or kind == "dinov2_dpt"


def test_windows_of_another_side_share_the_same_part(write_scene, tmp_path):
    model = PixelModel(window_px=30, window_stride_px=20).eval()
    for fields, overlap in (({}, 10), ({"window_px": 60}, 20), ({"window_px": 60, "overlap_px": 3}, 3)):
        asked = PredictSettings(**fields)
        with open_scene(write_scene(), asked, model.config) as scene:
            prediction = ScenePrediction(scene, model, pixel_processor(), tmp_path, "map", asked)
            assert prediction.grid.overlap_px == overlap
