"""How a picture is turned in its file: EXIF's orientation, from the header alone. GDAL tells it for JPEG only."""

import os
import struct
from io import BytesIO
from typing import Any, BinaryIO

from .errors import RasterError
from .image import EncodedImage

UPRIGHT = 1
_TAG = 274
_FORMS = {1: "B", 3: "H", 4: "I"}  # libtiff takes any of these for a small number
_MOST_ENTRIES = 4096


def orientation(source: EncodedImage | str | os.PathLike[str], driver: str) -> int:
    """EXIF's number, 1 to 8, of a TIFF, PNG or WebP file; 1, upright, where the header says nothing that makes sense.

    Source: TIFF 6.0 p. 36, where EXIF's tag comes from; PNG and WebP hold a small TIFF file in a chunk.

    Raises:
        RasterError: A PNG ends before its last chunk: GDAL, which decodes it at once, would give zeros without a word.
    """
    find = {"GTiff": _in_tiff, "PNG": _in_png, "WEBP": _in_webp}.get(driver)
    if find is None:
        return UPRIGHT
    try:
        with BytesIO(source.data) if isinstance(source, EncodedImage) else open(source, "rb") as file:
            found = find(file)
    except OSError:  # what GDAL alone can open
        return UPRIGHT
    except struct.error:  # a header that ends too early
        if driver == "PNG":
            raise RasterError(
                f"{source} cannot be read (it ends in the middle); expected a whole image. Fetch or export it again, "
                "or take it out."
            ) from None
        return UPRIGHT
    return found if 1 <= found <= 8 else UPRIGHT


def _in_tiff(file: BinaryIO) -> int:
    mark = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(mark[:2])
    if order is None:
        return UPRIGHT
    is_big = mark[2:] in (b"+\0", b"\0+")
    if is_big:
        file.seek(8)
    (directory,) = _unpacked(file, order + ("Q" if is_big else "I"))
    file.seek(min(directory, 2**62))
    (count,) = _unpacked(file, order + ("Q" if is_big else "H"))
    for _ in range(min(count, _MOST_ENTRIES)):
        tag, form, _, value = _unpacked(file, order + ("HHQ8s" if is_big else "HHI4s"))
        if tag == _TAG:
            return int(struct.unpack_from(order + _FORMS[form], value)[0]) if form in _FORMS else UPRIGHT
    return UPRIGHT


def _in_png(file: BinaryIO) -> int:
    """Walks all chunks, up to the last one: whether that is there is what `orientation` raises for."""
    file.seek(8)
    found, kind = UPRIGHT, b""
    while kind != b"IEND":
        length, kind = _unpacked(file, ">I4s")
        behind = file.tell() + length
        if kind == b"eXIf":
            try:
                found = _in_tiff(BytesIO(file.read(length)))
            except struct.error:  # nothing that makes sense
                found = UPRIGHT
        file.seek(behind)
        _unpacked(file, ">I")  # its checksum
    return found


def _in_webp(file: BinaryIO) -> int:
    file.seek(12)
    while True:
        kind, length = _unpacked(file, "<4sI")
        if kind == b"EXIF":
            return _in_tiff(BytesIO(file.read(length).removeprefix(b"Exif\0\0")))
        file.seek(length + length % 2, os.SEEK_CUR)


def _unpacked(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


__all__ = ["orientation"]
