"""Pixels for eyes: natural colours, one stretch, and a colour for each class."""

import colorsys
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .image import COLOURS, Raster

Colour = tuple[int, int, int]

PERCENTILES = (2, 98)

# What a reader of maps expects of a class whose name has one of these words. The first free colour of a row is taken.
_EXPECTED: tuple[tuple[frozenset[str], tuple[int, ...]], ...] = (
    (frozenset("water river lake sea ocean pond pool waterbody stream".split()), (0x2E86DE, 0x0B4F9E, 0x74C0FC)),
    (frozenset("forest tree trees woodland wood woods".split()), (0x1B7F3B, 0x0A4D22)),
    (frozenset("vegetation grass grassland meadow shrub garden park".split()), (0x7BC043, 0xB5D99C)),
    (frozenset("field farmland agriculture agricultural crop crops cropland farm".split()), (0xF2D53C, 0xC9A227)),
    (frozenset("building buildings house houses roof urban built residential".split()), (0xE03C31, 0x9D1F17)),
    (frozenset("road roads street asphalt impervious pavement highway railway".split()), (0x8E5BD0, 0xC3A6EA)),
    (frozenset("bare barren soil sand land unpaved rock desert".split()), (0xD9A066, 0x9C6B3A)),
    (frozenset("snow ice cloud clouds glacier".split()), (0xE8F6FF, 0xB9D7EA)),
    (frozenset("car cars vehicle vehicles".split()), (0xFF4FA3,)),
    (frozenset("wetland marsh swamp".split()), (0x2FB5A5,)),
    (frozenset("background clutter other unknown".split()), (0x6B7280,)),
)
_OTHERS = (0xF08C2E, 0x17BECF, 0xD6336C, 0x94D82D, 0x5F3DC4, 0x8D6E63, 0xFFD8A8, 0x364FC7)


def class_colours(names: Sequence[str]) -> list[Colour]:
    """One colour for each class, all different: what its name makes a reader expect, or the next free one."""
    taken: list[int] = []
    for index, name in enumerate(names):
        words = set(re.findall("[a-z]+", name.lower()))
        expected = [colour for known, colours in _EXPECTED if words & known for colour in colours]
        walked = [_hue_colour(step) for step in range(index, index + len(names) + 1)]
        taken.append(next(colour for colour in (*expected, *_OTHERS, *walked) if colour not in taken))
    return [(colour >> 16, colour >> 8 & 255, colour & 255) for colour in taken]


def _hue_colour(step: int) -> int:
    """Steps of the golden ratio round the hue circle never meet; lightness alternates to part neighbours."""
    red, green, blue = colorsys.hls_to_rgb(step * 0.618034 % 1, (0.42, 0.66)[step % 2], 0.65)
    return round(red * 255) << 16 | round(green * 255) << 8 | round(blue * 255)


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
