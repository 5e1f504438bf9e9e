import numpy as np
import pytest
import torch

from training.purification import pictures
from training.purification.pictures import read_natural_colours


@pytest.fixture
def file(monkeypatch):
    """Give a function that lets a file hold (H, W, C) pixels."""

    def hold(pixels, valid=None):
        monkeypatch.setattr(pictures, "read_image_and_valid", lambda *args, **options: (pixels, valid))
        return "image.tif"

    return hold


def test_bytes_are_divided_by_255_and_pixels_without_data_are_black(file):
    pixels = np.full((2, 2, 3), 51, np.uint8)
    image, valid = read_natural_colours(file(pixels, np.array([[True, False], [True, True]])))
    torch.testing.assert_close(image[0], torch.tensor([[0.2, 0.0], [0.2, 0.2]]))
    assert valid.tolist() == [[True, False], [True, True]]


def test_named_bands_are_found_and_a_single_one_is_grey(file):
    pixels = np.stack([np.full((1, 1), v, np.uint8) for v in (10, 20, 30, 40)], axis=2)
    image, valid = read_natural_colours(file(pixels), bands=["blue", "green", "red", "nir"])
    assert (image[:, 0, 0] * 255).round().tolist() == [30, 20, 10] and valid.all()
    assert (read_natural_colours(file(pixels[:, :, :1]))[0][:, 0, 0] * 255).round().tolist() == [10, 10, 10]
    assert (read_natural_colours(file(pixels))[0][:, 0, 0] * 255).round().tolist() == [10, 20, 30]


def test_16_bits_are_stretched(file):
    pixels = np.linspace(400, 2400, 300).reshape(10, 10, 3).astype(np.uint16)
    image, _ = read_natural_colours(file(pixels))
    assert image.min() == 0 and image.max() == 1 and 0.4 < image.mean() < 0.6
