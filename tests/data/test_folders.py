import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from co2s_hf.data.folders import (
    DataError,
    Sample,
    check_labelled,
    check_split,
    count_class_pixels,
    find_split,
    read_labels,
)
from co2s_hf.data.label_map import LabelMap, LabelMapError
from co2s_hf.raster.image import Reading
from co2s_hf.raster.write import write_image, write_mask

CLASSES = ("field", "water")
SCENE = r"(t\d)_"
RGB = Reading(count=3)


def _names(samples):
    return [sample.image.name for sample in samples]


def _image(path: Path, size=(8, 8), bands=3, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((*size, bands), 9, dtype))


def _mask(path: Path, ids=(0, 1, 255), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, np.resize(np.array(ids, np.uint8), size))


@pytest.fixture
def root(tmp_path):
    """Four scenes of three images; the first two of each scene have a mask."""
    for scene in range(4):
        for part in range(3):
            _image(tmp_path / "images" / f"t{scene}_{part}.png")
            if part < 2:
                _mask(tmp_path / "labels" / f"t{scene}_{part}.png")
    return tmp_path


@pytest.fixture
def split(root):
    return find_split(root, classes=CLASSES, labelled=["t0_0.png", "t1_0.png"], validation=["t3_[01].png"])


# ---- find_split ----


def test_everything_else_is_unlabelled_but_the_validation_scenes(root):
    split = find_split(root, classes=CLASSES, labelled=["t[01]_0.png"], validation=["t3_0.png"], scene_pattern=SCENE)
    assert split.classes == CLASSES
    assert _names(split.labelled) == ["t0_0.png", "t1_0.png"]
    assert _names(split.validation) == ["t3_0.png"]
    assert _names(split.unlabelled) == [
        "t0_1.png",
        "t0_2.png",
        "t1_1.png",
        "t1_2.png",
        "t2_0.png",
        "t2_1.png",
        "t2_2.png",
    ]
    assert split.labelled[0].scene == "t0" and split.labelled[0].mask == root / "labels" / "t0_0.png"
    assert all(sample.mask is None for sample in split.unlabelled)


def test_labelled_defaults_to_all_masks_outside_validation(root):
    split = find_split(root, classes=CLASSES, validation=["t3_0.png"])
    assert _names(split.labelled) == [f"t{s}_{p}.png" for s in range(3) for p in range(2)] + ["t3_1.png"]
    assert _names(split.unlabelled) == [f"t{s}_2.png" for s in range(4)]


@pytest.mark.parametrize("seed", range(4))
def test_fraction_holds_out_whole_scenes_from_every_part(root, seed):
    split = find_split(
        root, classes=CLASSES, unlabelled=["*.png"], scene_pattern=SCENE, validation_fraction=0.5, seed=seed
    )
    held_out = {sample.scene for sample in split.validation}
    assert len(held_out) == 2 and len(split.validation) == 4 and len(split.labelled) == 4
    assert held_out.isdisjoint(sample.scene for sample in split.labelled + split.unlabelled)
    again = find_split(
        root, classes=CLASSES, unlabelled=["*.png"], scene_pattern=SCENE, validation_fraction=0.5, seed=seed
    )
    assert split == again


def test_folders_and_subfolders(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    _image(outside / "t0_0.png")
    _image(root / "images" / "sub" / "x.png")
    _mask(root / "labels" / "sub" / "x.png")
    _image(root / "more" / "t0_0.png")
    split = find_split(
        root, classes=CLASSES, labelled=["images/sub"], unlabelled=["more", str(outside)], validation=["**/t3_0.png"]
    )
    assert [(s.image, s.mask, s.scene) for s in split.labelled] == [
        (root / "images" / "sub" / "x.png", root / "labels" / "sub" / "x.png", "sub/x")
    ]
    assert [s.image for s in split.unlabelled] == [root / "more" / "t0_0.png", outside / "t0_0.png"]
    assert len({s.scene for s in split.unlabelled}) == 2


def test_lists_as_published(root):
    (root / "mine").mkdir()
    _mask(root / "mine" / "other.png")
    (root / "labelled.txt").write_text("images/t0_0.png mine/other.png\n\nt1_0.png labels/t1_0.png\nt1_1.png\n")
    (root / "unlabelled.txt").write_text("images/t0_2.png labels/does_not_exist.png\nimages/../images/t0_2.png x\n")
    split = find_split(
        root, classes=CLASSES, labelled=["labelled.txt"], unlabelled=["unlabelled.txt"], validation=["t3_0.png"]
    )
    masks = [root / "mine" / "other.png", root / "labels" / "t1_0.png", root / "labels" / "t1_1.png"]
    assert [sample.mask for sample in split.labelled] == masks
    assert _names(split.unlabelled) == ["t0_2.png"] and split.unlabelled[0].mask is None
    (warning,) = check_split(split, RGB)
    assert warning.startswith("7 images are in no part: t0_1.png, t1_2.png, t2_0.png, t2_1.png, t2_2.png and 2 more")


def test_images_beside_the_masks_folder(tmp_path):
    for name in ("a", "b", "c"):
        _image(tmp_path / f"{name}.png")
    for name in ("a", "b"):
        _mask(tmp_path / "labels" / f"{name}.png")
    split = find_split(tmp_path, classes=CLASSES, images=".", validation=["b.png"])
    assert (_names(split.labelled), _names(split.unlabelled)) == (["a.png"], ["c.png"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "pictures"}, r"no images folder .*pictures"),
        ({"images": "labels/none"}, r"no images folder"),
        ({"labelled": ["x*.png"]}, r'labelled entry "x\*\.png" matches no image; .*it holds t0_0\.png'),
        ({"labelled": "t0_0.png"}, r'expected a list of entries, such as \["t0_0\.png"\]'),
        ({"labelled": ["none.txt"]}, r"There is no list .*none\.txt"),
        ({"validation": None}, r"No validation images are named and validation_fraction is None"),
        ({"validation": None, "validation_fraction": 1.5}, r"validation_fraction is 1\.5"),
        ({"validation": None, "validation_fraction": 0.5, "labelled": ["t0_0.png"]}, r"1 labelled image .*1 scene;"),
        (
            {"scene_pattern": r"(z\d)_"},
            r"finds no scene in 1 image name: t3_0\.png",
        ),
        ({"scene_pattern": r"t\d_"}, r"first group is the scene"),
    ],
)
def test_find_split_refuses(root, arguments, message):
    with pytest.raises(DataError, match=message):
        find_split(root, **{"classes": CLASSES, "validation": ["t3_0.png"], **arguments})


def test_empty_images_folder_and_double_masks_are_refused(root):
    (root / "nothing").mkdir()
    with pytest.raises(DataError, match=r"nothing holds no image; expected files ending in \.png"):
        find_split(root, classes=CLASSES, images="nothing", validation=["a.png"])
    (root / "labels" / "t0_0.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"t0_0\.png and .*t0_0\.tif are both masks of the same image"):
        find_split(root, classes=CLASSES, validation=["t3_0.png"])


def test_listed_images_that_are_missing_are_counted(root):
    (root / "l.txt").write_text("\n".join(f"gone{i}.png gone{i}.png" for i in range(7)))
    with pytest.raises(DataError, match=r"l\.txt names 7 images that exist neither .* gone0\.png.* and 2 more"):
        find_split(root, classes=CLASSES, labelled=["l.txt"], validation=["t3_0.png"])


# ---- check_split ----


def test_a_good_split_passes_without_warnings(split):
    assert check_split(split, RGB) == []


@pytest.mark.parametrize("part", ["labelled", "validation"])
def test_empty_parts_are_refused(split, part):
    with pytest.raises(DataError, match=f"The split has no {part} image"):
        check_split(replace(split, **{part: ()}), RGB)


def test_validation_images_in_training_are_refused(root):
    split = find_split(root, classes=CLASSES, labelled=["t0_0.png"], unlabelled=["*.png"], validation=["t3_[01].png"])
    with pytest.raises(
        DataError,
        match=r"2 validation images in training as well: .*t3_0.png: listed as unlabelled and validation; .*t3_1.png",
    ):
        check_split(split, RGB)
    split = find_split(root, classes=CLASSES, labelled=["t3_0.png"], validation=["t3_[01].png"])
    with pytest.raises(
        DataError,
        match=r"1 validation image in training as well: .*t3_0.png: listed as labelled and validation\. .*out of one",
    ):
        check_split(split, RGB)


def test_missing_masks_are_listed_with_the_place_to_put_them(root):
    split = find_split(root, classes=CLASSES, labelled=["t0_*.png"], validation=["t3_0.png"])
    with pytest.raises(
        DataError, match=r"1 .*image without a mask: .*t0_2\.png: expected its mask at .*labels/t0_2\.\*"
    ):
        check_split(split, RGB)
    with pytest.raises(DataError, match="without a mask"):
        check_split(replace(split, labelled=(Sample(root / "images" / "t0_0.png", None, "t0"),)), RGB)


def test_masks_of_another_size_are_refused(root, split):
    _mask(root / "labels" / "t0_0.png", size=(4, 8))
    with pytest.raises(DataError, match=r"1 mask not of the size .*t0_0\.png is 8x4, t0_0\.png is 8x8"):
        check_split(split, RGB)


def test_ids_of_no_class_are_refused(root, split):
    _mask(root / "labels" / "t3_1.png", ids=(0, 2, 7, 255))
    with pytest.raises(
        DataError, match=r"1 mask with values that mean no class: .*t3_1\.png has ids 2, 7\. Expected 0 field, 1 water"
    ):
        check_split(split, RGB)


def test_colour_masks_are_refused(root, split):
    _image(root / "labels" / "t0_0.png")
    with pytest.raises(DataError, match=r"1 mask with values that mean no class: .*t0_0\.png has colours #090909"):
        check_split(split, RGB)


@pytest.mark.parametrize("name", ["images/t0_0.png", "images/t2_2.png", "labels/t3_0.png"])
def test_truncated_files_are_refused(root, split, name):
    noise = np.random.default_rng(0).integers(0, 2, (64, 64), dtype=np.uint8)
    write_image(root / "images" / Path(name).name, np.dstack([noise] * 3))
    write_mask(root / "labels" / Path(name).name, noise)
    path = root / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=rf"1 unusable file: .*{re.escape(name)} cannot be read"):
        check_split(split, RGB)


def test_unlabelled_decoding_can_be_left_out(root, split):
    (root / "images" / "t2_2.png").write_bytes(b"no image")
    assert check_split(split, RGB, decode_unlabelled=False) == []


def test_unlabelled_masks_are_never_opened(root, split):
    (root / "labels" / "t2_0.png").write_bytes(b"no image")
    assert check_split(split, RGB) == []


def test_other_numbers_of_bands_are_refused(root, split):
    _image(root / "images" / "t2_2.png", bands=1)
    with pytest.raises(
        DataError, match=r"1 image with another number of bands than wanted: .*t2_2\.png has 1 band; expected 3"
    ):
        check_split(split, RGB)


def test_warnings(root):
    for scene, ids in ((0, (0,)), (3, (1,))):
        _mask(root / "labels" / f"t{scene}_0.png", ids)
    _image(root / "images" / "t3_1.png")
    split = find_split(
        root, classes=CLASSES, labelled=["t0_0.png"], unlabelled=["t3_[12].png"], validation=["t3_0.png"],
        scene_pattern=SCENE,
    )  # fmt: skip
    assert check_split(split, RGB) == [
        "Classes without a labelled pixel, never learned: water.",
        "Classes without a validation pixel, never measured: field.",
        "1 of 1 validation scenes (t3) are in training as well: 2 of 3 training images are neighbours of validation "
        "images, so that validation flatters the model. Hold out whole scenes, or read the validation numbers as too "
        "good.",
        "8 images are in no part: t0_1.png, t0_2.png, t1_0.png, t1_1.png, t1_2.png and 3 more. Add them to the "
        "unlabelled images, unless they are held out on purpose.",
    ]


def test_alpha_is_a_band_where_the_model_takes_four(root):
    for path in (root / "images").iterdir():
        Image.fromarray(np.full((8, 8, 4), 9, np.uint8)).save(path)
    split = find_split(root, classes=CLASSES, labelled=["t0_0.png"], validation=["t3_0.png"])
    for num_bands in (3, 4):
        check_split(split, Reading(count=num_bands))
    with pytest.raises(
        DataError,
        match=r"12 images with another number of bands than wanted: .* has 3 bands and alpha; expected 5.*--bands",
    ):
        check_split(split, Reading(count=5))


# ---- globs and label maps ----


def test_images_and_masks_by_glob_share_what_the_wildcards_stand_for(tmp_path):
    for name in ("1_sat", "2_sat", "3_sat", "readme"):
        _image(tmp_path / "data" / "sub" / f"{name}.png")
    for name in ("1_mask", "2_mask", "4_mask"):
        _mask(tmp_path / "data" / "sub" / f"{name}.png")
    globs = dict(images="data/**/*_sat.png", masks="data/**/*_mask.png")
    split = find_split(tmp_path, classes=CLASSES, validation=["**/2_sat.png"], **globs)
    assert [(s.image.name, s.mask.name) for s in split.labelled] == [("1_sat.png", "1_mask.png")]
    assert [s.mask.name for s in split.validation] == ["2_mask.png"]
    assert _names(split.unlabelled) == ["3_sat.png"]
    assert [path.name for path in split.unused] == ["4_mask.png"] and split.lone_masks == split.unused
    with pytest.raises(DataError, match=r"holds no image that \*\.jpg matches"):
        find_split(tmp_path, classes=CLASSES, images="data/*.jpg", validation=["a"])


@pytest.fixture
def coloured(root):
    """The split of the folder, with masks of two colours and a map for them."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = (255, 0, 0)
    for path in (root / "labels").iterdir():
        write_image(path, pixels)
    label_map = LabelMap((((255, 0, 0), 1), ((0, 0, 0), 255)))
    return find_split(root, classes=CLASSES, labelled=["t0_0.png"], validation=["t3_0.png"], label_map=label_map)


def test_a_label_map_is_applied_wherever_labels_are_read(coloured):
    (sample,) = coloured.labelled
    assert read_labels(sample).tolist() == [[1] * 8] * 4 + [[255] * 8] * 4
    assert count_class_pixels([sample, replace(sample, mask=None)], 2, RGB) == {sample.image: [0, 32]}
    assert check_labelled(coloured.labelled, CLASSES, RGB) == [
        "Classes without a validation pixel, never measured: field."
    ]
    assert all(s.label_map == sample.label_map for s in coloured.labelled + coloured.validation)


def test_values_that_the_map_does_not_name_are_refused(coloured):
    short = LabelMap((((255, 0, 0), 1),))
    wrong = replace(coloured, labelled=tuple(replace(s, label_map=short) for s in coloured.labelled))
    with pytest.raises(
        DataError, match=r"label_map does not name #000000 \(32 px\), which .*t0_0\.png holds\. Add each"
    ):
        check_split(wrong, RGB)
    with pytest.raises(LabelMapError, match=r"t0_0\.png: The mask holds #000000 \(32 px\)"):
        read_labels(wrong.labelled[0])


def test_an_encoding_that_looks_mistaken_is_refused(root):
    lowered = LabelMap(((0, 255), (1, 0), (2, 1), (255, 255)))
    split = find_split(root, classes=CLASSES, labelled=["t0_0.png"], validation=["t3_0.png"], label_map=lowered)
    with pytest.raises(DataError, match=r"do not fit their label map: .*reduce_zero_label twice.* Map 0 to field"):
        check_split(split, RGB)


def test_lists_that_are_no_text_and_names_that_no_file_has_are_named(root):
    (root / "names.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="names.txt is not UTF-8 text"):
        find_split(root, classes=CLASSES, labelled=["names.txt"], validation=["t3_0.png"])
    (root / "names.txt").write_text("x" * 5000)
    with pytest.raises(DataError, match="names.txt names 1 image that exist neither"):
        find_split(root, classes=CLASSES, labelled=["names.txt"], validation=["t3_0.png"])
    with pytest.raises(DataError, match='The entry "a/\\*\\*b" is no glob'):
        find_split(root, classes=CLASSES, labelled=["a/**b"], validation=["t3_0.png"])
    deep = "**/a/**/b/**/*.png"
    with pytest.raises(DataError, match=r"is no glob \(it has \*\* 3 times, more than 2\)"):
        find_split(root, classes=CLASSES, labelled=[deep], validation=["t3_0.png"])
    with pytest.raises(DataError, match=r"b/\*\*/\*.png\" cannot be used \(it has \*\* 3 times"):
        find_split(root, classes=CLASSES, images=deep, labelled=["*"], validation=["t3_0.png"])
