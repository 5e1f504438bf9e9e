import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from co2s_hf.data.images import (
    EncodedImage,
    ImageError,
    file_suffix,
    image_size,
    is_lossy,
    read_image,
    read_image_and_valid,
    read_mask,
    read_raw_mask,
    write_image,
    write_mask,
)


def _png(path, width, height, bits, colour_type, rows):
    """Write a PNG of a depth that Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = b"".join(b"\0" + row for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_lossless_images_read_as_written(tmp_path, pixels, suffix):
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, pixels)
    assert image_size(tmp_path / f"a.{suffix}") == (16, 24)


def test_greyscale_keeps_one_band_and_alpha_goes(tmp_path, pixels):
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[:, :, :2].copy(), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), pixels[:, :, :1])
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), pixels[:, :, :1])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_values(tmp_path, suffix):
    values = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[:, :, 0], values)


def _geotiff(path, pixels, *, mask=None, **profile):
    """Write (H, W, C) with rasterio, without a place on earth."""
    rasterio = pytest.importorskip("rasterio")
    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(pixels.transpose(2, 0, 1))
            if mask is not None:
                dataset.write_mask(mask)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 16])
def test_geotiffs_of_any_bands_keep_their_values(tmp_path, dtype, count):
    pixels = np.random.default_rng(0).integers(1, np.iinfo(dtype).max, (5, 7, count)).astype(dtype)
    path = _geotiff(tmp_path / "a.tif", pixels)
    image, valid = read_image_and_valid(path, num_bands=count)
    assert image.dtype == dtype and image.flags.c_contiguous and image.flags.writeable and valid is None
    np.testing.assert_array_equal(image, pixels)
    assert image_size(path) == (5, 7)


def test_16_bit_colour_is_not_cut(tmp_path):
    pytest.importorskip("rasterio")
    path = _png(tmp_path / "rgb16.png", 1, 1, 16, 2, [bytes([1, 2, 3, 4, 5, 6])])
    image = read_image(path)
    assert image.dtype == np.uint16 and image.tolist() == [[[0x0102, 0x0304, 0x0506]]]


def test_a_fourth_band_is_alpha_unless_four_bands_are_asked_for(tmp_path):
    pixels = np.full((2, 3, 4), 9, np.uint8)
    pixels[0, 0, 3] = 0
    _geotiff(tmp_path / "a.tif", pixels)  # GDAL calls it alpha, unasked
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        for asked in (None, 3):
            image, valid = read_image_and_valid(tmp_path / name, num_bands=asked)
            np.testing.assert_array_equal(image, pixels[:, :, :3])
            assert valid.tolist() == [[False, True, True], [True, True, True]]
        image, valid = read_image_and_valid(tmp_path / name, num_bands=4)
        np.testing.assert_array_equal(image, pixels)
        assert valid is None
    pixels[1] = 6
    valid = read_image_and_valid(_geotiff(tmp_path / "b.tif", pixels, nodata=6), num_bands=4)[1]
    assert valid.tolist() == [[True] * 3, [False] * 3]


def test_rasterio_is_asked_for_by_name(tmp_path, monkeypatch):
    path = _geotiff(tmp_path / "six.tif", np.ones((2, 3, 6), np.uint16))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for read in (read_image, image_size):
        with pytest.raises(
            ImageError, match=r"six\.tif .* rasterio is not installed\. Run `pip install \"co2s_hf\[geo\]"
        ):
            read(path)
    rgb = _png(tmp_path / "rgb16.png", 1, 1, 16, 2, [bytes(6)])
    with pytest.raises(ImageError, match=r"rgb16\.png .* rasterio is not installed"):
        read_image(rgb)


def test_other_numbers_and_too_many_bands_are_refused(tmp_path):
    float_path = _geotiff(tmp_path / "float.tif", np.ones((2, 3, 2), np.float32))
    with pytest.raises(ImageError, match=r"float\.tif has 2 bands of float32; expected 1 to 16 bands, all uint8"):
        read_image(float_path)
    many = _geotiff(tmp_path / "many.tif", np.ones((2, 3, 17), np.uint8))
    with pytest.raises(ImageError, match=r"many\.tif has 17 bands of uint8; expected 1 to 16"):
        read_image(many)


def test_a_broken_multi_band_file_is_named(tmp_path):
    path = _geotiff(tmp_path / "six.tif", np.random.default_rng(0).integers(0, 9, (64, 64, 6)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"six\.tif cannot be read as an image .*(?s:.*)take it out"):
        read_image(path)
    (tmp_path / "text.tif").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.tif cannot be read as an image"):
        read_image(tmp_path / "text.tif")


# ---- nodata ----


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_pixel_without_data_has_the_value_in_every_band(tmp_path, suffix):
    pixels = np.full((2, 2, 3), 50, np.uint8)
    pixels[0, 0], pixels[0, 1] = 7, (7, 7, 8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    assert read_image_and_valid(tmp_path / f"a.{suffix}")[1] is None
    image, valid = read_image_and_valid(tmp_path / f"a.{suffix}", nodata=7)
    assert valid.tolist() == [[False, True], [True, True]]
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(("dtype", "count"), [(np.uint8, 3), (np.uint16, 1), (np.uint16, 6)])
def test_a_geotiff_names_its_own_nodata(tmp_path, dtype, count):
    pixels = np.full((2, 2, count), 50, dtype)
    pixels[0, 0], pixels[1, 1], pixels[1, 0, 0] = 7, 3, 7
    path = _geotiff(tmp_path / "a.tif", pixels, nodata=7)
    alone = count == 1
    assert read_image_and_valid(path)[1].tolist() == [[False, True], [not alone, True]]
    assert read_image_and_valid(path, nodata=3)[1].tolist() == [[False, True], [not alone, False]]


def test_a_mask_band_says_where_data_is(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    mask = np.array([[255, 0], [255, 255]], np.uint8)
    for internal in (True, False):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            path = _geotiff(tmp_path / f"{internal}.tif", np.full((2, 2, 3), 9, np.uint8), mask=mask)
        assert read_image_and_valid(path)[1].tolist() == [[True, False], [True, True]]


def test_transparent_pixels_hold_no_data(tmp_path):
    pixels = np.full((1, 2, 4), 9, np.uint8)
    pixels[0, 1, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[..., 2:].copy(), "LA").save(tmp_path / "la.png")
    Image.fromarray(np.array([[9, 4]], np.uint8)).save(tmp_path / "key.png", transparency=4)
    for name, bands in (("rgba", 3), ("la", 1), ("key", 1)):
        image, valid = read_image_and_valid(tmp_path / f"{name}.png")
        assert valid.tolist() == [[True, False]] and image.shape == (1, 2, bands), name


def test_palette_is_colour_for_images_and_ids_for_masks(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90] + [7] * (253 * 3))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, 1], [40, 50, 60])


def test_masks_of_few_bits_hold_ids(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "1.png"), [[1, 0]])
    path = _png(tmp_path / "4.png", 4, 1, 4, 0, [bytes([0x01, 0x25])])  # Pillow stretches these to 0, 17, 34, 85
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2, 5]])
    path = _png(tmp_path / "2.png", 4, 1, 2, 0, [bytes([0b00011011])])
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2, 3]])
    Image.fromarray(np.array([[3, 255]], np.uint16)).save(tmp_path / "16.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "16.png"), [[3, 255]])


def test_masks_of_colours_or_large_ids_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    with pytest.raises(ImageError, match=r"rgb\.png is a RGB image; expected .* one class id per pixel"):
        read_mask(tmp_path / "rgb.png")
    Image.fromarray(np.array([[3, 700]], np.uint16)).save(tmp_path / "16.png")
    with pytest.raises(ImageError, match=r"16\.png holds ids up to 700"):
        read_mask(tmp_path / "16.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"a\.{suffix} cannot be read as an image .*truncated.*(?s:.*)take it out"):
        read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png does not exist"):
        image_size(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ImageError, match=r"text\.png cannot be read"):
        image_size(tmp_path / "text.png")


@pytest.mark.parametrize(
    ("form", "options", "suffix", "lossy"),
    [
        ("PNG", {}, ".png", False),
        ("BMP", {}, ".bmp", False),
        ("TIFF", {"compression": "tiff_lzw"}, ".tif", False),
        ("TIFF", {"compression": "jpeg"}, ".tif", True),
        ("JPEG", {}, ".jpg", True),
        ("WEBP", {}, ".webp", True),
    ],
)
def test_the_bytes_tell_format_and_losses(tmp_path, pixels, form, options, suffix, lossy):
    Image.fromarray(pixels).save(tmp_path / "a.dat", form, **options)
    encoded = EncodedImage("a.dat", (tmp_path / "a.dat").read_bytes())
    for path in (tmp_path / "a.dat", encoded):
        assert (file_suffix(path), is_lossy(path)) == (suffix, lossy)
    np.testing.assert_array_equal(read_raw_mask(encoded), read_raw_mask(tmp_path / "a.dat"))


def test_formats_of_many_bands_and_unknown_formats(tmp_path, pixels):
    _geotiff(tmp_path / "bands.dat", np.concatenate([pixels, pixels], axis=2))
    assert file_suffix(tmp_path / "bands.dat") == ".tif"
    Image.fromarray(pixels).save(tmp_path / "a.png", "GIF")
    with pytest.raises(ImageError, match="a.png is a GIF file; expected one of PNG"):
        file_suffix(tmp_path / "a.png")
    with pytest.raises(ImageError, match="nothing cannot be read as an image"):
        file_suffix(EncodedImage("nothing", b""))


def test_write_round_trip(tmp_path, pixels):
    write_image(tmp_path / "rgb.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), pixels)
    wide = pixels[:, :, :1].astype(np.uint16) * 257
    write_image(tmp_path / "wide.png", wide)
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png"), wide)
    write_mask(tmp_path / "mask.png", pixels[:, :, 0])
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), pixels[:, :, 0])


def test_write_refuses_other_arrays(tmp_path, pixels):
    with pytest.raises(ImageError, match=r"a\.png cannot be written from a float64 array of shape \(16, 24, 3\)"):
        write_image(tmp_path / "a.png", pixels / 255)
    with pytest.raises(ImageError, match=r"a\.png cannot be written from int64 of shape \(16, 24\); expected \(H, W\)"):
        write_mask(tmp_path / "a.png", pixels[:, :, 0].astype(np.int64))


# ---- raw masks ----


def test_raw_masks_are_what_the_file_holds(tmp_path):
    colours = np.array([[[1, 2, 3], [255, 0, 9]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "rgb.png"), colours)
    opaque = np.dstack([colours, np.full((1, 2), 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "rgba.png"), colours)
    palette = Image.fromarray(np.array([[0, 2]], np.uint8)).convert("P")
    palette.putpalette([9, 9, 9] * 3)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_raw_mask(tmp_path / "palette.png"), np.array(palette))
    Image.fromarray(np.array([[0, 60000]], np.uint16)).save(tmp_path / "16.png")
    assert read_raw_mask(tmp_path / "16.png").tolist() == [[0, 60000]]
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "1.png")
    assert read_raw_mask(tmp_path / "1.png").tolist() == [[0, 1]]


def test_raw_masks_with_transparency_or_fractions_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "clear.png")
    with pytest.raises(ImageError, match=r"clear\.png is partly transparent; expected .* Give the transparent pixels"):
        read_raw_mask(tmp_path / "clear.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=r"float\.tif holds .* expected a mask of ids"):
        read_raw_mask(tmp_path / "float.tif")


def test_the_limit_of_pixels_is_raised_by_a_variable(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("L", (30, 20)).save(path)
    monkeypatch.setenv("CO2S_MAX_PIXELS", "599")
    with pytest.raises(ImageError, match="a.png says that it has 30x20 pixels; expected at most 599.*CO2S_MAX_PIXELS"):
        read_image(path)
    monkeypatch.setenv("CO2S_MAX_PIXELS", "600")
    assert read_image(path).shape == (20, 30, 1)
    monkeypatch.setenv("CO2S_MAX_PIXELS", "many")
    with pytest.raises(ImageError, match="CO2S_MAX_PIXELS is 'many'; expected a number"):
        read_image(path)
