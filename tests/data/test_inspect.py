"""One inspection for training and the report: what people's files really hold, each kind with its value."""

import warnings

import numpy as np
import pytest
import rasterio
import rasterio.errors
from affine import Affine
from PIL import Image

from co2s_hf.data.folders import (
    DataError,
    Sample,
    check_split,
    count_class_pixels,
    find_split,
    read_labels,
    read_sample,
)
from co2s_hf.data.label_map import LabelMap
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import FileWindow, NoData, Reading

CLASSES = ("field", "water", "road")
SIZE = (12, 16)
RNG = np.random.default_rng(0)


def tiff(path, pixels, **profile):
    """Write (bands, H, W) with rasterio; `nodata`, `crs`, `transform`, `photometric` and so on as it takes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    count, height, width = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **profile
        ) as dataset:
            dataset.write(pixels)
    return path


def from_origin(x, y, across, down):
    return Affine(across, 0, x, 0, -down, y)


def ids(*values, shape=SIZE, dtype=np.uint8):
    return np.resize(np.array(values, dtype), shape)


@pytest.fixture
def root(tmp_path):
    """Three images with masks of all classes, and one without."""
    for name in "abcu":
        tiff(tmp_path / "images" / f"{name}.tif", RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8))
        if name != "u":
            tiff(tmp_path / "labels" / f"{name}.tif", ids(0, 1, 2, 255))
    return tmp_path


def split_of(root, **changes):
    options = dict(classes=CLASSES, labelled=["a.*", "b.*"], validation=["c.*"]) | changes
    return find_split(root, **options)


def warned(root, reading=Reading(count=3), **changes):  # noqa: B008  # frozen
    return check_split(split_of(root, **changes), reading)


def refused(root, reading=Reading(count=3), **changes):  # noqa: B008  # frozen
    with pytest.raises(DataError) as refusal:
        check_split(split_of(root, **changes), reading)
    return str(refusal.value)


# ---- values of masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"])
def test_masks_of_any_type(root, dtype):
    tiff(root / "labels" / "a.tif", ids(0, 1, 2, 255).astype(dtype))
    assert warned(root) == []
    assert (read_labels(split_of(root).labelled[0]) == ids(0, 1, 2, 255)).all()


@pytest.mark.parametrize("nodata", [-32768, -9999])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_nodata_of_a_mask_is_no_label(root, nodata, is_mapped):
    tiff(root / "labels" / "a.tif", ids(0, nodata, 2, dtype=np.int16), nodata=nodata)
    label_map = LabelMap(((0, 0), (1, 1), (2, 2), (255, 255))) if is_mapped else None
    assert warned(root, label_map=label_map) == []
    assert (read_labels(split_of(root, label_map=label_map).labelled[0]) == ids(0, 255, 2)).all()


@pytest.mark.parametrize("value", [-9999, -1, 241, 256, 70000])
def test_ids_of_no_class_are_named_as_they_stand_in_the_file(root, value):
    tiff(root / "labels" / "a.tif", ids(0, value, 2, dtype=np.int32))
    assert f"labels/a.tif has ids {value}. Expected 0 field" in refused(root)


@pytest.mark.parametrize("photometric", ["MINISWHITE", "MINISBLACK"])
def test_one_bit_masks_are_what_gdal_reads(root, photometric):
    stored = ids(0, 1, 1)
    path = tiff(root / "labels" / "a.tif", stored, nbits=1, photometric=photometric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path) as dataset:
            expected = dataset.read(1)
    assert (read_labels(split_of(root).labelled[0]) == expected).all() and set(expected.ravel()) == {0, 1}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_lie_as_their_masks_do(tmp_path, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255
    turns = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p), 7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "images").mkdir()
    stored = np.ascontiguousarray(turns[orientation](upright))
    Image.fromarray(stored).save(tmp_path / "images" / "a.jpg", exif=exif, quality=100)
    tiff(tmp_path / "labels" / "a.tif", (upright[..., 0] > 0).astype(np.uint8))
    sample = Sample(tmp_path / "images" / "a.jpg", tmp_path / "labels" / "a.tif", "a")
    raster, labels = read_sample(sample, Reading(count=3))
    assert ((raster.pixels[0] > 128) == (labels == 1)).mean() > 0.95


@pytest.mark.parametrize("is_mapped", [False, True])
def test_binary_masks_of_0_and_255_are_refused(root, is_mapped):
    for name in "abc":
        tiff(root / "labels" / f"{name}.tif", ids(0, 255))
    label_map = LabelMap(((0, 0), (1, 1), (255, 255))) if is_mapped else None
    said = refused(root, classes=("background", "building"), label_map=label_map)
    assert "0 (192 px) and 255 (192 px) alone" in said and "`0: background`, `255: building`" in said
    meant = LabelMap(((0, 0), (255, 1)))
    assert warned(root, classes=("background", "building"), label_map=meant) == []


@pytest.mark.parametrize(("names", "part"), [("ab", "labelled"), ("c", "validation")])
def test_a_part_without_any_label_is_refused(root, names, part):
    for name in names:
        tiff(root / "labels" / f"{name}.tif", ids(255))
    assert f"No pixel of the {part} images has a class; their masks hold 255" in refused(root)


# ---- labels where the image holds no data ----------------------------------------------------------------------------


@pytest.fixture
def hidden(root):
    """Water lies where the labelled images hold no data, and nowhere else; half of the road does."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:4], labels[4:8] = 1, 2
    for name in "ab":
        pixels = RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8)
        pixels[:, :6] = 0
        tiff(root / "images" / f"{name}.tif", pixels, nodata=0)
        tiff(root / "labels" / f"{name}.tif", labels)
    return root


def test_training_counts_what_it_sees(hidden):
    split = split_of(hidden)
    counts = count_class_pixels(split.labelled, 3, Reading(count=3))
    assert list(counts.values()) == [[4 * 16, 0, 2 * 16]] * 2
    assert (read_sample(split.labelled[0], Reading(count=3))[1][:6] == 255).all()
    absent, *others = warned(hidden)
    assert absent == "Classes without a labelled pixel, never learned: water."
    assert any(
        "All labelled pixels of water lie where the image holds no data (nodata value 128 px)" in one for one in others
    )
    assert any(
        "64 labelled pixels of road lie where the image holds no data (nodata value 64 px)" in one for one in others
    )


def test_every_reason_hides_and_is_named(root):
    pixels = RNG.integers(20, 250, (4, *SIZE), dtype=np.uint8)
    pixels[3] = 255
    pixels[3, :3] = 0
    pixels[:3, 3:5] = 7
    tiff(root / "images" / "a.tif", pixels, photometric="RGB", alpha="yes")
    said = " ".join(warned(root, Reading(count=3, nodata=NoData(7.0))))
    of_class = [int((ids(0, 1, 2, 255)[:5] == i).sum()) for i in range(3)]
    by_alpha = [int((ids(0, 1, 2, 255)[:3] == i).sum()) for i in range(3)]
    for label, total, alpha in zip(CLASSES, of_class, by_alpha, strict=True):
        assert f"{total} labelled pixels of {label} lie" in said
        assert f"(alpha {alpha} px, declared nodata {total - alpha} px)" in said
    assert "and 4 of 1 images is taken for alpha, transparency: it hides 25.00 % of their pixels" in said


def test_a_band_called_alpha_that_holds_values_is_asked_about(root):
    for name in "abcu":
        pixels = RNG.integers(1, 250, (4, *SIZE), dtype=np.uint8)
        tiff(root / "images" / f"{name}.tif", pixels, photometric="RGB", alpha="yes")
    (said,) = warned(root)
    assert "in 4 images it holds more than 0 and the full value, as a band would" in said
    assert warned(root, Reading(count=4)) == []


# ---- place -----------------------------------------------------------------------------------------------------------

UTM = "EPSG:32633"


def placed(root, name, kind, pixels, corner=(0, 0), px=1.0, crs=UTM):
    transform = from_origin(500000 + corner[0], 5400000 - corner[1], px, px)
    tiff(root / kind / f"{name}.tif", pixels, crs=crs, transform=transform)


def test_masks_are_laid_on_the_grid_of_their_image(root):
    for name in "abc":
        placed(root, name, "images", RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8))
        placed(root, name, "labels", ids(0, 1, 2))
    assert warned(root) == []
    whole = RNG.integers(0, 3, (24, 32), dtype=np.uint8)
    placed(root, "a", "labels", whole, corner=(-8, -6))  # larger: its pixel (6, 8) is the first of the image
    placed(root, "b", "labels", ids(0, 1, 2, shape=(6, 8)), px=2.0)
    split = split_of(root)
    assert (read_labels(split.labelled[0]) == whole[6:18, 8:24]).all()
    assert (read_labels(split.labelled[1]) == ids(0, 1, 2, shape=(6, 8)).repeat(2, 0).repeat(2, 1)).all()
    (said,) = warned(root)
    assert said.startswith("2 masks on another grid than the image: ")
    assert "a.tif: its corner lies -8 px right and -6 px down of that of the image (32x24 px for 16x12)" in said
    placed(root, "a", "labels", ids(0, 1, 2), corner=(8, 0))
    labels = read_labels(split_of(root).labelled[0])
    assert (labels[:, :8] == 255).all() and (labels[:, 8:] == ids(0, 1, 2)[:, :8]).all()


def test_a_mask_elsewhere_or_of_another_size_is_refused(root):
    for name in "abc":
        placed(root, name, "images", RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8))
        placed(root, name, "labels", ids(0, 1, 2))
    placed(root, "a", "labels", ids(0, 1, 2), corner=(5000, 0))
    assert "a.tif and its image do not overlap on the ground" in refused(root)
    tiff(root / "labels" / "a.tif", ids(0, 1, 2, shape=(12, 17)))
    assert "labels/a.tif is 17x12, a.tif is 16x12 (width x height)" in refused(root)


def test_a_mask_in_another_crs(root):
    from pyproj import Transformer

    placed(root, "a", "images", RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8), px=10.0)
    # A mask in degrees that covers the image: its western half is 1, its eastern half 2.
    to_degrees = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    west, south = to_degrees.transform(500000 - 100, 5400000 - 220)
    east, north = to_degrees.transform(500000 + 260, 5400000 + 100)
    labels = np.ones((40, 40), np.uint8)
    labels[:, 20:] = 2
    tiff(
        root / "labels" / "a.tif", labels, crs="EPSG:4326",
        transform=from_origin(west, north, (east - west) / 40, (north - south) / 40),
    )  # fmt: skip
    read = read_labels(split_of(root).labelled[0])
    x = 500000 + 10 * (np.arange(16) + 0.5)
    longitudes, _ = to_degrees.transform(x, np.full(16, 5400000 - 60.0))
    expected = np.where(longitudes < (west + east) / 2, 1, 2)
    assert (read[6] == expected).all() and set(expected) == {1, 2}
    assert any("on another grid" in one for one in warned(root))


# ---- files that are not used -----------------------------------------------------------------------------------------


def test_every_file_that_is_not_used_is_named(root):
    tiff(root / "labels" / "U.tif", ids(0, 1))
    tiff(root / "labels" / "m_color.tif", ids(0, 1))
    tiff(root / "labels" / "far.tif", ids(0, 1))
    tiff(root / "labels" / "jp.tif", ids(0, 1))
    for name in ("jp.jp2", "grid.npy"):
        (root / "images" / name).write_bytes(b"other")
    for name in ("a.tif.aux.xml", "a.tfw", "a.tif.msk", "notes.txt"):
        (root / "images" / name).write_text("")
    tiff(root / "images" / "m.tif", RNG.integers(20, 250, (3, *SIZE), dtype=np.uint8))
    split = split_of(root, unlabelled=["u.tif"])
    assert [path.name for path in split.unused] == [
        "grid.npy", "jp.jp2", "m.tif", "U.tif", "far.tif", "jp.tif", "m_color.tif",
    ]  # fmt: skip
    said = " ".join(warned(root, unlabelled=["u.tif"]))
    assert "4 masks without an image: " in said and "U.tif: u differs in letter case only" in said
    assert "m_color.tif: m is part of the name" in said and "far.tif: no image has this name" in said
    assert "jp.tif: jp.jp2 is of a format that is not read" in said
    assert "1 images are in no part: m.tif" in said
    assert "2 files are of formats that are not read: grid.npy, jp.jp2" in said


def test_a_labelled_image_whose_mask_differs_in_case(root):
    (root / "labels" / "a.tif").rename(root / "labels" / "A.tif")
    assert "found none, but A differs in letter case only" in refused(root)


def test_masks_of_other_names_are_recognised_in_the_message(root):
    for name in "abc":
        (root / "labels" / f"{name}.tif").rename(root / "labels" / f"{name}_color.tif")
    with pytest.raises(
        DataError, match=r"None of the 4 images, such as a\.tif, has one of the 3 masks, such as a_color"
    ):
        find_split(root, classes=CLASSES, validation_fraction=0.3)
    with pytest.raises(DataError, match=r"images: images/\*\.tif and masks: labels/\*_color\.tif"):
        find_split(root, classes=CLASSES, validation_fraction=0.3)
    found = find_split(root, classes=CLASSES, images="images/*.tif", masks="labels/*_color.tif", validation=["c.tif"])
    assert [sample.mask.name for sample in found.labelled] == ["a_color.tif", "b_color.tif"]


# ---- values of images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clouds", "is_dark"), [(0, True), (0.01, True), (0.05, False)])
def test_dark_images_of_16_bits_by_their_percentiles(root, clouds, is_dark):
    for name in "abcu":
        pixels = np.random.default_rng(1).integers(400, 3000, (3, 100, 100)).astype(np.uint16)
        pixels[:, : round(100 * clouds)] = 65535
        tiff(root / "images" / f"{name}.tif", pixels)
        if name != "u":
            tiff(root / "labels" / f"{name}.tif", ids(0, 1, 2, shape=(100, 100)))
    said = warned(root)
    assert any("sees them nearly black. Train with" in one and "--image_mean" in one for one in said) == is_dark


def test_reflectances_as_floats_and_scaled_integers_pass(root):
    tiff(root / "images" / "a.tif", RNG.random((3, *SIZE), dtype=np.float32))
    scaled = RNG.integers(0, 3000, (3, *SIZE)).astype(np.int16)
    with rasterio.open(
        tiff(root / "images" / "b.tif", scaled, crs=UTM, transform=from_origin(0, 9, 1, 1)), "r+"
    ) as file:
        file.scales, file.offsets = [1e-4] * 3, [-0.1] * 3
    assert warned(root) == []
    raster, _ = read_sample(split_of(root).labelled[1], Reading(count=3))
    np.testing.assert_allclose(raster.unit, scaled * 1e-4 - 0.1, atol=1e-7)
    tiff(root / "images" / "u.tif", scaled)
    assert "does not say what they mean" in refused(root)
    assert warned(root, Reading(count=3, scale=1e-4)) == []


def test_a_window_of_a_file_is_an_image_like_any_other(root):
    labels = RNG.integers(0, 3, SIZE, dtype=np.uint8)
    tiff(root / "labels" / "a.tif", labels)
    image = FileWindow(root / "images" / "a.tif", 2, 4, 6, 8)
    window = Sample(image, FileWindow(root / "labels" / "a.tif", 2, 4, 6, 8), "a")
    raster, read = read_sample(window, Reading(count=3))
    assert raster.pixels.shape == (3, 6, 8) and (read == labels[2:8, 4:12]).all()
    assert count_class_pixels([window], 3, Reading(count=3)) == {
        image: np.bincount(labels[2:8, 4:12].ravel(), minlength=3).tolist()
    }
    with pytest.raises(RasterError, match="its image is 8x6"):
        read_labels(Sample(image, root / "labels" / "a.tif", "a"))
