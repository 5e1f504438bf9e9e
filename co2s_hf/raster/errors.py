"""What goes wrong with files of pixels and features, as one kind of error."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError  # what GDAL raises itself, in many places; it stands nowhere else
from rasterio.errors import CRSError, RasterioError


class RasterError(ValueError):
    """A file that cannot be used; the message names it, what was expected, what was found, and the way out."""


class PlaceError(RasterError):
    """Pixels that can be read, but do not say where they lie in a way that can be used."""


# GDAL's own errors are no RasterioError in many places, text may say UTF-8 and be none, and numbers may not fit.
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError, ProjError, UnicodeDecodeError, struct.error)


@contextmanager
def gdal_refusals(name: object) -> Iterator[None]:
    """Turn what GDAL says of a file, while it is opened or later read, into one `RasterError` that names it."""
    try:
        yield
    except GDAL_ERRORS as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise RasterError(
            f"{name} cannot be read ({cause}); expected a whole image that GDAL opens. Fetch or export it again, or "
            "take it out."
        ) from error


__all__ = ["GDAL_ERRORS", "PlaceError", "RasterError", "gdal_refusals"]
