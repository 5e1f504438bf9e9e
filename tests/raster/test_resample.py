"""Other pixels on the same ground: the right mean, in any windows, and no source of no-data is lost."""

import math
import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning

from co2s_hf.raster import resample
from co2s_hf.raster.image import NoData, Reading
from co2s_hf.raster.read import open_raster
from co2s_hf.raster.resample import Resampled

PLACE = rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)


@pytest.fixture
def write(tmp_path):
    """Writes a GeoTIFF; gives its path."""

    def to(pixels, mask=None, colours=None, **profile):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tif"
        profile = dict(driver="GTiff", crs="EPSG:32633", transform=PLACE, photometric="MINISBLACK") | profile
        size = dict(count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], dtype=pixels.dtype)
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **size, **profile) as file:
                file.write(pixels)
                if mask is not None:
                    file.write_mask(mask)
                if colours is not None:
                    file.write_colormap(1, colours)
        return path

    return to


def resampled(path, height, width, reading=Reading()):  # noqa: B008
    with open_raster(path, reading) as file:
        return Resampled(file, height, width).read()


def area_weights(source, target):
    """(target, source) share of each pixel of the source in each of the target, by integrals."""
    edges = np.arange(target + 1) * source / target
    starts = np.arange(source)
    low, high = np.maximum(edges[:-1, None], starts), np.minimum(edges[1:, None], starts + 1)
    return np.clip(high - low, 0, None) / (source / target)


def bilinear_weights(source, target):
    weights = np.zeros((target, source))
    for index in range(target):
        place = (index + 0.5) * source / target - 0.5
        below, share = math.floor(place), place - math.floor(place)
        weights[index, min(max(below, 0), source - 1)] += 1 - share
        weights[index, min(max(below + 1, 0), source - 1)] += share
    return weights


def expected(values, valid, height, width):
    """The mean of what holds data, independently: dense weights, float64."""
    down, across = (
        area_weights(one, other) if one >= other else bilinear_weights(one, other)
        for one, other in zip(valid.shape, (height, width), strict=True)
    )
    known = down @ valid @ across.T
    sums = np.stack([down @ np.where(valid, band, 0) @ across.T for band in values.astype(float)])
    return sums / np.maximum(known, 1e-9), known


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    seed=st.integers(0, 99),
)
def test_the_mean_of_what_holds_data(shape, size, dtype, seed, write):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 250, (2, *shape)).astype(dtype)
    mask = np.where(rng.random(shape) < 0.4, 0, 255).astype(np.uint8)
    found = resampled(write(pixels, mask), *size)
    values, known = expected(pixels, mask > 0, *size)
    clear = np.abs(known - 0.5) > 1e-6
    np.testing.assert_array_equal(found.valid[clear], known[clear] > 0.5)
    difference = np.abs(found.pixels.astype(float) - values)[:, found.valid & clear]
    assert found.pixels.dtype == dtype and difference.max(initial=0) <= (1e-3 if dtype == "float32" else 0.5 + 1e-6)


def test_half_is_enough(write):
    pixels, mask = np.full((1, 2, 4), 10, np.uint8), np.zeros((2, 4), np.uint8)
    mask[0] = 255
    mask[1, 3] = mask[0, 0] = mask[0, 3] = 0
    mask[1, 3] = 0
    mask[0, 1] = 255
    found = resampled(write(pixels, mask), 1, 2)  # one of four, one of four
    assert not found.valid.any()
    mask[1, 1] = 255
    found = resampled(write(pixels, mask), 1, 2)  # two of four
    assert found.valid.tolist() == [[True, False]] and found.pixels[0, 0, 0] == 10


@pytest.mark.parametrize(("height", "width"), [(20, 15), (13, 17), (7, 5), (120, 90)])
def test_gdal_agrees_where_everything_holds_data(write, height, width):
    path = write(np.random.default_rng(0).integers(0, 4000, (3, 40, 30), dtype=np.uint16))
    found = resampled(path, height, width)
    transform = PLACE @ PLACE.scale(30 / width, 40 / height)
    how = Resampling.average if height < 40 else Resampling.bilinear
    with (
        rasterio.open(path) as file,
        rasterio.vrt.WarpedVRT(
            file, crs=file.crs, transform=transform, height=height, width=width, resampling=how
        ) as warped,
    ):
        gdal = warped.read()
    assert found.valid.all() and np.abs(found.pixels.astype(int) - gdal.astype(int)).max() <= 1
    assert (found.pixels == gdal).mean() > 0.99
    assert found.grid.transform == pytest.approx(tuple(transform)[:6]) and found.grid.crs is not None


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    size=st.sampled_from([(9, 11), (13, 7), (40, 33), (24, 50)]),
    side=st.integers(1, 30),
)
def test_any_windows_give_the_same_pixels(cuts, size, side, write, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = rng.normal(0, 1e3, (2, 24, 27)).astype(np.float32)
    pixels[:, rng.random((24, 27)) < 0.3] = np.nan
    with open_raster(write(pixels)) as file:
        scene = Resampled(file, *size)
        whole = scene.read()
        monkeypatch.setattr(resample, "SOURCE_SIDE_PX", side)
        for top in range(0, size[0], cuts[0]):
            for left in range(0, size[1], cuts[1]):
                place = slice(top, min(top + cuts[0], size[0])), slice(left, min(left + cuts[1], size[1]))
                part = scene.read(*place)
                np.testing.assert_array_equal(part.pixels, whole.pixels[:, *place])
                np.testing.assert_array_equal(part.valid, whole.valid[place])
                assert part.grid == scene.grid.window(*place)


def hidden(kind, write, folder):
    """A raster of 200 whose left half holds no data, by this source; with its reading."""
    pixels, reading = np.full((3, 20, 40), 200, np.uint8), Reading()
    mask = np.full((20, 40), 255, np.uint8)
    mask[:, :20] = 0
    if kind == "mask":
        return write(pixels, mask), reading
    if kind == "sidecar mask":
        path = write(pixels)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
        assert path.with_name(f"{path.name}.msk").exists()
        return path, reading
    if kind == "alpha":
        return write(np.concatenate([pixels, mask[None]]), photometric="RGB", alpha="YES"), Reading(count=3)
    if kind == "transparent colour":
        indices = np.where(mask == 0, 0, 1)[None].astype(np.uint8)
        table = {0: (9, 9, 9, 0), 1: (200, 200, 200, 255)}
        return write(indices, driver="PNG", photometric=None, colours=table), reading  # TIFF has no such colours
    if kind == "nan":
        floats = np.where(mask == 0, np.nan, 0.8).repeat(3, 0).reshape(20, 3, 40).transpose(1, 0, 2)
        return write(floats.astype(np.float32)), reading
    pixels[:, mask == 0] = 0
    if kind == "nodata value":
        return write(pixels, nodata=0), reading
    if kind == "declared nodata":
        return write(pixels), Reading(nodata=NoData(0))
    pixels[:, mask == 0] = np.random.default_rng(0).integers(0, 13, (3, 400))
    pixels[:, 5:8, 30:33] = 4  # a dark roof
    return write(pixels), Reading(nodata=NoData(0, 12))


KINDS = [
    "mask",
    "sidecar mask",
    "alpha",
    "transparent colour",
    "nan",
    "nodata value",
    "declared nodata",
    "border within a tolerance",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(10, 20), (8, 12), (40, 80)])
def test_every_source_of_no_data_survives(kind, size, write, tmp_path):
    path, reading = hidden(kind, write, tmp_path)
    found = resampled(path, *size, reading)
    middle = np.arange(size[1]) + 0.5 > size[1] / 2
    clear = np.abs(np.arange(size[1]) + 0.5 - size[1] / 2) >= 1
    np.testing.assert_array_equal(found.valid[:, clear], np.broadcast_to(middle[clear], (size[0], clear.sum())))
    unit = found.unit[:, found.valid]
    if kind == "border within a tolerance":
        assert unit.min() < 0.7, "a dark roof is data"
        unit = unit[unit > 0.75]
    np.testing.assert_allclose(unit, 0.8 if kind == "nan" else 200 / 255, atol=1e-6)
    assert (found.input[:, ~found.valid] == 0).all()


def test_colours_of_a_palette_are_mixed_never_indices(write):
    table = {0: (250, 0, 10, 255), 1: (0, 0, 0, 255), 2: (0, 100, 20, 255)}
    indices = np.array([[[0, 2, 2, 2]]], np.uint8)
    found = resampled(write(indices, photometric="PALETTE", colours=table), 1, 2, Reading(count=3))
    assert found.pixels[:, 0].T.tolist() == [[125, 50, 15], [0, 100, 20]] and found.palette is None
    assert [band.colour for band in found.bands] == ["red", "green", "blue"]
    assert found.input.dtype == np.uint8
    grey = {0: (0, 0, 0, 255), 1: (100, 100, 100, 255)}
    found = resampled(write(np.array([[[0, 1]]], np.uint8), photometric="PALETTE", colours=grey), 1, 1)
    assert found.pixels.tolist() == [[[50]]]


def test_scale_and_offset_stay_what_they_are(write):
    path = write(np.array([[[1000, 3000]]], np.int16))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,), (-0.1,)
    assert resampled(path, 1, 1).unit.tolist() == [[[pytest.approx(0.1)]]]


def test_a_thinned_look_lies_on_the_same_ground(write):
    path = write(np.random.default_rng(0).integers(0, 255, (3, 40, 60), dtype=np.uint8))
    with open_raster(path) as file:
        scene = Resampled(file, 20, 30)
        found = scene.read(slice(10, 20), slice(15, 30), (5, 5))
        assert found.pixels.shape == (3, 5, 5)
        assert found.grid == scene.grid.window(slice(10, 20), slice(15, 30)).resized(5, 5)
        assert file.dataset.colorinterp[0] != ColorInterp.palette
        np.testing.assert_array_equal(found.pixels, file.read(slice(20, 40), slice(30, 60), (5, 5)).pixels)
