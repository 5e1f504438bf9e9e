"""Writing small pictures: images and masks of tiles, as PNG."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import RasterError


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write (H, W, 1) or (H, W, 3) uint8, or (H, W, 1) uint16, as PNG; other arrays raise a `RasterError`."""
    kind = (image.dtype.name, image.ndim, image.shape[-1])
    if kind not in (("uint8", 3, 1), ("uint8", 3, 3), ("uint16", 3, 1)):
        raise RasterError(
            f"{path} cannot be written from a {image.dtype} array of shape {image.shape}; expected (H, W, 1) or "
            "(H, W, 3) uint8, or (H, W, 1) uint16."
        )
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(path, format="PNG")


def write_mask(path: str | Path, mask: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 class ids as greyscale PNG; other arrays raise a `RasterError`."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise RasterError(f"{path} cannot be written from {mask.dtype} of shape {mask.shape}; expected (H, W) uint8.")
    Image.fromarray(mask).save(path, format="PNG")


__all__ = ["write_image", "write_mask"]
