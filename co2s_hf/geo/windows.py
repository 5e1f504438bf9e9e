"""How a scene of any size is cut into windows and put together again: numbers only, no file and no model.

The rule is that of every model here, see `co2s_hf.segmentation`: probabilities are averaged, weighted, in sums of whole
numbers. These do not depend on their order, so what a pixel gets is a function of the grid of windows alone: neither of
the height of bands, nor of how many processes share the work, nor of where an interrupted run went on. And the mean
of equal numbers is exactly that number: windows that agree leave no seam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..raster.cog import LAYER_STEPS
from ..segmentation import PROBABILITY_STEPS, WEIGHT_STEPS, blend_weights, window_starts

Sums = NDArray[np.int32]


@dataclass(frozen=True)
class WindowGrid:
    """The windows over a scene: their places depend on the sizes below and on nothing else.

    The last window of an axis is moved back to end at the border; a scene smaller than a window is one window.

    Attributes:
        height, width: of the scene, in px.
        window_px: side of a window.
        overlap_px: what two neighbours share, at most 3/4 of the window.

    Raises:
        ValueError: these do not fit each other.
    """

    height: int
    width: int
    window_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        """Refuse windows that leave pixels out or pile up."""
        if min(self.height, self.width) < 1:
            raise ValueError(f"A scene of {self.height} x {self.width} px has no pixel; expected at least one.")
        if self.window_px < 1 or not 0 <= self.overlap_px <= self.window_px * 3 // 4:
            raise ValueError(
                f"The overlap is {self.overlap_px} px and the window {self.window_px} px; expected an overlap from 0 "
                "to 3/4 of the window."
            )

    @property
    def window_shape(self) -> tuple[int, int]:
        """(height, width) in px of every window."""
        return min(self.window_px, self.height), min(self.window_px, self.width)

    @cached_property
    def tops(self) -> list[int]:
        """First pixel row of each row of windows."""
        return window_starts(self.height, self.window_px, self.window_px - self.overlap_px)

    @cached_property
    def lefts(self) -> list[int]:
        """First pixel column of each column of windows."""
        return window_starts(self.width, self.window_px, self.window_px - self.overlap_px)

    @cached_property
    def weights(self) -> NDArray[np.int32]:
        """(window height, window width) weight of every pixel of a window."""
        rows, columns = (blend_weights(size, self.overlap_px) for size in self.window_shape)
        return rows[:, None] * columns[None, :]

    @cached_property
    def row_totals(self) -> NDArray[np.int32]:
        """(height,) sum of the weights above each pixel row; times that of the column, the sum above a pixel."""
        return _totals(self.tops, blend_weights(self.window_shape[0], self.overlap_px), self.height)

    @cached_property
    def column_totals(self) -> NDArray[np.int32]:
        """(width,) likewise."""
        return _totals(self.lefts, blend_weights(self.window_shape[1], self.overlap_px), self.width)

    def final_rows(self, row: int) -> slice:
        """Pixel rows that no row of windows behind this one touches."""
        return slice(self.tops[row], self.tops[row + 1] if row + 1 < len(self.tops) else self.height)

    def first_reaching(self, row: int) -> int:
        """The first row of windows that reaches the final pixel rows of row `row`."""
        return next(i for i, top in enumerate(self.tops) if top + self.window_shape[0] > self.tops[row])

    def chunks(self, batch: int) -> list["Chunk"]:
        """A row of windows in groups of `batch` from its left end."""
        ends = [*self.lefts, self.width]
        return [
            Chunk(i, tuple(self.lefts[start : start + batch]), ends[min(start + batch, len(self.lefts))])
            for i, start in enumerate(range(0, len(self.lefts), batch))
        ]


@dataclass(frozen=True)
class Chunk:
    """Neighbouring windows of one row, predicted together.

    Attributes:
        index: from the left.
        lefts: first pixel column of each window.
        stop: pixel column where the next chunk begins.
    """

    index: int
    lefts: tuple[int, ...]
    stop: int

    @property
    def columns(self) -> slice:
        """Pixel columns that no window of a later chunk touches."""
        return slice(self.lefts[0], self.stop)


@dataclass(frozen=True)
class Band:
    """Pixel rows that are finished, kept and shared out together.

    Attributes:
        index: from the top.
        rows: its rows of windows.
        top, bottom: its pixel rows.
    """

    index: int
    rows: range
    top: int
    bottom: int


def cut_bands(grid: WindowGrid, band_px: int) -> list[Band]:
    """Bands of at least `band_px` pixel rows (the last one may have fewer), from the top to the bottom."""
    bands: list[Band] = []
    start = 0
    for row in range(len(grid.tops)):
        bottom = grid.final_rows(row).stop
        if bottom - grid.tops[start] >= band_px or row == len(grid.tops) - 1:
            bands.append(Band(len(bands), range(start, row + 1), grid.tops[start], bottom))
            start = row + 1
    return bands


def share(bands: Sequence[Band], index: int, count: int) -> list[Band]:
    """What process `index` of `count` does: neighbouring bands, for each seam between processes is predicted twice."""
    return list(bands[len(bands) * index // count : len(bands) * (index + 1) // count])


def _totals(starts: Sequence[int], weights: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    totals = np.zeros(size, np.int32)
    for start in starts:
        totals[start : start + len(weights)] += weights
    return totals


class Carry(Protocol):
    """Keeps, for each chunk, what its windows have left for the next row of windows."""

    def load(self, index: int) -> Sums | None:
        """Give what was last stored for this chunk, or None."""

    def store(self, index: int, sums: Sums | None) -> None:
        """Replace it; None forgets it."""


class MemoryCarry:
    """Keeps it in memory: as much as a row of windows overlaps with the next one, over the whole width."""

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[int, Sums] = {}

    def load(self, index: int) -> Sums | None:
        """Give what was last stored for this chunk, or None."""
        return self._kept.get(index)

    def store(self, index: int, sums: Sums | None) -> None:
        """Replace it; None forgets it."""
        self._kept.pop(index, None)
        if sums is not None:
            self._kept[index] = sums


class Blender:
    """Adds up windows in their order, from the left to the right and from the top to the bottom.

    Holds the sums of one chunk; what the next row of windows needs goes to `carry`.

    Args:
        grid: the windows.
        chunks: `grid.chunks(batch)`.
        channels: what is averaged at each pixel: probabilities of the classes, and more.
        carry: where sums wait for the next row of windows.
    """

    def __init__(self, grid: WindowGrid, chunks: Sequence[Chunk], channels: int, carry: Carry) -> None:
        """Start above the scene."""
        self.grid, self.chunks, self.channels, self.carry = grid, chunks, channels, carry
        self._beside: Sums | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the rows so far: the next one may be any."""
        for chunk in self.chunks:
            self.carry.store(chunk.index, None)

    def add(self, row: int, chunk: Chunk, windows: Sequence[Sums | None]) -> Sums:
        """Add a chunk of a row of windows.

        Args:
            row: the row of windows.
            chunk: the windows.
            windows: for each (channels, window height, window width) whole numbers up to `PROBABILITY_STEPS`; None for
                one without any data.

        Returns:
            (channels, rows, columns) weighted sums of the pixels that are final now: `grid.final_rows(row)` and
            `chunk.columns`. Complete if every row of windows from `grid.first_reaching(row)` was added.
        """
        height, width = self.grid.window_shape
        first = chunk.lefts[0]
        sums = np.zeros((self.channels, height, chunk.lefts[-1] + width - first), np.int32)
        if chunk.index > 0 and self._beside is not None:
            sums[..., : self._beside.shape[-1]] += self._beside
        for left, window in zip(chunk.lefts, windows, strict=True):
            if window is not None:
                sums[..., left - first : left - first + width] += window * self.grid.weights
        self._beside = sums[..., chunk.stop - first :].copy()
        sums = sums[..., : chunk.stop - first]
        above = self.carry.load(chunk.index)
        if above is not None:
            sums[:, : above.shape[1]] += above
        rows = self.grid.final_rows(row)
        final = rows.stop - rows.start
        self.carry.store(chunk.index, sums[:, final:].copy() if final < height else None)
        return sums[:, :final]


def as_share(sums: Sums, rows: NDArray[np.int32], columns: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Weighted sums (..., rows, columns) -> their mean in steps of 1/250, rounded exactly, halves upwards.

    Args:
        sums: of whole numbers up to `PROBABILITY_STEPS`.
        rows, columns: `row_totals` and `column_totals` there.
    """
    totals = rows[:, None].astype(np.int64) * columns * PROBABILITY_STEPS
    return ((2 * LAYER_STEPS * sums.astype(np.int64) + totals) // (2 * totals)).astype(np.uint8)


__all__ = [
    "Band",
    "Blender",
    "Carry",
    "Chunk",
    "MemoryCarry",
    "PROBABILITY_STEPS",
    "WEIGHT_STEPS",
    "WindowGrid",
    "as_share",
    "blend_weights",
    "cut_bands",
    "share",
]
