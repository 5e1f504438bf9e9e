"""What every model does with images, by hand; with a model it is tested in tests/test_modeling_*.py."""

import pytest
import torch

from co2s_hf.segmentation import check_window, cross_entropy, default_stride_px, pad, padded_size, slide, window_starts


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


def test_sliding_averages_each_prediction():
    pixels = torch.arange(24.0).view(2, 1, 3, 4)
    options = dict(num_predictions=2, num_labels=1, window_px=3, stride_px=1)
    same, first_column = slide(lambda x: (x, x[..., :1].expand_as(x)), pixels, **options)
    assert torch.equal(same, pixels)
    # Windows begin in columns 0 and 1: the two in the middle see both.
    expected = torch.tensor([0.0, 0.5, 0.5, 1.0]).expand(3, -1) + torch.tensor([0.0, 4.0, 8.0])[:, None]
    assert torch.equal(first_column, torch.stack([expected, expected + 12])[:, None])


def test_a_sliding_window_hands_gradients_on():
    pixels = torch.rand(1, 1, 20, 20, dtype=torch.float64, requires_grad=True)  # more windows than one batch takes
    (found,) = slide(lambda x: (3 * x,), pixels, num_predictions=1, num_labels=1, window_px=4, stride_px=4)
    found.sum().backward()
    torch.testing.assert_close(pixels.grad, torch.full_like(pixels, 3))


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
