"""Suggested tiles as files: a table, footprints, and a sheet of pictures for the person who will label them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..raster.cog import NODATA
from ..raster.colours import class_colours, natural_picture
from ..raster.vectors import Footprint, write_footprints
from .ranking import disagreement_by_class
from .suggest import StudentTiles, Suggestion, SuggestSettings, read_tiles

TITLES = {"clip": "CLIP", "dinov3": "DINOv3", "dino": "DINO"}
MAX_PICTURES = 60
SIDE_PX, GAP_PX, MARGIN_PX, TEXT_PX, SWATCH_PX, LINE_PX = 150, 4, 16, 18, 14, 22
INK, PALE, WHITE = (20, 20, 20), (120, 120, 120), (255, 255, 255)
LEAST_SCALE = 0.05  # the disagreement that is drawn brightest is at least this

# From agreement to contradiction: dark to bright, in equal steps of lightness, for every kind of colour vision.
HEAT = np.array([(13, 8, 60), (92, 20, 120), (180, 50, 90), (240, 120, 40), (252, 255, 164)], np.float64)


def fields_of(one: Suggestion, classes: Sequence[str]) -> dict[str, Any]:
    """The values of a suggestion, in the order of their columns; rows and columns are those of the file."""
    summary, (top, left, bottom, right) = one.summary, one.tile.box
    shares = {f"share_{name}": round(float(value), 4) for name, value in zip(classes, summary.shares, strict=True)}
    return {
        "rank": one.rank,
        "file": one.tile.path,
        "row": top,
        "column": left,
        "height": bottom - top,
        "width": right - left,
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
    """Write the outlines of the tiles; see `co2s_hf.raster.vectors.write_footprints` for their CRS."""
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
    top, below = MARGIN_PX + TEXT_PX, _legend_lines(students.classes, columns * step_x - 2 * MARGIN_PX) * LINE_PX
    sheet = Image.new("RGB", (columns * step_x, top + lines * step_y + below), WHITE)
    draw, font = ImageDraw.Draw(sheet), _font()
    for column in range(columns):
        for place, title in enumerate(titles):
            x = MARGIN_PX + column * step_x + place * (SIDE_PX + GAP_PX)
            draw.text((x, MARGIN_PX - 6), title, fill=PALE, font=font)
    pictures = [_pictures(one, students, settings) for one in shown]
    brightest = max(LEAST_SCALE, float(np.nanpercentile(np.concatenate([one[-1].ravel() for one in pictures]), 99)))
    for place, (one, picture) in enumerate(zip(shown, pictures, strict=True)):
        x, y = MARGIN_PX + place % columns * step_x, top + place // columns * step_y
        draw.text((x, y), _shortened(_caption(one, students.classes), font, strip), fill=INK, font=font)
        for panel in (*picture[:-1], _heat(picture[-1] / brightest)):
            sheet.paste(Image.fromarray(panel), (x, y + TEXT_PX))
            x += SIDE_PX + GAP_PX
    legend = _legend(students, brightest, columns * step_x - 2 * MARGIN_PX)
    sheet.paste(legend, (MARGIN_PX, top + lines * step_y))
    sheet.save(path, format="PNG")


def _caption(one: Suggestion, classes: Sequence[str]) -> str:
    disputed = classes[int(one.summary.by_class.argmax())]
    return (
        f"{one.rank}.  score {one.score:.3f}, disagreement {one.summary.disagreement:.3f} (most: {disputed})   "
        f"{Path(one.tile.path).name} row {one.tile.box[0]} column {one.tile.box[1]}"
    )


def _shortened(text: str, font: Any, width: int) -> str:
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _pictures(one: Suggestion, students: StudentTiles, settings: SuggestSettings) -> list[NDArray[Any]]:
    """Small pictures of a tile: image and classes of each student (h, w, 3), disagreement (h, w), NaN without data."""
    (data,) = read_tiles([one.tile], students.model.config, settings)
    probabilities, _ = students.probabilities([data])
    colours = np.full((NODATA + 1, 3), 255, np.uint8)
    colours[: len(students.classes)] = class_colours(students.classes)
    valid = data.raster.valid
    named = [np.where(valid, each.argmax(1)[0].cpu().numpy(), NODATA) for each in probabilities]
    disputed = disagreement_by_class(probabilities).sum(1)[0].cpu().numpy()
    height, width = valid.shape
    factor = SIDE_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))

    def small(pixels: NDArray[Any], resampling: Image.Resampling) -> NDArray[Any]:
        return np.asarray(Image.fromarray(pixels).resize(size, resampling))

    smooth = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    return [
        small(natural_picture(data.raster), smooth),
        *(small(colours[one], Image.Resampling.NEAREST) for one in named),
        small(np.where(valid, disputed, np.float32(np.nan)), smooth),
    ]


def _heat(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colours (…, 3) of values from 0 to 1 and above; white for NaN."""
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(values, steps, HEAT[:, band]) for band in range(3)], axis=-1)
    return np.where(np.isnan(values)[..., None], 255, colours).astype(np.uint8)


def _legend_lines(classes: Sequence[str], width: int) -> int:
    return _legend_places(classes, width)[-1][1] // LINE_PX + 2


def _legend_places(classes: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Where the classes stand in a legend of this width."""
    places: list[tuple[int, int]] = []
    x = y = 0
    for name in classes:
        needed = SWATCH_PX + 24 + int(_font().getlength(name))
        if x and x + needed > width:
            x, y = 0, y + LINE_PX
        places.append((x, y))
        x += needed
    return places


def _legend(students: StudentTiles, brightest: float, width: int) -> Image.Image:
    """Classes with their colours, and what the colours of the last picture mean."""
    places, font = _legend_places(students.classes, width), _font()
    y = places[-1][1] + LINE_PX
    legend = Image.new("RGB", (width, y + LINE_PX), WHITE)
    draw = ImageDraw.Draw(legend)
    colours = class_colours(students.classes)
    for (left, upper), name, colour in zip(places, students.classes, colours, strict=True):
        draw.rectangle((left, upper, left + SWATCH_PX, upper + SWATCH_PX), fill=colour, outline=PALE)
        draw.text((left + SWATCH_PX + 6, upper - 1), name, fill=INK, font=font)
    draw.text((0, y - 1), "0", fill=INK, font=font)
    legend.paste(Image.fromarray(_heat(np.tile(np.linspace(0, 1, 120), (SWATCH_PX, 1)))), (14, y))
    meaning = (
        "disagreement; 1 where each is sure of another class"
        if len(students.fields) == 2
        else "uncertainty; 1 where all classes are equal"
    )
    draw.text((140, y - 1), f"{brightest:.2g} and more: {meaning}", fill=INK, font=font)
    return legend


def _font() -> Any:
    return ImageFont.load_default(13)


__all__ = ["MAX_PICTURES", "fields_of", "write_geopackage", "write_sheet", "write_table"]
