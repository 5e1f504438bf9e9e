"""The first dataset.yaml: files are reported as they are, and what they cannot show stays open."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from co2s_hf.__main__ import main
from co2s_hf.data.description import DatasetDescription, DescriptionError, write_document
from co2s_hf.data.discover import Answers, discover
from co2s_hf.data.folders import DataError, find_split
from co2s_hf.raster.image import NoData
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


def without_colours(folder):
    """Write the TIFFs of a folder again, with bands of which they do not say what they show."""
    for path in (folder / "images").iterdir():
        pixels = np.array(Image.open(path)).transpose(2, 0, 1)
        size = dict(count=3, height=pixels.shape[1], width=pixels.shape[2], dtype="uint8")
        transform = rasterio.Affine(1, 0, 500, 0, -1, 900)
        with rasterio.open(path, "w", "GTiff", photometric="MINISBLACK", transform=transform, **size) as file:
            file.write(pixels)
    return folder


def test_three_bands_of_a_tiff_are_named_by_its_colours_else_by_a_person(tmp_path):
    found = discover(fill(tmp_path / "rgb", suffix=".tif"))
    assert found.document["bands"]["names"] == ["red", "green", "blue"] and found.document["bands"]["rgb"] == [0, 1, 2]
    assert any("as the files colour them" in note and "--bands NAME" in note for note in found.notes)
    bands = discover(without_colours(fill(tmp_path / "any", suffix=".tif"))).document["bands"]
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


def test_classes_on_the_command_line_leave_nothing_to_say(tmp_path, capsys):
    fill(tmp_path, names=("t1_0", "t1_1", "t2_0"), ids=(0, 1, 2, 255))
    assert main(["data", "init", str(tmp_path), "--classes", "sea", "1", "2", "--accept"]) == 0
    assert "what is left to say" not in capsys.readouterr().out
    loaded = DatasetDescription.load(tmp_path / "dataset.yaml")
    assert loaded.class_names == ("sea", "1", "2") and loaded.scene_pattern == "([^/_.-]+)[_-]"
    assert dict(loaded.label_map.entries) == {0: 0, 1: 1, 2: 2, 255: 255}


def test_what_is_left_is_asked_in_one_message(tmp_path, capsys):
    without_colours(fill(tmp_path, names=("t1_0", "t1_1", "t2_0"), suffix=".tif"))
    assert main(["data", "init", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    left = said.split("what is left to say")[1]
    for answer in ("--classes NAME", "--bands NAME", "--accept, or --scene_pattern"):
        assert left.count(answer) == 1
    with pytest.raises(DescriptionError, match="or give `co2s data init` --classes NAME"):
        DatasetDescription.load(tmp_path / "dataset.yaml")


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        (
            (0, 1, 5),
            ["a", "b"],
            r"hold 0 \(16 px\), 1 \(16 px\), 5 \(16 px\); .*says 0 a, 1 b, 255 ignore. 5 .* no meaning",
        ),
        ((1, 2, 255), ["a", "b"], r"2 \(16 px\) would have no meaning.*--classes a=1 b=2"),
        ((0, 255), ["ground", "roof"], r"nothing but ground is left.*--classes ground=0 roof=255"),
        ((0, 255), ["roof"], r"--classes background=0 roof=255"),
        ((0, 1), ["a", "b=1"], "gives values for b alone"),
        ((0, 1), ["a", "a"], "names a class twice"),
        ((0, 1), ["a=0", "b=0"], "gives one value twice"),
    ],
)
def test_classes_that_do_not_fit_the_masks(tmp_path, ids, classes, message):
    with pytest.raises(DataError, match=message):
        discover(fill(tmp_path, ids=ids), Answers(classes=classes))


def test_classes_with_their_values(tmp_path):
    fill(tmp_path, ids=(0, 255))
    document = discover(tmp_path, Answers(classes=["ground=0", "roof=255"])).document
    assert document["label_map"] == {0: "ground", 255: "roof"}
    document = discover(tmp_path, Answers(classes=["roof=255", "ignore=0"])).document
    assert document["label_map"] == {0: "ignore", 255: "roof"} or document["label_map"] == {255: "roof", 0: "ignore"}
    for path in (tmp_path / "labels").iterdir():
        write_image(path, np.array([[[0, 0, 255], [1, 1, 1]]], np.uint8))
    document = discover(tmp_path, Answers(classes=["sea=#0000FF", "ignore=#010101"])).document
    assert document["label_map"] == {"#0000FF": "sea", "#010101": "ignore"}
    assert document["classes"] == [{"name": "sea", "colour": "#0000FF", "concepts": None}]


@pytest.mark.parametrize(
    ("of_image", "of_mask", "globs"),
    [
        ("{}", "{}_color", ("images/*.png", "labels/*_color.png")),
        ("{}", "mask_{}", ("images/*.png", "labels/mask_*.png")),
        ("{}_sat", "{}_gt_mask", ("images/*_sat.png", "labels/*_gt_mask.png")),
        ("{}", "{}", ("images", "labels")),
    ],
)
def test_masks_of_other_names_become_globs(tmp_path, of_image, of_mask, globs):
    fill(tmp_path, names=[of_image.format(f"x{i}") for i in range(4)], masks=None)
    (tmp_path / "labels").mkdir()
    for i in range(4):
        write_mask(tmp_path / "labels" / f"{of_mask.format(f'x{i}')}.png", np.full((4, 6), i % 2, np.uint8))
    write_mask(tmp_path / "labels" / f"{of_mask.format('x9')}.png", np.zeros((4, 6), np.uint8))
    document = discover(tmp_path).document
    assert (document["images"], document["masks"]) == globs and list(document["label_map"]) == [0, 1]
    split = find_split(
        tmp_path, classes=("a", "b"), images=globs[0], masks=globs[1], validation=[of_image.format("x3") + ".png"]
    )
    assert len(split.labelled) == 3 and len(split.lone_masks) == 1


def test_images_and_masks_in_one_folder_and_masks_of_two_kinds(tmp_path):
    one = tmp_path / "one"
    fill(one, names=["1_sat", "2_sat"], images="data", masks=None)
    (one / "data").rename(one / "images")
    for name in ("1_mask", "2_mask"):
        write_mask(one / "images" / f"{name}.png", np.zeros((4, 6), np.uint8))
    document = discover(one).document
    assert (document["images"], document["masks"]) == ("images/*_sat.png", "images/*_mask.png")
    two = fill(tmp_path / "two", names=["a", "b"], masks=None)
    (two / "labels").mkdir()
    for name in ("a_id", "b_id", "a_color", "b_color"):
        write_mask(two / "labels" / f"{name}.png", np.zeros((4, 6), np.uint8))
    masks = discover(two).document["masks"]
    assert masks.startswith("TODO") and "labels/*_id.png" in masks and "labels/*_color.png" in masks
    assert discover(two, Answers(masks="labels/*_id.png")).document["label_map"].keys() == {0}


def rgba(root, alpha):
    fill(root, names=("a", "b"))
    rng = np.random.default_rng(0)
    pixels = {}
    for name in "ab":
        pixels[name] = np.dstack([rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), alpha])
        Image.fromarray(pixels[name], "RGBA").save(root / "images" / f"{name}.png")
    return np.stack(list(pixels.values())).reshape(-1, 4).astype(np.float64)


def test_a_full_or_empty_alpha_is_transparency(tmp_path):
    alpha = np.full((4, 6), 255, np.uint8)
    alpha[0] = 0
    pixels = rgba(tmp_path, alpha)
    found = discover(tmp_path)
    bands = found.document["bands"]
    assert (bands["count"], bands["names"]) == (3, ["red", "green", "blue"])
    np.testing.assert_allclose(bands["mean"], pixels[pixels[:, 3] > 0, :3].mean(0), rtol=1e-5)
    assert any("transparency, which hides 25.00 %; --alpha band keeps it" in note for note in found.notes)


def test_an_alpha_of_other_values_is_a_question(tmp_path):
    pixels = rgba(tmp_path, np.arange(24, dtype=np.uint8).reshape(4, 6))
    document = discover(tmp_path, Answers(classes=("a", "b"))).document
    count = document["bands"]["count"]
    assert count.startswith("TODO: 3 if the last band is transparency, 4 if it is a band such as near infrared")
    assert "it is 0 in 4.17 % of the pixels" in count
    np.testing.assert_allclose(document["bands"]["mean"], pixels.mean(0), rtol=1e-5)
    for answer, names in ((3, ("red", "green", "blue")), (4, ("red", "green", "blue", "alpha"))):
        document["bands"]["count"] = answer
        write_document(tmp_path / "dataset.yaml", document, force=True)
        bands = DatasetDescription.load(tmp_path / "dataset.yaml").bands
        assert bands.names == names and len(bands.mean) == len(bands.std) == answer
    for answer, count in (("transparency", 3), ("band", 4)):
        bands = discover(tmp_path, Answers(alpha=answer)).document["bands"]
        assert bands["count"] == len(bands["names"]) == count
        kept = pixels[pixels[:, 3] > 0, :3] if count == 3 else pixels
        np.testing.assert_allclose(bands["std"], kept.std(0), rtol=1e-5)


def test_nodata_counts_in_no_statistic_and_borders_of_jpeg_are_noticed(tmp_path):
    fill(tmp_path, names=("a", "b", "c"))
    rng = np.random.default_rng(0)
    for name in "abc":
        pixels = rng.integers(100, 200, (32, 32, 3), dtype=np.uint8)
        pixels[:, :8] = 0
        (tmp_path / "images" / f"{name}.png").unlink()
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg", quality=95)
    found = discover(tmp_path)
    (note,) = [note for note in found.notes if "borders" in note]
    assert note.startswith("3 JPEG images have dark borders") and "--nodata 0 --nodata_within 12" in note
    clean = discover(tmp_path, Answers(nodata=NoData(0.0, 12.0)))
    assert clean.document["nodata"] == {"value": 0, "within": 12.0}
    assert not any("borders" in note for note in clean.notes)
    assert min(clean.document["bands"]["mean"]) > 140 > 125 > max(found.document["bands"]["mean"])
