"""A picture of a scene and its map, side by side, with a legend: for eyes, not for programs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .areas import ClassArea
from .scenes import Colour
from .windows import NODATA

SIDE_PX = 700
PERCENTILES = (2, 98)
MARGIN_PX, LINE_PX, SWATCH_PX = 12, 22, 16

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


def stretched(pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bands (3 or fewer, H, W) -> a picture (H, W, 3) between the 2nd and 98th percentile; white without data."""
    bands = [pixels[min(band, len(pixels) - 1)].astype(np.float32) for band in range(3)]
    picture = np.full((*valid.shape, 3), 255, np.uint8)
    for place, band in enumerate(bands):
        if valid.any():
            low, high = np.percentile(band[valid], PERCENTILES)
            scaled = np.clip((band - low) / max(high - low, 1e-6), 0, 1) * 255
            picture[..., place] = np.where(valid, scaled, 255).astype(np.uint8)
    return picture


def write_quicklook(
    path: Path, picture: NDArray[np.uint8], classes: NDArray[np.uint8], areas: Sequence[ClassArea]
) -> None:
    """Write scene and map with a legend as PNG.

    Args:
        path: the file.
        picture: (H, W, 3) of the scene.
        classes: (H, W) of the map.
        areas: of every class, for the legend.
    """
    colours = class_colours([area.name for area in areas])
    table = np.full((NODATA + 1, 3), 255, np.uint8)
    table[: len(colours)] = colours
    height, width = classes.shape
    grown = max(1, 300 // max(height, width))  # tiny scenes, too, are to be seen
    panels = [Image.fromarray(one).resize((width * grown, height * grown), Image.Resampling.NEAREST)
              for one in (picture, table[classes])]  # fmt: skip
    font = ImageFont.load_default(14)
    total = max(1, sum(area.pixels for area in areas))
    lines = [_legend_line(area, total) for area in areas]
    text_px = max(int(font.getlength(line)) for line in lines) + SWATCH_PX + 3 * MARGIN_PX
    columns = max(1, (2 * panels[0].width + MARGIN_PX) // text_px)
    rows = -(-len(lines) // columns)
    size = (
        max(2 * panels[0].width + 3 * MARGIN_PX, text_px + MARGIN_PX),
        panels[0].height + 3 * MARGIN_PX + rows * LINE_PX,
    )
    sheet = Image.new("RGB", size, (255, 255, 255))
    for place, panel in enumerate(panels):
        corner = (MARGIN_PX + place * (panel.width + MARGIN_PX), MARGIN_PX)
        sheet.paste(panel, corner)
        frame = (corner[0] - 1, corner[1] - 1, corner[0] + panel.width, corner[1] + panel.height)
        ImageDraw.Draw(sheet).rectangle(frame, outline=(190, 190, 190))
    draw = ImageDraw.Draw(sheet)
    for place, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        x = MARGIN_PX + place % columns * text_px
        y = panels[0].height + 2 * MARGIN_PX + place // columns * LINE_PX
        draw.rectangle((x, y, x + SWATCH_PX, y + SWATCH_PX), fill=colour, outline=(90, 90, 90))
        draw.text((x + SWATCH_PX + MARGIN_PX // 2, y), line, fill=(20, 20, 20), font=font)
    sheet.save(path, format="PNG")


def _legend_line(area: ClassArea, total: int) -> str:
    share = f"{area.name}  {100 * area.pixels / total:.1f} %"
    return share if area.area_ha is None else f"{share}, {area.area_ha:,.1f} ha"


__all__ = ["SIDE_PX", "class_colours", "stretched", "write_quicklook"]
