"""What masks hold: ids or colours as they stand in the file, and where the file says that there is no label."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RasterError
from .grid import Grid
from .image import ImageFile
from .read import RasterFile, open_image

_PIECE_PX = 1 << 24


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
        found = ids_on(file, onto)
        if not found.known.any() and not (onto.places_on(file.grid)[0] >= 0).any():
            raise RasterError(
                f"{file.name} and its image do not overlap on the ground; expected a mask of what the image shows. "
                "Check the CRS and the transform of both, for example with `co2s data show`."
            )
        return found


def ids_on(file: RasterFile, onto: Grid) -> Ids:
    """The values of an open file under the centres of the pixels of a grid; none is known outside of the file.

    A fine raster under coarse pixels is read in pieces, so that memory holds `_PIECE_PX` of its pixels.
    """
    rows, columns = onto.places_on(file.grid)
    inside = rows >= 0
    if not inside.any():
        return Ids(np.zeros(inside.shape, np.int64), inside, moved=True)
    top, left = int(rows[inside].min()), int(columns[inside].min())
    bottom, right = int(rows.max()) + 1, int(columns.max()) + 1
    if (bottom - top) * (right - left) > _PIECE_PX and inside.size > 1:
        return _halves(file, onto)
    found = _ids(file, slice(top, bottom), slice(left, right))
    places = np.where(inside, rows - top, 0), np.where(inside, columns - left, 0)
    return Ids(found.values[places], found.known[places] & inside, moved=True)


def _halves(file: RasterFile, onto: Grid) -> Ids:
    """As `ids_on`, one half of the grid after the other."""
    axis = 0 if onto.height >= onto.width else 1
    middle, whole = (onto.height, onto.width)[axis] // 2, slice(0, (onto.width, onto.height)[axis])
    cuts = (slice(0, middle), slice(middle, (onto.height, onto.width)[axis]))
    parts = [ids_on(file, onto.window(cut, whole) if axis == 0 else onto.window(whole, cut)) for cut in cuts]
    shape = next((part.values.shape[2:] for part in parts if part.known.any()), ())
    values = [part.values if part.values.shape[2:] == shape else _blank(part.known, shape) for part in parts]
    return Ids(np.concatenate(values, axis), np.concatenate([part.known for part in parts], axis), moved=True)


def _blank(known: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[Any]:
    """Values of pixels of which none is known, next to colours or ids."""
    return np.zeros((*known.shape, *shape), np.uint8 if shape else np.int64)


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
    ends = (seen.min().item(), seen.max().item()) if seen.size else ()
    outside = [one for one in ends if not -(2**63) <= one < 2**63]
    if outside:
        raise RasterError(f"{name} holds the id {outside[0]:.0f}; expected ids of 64 bits. Renumber the classes.")
    if values.dtype.kind == "f" or values.dtype == np.uint64:
        values = np.where(known, values, values.dtype.type(0))
    return values.astype(np.int64)


__all__ = ["Ids", "ids_on", "read_ids"]
