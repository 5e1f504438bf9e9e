import numpy as np
import pytest

from co2s_hf.data.band_statistics import BandStatistics


def test_streamed_statistics_are_those_of_all_pixels_together():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 60000, (h, 7, 2), dtype=np.uint16) for h in (1, 5, 9)]
    valid = [None, rng.random((5, 7)) < 0.5, np.zeros((9, 7), bool)]
    statistics = BandStatistics(2)
    for image, where in zip(images, valid, strict=True):
        statistics.update(image, where)
    pixels = np.concatenate([images[0].reshape(-1, 2), images[1][valid[1]]]).astype(np.float64)
    assert statistics.pixels == len(pixels)
    np.testing.assert_allclose(statistics.mean, pixels.mean(0))
    np.testing.assert_allclose(statistics.std, pixels.std(0))
    assert statistics.minimum.tolist() == pixels.min(0).tolist()
    assert statistics.maximum.tolist() == pixels.max(0).tolist()


def test_large_values_with_little_spread_keep_their_deviation():
    statistics = BandStatistics(1)
    for value in (60000, 60001):
        statistics.update(np.full((100, 100, 1), value, np.uint16))
    assert statistics.std[0] == pytest.approx(0.5)


def test_another_number_of_bands_is_refused():
    with pytest.raises(ValueError, match="An image has 3 bands; expected 4"):
        BandStatistics(4).update(np.zeros((2, 2, 3), np.uint8))
