"""Small scenes on disk, and the model that looks at single pixels."""

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from co2s_hf.image_processing_co2s import Co2SImageProcessor
from tests.geo.pixel_model import PixelModel, pixel_processor


@pytest.fixture(scope="session")
def processor():
    return pixel_processor()


@pytest.fixture
def model():
    return PixelModel().eval()


@pytest.fixture
def write_scene(tmp_path):
    """Writes a GeoTIFF from (bands, H, W) or draws one of `size`; gives its path."""

    def write(name="scene.tif", pixels=None, *, size=(70, 90), placed=True, **profile):
        if pixels is None:
            pixels = np.random.default_rng(0).integers(1, 256, (3, *size), dtype=np.uint8)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        where = dict(crs="EPSG:32633", transform=rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)) if placed else {}
        profile = dict(driver="GTiff", count=len(pixels), dtype=pixels.dtype) | where | profile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", height=pixels.shape[1], width=pixels.shape[2], **profile) as file:
                file.write(pixels)
        return path

    return write


@pytest.fixture(scope="session")
def model_folder(tiny_model, tmp_path_factory):
    """The tiny Co2S with its processor. Read only."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model.save_pretrained(folder)
    Co2SImageProcessor().save_pretrained(folder)
    return str(folder)
