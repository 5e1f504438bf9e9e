import json
import os

import numpy as np
import pytest
import rasterio
from PIL import Image, TiffImagePlugin
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import label

from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import COLOURS, EncodedImage, FileWindow, NoData, Reading
from co2s_hf.raster.read import image_size, open_image, open_raster, quiet, read_raster

from .layouts import turn
from .test_oracle import turned

PLACE = Affine(2, 0, 500_000, 0, -2, 5_000_000)


def geotiff(path, values, *, mask=None, alpha=None, **options):
    bands = np.asarray(values)
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with quiet(), rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        if alpha is not None:
            file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return path


def nodata_beside(path, text):
    path.with_name(path.name + ".aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><NoDataValue>{text}</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Orientation
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "big.tif"])
def test_pictures_are_turned_as_they_say(tmp_path, suffix, orientation):
    rng = np.random.default_rng(orientation)
    pixels, path = rng.integers(0, 256, (5, 9, 3), np.uint8), tmp_path / f"a.{suffix}"
    if suffix == "big.tif":
        turn(geotiff(path, np.moveaxis(pixels, 2, 0), bigtiff="YES", endianness="BIG"), orientation)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with quiet(), rasterio.open(path) as file:
        right = turned(file.read(), orientation)
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, right)
    assert image_size(path) == raster.valid.shape == right.shape[1:]
    encoded = read_raster(EncodedImage(path.name, path.read_bytes()))
    np.testing.assert_array_equal(encoded.pixels, right)
    np.testing.assert_array_equal(encoded.unit, raster.unit)
    window = read_raster(FileWindow(path, 1, 2, 3, 2))
    np.testing.assert_array_equal(window.pixels, right[:, 1:4, 2:4])
    with open_image(FileWindow(path, 1, 0, 4, 5)) as file:
        np.testing.assert_array_equal(file.read(slice(1, 3), slice(2, 5)).pixels, right[:, 2:4, 2:5])
    if suffix != "jpg":  # its pixels are those of Pillow, too
        np.testing.assert_array_equal(right, turned(np.moveaxis(pixels, 2, 0), orientation))


def test_alpha_and_masks_are_turned_along(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (4, 5, 7)).astype(np.uint8)
    path = geotiff(tmp_path / "a.tif", pixels, photometric="RGB", alpha=True, mask=pixels[0] == 0)
    turn(path, 6)
    assert np.array_equal(read_raster(path).valid, turned((pixels[3] != 0) & (pixels[0] == 0), 6))


def test_what_says_where_it_lies_is_not_turned(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    path = geotiff(tmp_path / "a.tif", pixels, transform=PLACE, crs="EPSG:32633")
    turn(path, 6)
    with open_image(path) as file:
        assert file.orientation == 6 and np.array_equal(file.read().pixels, pixels)


def test_headers_that_make_no_sense_turn_nothing(tmp_path):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for number in (0, 9):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = number
        Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo=tags)
        with open_image(tmp_path / "a.tif") as file:
            assert file.orientation == 1
    Image.fromarray(values).save(tmp_path / "a.png", exif=b"II*\0\xff\xff\xff\x7f")  # its directory lies outside
    assert np.array_equal(read_raster(tmp_path / "a.png").pixels[0], values)


# ---------------------------------------------------------------------------------------------------------------------
# No data
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("uint8", "255"), ("int8", "-128"), ("uint16", "65535"), ("int16", "-9999"), ("uint32", "4294967295"),
        ("int32", "-2147483648"), ("int64", "-9223372036854775808"), ("int64", "9007199254740993"),
        ("uint64", "18446744073709551615"), ("uint64", "9007199254740993"), ("float32", "0.1"),
        ("float32", "-3.4028234663852886e+38"), ("float64", "1e-300"), ("float64", "nan"), ("float32", "nan"),
    ],
)  # fmt: skip
def test_nodata_of_every_type_is_exact(tmp_path, dtype, text):
    exact = int(text) if "int" in dtype else float(text)
    value = np.array(exact, np.dtype(dtype))
    neighbour = (
        value - np.array(1, dtype)
        if "int" in dtype and exact > 0
        else value + np.array(1, dtype)
        if "int" in dtype
        else np.array(2, dtype)
    )
    path = geotiff(tmp_path / "a.tif", np.array([[[value, neighbour, 7]]], dtype), mask=np.array([[1, 1, 0]], bool))
    raster = read_raster(nodata_beside(path, text))
    assert raster.valid.tolist() == [[False, True, False]]
    assert raster.pixels.dtype == dtype and raster.pixels[0, 0, 1] == neighbour
    assert type(raster.bands[0].nodata) is type(exact)


def test_every_source_of_nodata_counts(tmp_path):
    pixels = np.full((4, 2, 4), 9, np.uint8)
    pixels[:3, 0, 0] = 5  # nodata in all bands
    pixels[0, 0, 1] = 5  # in one band: data
    pixels[3, 0, 2] = 0  # transparent
    pixels[:3, 1, 1] = 6  # as the description says
    mask = np.ones((2, 4), bool)
    mask[1, 0] = False
    for internal in (True, False):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            path = tmp_path / f"{internal}.tif"
            geotiff(path, pixels, photometric="RGB", alpha=True, nodata=5, mask=mask)
        with open_image(path, Reading(nodata=NoData(6))) as file:
            raster = file.read()
            reasons = file.reasons(raster)
            assert not file.hides_nothing
        assert raster.valid.tolist() == [[False, True, False, True], [False, False, True, True]]
        where = {
            reason: list(zip(*(axis.tolist() for axis in holds.nonzero()), strict=True))
            for reason, holds in reasons.items()
        }
        assert where == {"alpha": [(0, 2)], "mask": [(1, 0)], "nodata value": [(0, 0)], "declared nodata": [(1, 1)]}


def test_values_that_no_network_takes_are_no_data(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.array([[[np.nan, 1.0, np.inf, 1e300]], [[1.0, 1.0, 1.0, 1.0]]], np.float64))
    raster = read_raster(path)
    assert raster.valid.tolist() == [[False, True, False, False]] and np.isfinite(raster.unit).all()


def test_colours_may_be_transparent(tmp_path):
    image = Image.fromarray(np.uint8([[0, 1, 2]]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for transparency, valid in (
        (1, [True, False, True]),
        (bytes([0, 128, 255]), [False, True, True]),
        (None, [True] * 3),
    ):
        image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
        raster = read_raster(tmp_path / "a.png", Reading(names=COLOURS))
        assert raster.valid.tolist() == [valid]
        right = np.where(valid, np.array([[10, 40, 70], [20, 50, 80], [30, 60, 90]]) / 255, 0)
        np.testing.assert_allclose(raster.unit[:, 0], right, rtol=1e-6)
    key = np.uint8([[[1, 2, 3], [1, 2, 4]]])
    Image.fromarray(key).save(tmp_path / "key.png", transparency=(1, 2, 3))
    assert read_raster(tmp_path / "key.png").valid.tolist() == [[False, True]]


def test_a_dark_roof_is_none_of_a_black_border(tmp_path):
    rng = np.random.default_rng(1)
    pixels = np.where(rng.random((1, 60, 50)) < 0.55, rng.integers(0, 13, (1, 60, 50)), 200).astype(np.uint8)
    pixels = np.repeat(pixels, 3, 0)
    path = geotiff(tmp_path / "a.tif", pixels)
    dark = (pixels <= 12).all(axis=0)
    regions, _ = label(np.pad(dark, 1, constant_values=True))  # everything outside is border
    border = (regions == regions[0, 0])[1:-1, 1:-1]
    assert border.any() and (dark & ~border).any()
    reading = Reading(nodata=NoData(0, within=12))
    np.testing.assert_array_equal(read_raster(path, reading).valid, ~border)
    with open_image(path, reading) as file:
        parts = [
            [file.read(slice(t, t + 20), slice(c, c + 10)).valid for c in range(0, 50, 10)] for t in range(0, 60, 20)
        ]
        np.testing.assert_array_equal(np.block(parts), ~border)
        thinned = file.read(shape=(20, 25))
        np.testing.assert_array_equal(thinned.valid, ~border[1::3, 1::2])
        np.testing.assert_array_equal(thinned.pixels, pixels[:, 1::3, 1::2])
    np.testing.assert_array_equal(read_raster(FileWindow(path, 7, 9, 30, 20), reading).valid, ~border[7:37, 9:29])
    turn(path, 8)
    np.testing.assert_array_equal(read_raster(path, reading).valid, turned(~border, 8))


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------


def test_bits_say_what_white_is(tmp_path):
    for bits, dtype in ((1, "uint8"), (4, "uint8"), (10, "uint16"), (12, "uint16"), (24, "uint32")):
        path = geotiff(tmp_path / "a.tif", np.array([[[0, 2**bits - 1]], [[0, 1]]], dtype), nbits=bits)
        np.testing.assert_allclose(read_raster(path).unit.ravel(), [0, 1, 0, 1 / (2**bits - 1)], rtol=1e-6)


def test_scale_and_offset_of_the_file_apply(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.uint16([[[1000, 15001]]]))
    with quiet(), rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    np.testing.assert_allclose(read_raster(path).unit.ravel(), [0, 1.4001], atol=1e-6)
    np.testing.assert_allclose(read_raster(path, Reading(scale=1e-3, offset=0.0)).unit.ravel(), [1, 15.001], rtol=1e-6)


def test_bands_of_different_types_are_read(tmp_path):
    geotiff(tmp_path / "a.tif", np.uint8([[[1, 2]]]))
    geotiff(tmp_path / "b.tif", np.int16([[[-3, 4]]]))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename></SimpleSource></VRTRasterBand>"
        for i, (kind, name) in enumerate((("Byte", "a"), ("Int16", "b")), 1)
    )
    (tmp_path / "c.vrt").write_text(f'<VRTDataset rasterXSize="2" rasterYSize="1">{bands}</VRTDataset>')
    with open_raster(tmp_path / "c.vrt") as file:
        assert file.read().pixels.tolist() == [[[1, 2]], [[-3, 4]]] and file.dtype == np.int16
    with pytest.raises(RasterError, match=r"c\.vrt cannot be read as an image"):
        read_raster(tmp_path / "c.vrt")  # a file of a data set names no other files


def test_complex_numbers_are_refused(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.zeros((1, 2, 2), np.complex64))
    with pytest.raises(RasterError, match=r"a\.tif holds complex64 values; expected integers or floats"):
        read_raster(path)


def test_bands_are_read_in_the_order_that_is_wanted(tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    path = geotiff(tmp_path / "a.tif", pixels, photometric="MINISBLACK")
    with quiet(), rasterio.open(path, "r+") as file:
        file.descriptions = ("Blue", "Green", "Red")
    with open_image(path, Reading(names=COLOURS)) as file:
        assert file.bands_found_by == "description" and np.array_equal(file.read().pixels, pixels[::-1])
    assert np.array_equal(read_raster(path, Reading(numbers=(2, 3))).pixels, pixels[1:])


# ---------------------------------------------------------------------------------------------------------------------
# Places, sidecars, limits
# ---------------------------------------------------------------------------------------------------------------------

SIDECAR = "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>500000, 2, 0, 5000000, 0, -2</GeoTransform></PAMDataset>"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_sidecars_say_where_a_picture_lies_and_none_is_written(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(path)
    (tmp_path / f"a.{suffix}.aux.xml").write_text(SIDECAR)
    before = {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(tmp_path)}
    with open_image(path, Reading(nodata=NoData(0, 3))) as file:
        assert file.grid.transform == tuple(PLACE)[:6] and "UTM zone 33N" in file.grid.crs
        file.read(slice(0, 2), slice(0, 2), (1, 1))
        file.reasons(file.read())
    assert before == {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(tmp_path)}


def test_world_files_place_without_a_crs(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    (tmp_path / "a.tfw").write_text("2\n0\n0\n-2\n500001\n4999999\n")  # the centre of the first pixel
    with open_image(path) as file:
        assert file.grid.transform == tuple(PLACE)[:6] and file.grid.crs is None


def test_windows_have_a_grid_of_their_own(tmp_path):
    path = geotiff(
        tmp_path / "a.tif", np.arange(48, dtype=np.uint8).reshape(1, 6, 8), transform=PLACE, crs="EPSG:32633"
    )
    raster = read_raster(FileWindow(path, 2, 3, 3, 4))
    with rasterio.open(path) as file:
        window = Window(3, 2, 4, 3)
        np.testing.assert_array_equal(raster.pixels, file.read(window=window))
    assert raster.grid.transform == (2, 0, 500_006, 0, -2, 4_999_996)
    with open_image(path) as file:
        assert file.read(slice(2, 5), slice(3, 7)).grid == raster.grid
    for outside in ((0, 0, 7, 8), (-1, 0, 2, 2), (0, 0, 0, 2), (5, 7, 1, 2)):
        with pytest.raises(RasterError, match=r"a\.tif\[.*\] is no window of the file; expected .* 6 rows and 8"):
            read_raster(FileWindow(path, *outside))


def test_the_limit_of_pixels_bounds_a_window_not_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    shape = {"count": 1, "height": 100_000, "width": 100_000, "dtype": "uint8"}
    options = {"tiled": True, "sparse_ok": True, "compress": "deflate", "blockxsize": 512, "blockysize": 512}
    with quiet(), rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        file.write(np.full((1, 20, 20), 7, np.uint8), window=Window(60_000, 50_000, 20, 20))
    pixels = read_raster(FileWindow(path, 49_990, 59_990, 20, 20)).pixels[0]
    assert (pixels[10:, 10:] == 7).all() and pixels.sum() == 700
    with pytest.raises(
        RasterError, match=r"a\.tif says that it has 100000x100000 pixels; expected at most 178956970 at"
    ):
        read_raster(path)
    with open_image(path) as file:
        assert file.read(shape=(10, 10)).pixels.shape == (1, 10, 10)
    monkeypatch.setenv("CO2S_MAX_PIXELS", "399")
    with pytest.raises(RasterError, match="20x20 pixels; expected at most 399"):
        read_raster(FileWindow(path, 0, 0, 20, 20))


def test_a_turned_window_of_a_long_png_reads_its_place(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (40, 30), np.uint8)
    exif = Image.Exif()
    exif[274] = 5
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with open_image(FileWindow(tmp_path / "a.png", 10, 20, 15, 12)) as file:
        np.testing.assert_array_equal(file.read(shape=(5, 4)).pixels[0], pixels.T[11:25:3, 21:32:3])


def test_files_that_are_no_images_are_one_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "text.tif").write_text(json.dumps({}))
    for name, message in (
        ("a.png", r"a\.png cannot be read \(.*\); expected a whole image"),
        ("text.tif", r"text\.tif cannot be read as an image; expected one of GTiff"),
        ("none.tif", r"none\.tif does not exist"),
    ):
        with pytest.raises(RasterError, match=message) as error:
            read_raster(tmp_path / name)
        assert "\n" not in str(error.value)
    whole = geotiff(
        tmp_path / "b.tif", np.random.default_rng(0).integers(0, 256, (1, 200, 200), np.uint8), compress="LZW"
    )
    whole.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(RasterError, match=r"b\.tif cannot be read"):
        read_raster(whole)


def test_errors_of_the_caller_stay_what_they_are(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(UnicodeDecodeError), open_raster(path):
        b"\xff".decode("utf-8")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "deflate.tif"])
def test_a_file_that_ends_in_the_middle_is_refused(tmp_path, name, share):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    options = {"compression": "tiff_deflate"} if name == "deflate.tif" else {}
    Image.fromarray(pixels).save(tmp_path / name, **options)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    for source in (tmp_path / name, EncodedImage(name, whole[: int(len(whole) * share)])):
        with pytest.raises(RasterError, match=f"{name} cannot be read"):
            read_raster(source)


def test_a_png_with_a_place_that_ends_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(path)
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n500000.5\n5299999.5\n")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RasterError, match="a.png cannot be read"):
        read_raster(path)
