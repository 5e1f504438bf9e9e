"""The one module that reads and writes the pixels of files: with Pillow, or with rasterio what Pillow would lose.

Images are (H, W, C) uint8 or uint16, masks are (H, W) uint8 class ids. What Pillow would change silently is undone
(grey masks of 2 or 4 bits are stretched to 0..255) or left to rasterio, the optional extra `geo`: 16-bit colour, which
Pillow cuts to 8 bits, and every TIFF that is more than one page of one or three bands.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile as PillowFile

IGNORE = 255
"""The mask value of pixels without a label."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings taken for images, compared in lower case."""

MAX_BANDS = 16
"""Bands of one image, without its alpha band; a file with more is hardly meant to be one image."""

MAX_PIXELS_VARIABLE = "CO2S_MAX_PIXELS"
"""Environment variable with the most pixels that an image may have (default 178 956 970, as Pillow's own limit).

A file of a few hundred bytes may claim 10^10 pixels, and whoever decodes it runs out of memory.
"""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey values of 2 and 4 bits to fill 0..255
_ALPHA_MODES = ("LA", "PA", "RGBA")
_FORMAT_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp"}
_LOSSY_TIFF = (6, 7, 33003, 33005, 34712, 50001)  # values of the compression tag: JPEG, JPEG 2000, WebP
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, classic and BigTIFF


class ImageError(ValueError):
    """A file is not an image or a mask that can be used; the message names the file and the way out."""


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file that lies in a shard or comes over the net, and what messages call it."""

    name: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        """Name it as a path would name itself."""
        return self.name


ImageFile = str | Path | EncodedImage


def read_image(path: ImageFile, *, num_bands: int | None = None) -> NDArray[Any]:
    """Decode a whole image file; see `read_image_and_valid` for what is read how."""
    return read_image_and_valid(path, num_bands=num_bands)[0]


def read_image_and_valid(
    path: ImageFile, nodata: int | None = None, *, num_bands: int | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Decode a whole image file, and where it holds data.

    Palettes become RGB colours. An alpha channel is no band: it says where the picture is, not what is there. Many
    programs call any fourth band alpha, though, also near infrared: asked for as many bands as the file has with alpha,
    alpha is taken for a band like the others.

    A pixel holds no data where all of its bands have the value `nodata` or the one that a GeoTIFF names itself, where
    alpha is 0, or where the mask band of the file says so. One of these is enough. A pixel with just one of several
    bands at the nodata value holds data.

    Args:
        path: PNG, JPEG, TIFF, GeoTIFF and whatever else has an ending in `IMAGE_SUFFIXES`; or such a file's bytes.
        nodata: Value of bands without data, as it stands in the file; None for files that say it themselves, if at all.
        num_bands: How many bands are wanted; decides about alpha and nothing else.

    Returns:
        (H, W, C) uint8 or uint16 with 1 to 16 bands, 1 for greyscale; and (H, W) bool, False where there is no data,
        or None where every pixel holds data.

    Raises:
        ImageError: The file is missing, truncated or not an image; its bands are neither uint8 nor uint16; it has more
            than 16; or it needs rasterio, and that is not installed.
    """
    read = _read_with_rasterio if _needs_rasterio(path) else _read_with_pillow
    image, valid = read(path, num_bands)
    if nodata is not None:
        valid &= (image != nodata).any(axis=2)
    return image, None if valid.all() else valid


def _read_with_pillow(path: ImageFile, num_bands: int | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with _opened(path) as image:
        named = _own_nodata(image)
        valid = np.ones((image.height, image.width), np.bool_)
        if _is_grey16(image.mode, _raw_mode(image)):
            pixels = np.array(image).astype(np.uint16)
        else:
            alpha_is_band = image.mode in ("LA", "RGBA") and len(image.getbands()) == num_bands
            if not alpha_is_band and (image.mode in _ALPHA_MODES or "transparency" in image.info):
                valid = np.array(image.convert("RGBA").getchannel("A")) > 0
            if not alpha_is_band and image.mode not in ("L", "RGB"):
                image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
            pixels = np.array(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return pixels, valid if named is None else valid & (pixels != named).any(axis=2)


def _read_with_rasterio(path: ImageFile, num_bands: int | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    with _opened_with_rasterio(path) as dataset:
        _check_pixels(path, dataset.width, dataset.height)
        # GDAL knows better than the TIFF header whether a fourth band is alpha.
        alpha = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind.name == "alpha"]
        alpha_is_band = dataset.count == num_bands
        bands = [i for i in dataset.indexes if alpha_is_band or i not in alpha]
        kinds = sorted({dataset.dtypes[i - 1] for i in bands})
        if kinds not in (["uint8"], ["uint16"]) or len(bands) > MAX_BANDS:
            raise ImageError(
                f"{path} has {len(bands)} bands of {' and '.join(kinds)}; expected 1 to {MAX_BANDS} bands, all uint8 "
                "or all uint16. Export the bands that you need in one of the two."
            )
        pixels = np.ascontiguousarray(dataset.read(bands).transpose(1, 2, 0))  # (C, H, W) -> (H, W, C)
        if alpha and alpha_is_band:  # the file's mask would be that band
            named = dataset.nodata
            return pixels, np.ones(pixels.shape[:2], np.bool_) if named is None else (pixels != named).any(axis=2)
        return pixels, dataset.dataset_mask() != 0


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


def image_size(path: ImageFile) -> tuple[int, int]:
    """Read (height, width) in pixels from the file header, without decoding.

    Raises:
        ImageError: The file is missing or its header is not that of an image.
    """
    if _needs_rasterio(path):
        with _opened_with_rasterio(path) as dataset:
            return dataset.height, dataset.width
    with _opened(path) as image:
        return image.height, image.width


def file_suffix(path: ImageFile) -> str:
    """Give the one of `IMAGE_SUFFIXES` that the format has, whatever the name; other formats raise an `ImageError`."""
    if _starts_like_tiff(path):
        return ".tif"
    with _opened(path) as image:
        if image.format not in _FORMAT_SUFFIXES:
            raise ImageError(
                f"{path} is a {image.format} file; expected one of {', '.join(_FORMAT_SUFFIXES)}. Convert it to PNG."
            )
        return _FORMAT_SUFFIXES[image.format]


def is_lossy(path: ImageFile) -> bool:
    """Whether the compression may have changed pixels: JPEG, WebP, or a TIFF with one of these inside."""
    with _opened(path) as image:
        return image.format in ("JPEG", "MPO", "WEBP") or _tag(image, 259) in _LOSSY_TIFF


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
def _opened(path: ImageFile) -> Iterator[Image.Image]:
    """Open an image file and turn what fails, here or while decoding, into one `ImageError`."""
    try:
        with _pillow(path) as image:
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path, "too many") from None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the folder and the list that name it.") from None
    except _DECODE_ERRORS as error:
        raise _unreadable(path, error) from error


@contextmanager
def _pillow(path: ImageFile) -> Iterator[Image.Image]:
    """Open with Pillow under our own limit of pixels, about which Pillow only warns in part."""
    limit = _max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < limit / 2:
        Image.MAX_IMAGE_PIXELS = -(-limit // 2)  # the variable says so; Pillow refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(_bytes_of(path)) as image:
            _check_pixels(path, image.width, image.height)
            yield image


def _max_pixels() -> int:
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not text:
        return 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
    if not text.isdecimal() or int(text) < 1:
        raise ImageError(f"The environment variable {MAX_PIXELS_VARIABLE} is {text!r}; expected a number of pixels.")
    return int(text)


def _check_pixels(path: ImageFile, width: int, height: int) -> None:
    if width * height > _max_pixels():
        raise _too_large(path, f"{width}x{height}")


def _too_large(path: ImageFile, size: str) -> ImageError:
    return ImageError(
        f"{path} says that it has {size} pixels; expected at most {_max_pixels()}. Where you trust the file and have "
        f"the memory, set the environment variable {MAX_PIXELS_VARIABLE}; or cut it into tiles."
    )


@contextmanager
def _opened_with_rasterio(path: ImageFile) -> Iterator[Any]:
    try:
        import rasterio
        from rasterio._err import CPLE_BaseError  # what GDAL says where rasterio does not wrap it
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        raise ImageError(
            f"{path} is a multi-band, multi-page or 16-bit colour image, which needs rasterio to be read without loss, "
            'and rasterio is not installed. Run `pip install "co2s_hf[geo]"`, or `pip install rasterio`.'
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # where it lies does not matter here
            # Left to choose, GDAL would also find formats in it that name further files, here or on the net.
            driver = "GTiff" if _starts_like_tiff(path) else "PNG"
            with rasterio.Env(), rasterio.open(_bytes_of(path), driver=driver) as dataset:
                yield dataset
    except ImageError:
        raise
    except (RasterioError, CPLE_BaseError, *_DECODE_ERRORS) as error:
        raise _unreadable(path, error) from error


def _bytes_of(path: ImageFile) -> str | Path | BytesIO:
    return BytesIO(path.data) if isinstance(path, EncodedImage) else path


def _needs_rasterio(path: ImageFile) -> bool:
    """Whether Pillow would lose bands, bits or the mask of a file, or cannot open it though it is a TIFF."""
    try:
        with _pillow(path) as image:
            raw_mode = _raw_mode(image)
            is_grey16 = _is_grey16(image.mode, raw_mode)
            loses_bits = not is_grey16 and (image.mode in ("I", "F") or ";16" in raw_mode)
            if image.format != "TIFF":
                return loses_bits
            is_plain = is_grey16 or image.mode in ("1", "L", "P", "RGB")
            is_plain &= _tag(image, 277) in (None, len(image.getbands()))  # samples per pixel; Pillow may skip some
            has_more = getattr(image, "n_frames", 1) > 1 or Path(f"{path}.msk").is_file()
            return loses_bits or not is_plain or has_more
    except _DECODE_ERRORS:  # an `ImageError` is one, too
        return _starts_like_tiff(path)


def _starts_like_tiff(path: ImageFile) -> bool:
    if isinstance(path, EncodedImage):
        return path.data[:4] in _TIFF_STARTS
    try:
        with open(path, "rb") as file:
            return file.read(4) in _TIFF_STARTS
    except OSError:
        return False  # whoever opens the file next says why


def _own_nodata(image: Image.Image) -> float | None:
    """The nodata value that a GeoTIFF names in GDAL's tag; None without one."""
    named = _tag(image, 42113)
    try:
        return None if named is None else float(named)
    except ValueError:
        return None


def _tag(image: Image.Image, number: int) -> Any:
    return getattr(image, "tag_v2", {}).get(number)


def _unreadable(path: ImageFile, error: Exception) -> ImageError:
    return ImageError(
        f"{path} cannot be read as an image ({error}); it may be truncated or of an unknown format. Fetch or "
        "export it again, or take it out of the data set."
    )


def _is_grey16(mode: str, raw_mode: str) -> bool:
    return mode.startswith("I;16") or (mode == "I" and raw_mode.startswith("I;16"))  # Pillow 10 opens 16-bit PNG as "I"


def _raw_mode(image: Image.Image) -> str:
    """Give the layout of the pixels in the file, such as "RGB;16B"; empty where the format does not tell."""
    if not isinstance(image, PillowFile) or not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def read_raw_mask(path: ImageFile) -> NDArray[Any]:
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
