"""What vision-language models look at: the natural colours of an image file."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from co2s_hf.raster.colours import natural_bands, stretched
from co2s_hf.raster.image import ImageFile, Raster, Reading
from co2s_hf.raster.read import read_raster


def read_natural_colours(
    file: ImageFile, reading: Reading, bands: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Read an image in red, green and blue, as bright as an eye would want it.

    Args:
        file: image of any number of bands.
        reading: how it is read.
        bands: see `show`.

    Returns:
        (3, H, W) float32 in [0, 1], 0 where there is no data, and (H, W) bool, False there.
    """
    raster = read_raster(file, reading)
    picture = torch.from_numpy(show(raster, bands)).permute(2, 0, 1)  # (H, W, C) -> (C, H, W)
    valid = torch.from_numpy(raster.valid)
    return (picture / 255).masked_fill(~valid, 0).contiguous(), valid


def show(raster: Raster, bands: Sequence[str] | None = None) -> np.ndarray:
    """Give a picture (H, W, 3) uint8, white where there is no data; see `stretched`.

    Args:
        raster: the image.
        bands: names of its bands, as a model or a data set calls them; None for those in the file.
    """
    names = [band.name for band in raster.bands] if bands is None else bands
    colours = raster.colours
    return stretched(colours[natural_bands(names if raster.palette is None else (), len(colours))], raster.valid)
