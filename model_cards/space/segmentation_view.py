"""What the page shows of a class map, as arrays and numbers: colours, layers, areas, where two students differ.

Plain numpy, no page and no file. A class map is (H, W) uint8 with ids from 0; 255 is ground without data.
"""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_DATA = 255
Colour = tuple[int, int, int]
ClassMap = NDArray[np.uint8]

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


@dataclass(frozen=True)
class PixelAreas:
    """Ground area of one pixel in each block of an image.

    Attributes:
        row_edges, column_edges: first pixels of the blocks and the end of the last one.
        square_metres: (rows of blocks, columns of blocks), area of one pixel of the block.
        note: one sentence on how the areas were found.
    """

    row_edges: Sequence[int]
    column_edges: Sequence[int]
    square_metres: NDArray[np.float64]
    note: str


@dataclass(frozen=True)
class ClassShare:
    """One line of the table: what a class covers.

    Attributes:
        name: the class.
        colour: its colour on the map.
        pixels: how many pixels have it.
        share: of the pixels with data, 0 to 1.
        square_metres: ground area, or None where the image does not tell.
        disputed: of its pixels, the share on which the students differ; None with one student or without a pixel.
    """

    name: str
    colour: Colour
    pixels: int
    share: float
    square_metres: float | None
    disputed: float | None


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


def colour_layer(class_map: ClassMap, colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA of a class map; ground without data is transparent, all else opaque."""
    table = np.zeros((256, 4), np.uint8)
    table[: len(colours)] = [(*colour, 255) for colour in colours]
    return table[class_map]


def disagreement_layer(disputed: NDArray[np.bool_], colour: Colour) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA: `colour` where the students differ, transparent elsewhere."""
    layer = np.zeros((*disputed.shape, 4), np.uint8)
    layer[disputed] = (*colour, 255)
    return layer


def disagreement(first: ClassMap, second: ClassMap) -> NDArray[np.bool_]:
    """(H, W) where two class maps differ; ground without data is no matter of dispute."""
    return (first != second) & (first != NO_DATA) & (second != NO_DATA)


def class_areas(class_map: ClassMap, num_classes: int, areas: PixelAreas) -> NDArray[np.float64]:
    """Ground area of each class in square metres, (num_classes,)."""
    total = np.zeros(num_classes)
    rows, columns = areas.row_edges, areas.column_edges
    for (i, j), square_metres in np.ndenumerate(areas.square_metres):
        block = class_map[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        total += np.bincount(block.ravel(), minlength=256)[:num_classes] * square_metres
    return total


def class_shares(
    class_map: ClassMap,
    names: Sequence[str],
    colours: Sequence[Colour],
    areas: PixelAreas | None = None,
    disputed: NDArray[np.bool_] | None = None,
) -> list[ClassShare]:
    """The table of classes in the order of their ids, classes without a pixel included.

    Args:
        class_map: (H, W) class ids, 255 without data.
        names: N class names.
        colours: their colours.
        areas: of the pixels on the ground, where the image tells.
        disputed: (H, W), where two students differ.
    """
    pixels = np.bincount(class_map.ravel(), minlength=256)[: len(names)]
    ground = None if areas is None else class_areas(class_map, len(names), areas)
    argued = None if disputed is None else np.bincount(class_map[disputed], minlength=256)
    with_data = max(int(pixels.sum()), 1)
    return [
        ClassShare(
            name=name,
            colour=colours[i],
            pixels=int(pixels[i]),
            share=int(pixels[i]) / with_data,
            square_metres=None if ground is None else float(ground[i]),
            disputed=None if argued is None or not pixels[i] else int(argued[i]) / int(pixels[i]),
        )
        for i, name in enumerate(names)
    ]


def photo(pixels: NDArray[np.uint8 | np.uint16], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) for the eye. 8-bit colours stay; 16-bit bands are stretched between 2 and 98 percent.

    Args:
        pixels: (H, W, 3), the bands to show.
        valid: (H, W), False without data; these pixels become white.
    """
    if pixels.dtype == np.uint8:
        shown = pixels.copy()
    else:
        shown = np.zeros(pixels.shape, np.uint8)
        known = pixels[valid] if valid.any() else pixels.reshape(-1, 3)
        low, high = np.percentile(known, (2, 98), axis=0)
        shown[:] = np.clip((pixels - low) / np.maximum(high - low, 1) * 255, 0, 255)
    shown[~valid] = 255
    return shown


__all__ = [
    "NO_DATA",
    "ClassMap",
    "ClassShare",
    "Colour",
    "PixelAreas",
    "class_areas",
    "class_colours",
    "class_shares",
    "colour_layer",
    "disagreement",
    "disagreement_layer",
    "photo",
]
