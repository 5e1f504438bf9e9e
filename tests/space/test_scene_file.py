import math

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
    pixel_areas,
    read_header,
    read_pixels,
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
        read, valid = read_pixels(scene)
        assert scene.bands == ("red", "green", "blue") and scene.dtype == "uint8"
        assert np.array_equal(read, pixels) and valid.all()
        assert np.array_equal(read_pixels(scene, [3, 1])[0], pixels[:, :, [2, 0]])


def test_pixels_without_data_are_known(geotiff, pixels, tmp_path):
    pixels[:5] = 0
    scene = header(geotiff(pixels, nodata=0))
    assert np.array_equal(read_pixels(scene)[1], (pixels > 0).all(axis=2))
    rgba = np.dstack([pixels, np.where(np.arange(150) < 9, 0, 255)[None].repeat(120, 0)]).astype(np.uint8)
    alpha = header(geotiff(rgba, "alpha.tif", photometric="RGB", alpha="yes"))
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    for scene in (alpha, header(tmp_path / "alpha.png")):
        read, valid = read_pixels(scene)
        assert np.array_equal(read, pixels) and np.array_equal(valid, rgba[:, :, 3] > 0)
    assert read_pixels(alpha, [1, 2, 3, 4])[1].all()  # as a band like the others it says nothing about data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.png", b"not an image", "notes.png is neither PNG, JPEG nor TIFF"),
        ("empty.tif", b"", "empty.tif is neither PNG, JPEG nor TIFF"),
        ("short.tif", b"II*\0" + b"\1" * 40, "short.tif cannot be read"),
        ("list.tif", b"<VRTDataset rasterXSize='1' rasterYSize='1'/>", "list.tif is neither PNG, JPEG nor TIFF"),
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
        with pytest.raises(UploadError, match=f"{cut.name} cannot be read; it may be cut off"):
            read_pixels(header(cut))


def test_large_files_are_refused_before_they_are_decoded(geotiff, pixels):
    path = geotiff(pixels)
    with pytest.raises(UploadError, match=r"scene.tif has 0.1 MB; this page takes files up to 0.01 MB"):
        header(path, max_megabytes=0.01)
    with pytest.raises(UploadError, match=r"150 × 120 pixels \(0.0 megapixels\); this page takes up to 0.01"):
        header(path, max_megapixels=0.01)


def test_other_numbers_than_8_and_16_bits_are_refused(geotiff):
    with pytest.raises(UploadError, match="bands of float32; the models read uint8 or uint16"):
        read_pixels(header(geotiff(zeros(dtype=np.float32))))


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
    assert header(scene.path).photo_bands == [3, 2, 1]


def test_a_grey_picture_is_shown_to_a_colour_model(tmp_path, pixels):
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    scene = header(tmp_path / "grey.png")
    read, _ = read_pixels(scene, choose_bands(scene, 3))
    assert np.array_equal(read, pixels[:, :, :1].repeat(3, axis=2))


def total(areas):
    sizes = np.outer(np.diff(areas.row_edges), np.diff(areas.column_edges))
    return float((areas.square_metres * sizes).sum())


def test_a_projection_that_keeps_areas_gives_its_own(geotiff):
    areas = pixel_areas(header(geotiff(zeros())))
    assert total(areas) == pytest.approx(20 * 30 * 100) and "EPSG:32632, 100 m² each pixel" in areas.note
    feet = header(geotiff(zeros(), crs="EPSG:2263", transform=Affine(3, 0, 990_000, 0, -3, 200_000)))
    assert total(pixel_areas(feet)) == pytest.approx(600 * 9 * (1200 / 3937) ** 2)


def test_degrees_and_web_mercator_are_measured_on_the_ellipsoid(geotiff):
    """Against the area between two parallels of WGS 84, Snyder 1987, equations 3-12 and 14-5."""
    e = math.sqrt(0.00669437999014)

    def q(degrees):
        sine = math.sin(math.radians(degrees))
        term = math.log((1 - e * sine) / (1 + e * sine)) / (2 * e)
        return (1 - e * e) * (sine / (1 - e * e * sine * sine) - term)

    degrees = geotiff(zeros(20, 30), crs="EPSG:4326", transform=Affine(0.05, 0, 8, 0, -0.05, 61))
    expected = 6378137**2 / 2 * math.radians(1.5) * (q(61) - q(60))
    areas = pixel_areas(header(degrees))
    assert total(areas) == pytest.approx(expected, rel=1e-6) and "ellipsoid" in areas.note
    mercator = geotiff(zeros(), "m.tif", crs="EPSG:3857", transform=Affine(10, 0, 1e6, 0, -10, 8399738))  # 60 north
    assert total(pixel_areas(header(mercator))) == pytest.approx(600 * 100 * math.cos(math.radians(60)) ** 2, rel=0.01)


def test_an_image_that_lies_nowhere_has_no_areas(geotiff, tmp_path):
    Image.fromarray(zeros()).save(tmp_path / "a.png")
    assert pixel_areas(header(tmp_path / "a.png")) is None
    assert pixel_areas(header(geotiff(zeros(), "plain.tif", crs=None))) is None
    across = Affine(0.05, 0, 179.5, 0, -0.05, 10)
    assert pixel_areas(header(geotiff(zeros(), "date_line.tif", crs="EPSG:4326", transform=across))) is None
    local = 'LOCAL_CS["a plant",UNIT["metre",1]]'
    assert pixel_areas(header(geotiff(zeros(), "plant.tif", crs=local))) is None


def test_a_mask_lies_where_the_image_lies(geotiff, pixels, class_map, tmp_path):
    scene = header(geotiff(pixels))
    write_geotiff(tmp_path / "mask.tif", class_map, NAMES, COLOURS, scene, MODEL="user/model")
    with rasterio.open(tmp_path / "mask.tif") as file, rasterio.open(scene.path) as image:
        assert (file.crs, file.transform, file.shape) == (image.crs, image.transform, image.shape)
        assert np.array_equal(file.read(1), class_map) and file.nodata == 255
        assert file.colormap(1)[1] == (40, 50, 60, 255)
        assert file.tags()["CLASS_1"] == "<b>&road" and file.tags()["MODEL"] == "user/model"


def test_a_mask_keeps_ground_control_points(geotiff, pixels, class_map, tmp_path):
    points = [GroundControlPoint(row, col, 8 + col / 1e4, 60 - row / 1e4) for row in (0, 119) for col in (0, 149)]
    path = geotiff(pixels, crs=None)
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.CRS.from_epsg(4326))
    write_geotiff(tmp_path / "mask.tif", class_map, NAMES, COLOURS, header(path))
    with rasterio.open(tmp_path / "mask.tif") as file:
        found, crs = file.gcps
        assert len(found) == 4 and found[3].x == pytest.approx(points[3].x) and crs.to_epsg() == 4326


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
