"""What masks hold: ids or colours as they stand in the file, and where the file says that there is no label."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RasterError
from .grid import Grid
from .image import ImageFile
from .read import RasterFile, open_image


@dataclass(frozen=True)
class Ids:
    """The values of a mask, or of a window of one.

    Attributes:
        values: (H, W) int64 ids, of a palette the indices; or (H, W, 3) uint8 colours.
        known: (H, W) bool, False where the file says that there is none: its nodata value, or its mask.
        moved: Whether the mask was laid on another grid than its own.
    """

    values: NDArray[Any]
    known: NDArray[np.bool_]
    moved: bool = False


def read_ids(source: ImageFile, *, onto: Grid | None = None) -> Ids:
    """Decode a mask as it is stored, for a label map to interpret.

    Args:
        source: The mask.
        onto: The grid of its image: where both say where they lie, and lie elsewhere, each pixel of the image gets the
            value of the pixel of the mask that holds its centre; without one, none is known.

    Raises:
        RasterError: The file is missing, truncated or no image, is partly transparent, holds fractions, or colours of
            other than 8 bits; it does not overlap with the grid; or, without a place, it is of another size.
    """
    with open_image(source) as file:
        if onto is None:
            return _ids(file, None, None)
        if not (file.grid.is_placed and onto.is_placed):
            if (file.height, file.width) != (onto.height, onto.width):
                raise RasterError(
                    f"{source} is {file.width}x{file.height} (width x height); its image is {onto.width}x{onto.height}"
                    ". Export the mask on the grid of its image, or give both their place on the ground."
                )
            return _ids(file, None, None)
        if file.grid.is_same(onto):
            return _ids(file, None, None)
        return _moved(file, onto)


def _moved(file: RasterFile, onto: Grid) -> Ids:
    """The values under the centres of the pixels of a grid."""
    rows, columns = onto.places_on(file.grid)
    inside = rows >= 0
    if not inside.any():
        raise RasterError(
            f"{file.name} and its image do not overlap on the ground; expected a mask of what the image shows. "
            "Check the CRS and the transform of both, for example with `co2s data show`."
        )
    top, left = int(rows[inside].min()), int(columns[inside].min())
    found = _ids(file, slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1))
    places = np.where(inside, rows - top, 0), np.where(inside, columns - left, 0)
    return Ids(found.values[places], found.known[places] & inside, moved=True)


def _ids(file: RasterFile, rows: slice | None, columns: slice | None) -> Ids:
    kinds = {band.dtype for band in file.every_band}
    count = len(file.bands)
    if count not in (1, 3) or (count == 3 and kinds != {"uint8"}):
        raise RasterError(
            f"{file.name} holds {count} bands of {' and '.join(sorted(kinds))}; expected a mask of ids (one band of "
            "whole numbers, or a palette) or of 8-bit RGB colours. Export it as one of these."
        )
    raster = file.read(rows, columns)
    reasons = file.reasons(raster, rows, columns)
    transparent = reasons.pop("transparent colour", np.zeros_like(raster.valid))
    if file.dataset.driver != "PNG":  # where nodata is made from the transparent colour; others make that from nodata
        transparent &= ~reasons.get("nodata value", np.zeros_like(raster.valid))
    if transparent.any() or reasons.get("alpha", transparent).any():
        raise RasterError(
            f"{file.name} is partly transparent; expected a mask whose pixels all count. Give the transparent "
            "pixels an id or a colour of their own, and save the mask without transparency."
        )
    known = raster.valid
    if count == 3:
        return Ids(np.moveaxis(raster.pixels, 0, 2), known)
    return Ids(_whole_numbers(file.name, raster.pixels[0], known), known)


def _whole_numbers(name: str, values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """As int64, 0 where none is known and what stands there is no such number."""
    seen = values[known]
    if values.dtype.kind == "f":
        broken = seen[seen != np.round(seen)]
        if broken.size:
            raise RasterError(
                f"{name} holds {broken[0]:g}; expected whole numbers, one id of a class per pixel. Export it as "
                "integers."
            )
    if seen.size and not -(2**63) <= (largest := max(seen.min(), seen.max(), key=abs)) < 2**63:
        raise RasterError(f"{name} holds the id {int(largest)}; expected ids below 2^63. Renumber the classes.")
    if values.dtype.kind == "f" or values.dtype == np.uint64:
        values = np.where(known, values, values.dtype.type(0))
    return values.astype(np.int64)


__all__ = ["Ids", "read_ids"]
