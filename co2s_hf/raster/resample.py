"""An open raster in larger or smaller pixels, window by window: what holds no data adds nothing, in any of its kinds.

Weights are whole numbers, and each pixel is a sum of its own: whatever windows a raster is read in, its pixels are the
same.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .image import COLOURS, Band, Raster
from .read import RasterFile

SOURCE_SIDE_PX = 1024
"""Pixels of the file are read in rectangles of at most this side, unless a single pixel is made of more."""


class Resampled:
    """An open file on the same ground in other pixels; the same interface as the file.

    A pixel is the mean of the ground that it covers where the file is finer, and lies between its nearest neighbours
    (bilinear) where the file is coarser. It holds data if at least half of what it is made of does, and is made of that
    half alone. Of a palette it is the mean of colours, never of indices. Integers are rounded to integers, as
    `gdalwarp` does.

    Args:
        file: The open file.
        height, width: In px.

    Attributes:
        native: The file.
        grid: Where the pixels lie.
        bands: Of a palette red, green and blue, or grey.
    """

    def __init__(self, file: RasterFile, height: int, width: int) -> None:
        """Read nothing yet."""
        self.native, self.grid = file, file.grid.resized(height, width)
        self.name, self.reading = file.name, file.reading
        self.bands: tuple[Band, ...] = file.bands
        self.dtype: np.dtype[Any] = file.dtype
        if file.palette is not None:
            colours = COLOURS if file.num_bands == 3 else ("grey",)
            self.bands = tuple(replace(file.bands[0], description="", colour=one, white=255) for one in colours)
            self.dtype = np.dtype(np.uint8)

    @property
    def height(self) -> int:
        """In px."""
        return self.grid.height

    @property
    def width(self) -> int:
        """In px."""
        return self.grid.width

    def read(
        self, rows: slice | None = None, columns: slice | None = None, shape: tuple[int, int] | None = None
    ) -> Raster:
        """Pixels of a rectangle; see `RasterFile.read`.

        Args:
            rows, columns: In px; None for all of them.
            shape: (height, width) to thin them out to, by leaving pixels of the file out.

        Raises:
            RasterError: The file is damaged.
        """
        rows, columns = rows or slice(0, self.height), columns or slice(0, self.width)
        grid = self.grid.window(rows, columns)
        if shape is not None:
            covered = (
                _covered(rows, self.native.height, self.height),
                _covered(columns, self.native.width, self.width),
            )
            return replace(self.native.read(*covered, shape), grid=grid.resized(*shape))
        pixels = np.empty((len(self.bands), grid.height, grid.width), self.dtype)
        valid = np.empty(pixels.shape[1:], np.bool_)
        for down in _steps(rows, self.native.height / self.height):
            for across in _steps(columns, self.native.width / self.width):
                place = (
                    slice(down.start - rows.start, down.stop - rows.start),
                    slice(across.start - columns.start, across.stop - columns.start),
                )
                pixels[:, *place], valid[place] = self._mixed(down, across)
        return Raster(self.name, pixels, valid, self.bands, self.reading, grid)

    def _mixed(self, rows: slice, columns: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        down, of_rows = _weights(self.native.height, self.height, rows)
        across, of_columns = _weights(self.native.width, self.width, columns)
        raster = self.native.read(down, across)

        def mixed(values: NDArray[Any]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = (of_columns @ (of_rows @ values.astype(np.float64)).T).T
            return found

        known = mixed(raster.valid)
        total = of_rows.sum(axis=1)[:, None] * of_columns.sum(axis=1)[None, :]
        valid = 2 * known >= total
        found = np.stack([mixed(np.where(raster.valid, band, 0)) for band in raster.colours]) / np.maximum(known, 1)
        if self.dtype.kind != "f":
            found = np.floor(found + 0.5)
        return np.where(valid, found, 0).astype(self.dtype), valid


def _steps(pixels: slice, source_px: float) -> list[slice]:
    """Parts of a range of pixels, each of which is `source_px` pixels of the file."""
    step = max(1, math.floor(SOURCE_SIDE_PX / source_px))
    return [slice(start, min(start + step, pixels.stop)) for start in range(pixels.start, pixels.stop, step)]


def _covered(pixels: slice, source: int, target: int) -> slice:
    """Pixels of the file, of `source` along an axis, that a range of `target` pixels touches."""
    return slice(pixels.start * source // target, -(-pixels.stop * source // target))


def _weights(source: int, target: int, wanted: slice) -> tuple[slice, csr_array]:
    """How `wanted` of `target` pixels along an axis are made of `source` pixels.

    Returns:
        The pixels of the source that it takes, and (wanted, taken) whole numbers.
    """
    pixels = np.arange(wanted.start, wanted.stop)
    # The axis in units in which both kinds of pixels begin at whole numbers: one of the source is `fine` long.
    coarse, fine = source // math.gcd(source, target), target // math.gcd(source, target)
    if coarse >= fine:  # the mean: what a pixel shares with those of the source
        first, last = pixels * coarse // fine, ((pixels + 1) * coarse - 1) // fine
        counts = last - first + 1
        rows = np.repeat(np.arange(len(pixels)), counts)
        places = np.arange(counts.sum()) + np.repeat(first - (counts.cumsum() - counts), counts)
        middle = pixels[rows]
        shared = np.minimum((places + 1) * fine, (middle + 1) * coarse) - np.maximum(places * fine, middle * coarse)
    else:  # bilinear: by the distance between centres
        first, beyond = np.divmod((2 * pixels + 1) * coarse - fine, 2 * fine)
        rows = np.repeat(np.arange(len(pixels)), 2)
        places = np.clip(np.stack([first, first + 1], axis=1).ravel(), 0, source - 1)
        shared = np.stack([2 * fine - beyond, beyond], axis=1).ravel()
    taken = slice(int(places.min()), int(places.max()) + 1)
    shape = (len(pixels), taken.stop - taken.start)
    return taken, csr_array((shared.astype(np.float64), (rows, places - taken.start)), shape=shape)


OpenRaster = RasterFile | Resampled
"""What commands read pixels of."""

__all__ = ["OpenRaster", "Resampled"]
