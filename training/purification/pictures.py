"""What vision-language models look at: the natural colours of an image file."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from co2s_hf.data.images import ImageFile, read_image_and_valid
from co2s_hf.pretrained_backbones import RGB


def read_natural_colours(
    file: ImageFile, *, bands: Sequence[str] | None = None, nodata: int | None = None
) -> tuple[Tensor, Tensor]:
    """Read an image in red, green and blue, as bright as an eye would want it.

    Args:
        file: image of any number of bands; of 16 bits, it is stretched between its 2nd and 98th percentile.
        bands: their names; those named red, green and blue are taken. None: the first three, or a single one for all.
        nodata: value of pixels without data, see `read_image_and_valid`.

    Returns:
        (3, H, W) float32 in [0, 1], and (H, W) bool, False where there is no data.
    """
    pixels, valid = read_image_and_valid(file, nodata, num_bands=None if bands is None else len(bands))
    valid = np.ones(pixels.shape[:2], np.bool_) if valid is None else valid
    if bands is not None and set(RGB) <= set(bands):
        pixels = pixels[:, :, [list(bands).index(name) for name in RGB]]
    elif pixels.shape[2] < 3:
        pixels = pixels[:, :, [0, 0, 0]]
    pixels = pixels[:, :, :3]
    if pixels.dtype == np.uint8:
        image = pixels.astype(np.float32) / 255
    else:
        low, high = np.percentile(pixels[valid], (2, 98)) if valid.any() else (0.0, 1.0)
        image = ((pixels - low) / max(high - low, 1)).clip(0, 1).astype(np.float32)
    image[~valid] = 0
    return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(valid)
