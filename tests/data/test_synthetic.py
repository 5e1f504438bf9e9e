import json

import numpy as np
import pytest
from PIL import Image

from co2s_hf.data.folders import DataError, check_split
from co2s_hf.data.synthetic import CLASSES, PALETTE, draw_scene, write_scenes
from co2s_hf.raster.image import Reading

NUMBERS = {"seed": 3, "num_labelled": 2, "num_unlabelled": 2, "num_validation": 1, "size_px": 32}


def test_scenes_depend_on_seed_and_index_alone():
    image, labels = draw_scene(0, 5, 48)
    assert image.shape == (48, 48, 3) and image.dtype == np.uint8
    assert labels.shape == (48, 48) and labels.dtype == np.uint8 and labels.max() < len(CLASSES) == len(PALETTE)
    np.random.default_rng().random(3)
    again, same_labels = draw_scene(0, 5, 48)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, same_labels)
    assert (draw_scene(0, 6, 48)[0] != image).any() and (draw_scene(1, 5, 48)[0] != image).any()


def test_every_class_is_common_and_scenes_differ_in_light():
    scenes = [draw_scene(0, i, 96) for i in range(24)]
    shares = np.mean([np.bincount(labels.ravel(), minlength=6) for _, labels in scenes], axis=0) / 96**2
    assert shares.min() > 0.01 and shares.max() < 0.75
    assert np.std([image.mean() for image, _ in scenes]) > 15


def _pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_written_scenes_are_a_good_split(tmp_path):
    split = write_scenes(tmp_path, **NUMBERS)
    assert [s.image.name for s in split.labelled] == ["train_0000.png", "train_0001.png"]
    assert [s.image.name for s in split.unlabelled] == ["train_0002.png", "train_0003.png"]
    assert [s.image.name for s in split.validation] == ["val_0000.png"]
    assert len(list((tmp_path / "labels").iterdir())) == 3
    image, labels = draw_scene(3, 1, 32, weather=0.0, season=0.75)
    np.testing.assert_array_equal(_pixels(split.labelled[1].image), image)
    np.testing.assert_array_equal(_pixels(split.labelled[1].mask), labels)
    check_split(split, Reading(count=3))


def test_a_finished_folder_is_reused_and_another_one_drawn_again(tmp_path):
    first = write_scenes(tmp_path, **NUMBERS)
    (tmp_path / "images" / "train_0000.png").write_bytes(b"kept")
    assert write_scenes(tmp_path, **NUMBERS) == first
    assert (tmp_path / "images" / "train_0000.png").read_bytes() == b"kept"

    fewer = write_scenes(tmp_path, **{**NUMBERS, "num_unlabelled": 1})
    assert len(fewer.unlabelled) == 1 and len(list((tmp_path / "images").iterdir())) == 4
    assert _pixels(tmp_path / "images" / "train_0000.png").shape == (32, 32, 3)
    assert json.loads((tmp_path / "scenes.json").read_text())["num_unlabelled"] == 1


@pytest.mark.parametrize("marker", [None, "", '{"seed"'])
def test_an_unfinished_folder_is_drawn_again(marker, tmp_path):
    write_scenes(tmp_path, **NUMBERS)
    (tmp_path / "scenes.json").unlink()
    if marker is not None:  # killed while it was written
        (tmp_path / "scenes.json").write_text(marker)
    (tmp_path / "images" / "train_0003.png").unlink()
    assert len(write_scenes(tmp_path, **NUMBERS).unlabelled) == 2


def test_foreign_files_and_bad_numbers_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"1 files that are no synthetic scenes, such as .*holiday\.png"):
        write_scenes(tmp_path, **NUMBERS)
    assert (tmp_path / "images" / "holiday.png").read_bytes() == b"mine"
    with pytest.raises(DataError, match="expected positive numbers"):
        write_scenes(tmp_path, **{**NUMBERS, "num_labelled": 0})
