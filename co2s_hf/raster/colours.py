"""Pixels for eyes: natural colours, one stretch, and a colour for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .image import COLOURS, Raster

Colour = tuple[int, int, int]

PERCENTILES = (2, 98)

# Land cover looks like itself where a name says what it is; the longest word wins.
NATURAL: dict[str, Colour] = {
    "water": (52, 120, 200),
    "sea": (40, 90, 170),
    "river": (80, 150, 220),
    "lake": (52, 120, 200),
    "road": (110, 110, 115),
    "pavement": (150, 150, 155),
    "building": (205, 60, 50),
    "vegetation": (70, 150, 60),
    "grass": (150, 200, 90),
    "low vegetation": (150, 200, 90),
    "meadow": (150, 200, 90),
    "tree": (30, 105, 45),
    "forest": (30, 105, 45),
    "agricult": (225, 200, 90),
    "farm": (225, 200, 90),
    "crop": (225, 200, 90),
    "barren": (190, 160, 120),
    "bare": (190, 160, 120),
    "soil": (170, 130, 90),
    "sand": (235, 215, 160),
    "unpaved": (205, 180, 140),
    "snow": (240, 245, 250),
    "car": (245, 220, 30),
}
OTHERS: tuple[Colour, ...] = (
    (148, 103, 189), (255, 127, 14), (23, 190, 207), (227, 119, 194), (140, 86, 75), (188, 189, 34), (31, 119, 180),
    (44, 160, 44), (214, 39, 40), (127, 127, 127), (174, 199, 232), (255, 187, 120), (152, 223, 138), (255, 152, 150),
)  # fmt: skip


def class_colours(classes: Sequence[str]) -> list[Colour]:
    """A different colour for each class: natural ones by name, others in turn."""
    colours: list[Colour] = []
    for name in classes:
        words = sorted((word for word in NATURAL if word in name.lower().replace("_", " ")), key=len)
        colour = NATURAL[words[-1]] if words else None
        free = (one for one in OTHERS if one not in colours)
        while colour is None or colour in colours:
            colour = next(free, None) or tuple(np.random.default_rng(len(colours)).integers(30, 230, 3).tolist())
            if colour in colours:
                colour = (colour[0], colour[1], (colour[2] + len(colours)) % 256)
        colours.append(colour)
    return colours


def natural_bands(names: Sequence[str], count: int) -> list[int]:
    """Places of the three bands to show: those named red, green and blue; else the first three, or the first for all.

    >>> natural_bands(["nir", "red", "green", "blue"], 4)
    [1, 2, 3]
    """
    known = [name.lower() for name in names]
    if set(COLOURS) <= set(known):
        return [known.index(colour) for colour in COLOURS]
    return [0, 1, 2] if count >= 3 else [0, 0, 0]


def natural_picture(raster: Raster) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of a raster in natural colours, white where there is no data; see `stretched`.

    What the bands were read as counts, and where nothing was asked for what the file calls them.
    """
    colours = raster.colours
    names = raster.reading.names or [band.name for band in raster.bands]
    return stretched(colours[natural_bands(names if len(names) == len(colours) else [], len(colours))], raster.valid)


def stretched(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bands (3, H, W) -> a picture (H, W, 3), white where `valid` (H, W) is False.

    Colours of 8 bits stay as they are. All others are stretched between the 2nd and the 98th percentile of the three
    bands together, so that they keep their hue.
    """
    picture = np.full((*valid.shape, 3), 255, np.uint8)
    if not valid.any():
        return picture
    values = np.moveaxis(pixels, 0, 2)[valid]
    if values.dtype != np.uint8:
        low, high = np.percentile(values, PERCENTILES)
        unit = np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)
        values = (unit * 255).round().astype(np.uint8)
    picture[valid] = values
    return picture


__all__ = ["Colour", "class_colours", "natural_bands", "natural_picture", "stretched"]
