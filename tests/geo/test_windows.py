"""Windows over a scene: no pixel left out, weights that sum to one, results that depend on the grid alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from co2s_hf.geo.windows import (
    PROBABILITY_STEPS,
    Blender,
    MemoryCarry,
    WindowGrid,
    as_share,
    blend_weights,
    cut_bands,
    share,
)
from co2s_hf.raster.cog import LAYER_STEPS

CHANNELS = 2


@st.composite
def grids(draw):
    window = draw(st.integers(1, 24))
    overlap = draw(st.integers(0, window * 3 // 4))
    return WindowGrid(draw(st.integers(1, 60)), draw(st.integers(1, 60)), window, overlap)


def blended(grid, batch, values, rows=None, blender=None):
    """Sums of all final pixels of `rows` of windows, each window cut from `values` (channels, height, width)."""
    chunks = grid.chunks(batch)
    blender = blender or Blender(grid, chunks, len(values), MemoryCarry())
    height, width = grid.window_shape
    sums = np.zeros_like(values)
    for row in range(len(grid.tops)) if rows is None else rows:
        for chunk in chunks:
            top = grid.tops[row]
            windows = [values[:, top : top + height, left : left + width] for left in chunk.lefts]
            sums[:, grid.final_rows(row), chunk.columns] = blender.add(row, chunk, windows)
    return sums


@settings(deadline=None)
@given(grids())
def test_weights_are_positive_and_sum_to_one_at_every_pixel(grid):
    assert grid.weights.min() >= 1 and grid.weights.shape == grid.window_shape
    totals = np.zeros((grid.height, grid.width), np.int64)
    height, width = grid.window_shape
    for top in grid.tops:
        for left in grid.lefts:
            assert top + height <= grid.height and left + width <= grid.width
            totals[top : top + height, left : left + width] += grid.weights
    np.testing.assert_array_equal(totals, np.outer(grid.row_totals, grid.column_totals))
    assert totals.min() >= 1 and totals.max() * PROBABILITY_STEPS < 2**31
    # the shares of the windows above the last pixel, as exact fractions
    corner = [
        Fraction(int(grid.weights[grid.height - 1 - top, grid.width - 1 - left]), int(totals[-1, -1]))
        for top in grid.tops
        for left in grid.lefts
        if top + height == grid.height and left + width == grid.width
    ]
    assert sum(corner) == 1


@settings(deadline=None)
@given(grids(), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_windows_that_agree_give_back_what_they_agree_on(grid, batch, seed):
    shape = (CHANNELS, grid.height, grid.width)
    values = np.random.default_rng(seed).integers(0, PROBABILITY_STEPS + 1, shape, dtype=np.int32)
    sums = blended(grid, batch, values)
    np.testing.assert_array_equal(sums, values * np.outer(grid.row_totals, grid.column_totals))
    ones = np.ones(max(grid.height, grid.width), np.int32)
    untiled = as_share(values, ones[: grid.height], ones[: grid.width])
    np.testing.assert_array_equal(as_share(sums, grid.row_totals, grid.column_totals), untiled)


@settings(deadline=None)
@given(grids(), st.integers(1, 70), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_bands_shares_and_batches_change_no_pixel(grid, band_px, count, batch, seed):
    rng = np.random.default_rng(seed)
    height, width = grid.window_shape
    places = [(row, left) for row in range(len(grid.tops)) for left in grid.lefts]
    windows = {place: rng.integers(0, 9, (CHANNELS, height, width), dtype=np.int32) for place in places}
    expected = np.zeros((CHANNELS, grid.height, grid.width), np.int32)
    for (row, left), window in windows.items():
        top = grid.tops[row]
        expected[:, top : top + height, left : left + width] += window * grid.weights
    bands = cut_bands(grid, band_px)
    assert [row for band in bands for row in band.rows] == list(range(len(grid.tops)))
    assert bands[0].top == 0 and bands[-1].bottom == grid.height
    shares = [share(bands, index, count) for index in range(count)]
    assert [band for one in shares for band in one] == bands
    chunks, found = grid.chunks(batch), np.full_like(expected, -1)
    for band in bands:
        blender = Blender(grid, chunks, CHANNELS, MemoryCarry())
        for row in range(grid.first_reaching(band.rows.start), band.rows.stop):
            for chunk in chunks:
                sums = blender.add(row, chunk, [windows[row, left] for left in chunk.lefts])
                if row in band.rows:
                    found[:, grid.final_rows(row), chunk.columns] = sums
    np.testing.assert_array_equal(found, expected)


def test_the_weight_falls_over_the_overlap_and_not_to_zero():
    assert blend_weights(8, 3).tolist() == [8, 16, 24, 32, 32, 24, 16, 8]
    assert blend_weights(4, 0).tolist() == [32] * 4
    assert blend_weights(3, 100).tolist() == [1, 1, 1]


def test_a_window_without_data_adds_nothing():
    grid = WindowGrid(4, 6, 4, 2)
    (chunk,) = grid.chunks(8)
    window = np.full((1, 4, 4), 10, np.int32)
    sums = Blender(grid, [chunk], 1, MemoryCarry()).add(0, chunk, [None, window])
    assert (sums[0, :, :2] == 0).all() and (sums[0, :, 2:] == 10 * grid.weights).all()


def test_a_forgotten_row_leaves_nothing():
    grid = WindowGrid(6, 4, 4, 2)
    blender = Blender(grid, grid.chunks(1), 1, MemoryCarry())
    values = np.full((1, 6, 4), 7, np.int32)
    blended(grid, 1, values, range(1), blender)
    blender.forget()
    sums = blended(grid, 1, values, range(1, 2), blender)
    np.testing.assert_array_equal(sums[:, 2:], 7 * grid.weights[None])


def test_shares_are_rounded_halves_upwards():
    one = np.ones(1, np.int32)
    values = np.array([0, 1, 131, 132, PROBABILITY_STEPS], np.int32).reshape(-1, 1, 1)
    assert as_share(values, one, one).ravel().tolist() == [0, 0, 0, 1, LAYER_STEPS]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 5, 4, 1), "has no pixel"),
        ((5, 5, 4, 4), "3/4 of the window"),
        ((5, 5, 4, -1), "from 0"),
        ((5, 5, 0, 0), "0"),
    ],
)
def test_grids_that_cannot_be_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        WindowGrid(*numbers)
