"""What is written for data sets, which compressions lose something, and files that are not whole."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.read import is_lossy, read_raster
from co2s_hf.raster.write import write_image, write_mask

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., :1], PIXELS[..., :1].astype(np.uint16) * 257])
def test_images_are_read_as_written(tmp_path, pixels):
    write_image(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert (np.array(image).reshape(pixels.shape) == pixels).all()


def test_other_arrays_are_refused(tmp_path):
    with pytest.raises(RasterError, match="float64 array of shape"):
        write_image(tmp_path / "a.png", PIXELS.astype(np.float64))
    with pytest.raises(RasterError, match="int64 of shape"):
        write_mask(tmp_path / "a.png", np.zeros((4, 4), np.int64))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "lossy"),
    [
        ("a.jpg", {}, True),
        ("a.webp", {}, True),
        ("a.webp", {"lossless": True}, False),
        ("a.png", {}, False),
        ("a.bmp", {}, False),
        ("a.tif", {"compression": "jpeg"}, True),
        ("a.tif", {"compression": "tiff_deflate"}, False),
    ],
)
def test_lossy_compressions(tmp_path, name, options, lossy):
    Image.fromarray(PIXELS).save(tmp_path / name, **options)
    assert is_lossy(tmp_path / name) == lossy


@pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.{NotGeoreferencedWarning.__name__}")
@pytest.mark.parametrize(
    ("options", "lossy"),
    [
        ({"compress": "webp"}, True),
        ({"compress": "webp", "webp_lossless": True}, False),
        ({"compress": "lerc"}, False),
        ({"compress": "lerc", "max_z_error": 3}, True),
    ],
)
def test_lossy_compressions_inside_of_a_tiff(tmp_path, options, lossy):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=32, width=32, count=3, dtype="uint8", **options
    ) as dataset:
        dataset.write(np.moveaxis(PIXELS, 2, 0))
    assert is_lossy(tmp_path / "a.tif") == lossy


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RasterError, match=f"a.{suffix} cannot be read"):
        read_raster(path)
