"""Small images that lie somewhere, and a saved model whose class names are hostile."""

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from co2s_hf import Co2SForSemanticSegmentation, Co2SImageProcessor

HOSTILE = '<img src=x onerror="window.hacked=1">'


@pytest.fixture
def geotiff(tmp_path):
    """Writes (H, W, C) as GeoTIFF: by default 10 m pixels in UTM 32 north."""

    def write(pixels, name="scene.tif", crs="EPSG:32632", transform=None, **profile):
        height, width, count = pixels.shape
        place = dict(crs=crs, transform=transform or Affine(10, 0, 500_000, 0, -10, 5_300_000)) if crs else {}
        shape = dict(height=height, width=width, count=count, dtype=pixels.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(tmp_path / name, "w", driver="GTiff", **shape, **place, **profile) as file:
                file.write(pixels.transpose(2, 0, 1))
        return tmp_path / name

    return write


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, 256, (120, 150, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def space_model(tiny_model, tmp_path_factory):
    """A folder as on the Hub, with three classes of which one is called `HOSTILE`. Read only."""
    folder = tmp_path_factory.mktemp("space") / "co2s"
    tiny_model.save_pretrained(folder)
    config = type(tiny_model.config).from_pretrained(folder)
    config.id2label = {0: "road", 1: "water", 2: HOSTILE}
    config.label2id = {name: index for index, name in config.id2label.items()}
    model = Co2SForSemanticSegmentation(config)
    model.load_state_dict(tiny_model.state_dict())
    model.save_pretrained(folder)
    Co2SImageProcessor().save_pretrained(folder)
    return folder
