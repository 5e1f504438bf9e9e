"""Physical values, windows of large files and the facts about them: from the files of a training to its model."""

import json

import numpy as np
import pytest
import rasterio
from transformers import AutoConfig

import co2s_hf  # noqa: F401  registers the models
from co2s_hf.data.folders import DataSplit, Sample
from co2s_hf.raster import read
from co2s_hf.raster.image import FileWindow, NoData, Reading
from co2s_hf.raster.write import write_image
from tests.training.tiny_runs import tiny_arguments
from training import eval_semi, train_semi
from training.arguments import values_of
from training.records import require_plausible_values, training_images
from training.train_semi import find_reading, fingerprint_of, main

CLASSES = ("soil", "crop", "water")
SHORT = dict(scenes=None, max_steps=2, eval_every=2, save_every=2, threshold=0.5)

pytestmark = [
    pytest.mark.usefixtures("fresh_accelerate_state"),
    pytest.mark.filterwarnings("ignore:.*carry no meaning"),
]


def write_tiff(path, pixels, *, scale=1.0, offset=0.0, crs="EPSG:32633", size_m=10.0, **profile):
    """Write (bands, H, W) with its place and, where they are not 1 and 0, the scale and offset of its values."""
    bands, height, width = pixels.shape
    profile |= dict(crs=crs, transform=rasterio.Affine(size_m, 0, 500_000, 0, -size_m, 5_000_000))
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype, **profile
    ) as file:
        file.write(pixels)
        if (scale, offset) != (1.0, 0.0):
            file.scales, file.offsets = [scale] * bands, [offset] * bands
    return path


@pytest.fixture
def reflectances(tmp_path):
    """Five images of 16 bits with a sign, reflectances times 10,000 and clouds beyond white; four have masks."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    for i in range(5):
        pixels = rng.integers(400, 3000, (3, 40, 48)).astype(np.int16)
        pixels[:, 5:9, 5:9] = 15_001
        pixels[:, :, :6] = -9999
        write_tiff(tmp_path / "images" / f"i{i}.tif", pixels)
        if i < 4:
            write_tiff(tmp_path / "labels" / f"i{i}.tif", rng.integers(0, 3, (1, 40, 48), dtype=np.uint8))
    data = dict(data_dir=str(tmp_path), classes=list(CLASSES), labelled=["i[01].tif"], validation=["i[23].tif"])
    return tmp_path, dict(image_mean=[0.2] * 3, image_std=[0.1] * 3, **data)


def test_reflectances_train_and_are_evaluated_as_they_were_read(reflectances, students, capsys):
    folder, data = reflectances
    argv = ("--scale", "1e-4", "--offset", "-0.1", "--nodata", "-9999")
    metrics = main(tiny_arguments(folder, *argv, **students, **data, **SHORT))
    assert all(np.isfinite(value) for row in metrics["losses"] for value in row.values())
    facts = AutoConfig.from_pretrained(folder / "run" / "model").training_images
    with rasterio.open(folder / "images" / "i0.tif") as one, rasterio.open(folder / "images" / "i1.tif") as two:
        values = np.concatenate([file.read()[:, :, 6:].reshape(3, -1) for file in (one, two)], axis=1) * 1e-4 - 0.1
    assert facts["mean"] == pytest.approx(values.mean(1), abs=1e-5)
    assert facts["std"] == pytest.approx(values.std(1), abs=1e-5)
    assert (facts["scale"], facts["offset"], facts["nodata"], facts["dtype"]) == (1e-4, -0.1, -9999, "int16")
    assert facts["gsd_m"] == pytest.approx(10, rel=1e-2)

    capsys.readouterr()
    command = [
        str(folder / "run" / "model"),
        "--data_dir",
        str(folder),
        "--validation",
        "i[23].tif",
        "--threshold",
        "0.5",
    ]
    results = eval_semi.main(command)
    assert "as the model was trained: --nodata -9999, --scale 0.0001, --offset -0.1" in capsys.readouterr().out
    assert results["fused"]["mean_iou"] == metrics["history"][-1]["fused"]["mean_iou"]
    eval_semi.main([*command, "--nodata", "-9999", "--scale", "1e-4", "--offset", "-0.1"])
    assert "as the model was trained" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "int16"),
        (("--scale", "1"), "standard deviations from what the model's pixels are normalised with"),
    ],
)
def test_values_that_nobody_understands_are_refused_ahead_of_the_work(argv, message, reflectances, students, capsys):
    folder, data = reflectances
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(folder, *argv, **students, **data, **SHORT))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and "Give --scale" in said
    assert not (folder / "run" / "checkpoints").exists()


def test_a_file_that_says_its_scale_is_read_by_it(tmp_path):
    stored = np.array([[[1000, 12_000]], [[3000, 0]]], np.uint16)
    sample = Sample(write_tiff(tmp_path / "a.tif", stored, scale=1e-4, offset=-0.1), None, "a")
    facts = training_images([sample], Reading(), gsd_m=None, image_scale=1)
    assert facts["mean"] == pytest.approx([0.55, 0.05]) and facts["std"] == pytest.approx([0.55, 0.15])
    assert facts["scale"] == pytest.approx(1e-4) and facts["offset"] == pytest.approx(-0.1)
    plain = Sample(write_tiff(tmp_path / "b.tif", stored), None, "b")
    mixed = training_images([sample, plain], Reading(), gsd_m=None, image_scale=1)
    assert (mixed["scale"], mixed["offset"]) == (None, None)


@pytest.mark.parametrize(("crs", "gsd_m"), [("EPSG:32633", 0.5), ("EPSG:3857", None)])
def test_resolution_is_that_of_the_files_times_the_scale(crs, gsd_m, tmp_path):
    """In a web map a pixel of 0.5 m covers less ground the further it lies from the equator."""
    samples = [
        Sample(write_tiff(tmp_path / f"{i}.tif", np.zeros((3, 4, 4), np.uint8), crs=crs, size_m=size), None, "s")
        for i, size in enumerate((0.5, 0.5, 9.0))
    ]
    found = training_images(samples, Reading(), gsd_m=77.0, image_scale=0.5)["gsd_m"]
    if gsd_m is None:
        latitude = np.arctan(np.sinh(5_000_000 / 6_378_137.0))
        gsd_m = 0.5 * np.cos(latitude)
    assert found == pytest.approx(gsd_m / 0.5, rel=5e-3)
    write_image(tmp_path / "p.png", np.zeros((4, 4, 3), np.uint8))
    plain = Sample(tmp_path / "p.png", None, "s")
    assert training_images([plain], Reading(), gsd_m=77.0, image_scale=0.5)["gsd_m"] == 154


def test_own_statistics_make_any_values_plausible():
    class Config:
        image_mean, image_std = [1500.0, 0.4], [500.0, 0.2]
        training_images = {"mean": [1600.0, 0.5], "dtype": "float32", "scale": None}

    require_plausible_values(Config)
    Config.image_mean = [0.5, 0.4]
    Config.image_std = [0.2, 0.2]
    with pytest.raises(ValueError, match="float32 values with no scale, whose mean in one band is 1600, 7998 standard"):
        require_plausible_values(Config)


def test_a_model_is_evaluated_by_the_scale_of_files_that_have_one(tmp_path):
    class Config:
        bands, num_channels = None, 3
        training_images = {"scale": 1e-4, "offset": -0.1, "nodata": 0.0, "nodata_within": 3.0}

    def reading(path, **given):
        arguments = eval_semi.argparse.Namespace(
            **dict.fromkeys(("dataset", "nodata", "nodata_within", "scale", "offset")) | given
        )
        return eval_semi.find_reading(arguments, [Sample(path, None, "s")], Config, said.append)

    said = []
    stored = np.zeros((3, 2, 2), np.uint16)
    own = reading(write_tiff(tmp_path / "own.tif", stored, scale=2e-4))
    assert (own.scale, own.offset, own.nodata) == (None, None, NoData(0, 3))
    assert said == ["as the model was trained: --nodata 0"]
    trained = reading(write_tiff(tmp_path / "none.tif", stored))
    assert (trained.scale, trained.offset) == (1e-4, -0.1)
    told = reading(tmp_path / "none.tif", scale=3e-4, nodata=9.0)
    assert (told.scale, told.offset, told.nodata) == (3e-4, None, NoData(9))


# ---- windows ---------------------------------------------------------------------------------------------------------


def test_windows_of_one_large_file_train_and_nothing_else_is_decoded(tmp_path, students, monkeypatch, capsys):
    """Four labelled, four unlabelled and two validation windows of 40 x 48 px of a GeoTIFF of 400 x 480 px."""
    rng = np.random.default_rng(0)
    tiled = dict(tiled=True, blockxsize=16, blockysize=16)
    image = write_tiff(tmp_path / "scene.tif", rng.integers(0, 256, (3, 400, 480), dtype=np.uint8), **tiled)
    mask = write_tiff(tmp_path / "mask.tif", rng.integers(0, 3, (1, 400, 480), dtype=np.uint8), **tiled)
    places = [(40 * i, 48 * i, 40, 48) for i in range(10)]
    samples = [Sample(FileWindow(image, *place), FileWindow(mask, *place), str(place)) for place in places]
    pool = tuple(Sample(one.image, None, one.scene) for one in samples[4:8])
    split = DataSplit(CLASSES, tuple(samples[:4]), pool, tuple(samples[8:]))
    assert len({name for part in fingerprint_of(split).values() for name in part}) == 10

    monkeypatch.setattr(train_semi, "find_data", lambda arguments: split)
    monkeypatch.setenv(read.MAX_PIXELS_VARIABLE, str(40 * 48))
    arguments = tiny_arguments(
        tmp_path, "--class_weights", "balanced", "--rare_class_temperature", "0.5", "--tile_cache",
        str(tmp_path / "tiles"), data_dir=str(tmp_path), classes=list(CLASSES), **students, **SHORT,
    )  # fmt: skip
    metrics = main(arguments)
    assert "4 labelled, 4 unlabelled, 2 validation images" in capsys.readouterr().out
    assert all(np.isfinite(value) for row in metrics["losses"] for value in row.values())
    with rasterio.open(image) as file:
        pixels = np.concatenate([file.read()[:, r : r + h, c : c + w].reshape(3, -1) for r, c, h, w in places[:4]], 1)
    facts = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["training_images"]
    assert facts["mean"] == pytest.approx((pixels / 255).mean(1), abs=1e-5)


def test_the_names_of_bands_in_files_and_in_the_model_are_two_things(tmp_path, students):
    arguments = tiny_arguments(tmp_path, bands=["nir", "red", "green"], image_mean=[0.5] * 3, image_std=[0.2] * 3)
    split = DataSplit(CLASSES, (), (), ())
    assert find_reading(arguments, split).names == ("nir", "red", "green")
    arguments.file_bands = ["b8", "b4", "b3"]
    arguments.scale = 1e-4
    found = find_reading(arguments, split)
    assert found == Reading(names=("b8", "b4", "b3"), **values_of(arguments)) and found.scale == 1e-4
