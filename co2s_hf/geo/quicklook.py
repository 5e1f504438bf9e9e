"""A picture of a scene and its map, side by side, with a legend: for eyes, not for programs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..raster.areas import ClassArea
from ..raster.cog import NODATA
from ..raster.colours import class_colours

SIDE_PX = 700
MARGIN_PX, LINE_PX, SWATCH_PX = 12, 22, 16


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


__all__ = ["SIDE_PX", "write_quicklook"]
