"""A scene as a model sees it: what its file says, what a person says, and what the model was trained on."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from co2s_hf.geo.domain import check_scene
from co2s_hf.geo.maps import predict_scene
from co2s_hf.geo.predict import PredictSettings
from co2s_hf.geo.scene import SceneOptions, open_scene, scene_of
from co2s_hf.raster.errors import RasterError
from tests.geo.pixel_model import PixelModel, pixel_processor

SENTINEL = {"dtype": "int16", "scale": 1e-4, "offset": -0.1, "gsd_m": 2.0}


def mapped(path, output, trained=None, **options):
    """What a map says, (layers, H, W): classes and probabilities; its grid; and the notes."""
    model, options = PixelModel(training_images=trained).eval(), SceneOptions(**options)
    settings = PredictSettings(probabilities=True, window_px=64)
    with open_scene(path, options, model.config) as scene:
        notes = check_scene(scene, options, model.config)
        done = predict_scene(
            scene, model, pixel_processor(), output, "map", settings=settings, with_polygons=False, force=True
        )
    with rasterio.open(done.classes) as classes, rasterio.open(done.files[".probabilities.tif"]) as shares:
        return np.concatenate([classes.read(), shares.read()]), classes.profile, notes


def shares_of(unit):
    """Probabilities of `PixelModel`, in steps of 1/250, from what a network gets, independently."""
    logits = (unit - 0.5) / 0.25 * 2
    odds = np.exp(logits - logits.max(axis=0))
    return 250 * odds / odds.sum(axis=0)


@pytest.fixture
def dn():
    return np.random.default_rng(0).integers(1000, 9000, (3, 20, 30)).astype(np.int16)


def tagged(path, scale, offset):
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * file.count, (offset,) * file.count
    return path


def test_scale_and_offset_by_the_file_by_a_person_or_as_in_training(write_scene, tmp_path, dn):
    expected = shares_of(dn * 1e-4 - 0.1)
    plain, said = write_scene("a.tif", dn, photometric="RGB"), dict(scale=1e-4, offset=-0.1)
    in_file = tagged(write_scene("b.tif", dn, photometric="RGB"), 1e-4, -0.1)
    for path, trained, options, note in (
        (in_file, None, {}, ""),
        (in_file, SENTINEL, {}, ""),
        (plain, None, said, ""),
        (tagged(write_scene("c.tif", dn, photometric="RGB"), 7, 7), None, said, ""),
        (plain, SENTINEL, {}, "values are scaled as in training, by 0.0001 plus -0.1; the file does not say how"),
    ):
        found, _, notes = mapped(path, tmp_path / "out", trained, **options)
        np.testing.assert_allclose(found[1:], expected, atol=0.51)
        assert [one for one in notes if "scale" in one] == ([note] if note else [])


def test_a_scale_that_differs_from_that_of_training_is_named(write_scene, tmp_path, dn):
    plain, unsigned = write_scene("a.tif", dn), write_scene("b.tif", dn.astype(np.uint16))
    in_file = tagged(write_scene("c.tif", dn), 1e-4, 0)

    def scaling(path, trained, **options):
        return [one for one in mapped(path, tmp_path / "out", trained, **options)[2] if "scaled by" in one]

    (said,) = scaling(unsigned, SENTINEL)  # of another type, so that nobody knows
    assert "trained on values scaled by 0.0001 plus -0.1, and the scene does not say" in said
    (said,) = scaling(in_file, SENTINEL)
    assert "scaled by 0.0001 plus 0; those of training were scaled by 0.0001 plus -0.1" in said
    (said,) = scaling(in_file, {"scale": None, "offset": None})
    assert "those of training were not scaled" in said
    assert scaling(in_file, {"gsd_m": 2.0}) == [] and scaling(plain, SENTINEL, scale=1e-4, offset=-0.1) == []


def test_brighter_than_white_passes_and_stray_values_do_no_harm(write_scene, tmp_path):
    dn = np.random.default_rng(0).integers(100, 9000, (3, 20, 30)).astype(np.uint16)
    dn[0, 3:9], dn[1, 10, 10] = 15001, 65535
    found, _, _ = mapped(write_scene("a.tif", dn), tmp_path / "out", scale=1e-4)
    np.testing.assert_allclose(found[1:], shares_of(dn * 1e-4), atol=0.51)
    everywhere = np.full((3, 20, 30), 15001, np.uint16)
    assert (mapped(write_scene("b.tif", everywhere), tmp_path / "out", scale=1e-4)[0][0] != 255).all()
    for stray in (-3.4e38, 3.4e38, 1e10):
        floats = (dn * 1e-4).astype(np.float32)
        floats[:, 15, 20] = stray
        found, _, _ = mapped(write_scene("c.tif", floats), tmp_path / "out")
        rest = np.ones((20, 30), bool)
        rest[15, 20] = False
        np.testing.assert_allclose(found[1:, rest], shares_of(dn * 1e-4)[:, rest], atol=0.51)


@pytest.mark.parametrize(
    ("dtype", "options", "said"),
    [
        ("float32", {}, r"band 1 has values from 1[\d.]+ to 8[\d.]+ \(2nd and 98th percentile\); expected about 0.5"),
        ("int16", {"scale": 0.01}, r"band 1 has values from .* scaled by 0.01 plus 0\).*--scale"),
        ("int16", {"scale": 1e-4, "offset": -1000.0}, "scaled by 0.0001 plus -1000"),
        ("int16", {}, "holds int16 values, and does not say what they mean.*--scale"),
    ],
)
def test_values_of_a_wrong_scale_are_refused_ahead_of_the_work(write_scene, tmp_path, dn, dtype, options, said):
    path, model = write_scene(pixels=dn.astype(dtype)), PixelModel().eval()
    with pytest.raises(RasterError, match=said):
        mapped(path, tmp_path / "out", **options)
    with rasterio.open(path) as dataset, pytest.raises(RasterError, match=said):
        predict_scene(dataset, model, pixel_processor(), tmp_path / "out", "map", settings=PredictSettings(**options))
    assert model.seen == 0 and not (tmp_path / "out").exists()


def test_physical_values_are_what_the_model_knows(write_scene, tmp_path):
    kelvin = np.random.default_rng(0).normal(290, 10, (3, 20, 30)).astype(np.float32)
    model = PixelModel()
    model.config.image_mean, model.config.image_std = [285.0] * 3, [12.0] * 3
    with open_scene(write_scene(pixels=kelvin), SceneOptions(), model.config) as scene:
        check_scene(scene, SceneOptions(), model.config)


def test_bands_are_found_by_description_or_colour_and_a_note_says_where_order_decided(write_scene, tmp_path):
    rgb = np.random.default_rng(0).integers(1, 256, (3, 20, 30), dtype=np.uint8)
    expected, _, notes = mapped(write_scene("rgb.tif", rgb), tmp_path / "out")
    assert not [one for one in notes if "order" in one]
    plain = dict(photometric="MINISBLACK")
    described, coloured = write_scene("a.tif", rgb[::-1], **plain), write_scene("b.tif", rgb[[1, 2, 0]], **plain)
    with rasterio.open(described, "r+") as file:
        file.descriptions = ("Blue", "Green", "Red")
    with rasterio.open(coloured, "r+") as file:
        file.colorinterp = (ColorInterp.green, ColorInterp.blue, ColorInterp.red)
    for path in (described, coloured):
        found, _, notes = mapped(path, tmp_path / "out")
        np.testing.assert_array_equal(found, expected)
        assert not [one for one in notes if "order" in one]
    _, _, notes = mapped(write_scene("c.tif", rgb, **plain), tmp_path / "out")
    assert any("taken in their order, 1 as red, 2 as green, 3 as blue; if that is wrong, name them" in x for x in notes)
    found, _, notes = mapped(write_scene("d.tif", rgb[::-1], **plain), tmp_path / "out", bands=(3, 2, 1))
    np.testing.assert_array_equal(found, expected)
    assert not [one for one in notes if "order" in one]


def test_near_infrared_that_is_taken_for_alpha_is_named(write_scene, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (4, 20, 30), dtype=np.uint8)
    pixels[3, :5] = 0  # water
    _, _, notes = mapped(write_scene("a.tif", pixels, photometric="RGB", alpha="YES"), tmp_path / "out")
    (said,) = [one for one in notes if "alpha" in one]
    assert "band 4 is taken for alpha" in said and "hides 25.0%" in said and "--colorinterp 4=undefined" in said
    pixels[3, 5:] = 255
    _, _, notes = mapped(write_scene("b.tif", pixels, photometric="RGB", alpha="YES"), tmp_path / "out")
    assert not [one for one in notes if "alpha" in one]


def test_a_palette_is_its_colours(write_scene, tmp_path):
    rng = np.random.default_rng(0)
    table, indices = rng.integers(0, 256, (7, 3)), rng.integers(0, 7, (1, 20, 30)).astype(np.uint8)
    path = write_scene("a.tif", indices, photometric="PALETTE")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {index: (*colour, 255) for index, colour in enumerate(table.tolist())})
    rgb = table[indices[0]].transpose(2, 0, 1).astype(np.uint8)
    for options in ({}, {"gsd": 4.0}, {"gsd": 1.0}):
        found, _, _ = mapped(path, tmp_path / "out", **options)
        expected, _, _ = mapped(write_scene("b.tif", rgb), tmp_path / "out", **options)
        np.testing.assert_array_equal(found, expected)


def controlled(write_scene, bend=0.0):
    path = write_scene(placed=False)
    points = [
        GroundControlPoint(row, column, 500_000 + 2 * column + bend * row * column, 5_000_000 - 2 * row)
        for row in (0, 70)
        for column in (0, 90)
    ]
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.CRS.from_epsg(32633)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_lies_where_its_control_points_put_it_or_is_refused(write_scene, tmp_path):
    _, profile, notes = mapped(controlled(write_scene), tmp_path / "out")
    assert profile["crs"] == "EPSG:32633"
    assert tuple(profile["transform"])[:6] == pytest.approx((2, 0, 500_000, 0, -2, 5_000_000))
    assert "placed by its 4 ground control points, and so is the map" in notes
    with pytest.raises(RasterError, match="4 ground control points .*gdalwarp -tps"):
        mapped(controlled(write_scene, bend=0.05), tmp_path / "out")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_photos_are_mapped_upright(tmp_path, orientation, turns):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)).resize((50, 30))
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "a.jpg")
    picture.save(tmp_path / "b.jpg", exif=exif)
    expected, _, _ = mapped(tmp_path / "a.jpg", tmp_path / "out")
    found, _, _ = mapped(tmp_path / "b.jpg", tmp_path / "out")
    np.testing.assert_array_equal(found, np.rot90(expected, turns, axes=(1, 2)))


def test_black_borders_as_jpeg_smears_them(write_scene, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 256, (3, 40, 60), dtype=np.uint8)
    pixels[:, :, :15] = rng.integers(0, 13, (3, 40, 15))
    pixels[:, 20:24, 30:34] = 5  # a dark roof
    path = write_scene(pixels=pixels)
    found, _, _ = mapped(path, tmp_path / "out", nodata=0, nodata_within=12)
    assert (found[0, :, :15] == 255).all() and (found[0, :, 15:] != 255).all()
    found, _, _ = mapped(path, tmp_path / "out", nodata=0, nodata_within=12, gsd=4)
    assert (found[0, :, :7] == 255).all() and (found[0, :, 8:] != 255).all()


def test_the_resolution_of_training(write_scene, tmp_path):
    path = write_scene(size=(40, 60))  # 2 m
    _, profile, notes = mapped(path, tmp_path / "out", {"gsd_m": 5.0})
    assert (profile["height"], profile["width"]) == (40, 60)
    assert any("pixels are 2 m, in training 5 m (2.5 times finer)" in one for one in notes)
    _, profile, notes = mapped(path, tmp_path / "out", {"gsd_m": 5.0}, gsd="training")
    assert (profile["height"], profile["width"], profile["transform"].a) == (16, 24, 5)
    assert not [one for one in notes if "in training" in one]


def test_an_open_dataset_is_wrapped_and_an_open_scene_stays_as_it_is(write_scene):
    config = PixelModel().config
    path = write_scene(size=(40, 60))
    with rasterio.open(path) as dataset:
        scene = scene_of(dataset, SceneOptions(bands=(3, 2, 1), gsd=4), config)
        assert [band.number for band in scene.bands] == [3, 2, 1] and (scene.height, scene.width) == (20, 30)
        assert scene_of(scene, PredictSettings(window_px=9), config) is scene
        with pytest.raises(RasterError, match="is open already; give bands"):
            scene_of(scene, PredictSettings(scale=2), config)


@pytest.mark.parametrize(
    ("crs", "old", "new"),
    [
        ("EPSG:32633", b"\x11\x01\x04", b"\x11\x01\xaa"),  # places of the strips, of no known type
        ("+proj=geos +h=35785831 +lon_0=0", b'"Meter"', b'"\xaaeter"'),  # a CRS that is no UTF-8
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio's own, of its log
def test_what_gdal_raises_itself_is_a_refusal_as_well(write_scene, crs, old, new):
    path, config = write_scene(size=(20, 30), crs=crs), PixelModel().config
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(RasterError, match=r"scene\.tif cannot be read .*expected a whole image"):
        with open_scene(path, SceneOptions(), config) as scene:
            scene.read()
