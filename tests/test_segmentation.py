"""What every model does with images, by hand; with a model it is tested in tests/test_modeling_*.py."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from co2s_hf.geo.windows import Blender, MemoryCarry, WindowGrid
from co2s_hf.segmentation import (
    blend_weights,
    check_window,
    cross_entropy,
    default_stride_px,
    in_steps,
    pad,
    padded_size,
    slide,
    slide_strips,
    window_overlap_px,
    window_starts,
)


def test_window_starts_cover_every_axis():
    for size in (1, 5, 32, 33, 63, 64, 65, 100, 213):
        for window in (1, 7, 32, 64):
            for stride in {1, max(1, window // 2), max(1, int(window * 5 / 6)), window}:
                starts = window_starts(size, window, stride)
                covered = {pixel for start in starts for pixel in range(start, min(start + window, size))}
                assert covered == set(range(size))
                assert starts == sorted(set(starts)) and starts[-1] == max(size - window, 0)
    assert window_starts(512, 256, 213) == [0, 213, 256]
    assert default_stride_px(256) == 213


def test_sliding_averages_the_logits_of_each_prediction_alike():
    pixels = torch.arange(24.0).view(2, 1, 3, 4)
    options = dict(window_px=3, stride_px=1, average="logits")
    same, first_column = slide(lambda x: (x, x[..., :1].expand_as(x)), pixels, **options)
    assert torch.equal(same, pixels)
    # Windows begin in columns 0 and 1: the two in the middle see both.
    expected = torch.tensor([0.0, 0.5, 0.5, 1.0]).expand(3, -1) + torch.tensor([0.0, 4.0, 8.0])[:, None]
    assert torch.equal(first_column, torch.stack([expected, expected + 12])[:, None])


def test_probabilities_are_averaged_with_the_weights_by_hand():
    # One row of 5 px, windows of 3 px at 0 and 2, an overlap of 1 px: weights 16, 32, 16.
    assert blend_weights(3, 1).tolist() == [16, 32, 16]
    sure = torch.tensor([3.0, -3.0])

    def predict(windows):  # a window says the same everywhere: by its first pixel class 0 or class 1
        logits = torch.where(windows[:, :, :1, :1] > 0, sure.view(1, 2, 1, 1), -sure.view(1, 2, 1, 1))
        return [logits.expand(-1, -1, *windows.shape[-2:])]

    pixels = torch.tensor([[1.0, 1, -1, -1, -1]])[None, None]
    (found,) = slide(predict, pixels, window_px=3, stride_px=2, average="probabilities")
    high, low = (round(65535 / (1 + torch.e**exponent)) for exponent in (-6, 6))
    middle = Fraction(16 * high + 16 * low, 32 * 65535)  # of the pixel that both windows see
    expected = [high / 65535, high / 65535, float(middle), low / 65535, low / 65535]
    assert found.dtype == torch.float32 and found[0, 0, 0].exp().tolist() == pytest.approx(expected, rel=1e-6)
    assert found.softmax(1)[0, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_window_that_is_sure_beyond_measure_does_not_outvote_the_others():
    logits = torch.tensor([[1e4, 0.0], [0.0, 3.0]])[:, :, None, None]  # of the windows at columns 0 and 1 of 4
    options = dict(window_px=3, stride_px=1)
    maps = {
        average: slide(lambda x: [logits.expand(-1, -1, 1, 3)], torch.zeros(1, 1, 1, 4), average=average, **options)[0]
        for average in ("probabilities", "logits")
    }
    found = {average: one[0, :, 0].argmax(0).tolist() for average, one in maps.items()}
    assert found == {"probabilities": [0, 0, 1, 1], "logits": [0, 0, 0, 1]}


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (33, 50), (64, 21)])
@pytest.mark.parametrize(("window", "stride"), [(20, 13), (20, 20), (16, 2), (7, 6)])
def test_sums_are_those_of_the_maps_of_scenes(size, window, stride):
    overlap = window_overlap_px(window, stride)
    grid = WindowGrid(*size, window, overlap)
    kept = []

    def predict(windows):
        generator = torch.Generator().manual_seed(len(kept))
        kept.append(torch.randn(len(windows), 3, *windows.shape[-2:], generator=generator))
        return [kept[-1]]

    (found,) = slide(predict, torch.zeros(1, 1, *size), window_px=window, stride_px=stride, average="probabilities")
    batches = iter(kept)
    chunks = grid.chunks(8)
    blender = Blender(grid, chunks, 3, MemoryCarry())
    sums = np.zeros((3, *size), np.int64)
    for row in range(len(grid.tops)):
        for chunk in chunks:
            windows = list(in_steps(next(batches).softmax(1)).int().numpy())
            sums[:, grid.final_rows(row), chunk.columns] = blender.add(row, chunk, windows)
    mean = sums / (grid.row_totals[:, None] * grid.column_totals.astype(np.int64) * 65535)
    np.testing.assert_allclose(found[0].double().exp(), mean, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(found[0].argmax(0), sums.argmax(0))


def test_strips_come_from_the_top_as_soon_as_they_are_final():
    pixels = torch.rand(2, 1, 25, 30, generator=torch.Generator().manual_seed(0))
    options = dict(window_px=10, stride_px=6, average="probabilities")
    seen = []

    def predict(windows):
        seen.append(len(windows))
        return [torch.cat([windows, 1 - windows], 1)]

    strips = slide_strips(predict, pixels, **options)
    assert (next(strips)[:2], seen) == ((0, slice(0, 6)), [5]), "one row of windows is enough for the first strip"
    assert [(i, rows.start, rows.stop) for i, rows, _ in strips] == [
        (0, 6, 12),
        (0, 12, 15),
        (0, 15, 25),
        (1, 0, 6),
        (1, 6, 12),
        (1, 12, 15),
        (1, 15, 25),
    ]


def test_probabilities_of_zero_stay_finite_and_no_number_stays_none():
    logits = torch.tensor([0.0, -1e30]).view(1, 2, 1, 1)
    (found,) = slide(lambda x: [logits.expand(len(x), -1, 4, 4)], torch.zeros(1, 1, 9, 9), window_px=4, stride_px=3,
                     average="probabilities")  # fmt: skip
    assert found.isfinite().all() and found.softmax(1)[:, 0].min() > 1 - 1e-6 and (found[:, 0] == 0).all()
    (found,) = slide(lambda x: [x.expand(-1, 2, -1, -1) * torch.nan], torch.zeros(1, 1, 9, 9), window_px=4, stride_px=3,
                     average="probabilities")  # fmt: skip
    assert found.isnan().all()


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_sliding_window_hands_gradients_on(average):
    pixels = torch.rand(1, 2, 20, 20, dtype=torch.float64, requires_grad=True)  # more windows than one batch takes
    (found,) = slide(lambda x: [3 * x], pixels, window_px=4, stride_px=4, average=average)
    found[:, 0].sum().backward()
    if average == "logits":
        expected = torch.tensor([3.0, 0.0], dtype=torch.float64).view(2, 1, 1).expand(2, 20, 20)
    else:  # of log softmax: 3 (1 - p) and -3 (1 - p)
        other = 3 * (3 * pixels.detach()).softmax(1)[0, 1]
        expected = torch.stack([other, -other])
    torch.testing.assert_close(pixels.grad[0], expected, atol=1e-3, rtol=1e-3)


def test_padding_reaches_the_next_multiple():
    assert padded_size(28, 29, 14) == (28, 42)
    assert padded_size(1, 60, 14, 56) == (56, 70)


def test_padded_sizes_divide_positive_numbers_alone():
    class Size(int):  # ONNX divides towards 0, Python towards minus infinity: the same for these only
        def __add__(self, other):
            return Size(int(self) + other)

        def __sub__(self, other):
            return Size(int(self) - other)

        def __neg__(self):
            return Size(-int(self))

        def __floordiv__(self, other):
            return Size(int(int(self) / other))

    assert padded_size(Size(77), Size(109), 16) == (80, 112)
    padded = pad(torch.ones(1, 1, 2, 3), (3, 5))
    assert padded.shape == (1, 1, 3, 5) and padded[..., :2, :3].eq(1).all() and padded.sum() == 6


def test_cross_entropy_counts_labelled_pixels_only():
    logits = torch.tensor([[2.0, 0.0], [0.0, 5.0]]).view(1, 2, 1, 2).requires_grad_()  # (batch, class, 1, 2 pixels)
    loss = cross_entropy(logits, torch.tensor([[[0, 255]]]))
    assert loss.item() == pytest.approx(torch.tensor(1 + torch.e**-2).log().item())
    nothing = cross_entropy(logits, torch.full((1, 1, 2), 255))
    nothing.backward()
    assert nothing.item() == 0 and logits.grad.eq(0).all()


@pytest.mark.parametrize(("window", "stride"), [(64, 65), (64, 0), (0, 0)])
def test_refuses_strides_that_leave_pixels_out(window, stride):
    with pytest.raises(ValueError, match=f"window_stride_px is {stride} but window_px is {window}.*left out"):
        check_window(window, stride)
