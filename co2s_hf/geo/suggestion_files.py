"""Suggested tiles as files: a table, footprints, and a sheet of pictures for the person who will label them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .quicklook import class_colours, stretched
from .ranking import disagreement_by_class
from .suggest import StudentTiles, Suggestion, SuggestSettings, TileData, read_tiles
from .vectors import Footprint, write_footprints
from .windows import NODATA

TITLES = {"clip": "CLIP", "dinov3": "DINOv3", "dino": "DINO"}
MAX_PICTURES = 60
SIDE_PX, GAP_PX, MARGIN_PX, TEXT_PX = 150, 4, 16, 18
INK, PALE = (20, 20, 20), (120, 120, 120)

# From agreement to contradiction: dark to bright, in equal steps of lightness, for every kind of colour vision.
HEAT = np.array([(13, 8, 60), (92, 20, 120), (180, 50, 90), (240, 120, 40), (252, 255, 164)], np.float64)


def fields_of(one: Suggestion, classes: Sequence[str]) -> dict[str, Any]:
    """The values of a suggestion, in the order of their columns."""
    summary = one.summary
    shares = {f"share_{name}": round(float(value), 4) for name, value in zip(classes, summary.shares, strict=True)}
    return {
        "rank": one.rank,
        "file": one.tile.path,
        "row": one.tile.rows.start,
        "column": one.tile.columns.start,
        "height": one.tile.rows.stop - one.tile.rows.start,
        "width": one.tile.columns.stop - one.tile.columns.start,
        "score": round(one.score, 6),
        "disagreement": round(summary.disagreement, 6),
        "differing": round(summary.differing, 4),
        "most_disputed": classes[int(summary.by_class.argmax())],
        "data_share": round(one.data_share, 4),
        **shares,
    }


def write_table(path: Path, chosen: Sequence[Suggestion], classes: Sequence[str]) -> None:
    """Write the table as CSV."""
    rows = [fields_of(one, classes) for one in chosen]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)


def write_geopackage(path: Path, chosen: Sequence[Suggestion], classes: Sequence[str]) -> None:
    """Write the outlines of the tiles; see `co2s_hf.geo.vectors.write_footprints` for their CRS."""
    footprints = [Footprint(one.tile.grid, one.tile.rows, one.tile.columns, fields_of(one, classes)) for one in chosen]
    write_footprints(path, "suggestions", footprints)


def write_sheet(path: Path, chosen: Sequence[Suggestion], students: StudentTiles, settings: SuggestSettings) -> None:
    """Draw the first 60 tiles: image, classes of each student, disagreement pixel by pixel; with a legend."""
    shown = list(chosen[:MAX_PICTURES])
    titles = ["Image", *(TITLES.get(name, name) for name in students.fields)]
    titles.append("Disagreement" if len(students.fields) == 2 else "Uncertainty")
    strip = len(titles) * (SIDE_PX + GAP_PX) - GAP_PX
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    step_x, step_y = strip + 2 * MARGIN_PX, SIDE_PX + TEXT_PX + MARGIN_PX
    legend = _legend(students.classes, columns * step_x - 2 * MARGIN_PX)
    top = MARGIN_PX + TEXT_PX
    sheet = Image.new("RGB", (columns * step_x, top + lines * step_y + legend.height + MARGIN_PX), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column in range(columns):
        for place, title in enumerate(titles):
            x = MARGIN_PX + column * step_x + place * (SIDE_PX + GAP_PX)
            draw.text((x, MARGIN_PX - 6), title, fill=PALE, font=font)
    for place, (one, data) in enumerate(zip(shown, _read_in_order(shown, students, settings), strict=True)):
        x, y = MARGIN_PX + place % columns * step_x, top + place // columns * step_y
        draw.text((x, y), _shortened(_caption(one, students.classes), font, strip), fill=INK, font=font)
        for panel in _panels(data, students):
            panel.thumbnail((SIDE_PX, SIDE_PX))
            sheet.paste(panel, (x, y + TEXT_PX))
            x += SIDE_PX + GAP_PX
    sheet.paste(legend, (MARGIN_PX, top + lines * step_y))
    sheet.save(path, format="PNG")


def _read_in_order(shown: Sequence[Suggestion], students: StudentTiles, settings: SuggestSettings) -> Any:
    for one in shown:
        yield from read_tiles([one.tile], students.model.config, settings)


def _caption(one: Suggestion, classes: Sequence[str]) -> str:
    disputed = classes[int(one.summary.by_class.argmax())]
    return (
        f"{one.rank}.  score {one.score:.3f}, disagreement {one.summary.disagreement:.3f} (most: {disputed})   "
        f"{Path(one.tile.path).name} row {one.tile.rows.start} column {one.tile.columns.start}"
    )


def _shortened(text: str, font: Any, width: int) -> str:
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _panels(data: TileData, students: StudentTiles) -> list[Image.Image]:
    """Pictures of one tile, all of one size."""
    probabilities, _ = students.probabilities([data])
    colours = np.full((NODATA + 1, 3), 255, np.uint8)
    colours[: len(students.classes)] = class_colours(students.classes)
    maps = [torch.where(torch.from_numpy(data.valid), one.argmax(1)[0].cpu(), NODATA).numpy() for one in probabilities]
    disputed = disagreement_by_class(probabilities).sum(1)[0].cpu().numpy()
    names = [name.lower() for name in students.model.config.bands or ()]
    rgb = [names.index(name) for name in ("red", "green", "blue") if name in names]
    picture = stretched(data.pixels[rgb] if len(rgb) == 3 else data.pixels[:3], data.valid)
    heat = np.where(data.valid[..., None], _heat(disputed), 255).astype(np.uint8)
    grown = max(1, SIDE_PX // max(data.valid.shape))
    size = (data.valid.shape[1] * grown, data.valid.shape[0] * grown)
    panels = [picture, *(colours[one] for one in maps), heat]
    return [Image.fromarray(one).resize(size, Image.Resampling.NEAREST) for one in panels]


def _heat(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Colours (…, 3) of values in [0, 1]."""
    steps = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(values, steps, HEAT[:, band]) for band in range(3)], axis=-1)


def _legend(classes: Sequence[str], width: int) -> Image.Image:
    """Classes with their colours, and what the colours of the last picture mean."""
    font, swatch = ImageFont.load_default(13), 14
    widths = [swatch + 24 + int(font.getlength(name)) for name in classes]
    places, x, line = [], 0, 0
    for one in widths:
        if x and x + one > width:
            x, line = 0, line + 1
        places.append((x, line * (swatch + 8)))
        x += one
    bottom = (line + 1) * (swatch + 8)
    legend = Image.new("RGB", (width, bottom + swatch + 8), (255, 255, 255))
    draw = ImageDraw.Draw(legend)
    for (x, y), name, colour in zip(places, classes, class_colours(classes), strict=True):
        draw.rectangle((x, y, x + swatch, y + swatch), fill=colour, outline=PALE)
        draw.text((x + swatch + 6, y - 1), name, fill=INK, font=font)
    bar = _heat(np.tile(np.linspace(0, 1, 120), (swatch, 1))).astype(np.uint8)
    draw.text((0, bottom - 1), "0", fill=INK, font=font)
    legend.paste(Image.fromarray(bar), (14, bottom))
    draw.text((140, bottom - 1), "1: each is sure of something else, or nothing is sure", fill=INK, font=font)
    return legend


__all__ = ["MAX_PICTURES", "fields_of", "write_geopackage", "write_sheet", "write_table"]
