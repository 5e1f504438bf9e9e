"""How many windows fit, and what is given back."""

import sys
from pathlib import Path

import pytest

from co2s_hf.geo.memory import batch_within, give_back, peak_bytes
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.read import GDAL_CACHE_BYTES
from tests.geo.pixel_model import PixelModel


def test_the_batch_grows_with_the_bound_and_is_a_power_of_two():
    used, window = peak_bytes() + GDAL_CACHE_BYTES, 1000 * 1000 * (3 * 16 + 4 * 20 + 2 + 4 * 3 * 4)
    found = [batch_within(used + share * window, PixelModel(), 3, (1000, 1000), 4, 2) for share in (2, 5, 500)]
    assert found[0] in (1, 2) and found[1] in (2, 4) and found[2] == 64
    with pytest.raises(RasterError, match="--max-memory is .* one window of 1000 x 1000 px"):
        batch_within(used, PixelModel(), 3, (1000, 1000), 4, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give memory back by themselves")
def test_memory_between_what_stays_is_given_back():
    held = [b"x" * 50_000 for _ in range(2000)]  # below glibc's bound for memory of its own
    full, held = held_bytes(), held[::100]
    give_back()
    assert full - held_bytes() > 70_000_000 and len(held) == 20


def held_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
