"""What a scene differs in from the images of training, said with numbers."""

import numpy as np
import pytest
import rasterio

from co2s_hf.geo.domain import check_scene, sample_statistics
from co2s_hf.geo.scene import SceneOptions, open_scene
from tests.geo.pixel_model import PixelModel

TRAINED = {"gsd_m": 2.0, "dtype": "uint8", "mean": [0.5] * 3, "std": [0.1] * 3}


@pytest.fixture
def differences(write_scene):
    def find(pixels, trained, gsd_m=2.0, **options):
        place = (
            dict(transform=rasterio.Affine(gsd_m, 0, 500_000, 0, -gsd_m, 5_000_000)) if gsd_m else dict(placed=False)
        )
        path, options = write_scene(pixels=pixels, nodata=0, photometric="RGB", **place), SceneOptions(**options)
        config = PixelModel(training_images=trained).config
        with open_scene(path, options, config) as scene:
            return check_scene(scene, options, config)

    return find


@pytest.fixture
def like_training():
    return np.random.default_rng(0).normal(127, 25, (3, 60, 60)).clip(1, 255).astype(np.uint8)


def test_a_scene_like_training_needs_no_word(differences, like_training):
    assert differences(like_training, TRAINED) == []
    assert differences(like_training, TRAINED, gsd_m=None) == []


def test_resolution_and_dtype(differences, like_training):
    (said,) = differences(like_training, TRAINED, gsd_m=10.0)
    assert "pixels are 10 m, in training 2 m (5.0 times coarser); --gsd training" in said
    assert "4.0 times finer" in differences(like_training, TRAINED, gsd_m=0.5)[0]
    said = differences(like_training.astype(np.uint16), TRAINED)
    assert "holds uint16 values, the model was trained on uint8" in said[0]
    assert "band 1 has mean 0.002" in said[1] and len(said) == 4  # 8 bits in 16: as good as black


def test_a_band_of_another_brightness_is_named(differences, like_training):
    like_training[1] //= 2
    (said,) = differences(like_training, TRAINED)
    assert "band 2 has mean 0.24" in said and "in training 0.500 and 0.100" in said


def test_without_statistics_what_normalises_is_compared(differences, like_training):
    (*_, said) = differences(like_training // 8 + 1, None)
    assert "what pixels are normalised with 0.500 and 0.250" in said


def test_statistics_leave_out_what_holds_no_data(write_scene):
    pixels = np.zeros((3, 700, 40), np.uint8)
    pixels[:, :350] = 51
    path, config = write_scene(pixels=pixels, nodata=0), PixelModel().config
    with open_scene(path, SceneOptions(), config) as scene:
        found = sample_statistics(scene)
    with open_scene(path, SceneOptions(scale=0.01), config) as scene:
        scaled = sample_statistics(scene)
    assert found.share == pytest.approx(0.5, abs=0.1) and found.mean == pytest.approx([0.2] * 3)
    assert found.std == pytest.approx([0] * 3, abs=1e-6) and scaled.maximum == pytest.approx([0.51] * 3)
    assert found.minimum == pytest.approx([0.2] * 3)


def test_nothing_to_see(differences):
    assert "the map may be empty" in differences(np.zeros((3, 9, 9), np.uint8), TRAINED)[0]
