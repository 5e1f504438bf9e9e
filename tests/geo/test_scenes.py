"""What a scene holds, and where: bands, alpha, nodata, damage."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from co2s_hf.geo.scenes import Grid, Part, RasterError, SceneReader, choose_bands, opened, thinned, write_cog

ALL = slice(0, 20), slice(0, 30)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, 256, (4, 20, 30), dtype=np.uint8)


def read(path, bands, **options):
    with opened(path) as dataset:
        return SceneReader(dataset, bands, **options).read(*ALL)


def test_bands_are_chosen_by_number_by_name_or_all(write_scene, pixels):
    path = write_scene(pixels=pixels, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("NIR", "Red", "Green", "Blue")
    with opened(path) as dataset:
        assert choose_bands(dataset, None, 3, ["red", "green", "blue"]) == [2, 3, 4]
        assert choose_bands(dataset, (3, 1), 2, ["red", "green"]) == [3, 1]
        assert choose_bands(dataset, None, 4, None) == [1, 2, 3, 4]
        with pytest.raises(RasterError, match=r"has 4 bands, the model takes 3 \(a, b, c\). Choose with --bands"):
            choose_bands(dataset, None, 3, ["a", "b", "c"])
        for wanted in ((1, 2), (1, 2, 5)):
            with pytest.raises(RasterError, match="has bands 1 to 4 and the model takes 3"):
                choose_bands(dataset, wanted, 3, None)


def test_alpha_says_where_the_scene_is_unless_the_model_takes_it(write_scene, pixels):
    pixels[3] = 255
    pixels[3, :, :7] = 0
    path = write_scene(pixels=pixels, photometric="RGB", alpha="YES")
    with opened(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
        assert choose_bands(dataset, None, 3, None) == [1, 2, 3] and choose_bands(dataset, None, 4, None) == [
            1,
            2,
            3,
            4,
        ]
    found, valid = read(path, [1, 2, 3])
    assert not valid[:, :7].any() and valid[:, 7:].all() and (found[:, :, :7] == 0).all()
    assert read(path, [1, 2, 3, 4])[1].all()


def test_no_data_is_where_all_bands_say_so(write_scene, pixels):
    pixels[:, :5], pixels[:2, 5:7], pixels[:, 7] = 0, 0, 9
    path = write_scene(pixels=pixels, nodata=0, photometric="MINISBLACK")
    assert read(path, [1, 2, 3, 4])[1].sum() == 15 * 30
    assert read(path, [1, 2])[1].sum() == 13 * 30, "of the bands that the model sees"
    assert read(path, [1, 2, 3, 4], nodata=9)[1].sum() == 14 * 30


def test_nan_in_any_band_is_no_data(write_scene):
    pixels = np.ones((3, 20, 30), np.float32)
    pixels[1, 4, 5], pixels[2, 6, 7] = np.nan, np.inf
    found, valid = read(write_scene(pixels=pixels), [1, 2, 3])
    assert (~valid).sum() == 2 and not valid[4, 5] and np.isfinite(found).all()


def test_a_mask_band_counts(write_scene, pixels):
    path, mask = write_scene(pixels=pixels[:3]), np.full((20, 30), 255, np.uint8)
    mask[:3] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert (read(path, [1, 2, 3])[1] == (mask > 0)).all()


def test_values_are_scaled_where_asked_to(write_scene):
    found, _ = read(write_scene(pixels=np.full((1, 20, 30), 2500, np.int16)), [1], scale=1e-4)
    assert found.dtype == np.float32 and found == pytest.approx(0.25)


def test_complex_values_are_refused(write_scene):
    with pytest.raises(RasterError, match="complex64"):
        read(write_scene(pixels=np.ones((1, 20, 30), np.complex64)), [1])


def test_resampled_scenes_keep_their_nodata(write_scene, pixels):
    pixels[:, :, :10] = 0
    path = write_scene(pixels=pixels[:3], nodata=0)  # 2 m
    with opened(path, gsd_m=4.0, own_m=2.0) as dataset:
        grid = Grid.of(dataset)
        found, valid = SceneReader(dataset, [1, 2, 3]).read(slice(0, 10), slice(0, 15))
    assert (grid.height, grid.width, grid.transform[0]) == (10, 15, 4.0)
    assert not valid[:, :5].any() and valid[:, 5:].all()
    blocks = pixels[:3, :, 10:].reshape(3, 10, 2, 10, 2).mean((2, 4))
    assert np.abs(found[:, :, 5:] - blocks).max() <= 1


def test_maps_are_put_together_from_parts(tmp_path):
    layers = np.random.default_rng(0).integers(0, 3, (2, 30, 20), dtype=np.uint8)
    parts = [Part(tmp_path / "a.raw", 0, 12), Part(tmp_path / "b.raw", 12, 18)]
    for part in parts:
        part.path.write_bytes(layers[:, part.top : part.top + part.rows].tobytes())
    grid = Grid(30, 20, (1, 0, 0, 0, 1, 0), None)
    write_cog(tmp_path / "map.tif", grid, parts, [1, 0], names=["x & y", "<z>"], tags={"a": '"1" < 2'})
    with opened(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(), layers[::-1])
        assert made.descriptions == ("x & y", "<z>") and made.tags()["a"] == '"1" < 2' and made.crs is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.raw", "b.raw", "map.tif"]
    assert thinned(tmp_path / "map.tif", 10).shape == (10, 6)


@pytest.mark.parametrize(
    ("rows", "place", "said"),
    [
        (2**31 - 1, "0, 1, 0, 0, 0, 1", "at most 20000000 px on a side"),
        (7, "0, 1, 1, 0, 1, 1", "its pixels have no area"),
        (7, "nan, 2, 0, 0, 0, 2", "its pixels have no area"),
        (7, "0, 1e-300, 0, 0, 0, 1e-300", "its pixels have no area"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_anything_is_allocated(tmp_path, rows, place, said):
    text = f'<VRTDataset rasterXSize="5" rasterYSize="{rows}"><GeoTransform>{place}</GeoTransform>'
    (tmp_path / "a.vrt").write_text(f'{text}<VRTRasterBand dataType="Byte"/></VRTDataset>')
    with opened(tmp_path / "a.vrt") as dataset, pytest.raises(RasterError, match=said):
        Grid.of(dataset)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(write_scene, scale):
    with opened(write_scene()) as dataset, pytest.raises(RasterError, match="--scale is .*; expected a factor above 0"):
        SceneReader(dataset, [1, 2, 3], scale=scale)


@pytest.mark.parametrize(
    ("crs", "old", "new"),
    [
        ("EPSG:32633", b"\x11\x01\x04", b"\x11\x01\xaa"),  # places of the strips, of no known type
        ("+proj=geos +h=35785831 +lon_0=0", b'"Meter"', b'"\xaaeter"'),  # a CRS that is no UTF-8
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio's own, of its log
def test_what_gdal_raises_itself_is_a_refusal_as_well(write_scene, crs, old, new):
    path = write_scene(size=(20, 30), crs=crs)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(RasterError, match=r"scene\.tif cannot be read .*expected a whole raster"):
        read(path, [1, 2, 3])
