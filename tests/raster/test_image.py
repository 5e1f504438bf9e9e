import math

import numpy as np
import pytest

from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.image import Band, NoData, Raster, Reading, is_grey, unit_factors

WHITE = {"uint8": 255, "uint16": 65535}


def band(dtype, number=1, **known):
    return Band(number, "", "", dtype, None, known.pop("white", WHITE.get(dtype)), **known)


def raster(pixels, reading=Reading(), valid=None, palette=None, **known):  # noqa: B008  # frozen
    pixels = np.asarray(pixels)
    bands = tuple(band(pixels.dtype.name, i + 1, **known) for i in range(len(pixels)))
    valid = np.ones(pixels.shape[1:], bool) if valid is None else np.asarray(valid)
    return Raster("a.tif", pixels, valid, bands, reading, Grid(*pixels.shape[1:]), palette)


@pytest.mark.parametrize(
    ("value", "dtype", "pixels", "held"),
    [
        (0, np.uint8, [0, 1], [True, False]),
        (300, np.uint8, [44, 255], [False, False]),  # 300 - 256 is 44
        (-9999, np.int16, [-9999, 9999], [True, False]),
        (0.5, np.int16, [0, 1], [False, False]),
        (0.1, np.float32, [0.1, 0.2], [True, False]),  # 0.1 of 32 bits is not that of 64
        (math.inf, np.uint8, [0, 255], [False, False]),
        (math.nan, np.float64, [np.nan, 0.0], [True, False]),
        (math.nan, np.uint8, [0, 1], [False, False]),
        (2**53 + 1, np.int64, [2**53 + 1, 2**53], [True, False]),
        (2**64 - 1, np.uint64, [2**64 - 1, 2**64 - 2], [True, False]),
    ],
)
def test_nodata_is_compared_in_the_type_of_the_pixels(value, dtype, pixels, held):
    assert NoData(value).holds(np.array([[pixels]], dtype)).tolist() == [held]


def test_nodata_is_what_all_bands_hold():
    pixels = np.array([[[0, 0, 5]], [[0, 7, 0]]], np.uint8)
    assert NoData(0).holds(pixels).tolist() == [[True, False, False]]
    assert NoData(5, within=5).holds(pixels).tolist() == [[True, True, True]]
    assert NoData(2, within=4).holds(pixels).tolist() == [[True, False, True]]
    with pytest.raises(RasterError, match="within -1 of 0"):
        NoData(0, -1)


@pytest.mark.parametrize(
    ("pixels", "known", "reading", "unit"),
    [
        (np.uint8([[[0, 51, 255]]]), {}, Reading(), [0, 0.2, 1]),
        (np.uint16([[[0, 13107, 65535]]]), {}, Reading(), [0, 0.2, 1]),
        (np.uint16([[[0, 4095]]]), {"white": 4095}, Reading(), [0, 1]),
        (np.uint16([[[1000, 15001]]]), {"scale": 1e-4, "offset": -0.1}, Reading(), [0, 1.4001]),
        (np.uint16([[[1000, 2000]]]), {}, Reading(scale=1e-4), [0.1, 0.2]),
        (np.uint16([[[1000, 2000]]]), {"scale": 1e-4, "offset": -0.1}, Reading(scale=1e-3), [0.9, 1.9]),
        (np.uint16([[[1000, 2000]]]), {"scale": 1e-4, "offset": -0.1}, Reading(offset=0.0), [0.1, 0.2]),
        (np.int16([[[-1000, 1000]]]), {"scale": 1e-4}, Reading(), [-0.1, 0.1]),
        (np.float32([[[-1.5, 300]]]), {}, Reading(), [-1.5, 300]),
        (np.int64([[[2**53 + 1, 3]]]), {"scale": 2.0**-53}, Reading(), [1, 3 * 2.0**-53]),
    ],
)
def test_unit_is_what_stored_values_mean(pixels, known, reading, unit):
    found = raster(pixels, reading, **known).unit
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], unit, rtol=1e-6, atol=1e-7)


def test_unit_of_16_bits_is_rounded_once():
    pixels = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    np.testing.assert_array_equal(raster(pixels).unit, (pixels / 65535).astype(np.float32))


def test_bands_have_factors_of_their_own():
    bands = (band("uint16", 1, scale=1e-4), band("uint16", 2))
    found = Raster("a.tif", np.full((2, 1, 1), 655, np.uint16), np.ones((1, 1), bool), bands, Reading(), Grid(1, 1))
    np.testing.assert_allclose(found.unit.ravel(), [0.0655, 655 / 65535], rtol=1e-6)


def test_what_holds_no_data_is_0_in_every_type():
    for pixels in (
        np.uint8([[[9, 255]]]),
        np.float64([[[9, np.nan]]]),
        np.float64([[[9, 1e300]]]),
        np.uint16([[[9, 65535]]]),
    ):
        found = raster(pixels, valid=[[True, False]])
        assert found.unit[0, 0, 1] == 0 and found.input[0, 0, 1] == 0 and found.unit[0, 0, 0] > 0
    assert raster(np.uint8([[[9, 255]]])).input.dtype == np.uint8  # a quarter of the memory
    offset = raster(np.float32([[[9, np.nan]]]), Reading(scale=2.0, offset=1.0), valid=[[True, False]])
    assert offset.unit[0, 0].tolist() == [19, 0]


def test_palettes_are_colours():
    palette = np.array([[1, 2, 3, 255], [7, 8, 9, 255]], np.uint8)
    found = raster(np.uint8([[[0, 1, 200]]]), palette=palette, valid=[[True, True, False]])
    assert found.colours[:, 0].T.tolist() == [[1, 2, 3], [7, 8, 9], [7, 8, 9]]
    np.testing.assert_allclose(found.unit[:, 0].T, np.array([[1, 2, 3], [7, 8, 9], [0, 0, 0]]) / 255, rtol=1e-6)
    grey = np.array([[4, 4, 4, 255], [5, 5, 5, 255]], np.uint8)
    assert is_grey(grey) and not is_grey(palette)
    assert raster(np.uint8([[[1, 0]]]), palette=grey).colours.tolist() == [[[5, 4]]]


def test_values_without_a_meaning_are_refused():
    for dtype in (np.int8, np.int16, np.int32, np.uint32, np.int64, np.uint64):
        with pytest.raises(RasterError, match=f"a.tif holds {np.dtype(dtype).name} values, and does not say"):
            _ = raster(np.zeros((1, 1, 1), dtype)).unit
    for scale, offset in ((0.0, 0.0), (math.nan, 0.0), (1.0, math.inf), (1e-320, 0.0)):
        with pytest.raises(RasterError, match="a.tif says that its values have the scale"):
            unit_factors("a.tif", [band("uint8", scale=scale, offset=offset)], Reading())
    with pytest.raises(RasterError, match="--scale is 0"):
        Reading(scale=0)
    with pytest.raises(RasterError, match="--offset is nan"):
        Reading(offset=math.nan)
