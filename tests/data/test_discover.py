"""The first dataset.yaml: files are reported as they are, and what they cannot show stays open."""

import json

import numpy as np
import pytest
from PIL import Image

from co2s_hf.data.description import DatasetDescription, DescriptionError, write_document
from co2s_hf.data.discover import discover
from co2s_hf.data.folders import DataError
from co2s_hf.raster.write import write_image, write_mask


def fill(root, *, names=("a", "b"), ids=(0, 1, 255), images="images", masks="labels", suffix=".png", bands=3):
    """Write images of 4 x 6 px, with masks where `masks` names a folder."""
    for folder in filter(None, (images, masks)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        pixels = np.full((4, 6, bands), 10 * value, np.uint8)
        Image.fromarray(pixels if bands == 3 else pixels[..., 0]).save(root / images / f"{name}{suffix}")
        if masks:
            write_mask(root / masks / f"{name}.png", np.resize(np.array(ids, np.uint8), (4, 6)))
    return root


def test_what_files_show_is_written_and_the_rest_is_open(tmp_path):
    document = discover(fill(tmp_path)).document
    assert (document["images"], document["masks"], document["root"]) == ("images", "labels", str(tmp_path))
    bands = document["bands"]
    assert (bands["count"], bands["names"], bands["rgb"]) == (3, ["red", "green", "blue"], [0, 1, 2])
    assert (bands["dtype"], bands["mean"], bands["std"]) == ("uint8", [5.0] * 3, [5.0] * 3)
    assert list(document["label_map"]) == [0, 1, 255]
    assert document["label_map"][255] == "TODO: class of 255 (33.33 % of the pixels), or ignore"
    assert [one["name"] for one in document["classes"]] == ["TODO: a class"] * 3
    write_document(tmp_path / "dataset.yaml", document)
    with pytest.raises(DescriptionError) as refusal:
        DatasetDescription.load(tmp_path / "dataset.yaml")
    assert len(refusal.value.problems) == 6


def test_names_of_classes_come_from_their_file(tmp_path):
    classes = [dict(id=1, name="land", source_color="#00FF00"), dict(id=0, name="sea", source_color="#0000FF")]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes, "ignore_index": 255}))
    document = discover(fill(tmp_path)).document
    assert document["label_map"] == {0: "sea", 1: "land", 255: "ignore"}
    assert [one["name"] for one in document["classes"]] == ["sea", "land"]
    write_document(tmp_path / "dataset.yaml", document)
    assert DatasetDescription.load(tmp_path / "dataset.yaml").classes[0].colour == (0, 0, 255)

    for path in (tmp_path / "labels").iterdir():
        write_image(path, np.array([[[0, 0, 255], [1, 1, 1]]], np.uint8))
    label_map = discover(tmp_path).document["label_map"]
    assert label_map == {"#010101": "TODO: class of #010101 (50.00 % of the pixels), or ignore", "#0000FF": "sea"}


def test_a_broken_file_of_classes_is_not_used(tmp_path):
    (tmp_path / "classes.json").write_text('{"classes": [{"name": "sea"}]}')
    found = discover(fill(tmp_path))
    assert any("classes.json is not used: expected classes with id and name" in note for note in found.notes)


def test_a_prepared_folder_says_everything(tmp_path):
    record = dict(classes=["sea", "land"], palette=[[0, 0, 255], [0, 255, 0]], ignore=255, name_pattern=r"^(a|b)")
    (tmp_path / "prepared.json").write_text(json.dumps(record))
    document = discover(fill(tmp_path)).document
    assert document["label_map"] == {0: "sea", 1: "land", 255: "ignore"} and document["scene_pattern"] == r"^(a|b)"


def test_names_that_look_like_scenes_ask_for_a_pattern(tmp_path):
    pattern = discover(fill(tmp_path, names=("t1_0", "t1_1", "t2_0"))).document["scene_pattern"]
    assert pattern.startswith("TODO") and "2 scenes of 3 images, such as t1" in pattern


def test_a_pool_lists_and_subfolders_become_the_split(tmp_path):
    fill(tmp_path, images="JPEGImages", masks="SegmentationClass")
    fill(tmp_path, names=("u",), images="unlabeled", masks=None)
    fill(tmp_path, names=("v",), images="JPEGImages/val", masks="SegmentationClass/val")
    (tmp_path / "labeled.txt").write_text("a.png")
    splits = discover(tmp_path).document["splits"]
    assert splits["labelled"] == ["labeled.txt"] and splits["unlabelled"] == ["unlabeled"]
    assert splits["validation"] == ["val/**/*"] and splits["validation_fraction"] is None


def test_three_bands_of_a_tiff_may_be_any(tmp_path):
    bands = discover(fill(tmp_path, suffix=".tif")).document["bands"]
    assert all(name.startswith("TODO: name of band") for name in bands["names"]) and bands["rgb"].startswith("TODO")
    assert discover(fill(tmp_path / "grey", bands=1)).document["bands"]["names"] == ["grey"]


def test_images_that_differ_and_files_that_are_broken(tmp_path):
    fill(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "grey.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    found = discover(tmp_path)
    assert "2 with 3 bands of uint8, 1 with 1 bands of uint8" in found.document["bands"]["count"]
    assert any("broken.png cannot be read" in note for note in found.notes)


def test_folders_that_cannot_be_described(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        discover(tmp_path / "none")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"has no folder of images: expected one named .* found pictures"):
        discover(tmp_path)
    fill(tmp_path / "smeared", masks="masks", names=("a",))
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "smeared" / "masks" / "a.png", noise)
    with pytest.raises(DataError, match=r"hold 900 different values; expected at most 255.* export them as PNG"):
        discover(tmp_path / "smeared")
