"""Rectangles of scenes that are looked at, labelled and suggested."""

from dataclasses import dataclass

from ..raster.errors import RasterError
from ..raster.grid import Grid
from ..segmentation import window_starts

MAX_TILES = 1_000_000
"""Each is remembered with some numbers; a few bytes of a file can say that it holds any number of them."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of a scene.

    Attributes:
        path: of the scene.
        grid: of the scene, resampled if asked for.
        rows, columns: of the grid, in px.
        file_shape: (height, width) of the file in px.
    """

    path: str
    grid: Grid
    rows: slice
    columns: slice
    file_shape: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right in px of the file, as tables name it: what can be cut out of the file."""
        down, across = self.file_shape[0] / self.grid.height, self.file_shape[1] / self.grid.width
        top, bottom = round(self.rows.start * down), round(self.rows.stop * down)
        return top, round(self.columns.start * across), bottom, round(self.columns.stop * across)


def cut_tiles(grid: Grid, path: str, tile_px: int, *, file_shape: tuple[int, int] | None = None) -> list[Tile]:
    """All tiles of a scene, row by row.

    They lie side by side; the last of an axis is moved back to end at the border, so that all are of one size; a scene
    smaller than a tile is one tile along that axis.

    Args:
        grid: of the scene, resampled if asked for.
        path: of the scene.
        tile_px: side in pixels of the grid.
        file_shape: (height, width) of the file in px; None: that of the grid.

    Raises:
        RasterError: there are more than `MAX_TILES`.
    """
    height, width = min(tile_px, grid.height), min(tile_px, grid.width)
    count = -(-grid.height // height) * -(-grid.width // width)
    if count > MAX_TILES:
        raise RasterError(
            f"{path} of {grid.height} x {grid.width} px has {count} tiles of {tile_px} px; expected at most "
            f"{MAX_TILES}. Name parts of it, or a larger --tile_px."
        )
    shape = file_shape or (grid.height, grid.width)
    return [
        Tile(path, grid, slice(top, top + height), slice(left, left + width), shape)
        for top in window_starts(grid.height, height, height)
        for left in window_starts(grid.width, width, width)
    ]


__all__ = ["MAX_TILES", "Tile", "cut_tiles"]
