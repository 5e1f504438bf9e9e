"""What the page shows of a class map, as arrays and numbers: colours, layers, areas, where two students differ.

No page and no file. A class map is (H, W) uint8 with ids from 0; 255 is ground without data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from co2s_hf.raster.areas import GroundAreas, class_areas
from co2s_hf.raster.colours import Colour

NO_DATA = 255
ClassMap = NDArray[np.uint8]


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


def class_shares(
    class_map: ClassMap,
    names: Sequence[str],
    colours: Sequence[Colour],
    ground: GroundAreas,
    disputed: NDArray[np.bool_] | None = None,
) -> list[ClassShare]:
    """The table of classes in the order of their ids, classes without a pixel included.

    Args:
        class_map: (H, W) class ids, 255 without data.
        names: N class names.
        colours: their colours.
        ground: area of the pixels on the ground, where the image tells.
        disputed: (H, W), where two students differ.
    """
    areas = class_areas([(0, 0, class_map)], names, ground)
    argued = None if disputed is None else np.bincount(class_map[disputed], minlength=256)
    with_data = max(sum(area.pixels for area in areas), 1)
    return [
        ClassShare(
            name=area.name,
            colour=colour,
            pixels=area.pixels,
            share=area.pixels / with_data,
            square_metres=area.area_m2,
            disputed=None if argued is None or not area.pixels else int(argued[area.class_id]) / area.pixels,
        )
        for area, colour in zip(areas, colours, strict=True)
    ]


__all__ = [
    "NO_DATA",
    "ClassMap",
    "ClassShare",
    "Colour",
    "class_shares",
    "colour_layer",
    "disagreement",
    "disagreement_layer",
]
