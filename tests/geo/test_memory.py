"""How many windows fit."""

import pytest

from co2s_hf.geo.memory import batch_within, peak_bytes
from co2s_hf.geo.scenes import GDAL_CACHE_BYTES, SceneError
from tests.geo.pixel_model import PixelModel


def test_the_batch_grows_with_the_bound_and_is_a_power_of_two():
    used, window = peak_bytes() + GDAL_CACHE_BYTES, 1000 * 1000 * (3 * 16 + 4 * 20 + 2 + 4 * 3 * 4)
    found = [batch_within(used + share * window, PixelModel(), 3, (1000, 1000), 4, 2) for share in (2, 5, 500)]
    assert found[0] in (1, 2) and found[1] in (2, 4) and found[2] == 64
    with pytest.raises(SceneError, match="--max-memory is .* one window of 1000 x 1000 px"):
        batch_within(used, PixelModel(), 3, (1000, 1000), 4, 2)
