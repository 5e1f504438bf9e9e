"""The one module that reads and writes the pixels of files, with Pillow.

Images are (H, W, C) uint8 or uint16, masks are (H, W) uint8 class ids. What Pillow would change silently is either
undone (grey masks of 2 or 4 bits are stretched to 0..255) or refused (16-bit colour is cut to 8 bits).
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

IGNORE = 255
"""The mask value of pixels without a label."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings taken for images, compared in lower case."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey values of 2 and 4 bits to fill 0..255


class ImageError(ValueError):
    """A file is not an image or a mask that can be used; the message names the file and the way out."""


def read_image(path: str | Path) -> NDArray[Any]:
    """Decode a whole image file.

    Palettes become RGB colours, and an alpha channel is dropped: it says where the picture is, not what is there.

    Returns:
        (H, W, C) uint8, or (H, W, 1) uint16 for 16-bit greyscale; C is 1 for greyscale.

    Raises:
        ImageError: The file is missing, truncated or not an image, or its pixels are neither 8-bit nor 16-bit grey.
    """
    with _opened(path) as image:
        raw_mode = _raw_mode(image)
        if _is_grey16(image.mode, raw_mode):
            return np.array(image).astype(np.uint16)[:, :, None]
        if image.mode in ("I", "F") or ";16" in raw_mode:
            raise ImageError(
                f"{path} holds {raw_mode or image.mode} pixels, which Pillow cannot read without loss; expected 8 bits "
                "per band, or greyscale of 16 bits. Convert it to 8 bits."
            )
        if image.mode not in ("L", "RGB", "RGBX"):
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        pixels = np.array(image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Decode a mask of class ids; of a palette file the indices, never the colours.

    Returns:
        (H, W) uint8 class ids, 255 where there is no label.

    Raises:
        ImageError: The file is missing, truncated or not an image, has colours instead of ids, or ids above 255.
    """
    with _opened(path) as image:
        raw_mode = _raw_mode(image)
        if image.mode not in ("1", "L", "P") and not _is_grey16(image.mode, raw_mode):
            raise ImageError(
                f"{path} is a {image.mode} image; expected a mask with one class id per pixel (greyscale or palette). "
                "Replace each colour by its class id, and save one band."
            )
        ids = np.array(image)
    if ids.max() > IGNORE:
        raise ImageError(
            f"{path} holds ids up to {ids.max()}; expected class ids in 0..254, and 255 where there is no label. "
            "Renumber the classes."
        )
    return ids.astype(np.uint8) // np.uint8(_STRETCH.get(raw_mode, 1))


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) in pixels from the file header, without decoding.

    Raises:
        ImageError: The file is missing or its header is not that of an image.
    """
    with _opened(path) as image:
        return image.height, image.width


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write (H, W, 1) or (H, W, 3) uint8, or (H, W, 1) uint16, as PNG; other shapes raise an `ImageError`."""
    kind = (image.dtype.name, image.ndim, image.shape[-1])
    if kind not in (("uint8", 3, 1), ("uint8", 3, 3), ("uint16", 3, 1)):
        raise ImageError(
            f"{path} cannot be written from a {image.dtype} array of shape {image.shape}; expected (H, W, 1) or "
            "(H, W, 3) uint8, or (H, W, 1) uint16."
        )
    Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image).save(path, format="PNG")


def write_mask(path: str | Path, mask: NDArray[np.uint8]) -> None:
    """Write (H, W) uint8 class ids as greyscale PNG; other arrays raise an `ImageError`."""
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ImageError(f"{path} cannot be written from {mask.dtype} of shape {mask.shape}; expected (H, W) uint8.")
    Image.fromarray(mask).save(path, format="PNG")


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file and turn what fails, here or while decoding, into one `ImageError`."""
    try:
        with Image.open(path) as image:
            yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the folder and the list that name it.") from None
    except _DECODE_ERRORS as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); it may be truncated or of an unknown format. Fetch or "
            "export it again, or take it out of the data set."
        ) from error


def _is_grey16(mode: str, raw_mode: str) -> bool:
    return mode.startswith("I;16") or (mode == "I" and raw_mode.startswith("I;16"))  # Pillow 10 opens 16-bit PNG as "I"


def _raw_mode(image: Image.Image) -> str:
    """Give the layout of the pixels in the file, such as "RGB;16B"; empty where the format does not tell."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def read_raw_mask(path: str | Path) -> NDArray[Any]:
    """Decode a mask as it is stored, for a label map to interpret: palette indices stay indices, colours colours.

    Returns:
        (H, W) integer values, or (H, W, 3) uint8 colours.

    Raises:
        ImageError: The file is missing, truncated or not an image, is partly transparent, or holds fractions or
            colours of 16 bits.
    """
    with _opened(path) as image:
        raw_mode = _raw_mode(image)
        if image.mode in ("1", "L", "P", "I") or _is_grey16(image.mode, raw_mode):
            values = np.array(image)
            return values.astype(np.uint8) // np.uint8(_STRETCH.get(raw_mode, 1)) if image.mode in "1LP" else values
        if image.mode not in ("LA", "RGB", "RGBA") or ";16" in raw_mode:
            raise ImageError(
                f"{path} holds {raw_mode or image.mode} pixels; expected a mask of ids (greyscale or palette) or of "
                "8-bit RGB colours. Export it as one of these."
            )
        pixels = np.array(image)
    if image.mode == "RGB":
        return pixels
    if (pixels[..., -1] != 255).any():
        raise ImageError(
            f"{path} is partly transparent; expected a mask whose pixels all count. Give the transparent pixels an id "
            "or a colour of their own, and save the mask without transparency."
        )
    return pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
