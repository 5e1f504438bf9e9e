import numpy as np
import pytest
import rasterio
import torch

from co2s_hf.raster.image import NoData, Reading
from training.purification.pictures import read_natural_colours


@pytest.fixture
def file(tmp_path):
    """Give a function that lets a GeoTIFF hold (bands, H, W) pixels."""

    def hold(pixels, **profile):
        bands, height, width = pixels.shape
        path, size = tmp_path / "image.tif", dict(count=bands, height=height, width=width)
        transform = rasterio.Affine(1, 0, 0, 0, -1, 9)
        with rasterio.open(
            path, "w", driver="GTiff", dtype=pixels.dtype, transform=transform, **size, **profile
        ) as out:
            out.write(pixels)
        return path

    return hold


def test_bytes_are_divided_by_255_and_pixels_without_data_are_black(file):
    pixels = np.full((3, 2, 2), 51, np.uint8)
    pixels[:, 0, 1] = 255
    image, valid = read_natural_colours(file(pixels), Reading(nodata=NoData(255)))
    torch.testing.assert_close(image[0], torch.tensor([[0.2, 0.0], [0.2, 0.2]]))
    assert valid.tolist() == [[True, False], [True, True]]


def test_named_bands_are_found_and_a_single_one_is_grey(file):
    pixels = np.array([10, 20, 30, 40], np.uint8)[:, None, None] * np.ones((4, 1, 1), np.uint8)

    def shown(count, bands=None):
        path = file(pixels[:count], photometric="minisblack")
        return (read_natural_colours(path, Reading(count=count), bands)[0][:, 0, 0] * 255).round().tolist()

    assert shown(4, ["blue", "green", "red", "nir"]) == [30, 20, 10]
    assert shown(1) == [10, 10, 10] and shown(4) == [10, 20, 30]


def test_other_values_are_stretched(file):
    for pixels in (np.linspace(400, 2400, 300).astype(np.uint16), np.linspace(-0.1, 1.2, 300, dtype=np.float32)):
        image, _ = read_natural_colours(file(pixels.reshape(3, 10, 10)), Reading())
        assert image.min() == 0 and image.max() == 1 and 0.4 < image.mean() < 0.6
