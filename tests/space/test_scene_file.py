import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from scene_file import (
    BandsError,
    UploadError,
    choose_bands,
    photo,
    pixel_areas,
    read_header,
    read_scene,
    write_geotiff,
    write_png,
)

NAMES, COLOURS = ["water", "<b>&road"], [(10, 20, 30), (40, 50, 60)]


def header(path, **limits):
    return read_header(path, **{"max_megabytes": 1, "max_megapixels": 1, **limits})


def zeros(height=20, width=30, bands=3, dtype=np.uint8):
    return np.zeros((height, width, bands), dtype)


@pytest.fixture
def class_map():
    found = np.random.default_rng(0).integers(0, 2, (120, 150), dtype=np.uint8)
    found[:3] = 255
    return found


def test_a_geotiff_and_a_picture_are_read_alike(geotiff, pixels, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(pixels).save(path)
    for scene in (header(path), header(geotiff(pixels, photometric="RGB"))):
        raster = read_scene(scene)
        assert [band.name for band in raster.bands] == ["red", "green", "blue"] and scene.dtype == "uint8"
        assert np.array_equal(raster.pixels, pixels.transpose(2, 0, 1)) and raster.valid.all()
        assert np.array_equal(read_scene(scene, [3, 1]).pixels, pixels.transpose(2, 0, 1)[[2, 0]])


def test_pixels_without_data_are_known(geotiff, pixels, tmp_path):
    pixels[:5] = 0
    scene = header(geotiff(pixels, nodata=0))
    assert np.array_equal(read_scene(scene).valid, (pixels > 0).any(axis=2))
    rgba = np.dstack([pixels, np.where(np.arange(150) < 9, 0, 255)[None].repeat(120, 0)]).astype(np.uint8)
    alpha = header(geotiff(rgba, "alpha.tif", photometric="RGB", alpha="yes"))
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    for scene in (alpha, header(tmp_path / "alpha.png")):
        raster = read_scene(scene)
        assert np.array_equal(raster.pixels, pixels.transpose(2, 0, 1))
        assert np.array_equal(raster.valid, rgba[:, :, 3] > 0) and scene.has_alpha and scene.num_bands == 3
    assert read_scene(alpha, [1, 2, 3, 4]).valid.all()  # as a band like the others it says nothing about data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.png", b"not an image", "^notes.png cannot be read as an image"),
        ("empty.tif", b"", "^empty.tif cannot be read as an image"),
        ("short.tif", b"II*\0" + b"\1" * 40, "^short.tif cannot be read"),
        ("list.tif", b"<VRTDataset rasterXSize='1' rasterYSize='1'/>", "^list.tif cannot be read as an image"),
    ],
)
def test_wrong_files_get_a_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UploadError, match=message):
        header(tmp_path / name)


def test_a_file_that_was_cut_off_gets_a_sentence(tmp_path, geotiff, pixels):
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    for path in (tmp_path / "whole.png", geotiff(pixels)):
        cut = tmp_path / f"cut{path.suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(UploadError, match=f"^{cut.name} cannot be read .*Fetch or export it again"):
            read_scene(header(cut))


def test_large_files_are_refused_before_they_are_decoded(geotiff, pixels):
    path = geotiff(pixels)
    with pytest.raises(UploadError, match=r"scene.tif has 0.1 MB; this page takes files up to 0.01 MB"):
        header(path, max_megabytes=0.01)
    with pytest.raises(UploadError, match=r"150 × 120 pixels \(0.0 megapixels\); this page takes up to 0.01"):
        header(path, max_megapixels=0.01)


def test_numbers_without_a_meaning_are_refused(geotiff):
    with pytest.raises(UploadError, match="^scene.tif holds int16 values, and does not say what they mean"):
        read_scene(header(geotiff(zeros(dtype=np.int16))))


def test_a_photo_is_turned_upright(tmp_path, pixels):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    scene = header(tmp_path / "turned.png")
    assert (scene.height, scene.width) == (150, 120)
    assert np.array_equal(read_scene(scene).pixels, np.rot90(pixels, -1).transpose(2, 0, 1))


def test_a_palette_is_shown_in_its_colours(tmp_path, pixels):
    Image.fromarray(pixels).quantize(16).save(tmp_path / "palette.png")
    scene = header(tmp_path / "palette.png")
    shown = np.array(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert scene.num_bands == 3 and choose_bands(scene, 3) == [1]
    assert np.array_equal(photo(scene), shown)
    assert np.array_equal(read_scene(scene, [1]).input, shown.transpose(2, 0, 1))


def test_bands_are_chosen_by_number_by_name_or_not_at_all(geotiff):
    scene = header(geotiff(zeros(bands=4), photometric="MINISBLACK"))
    with pytest.raises(BandsError, match=r"has 4 bands and the model takes 3 \(red, green, blue\). Enter"):
        choose_bands(scene, 3)
    assert choose_bands(scene, 3, "4, 1 2") == [4, 1, 2]
    assert choose_bands(scene, 4) == [1, 2, 3, 4]
    for wanted in ("1, 2", "1, 2, 5", "0 1 2", "red"):
        with pytest.raises(BandsError, match="Enter 3 numbers from 1 to 4"):
            choose_bands(scene, 3, wanted)
    with pytest.raises(BandsError, match="has 4 bands, but the model takes 6"):
        choose_bands(scene, 6)
    with rasterio.open(scene.path, "r+") as file:
        file.descriptions = ("Blue", "Green", "Red", "NIR")
    assert choose_bands(header(scene.path), 3) == [3, 2, 1]
    assert choose_bands(header(scene.path), 2, model_bands=["nir", "red"]) == [4, 3]


def test_a_grey_picture_is_shown_to_a_colour_model(tmp_path, pixels):
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    scene = header(tmp_path / "grey.png")
    read = read_scene(scene, choose_bands(scene, 3)).pixels
    assert np.array_equal(read, pixels[:, :, 0][None].repeat(3, axis=0))


def test_pixels_have_their_ground_area_or_the_reason_why_not(geotiff, tmp_path):
    feet = header(geotiff(zeros(), crs="EPSG:2263", transform=Affine(3, 0, 990_000, 0, -3, 200_000)))
    areas = pixel_areas(feet).pixel_m2(slice(0, 20), slice(0, 30))
    assert areas.sum() == pytest.approx(600 * 9 * (1200 / 3937) ** 2, rel=1e-3)
    Image.fromarray(zeros()).save(tmp_path / "a.png")
    nowhere = pixel_areas(header(tmp_path / "a.png"))
    assert nowhere.gsd_m is None and "no CRS" in nowhere.method
    beyond = Affine(0.05, 0, 8, 0, -0.05, 95)
    assert pixel_areas(header(geotiff(zeros(), "pole.tif", crs="EPSG:4326", transform=beyond))).gsd_m is None


def test_a_mask_lies_where_the_image_lies(geotiff, pixels, class_map, tmp_path):
    scene = header(geotiff(pixels))
    write_geotiff(tmp_path / "mask.tif", class_map, NAMES, COLOURS, scene.grid, MODEL="user/model")
    with rasterio.open(tmp_path / "mask.tif") as file, rasterio.open(scene.path) as image:
        assert (file.crs, file.transform, file.shape) == (image.crs, image.transform, image.shape)
        assert np.array_equal(file.read(1), class_map) and file.nodata == 255
        assert file.colormap(1)[1] == (40, 50, 60, 255)
        assert file.tags()["CLASS_1"] == "<b>&road" and file.tags()["MODEL"] == "user/model"


def test_a_mask_of_an_image_with_control_points_lies_where_they_put_it(geotiff, pixels, class_map, tmp_path):
    points = [GroundControlPoint(row, col, 8 + col / 1e4, 60 - row / 1e4) for row in (0, 119) for col in (0, 149)]
    path = geotiff(pixels, crs=None)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.CRS.from_epsg(4326))
    write_geotiff(tmp_path / "mask.tif", class_map, NAMES, COLOURS, header(path).grid)
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert file.crs.to_epsg() == 4326
        assert tuple(file.transform)[:6] == pytest.approx((1e-4, 0, 8, 0, -1e-4, 60))


def test_a_png_mask_holds_ids_and_shows_colours(class_map, tmp_path):
    write_png(tmp_path / "mask.png", class_map, NAMES, COLOURS)
    with Image.open(tmp_path / "mask.png") as image:
        assert np.array_equal(np.array(image), class_map)
        assert image.text["class_1"] == "<b>&road"
        shown = np.array(image.convert("RGBA"))
    assert shown[class_map == 1][0].tolist() == [40, 50, 60, 255] and shown[0, 0, 3] == 0


def test_names_of_downloads_are_harmless(tmp_path, pixels):
    path = tmp_path / "..evil $(x) é&.png"
    Image.fromarray(pixels).save(path)
    assert header(path).stem == "evil_x"
