"""Procedural land-cover scenes: a labelled data set without a download, for the quick start and the tests.

The scenes are drawn so that colour alone does not name a class. Crops run from green to the brown of bare soil (rows
tell them apart), bare soil shares its colours with clay roofs (outline and shadow), grey roofs with roads (elongation),
dark water with dark forest (texture). Every scene has its own season, light, tint, haze and sharpness: a few labelled
scenes do not cover that variation, the unlabelled ones do, and this is what semi-supervised training can gain from.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.write import write_image, write_mask
from .folders import DataError, DataSplit, find_split

CLASSES = ("field", "forest", "water", "road", "building", "bare_soil")
FIELD, FOREST, WATER, ROAD, BUILDING, BARE_SOIL = range(len(CLASSES))
PALETTE = ((230, 200, 80), (30, 110, 50), (50, 110, 200), (120, 120, 125), (200, 60, 50), (170, 120, 75))
"""RGB colours of the classes, for panels; the masks hold class ids."""

_VERSION = 6  # of the drawing: scenes of another version are drawn again
_MARKER = "scenes.json"
_VALIDATION_INDEX = 1_000_000  # so that more training scenes leave the validation scenes as they are

# Colours are RGB in [0, 1] as seen in plain light.
_CROPS = np.array(
    [
        [0.26, 0.40, 0.14],  # spring green
        [0.36, 0.47, 0.20],  # green
        [0.52, 0.56, 0.24],  # ripening
        [0.66, 0.62, 0.30],  # ripe
        [0.70, 0.66, 0.40],  # stubble
        [0.50, 0.40, 0.22],  # ploughed
    ],
    np.float32,
)
_SOILS = np.array([[0.66, 0.46, 0.34], [0.62, 0.42, 0.31], [0.70, 0.51, 0.39]], np.float32)
_CLAY_ROOFS = np.array([[0.74, 0.30, 0.22], [0.78, 0.36, 0.27], [0.68, 0.26, 0.20]], np.float32)
_GREY_ROOFS = np.array([[0.72, 0.73, 0.76], [0.80, 0.80, 0.82], [0.88, 0.88, 0.88]], np.float32)
_ROADS = np.array([[0.46, 0.46, 0.48], [0.43, 0.43, 0.45], [0.50, 0.50, 0.51]], np.float32)
_FOREST_SUMMER, _FOREST_AUTUMN = np.array([0.13, 0.24, 0.11], np.float32), np.array([0.31, 0.26, 0.13], np.float32)
_WATER_CLEAR, _WATER_MUDDY = np.array([0.08, 0.18, 0.28], np.float32), np.array([0.18, 0.30, 0.36], np.float32)
_HAZE = np.array([0.72, 0.76, 0.80], np.float32)

Plane = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


def draw_scene(
    seed: int, index: int, size_px: int, *, weather: float = 1.0, season: float | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw scene `index` of the world `seed`; the same numbers always give the same scene.

    Args:
        seed: World of the scenes.
        index: Number of the scene; decides on what stands where and on the light.
        size_px: Height and width.
        weather: How far, in [0, 1], the light may be from that of a plain clear day.
        season: 0 in spring to 1 in autumn; None draws it.

    Returns:
        The image, (size_px, size_px, 3) uint8, and its class ids, (size_px, size_px) uint8, every pixel labelled.
    """
    canvas = _Canvas(np.random.default_rng((seed, index)), size_px)
    if season is not None:
        canvas.season = season
    _draw_fields(canvas)
    _draw_bare_soil(canvas)
    _draw_forest(canvas)
    _draw_water(canvas)
    _draw_roads(canvas)
    _draw_buildings(canvas)
    return _photograph(canvas, weather), canvas.labels


def write_scenes(
    folder: str | Path, *, seed: int, num_labelled: int, num_unlabelled: int, num_validation: int, size_px: int
) -> DataSplit:
    """Write a data set of scenes to `folder/images` and `folder/labels`, or reuse it when it is there already.

    Labelled and unlabelled scenes are `train_NNNN.png`, validation scenes `val_NNNN.png`; unlabelled ones get no mask.
    The labelled scenes were taken on clear days spread over the year, as someone would choose them who may label a few;
    the others on other days, from a little to very hazy, dim or tinted.
    A marker file with the parameters is written last: an unfinished folder, or one of other parameters, is drawn again.

    Args:
        folder: Data set folder; made if missing.
        seed: World of the scenes.
        num_labelled: Training scenes with a mask.
        num_unlabelled: Training scenes without one.
        num_validation: Validation scenes.
        size_px: Height and width of a scene.

    Raises:
        DataError: The folder holds images or masks that are not scenes; or a number is not positive.
    """
    folder = Path(folder)
    parameters = {
        "version": _VERSION,
        "seed": seed,
        "num_labelled": num_labelled,
        "num_unlabelled": num_unlabelled,
        "num_validation": num_validation,
        "size_px": size_px,
    }
    if min(num_labelled, num_unlabelled, num_validation, size_px) < 1:
        raise DataError(f"Scenes cannot be written with {parameters}; expected positive numbers.")
    marker = folder / _MARKER
    if not _holds(marker, parameters):
        _clear(folder)
        for i in range(num_labelled):
            scene = draw_scene(seed, i, size_px, weather=0.0, season=(i + 0.5) / num_labelled)
            _write_scene(folder, f"train_{i:04d}.png", *scene)
        for i in range(num_labelled, num_labelled + num_unlabelled):
            image, _ = draw_scene(seed, i, size_px, weather=_weather(seed, i))
            _write_scene(folder, f"train_{i:04d}.png", image, None)
        for i in range(num_validation):
            index = _VALIDATION_INDEX + i
            _write_scene(folder, f"val_{i:04d}.png", *draw_scene(seed, index, size_px, weather=_weather(seed, index)))
        marker.write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
    return find_split(folder, classes=CLASSES, validation=["val_*.png"])


def _holds(marker: Path, parameters: dict[str, int]) -> bool:
    """Say whether the scenes are finished, and those; half a marker, of a run that was killed, is none."""
    try:
        return bool(json.loads(marker.read_text(encoding="utf-8")) == parameters)
    except (FileNotFoundError, ValueError):
        return False


def _weather(seed: int, index: int) -> float:
    return float(np.random.default_rng((seed, index, 1)).uniform(0.3, 1))


def _write_scene(folder: Path, name: str, image: NDArray[np.uint8], labels: NDArray[np.uint8] | None) -> None:
    write_image(folder / "images" / name, image)
    if labels is not None:
        write_mask(folder / "labels" / name, labels)


def _clear(folder: Path) -> None:
    """Make the folders and take away earlier scenes; refuse a folder with anything else in it."""
    scenes: list[Path] = []
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        scenes += (folder / name).iterdir()
    strangers = [path for path in scenes if not re.fullmatch(r"(train|val)_\d{4,}\.png", path.name)]
    if strangers:
        raise DataError(
            f"{folder} holds {len(strangers)} files that are no synthetic scenes, such as {strangers[0]}; expected an "
            "empty folder, or one of earlier scenes. Choose another."
        )
    (folder / _MARKER).unlink(missing_ok=True)
    for path in scenes:
        path.unlink()


# ---------------------------------------------------------------------------------------------------------------------
# Land cover, painted in this order: what comes later lies on top
# ---------------------------------------------------------------------------------------------------------------------


class _Canvas:
    """A scene being drawn.

    Attributes:
        colour: (S, S, 3) in [0, 1]. labels: (S, S) class ids.
        u, v: (S, S) pixel coordinates along and across the parcels, gently bent.
        season: 0 in spring, 1 in autumn.
        sun: (y, x) unit vector that shadows fall along.
    """

    def __init__(self, rng: np.random.Generator, size_px: int) -> None:
        self.rng, self.size_px = rng, size_px
        self.colour = np.zeros((size_px, size_px, 3), np.float32)
        self.labels = np.zeros((size_px, size_px), np.uint8)
        self.season = float(rng.uniform())
        sun, angle = rng.uniform(0, 2 * np.pi, 2)
        self.sun = (float(np.sin(sun)), float(np.cos(sun)))
        y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        self.u, self.v = cos * x + sin * y + 4 * self.noise(90), cos * y - sin * x + 4 * self.noise(90)
        self.grain = rng.standard_normal((size_px, size_px), np.float32)

    def noise(self, period_px: float) -> Plane:
        """Smooth random (S, S) values, about standard normal, that change over `period_px`."""
        spread = _spread(self.size_px, period_px)
        knots = spread.shape[1]
        return spread @ self.rng.standard_normal((knots, knots), np.float32) @ spread.T

    def cast(self, plane: NDArray[Any], distance_px: float) -> NDArray[Any]:
        """Move a plane (H, W) along the shadows; its border follows."""
        return _moved(plane, round(self.sun[0] * distance_px), round(self.sun[1] * distance_px))

    def paint(self, where: Mask, label: int, colour: Plane) -> None:
        """Give the pixels of a mask (S, S) a class and a colour: (3,) or (S, S, 3)."""
        self.labels[where] = label
        np.copyto(self.colour, colour, where=where[..., None], casting="same_kind")


def _draw_fields(canvas: _Canvas) -> None:
    """Cover the scene with parcels; each has its crop, its direction of rows and their spacing."""
    rng = canvas.rng
    strip = np.floor(canvas.v / rng.uniform(50, 85)).astype(np.int64)
    strip -= strip.min()
    widths, offsets = rng.uniform(45, 120, strip.max() + 1), rng.uniform(0, 120, strip.max() + 1)
    along = (canvas.u + offsets[strip]) / widths[strip]
    place = np.floor(along).astype(np.int64)
    parcel = strip * 64 + (place - place.min()) % 64
    count = int(parcel.max()) + 1
    ripeness = np.clip(4.2 * canvas.season + rng.normal(0, 1.2, count), 0, 4.999)
    step = (ripeness % 1).astype(np.float32)[:, None]
    crops = (1 - step) * _CROPS[ripeness.astype(int)] + step * _CROPS[np.minimum(ripeness.astype(int) + 1, 5)]
    crops += rng.normal(0, 0.02, (count, 3)).astype(np.float32)
    across = np.where(rng.random(count)[parcel] < 0.5, canvas.u, canvas.v)
    spacing_px, depth = rng.uniform(4.0, 7.0, count), rng.uniform(0.08, 0.18, count)
    rows = depth[parcel] * np.sin(2 * np.pi * across / spacing_px[parcel])
    shade = (1 + rows + 0.04 * canvas.noise(12) + 0.02 * canvas.grain).astype(np.float32)
    shade[np.abs(along - np.rint(along)) * widths[strip] < 0.8] *= 0.78  # the edge between two parcels
    canvas.paint(np.ones((canvas.size_px, canvas.size_px), np.bool_), FIELD, crops[parcel] * shade[..., None])


def _draw_bare_soil(canvas: _Canvas) -> None:
    """Spread patches of bare ground: rough, without rows, with a frayed outline."""
    where = canvas.noise(60) + 0.15 * canvas.noise(14) > canvas.rng.uniform(0.6, 1.2)
    shade = 1 + 0.07 * canvas.noise(14) + 0.06 * canvas.noise(3) + 0.03 * canvas.grain
    canvas.paint(where, BARE_SOIL, canvas.rng.choice(_SOILS) * shade[..., None])


def _draw_forest(canvas: _Canvas) -> None:
    """Grow forest with crowns lit from one side, and its shadow on what lies beside it."""
    where = canvas.noise(65) + 0.15 * canvas.noise(16) > canvas.rng.uniform(0.2, 0.9)
    crowns = canvas.noise(6)
    lit = np.clip(crowns - canvas.cast(crowns, -1.5), -1.5, 1.5)
    turned = np.clip(canvas.season * 1.4 - 0.5 + 0.25 * crowns, 0, 1)[..., None]
    colour = (1 - turned) * _FOREST_SUMMER + turned * _FOREST_AUTUMN
    canvas.colour[canvas.cast(where, 3)] *= 0.6
    canvas.paint(where, FOREST, colour * (1 + 0.28 * lit + 0.10 * canvas.noise(3))[..., None])


def _draw_water(canvas: _Canvas) -> None:
    """Lay a river, a lake or nothing: as dark as forest, and smooth."""
    kind, clear = canvas.rng.random(2)
    if kind < 0.45:
        course = canvas.noise(70) * 16 + canvas.u - canvas.rng.choice(canvas.u.ravel())
        where = np.abs(course) < canvas.rng.uniform(10, 18)
    elif kind < 0.9:
        where = canvas.noise(60) + 0.06 * canvas.noise(16) > canvas.rng.uniform(0.5, 1.1)
    else:
        return
    colour = np.float32(clear) * _WATER_CLEAR + np.float32(1 - clear) * _WATER_MUDDY
    canvas.paint(where, WATER, colour * (1 + 0.05 * canvas.noise(26) + 0.012 * canvas.grain)[..., None])


def _draw_roads(canvas: _Canvas) -> None:
    """Run one road along the parcels, and often one across and a lane that wanders."""
    rng = canvas.rng
    bends = (canvas.v + 2 * canvas.noise(60), canvas.u + 2 * canvas.noise(60), canvas.v + 14 * canvas.noise(80))
    for course, width_px in zip(bends, (rng.uniform(9, 13), rng.uniform(8, 11), rng.uniform(6, 8)), strict=True):
        middle = rng.choice(course.ravel())
        if rng.random() < 0.3:
            continue
        distance = np.abs(course - middle)
        shade = 1 + 0.03 * canvas.noise(8) + 0.02 * canvas.grain
        canvas.colour[distance < width_px / 2 + 1.5] *= 0.88  # verge
        canvas.paint(distance < width_px / 2, ROAD, rng.choice(_ROADS) * shade[..., None])


def _draw_buildings(canvas: _Canvas) -> None:
    """Build villages of houses and a few halls, with two-sided roofs and shadows, none on water or roads."""
    rng = canvas.rng
    margin = min(8, canvas.size_px // 4)
    villages = rng.integers(margin, canvas.size_px - margin, (rng.integers(2, 5), 2))
    for _ in range(rng.integers(16, 60)):
        centre = np.rint(rng.choice(villages) + rng.normal(0, 34, 2)).astype(int)
        if centre.min() >= 0 and centre.max() < canvas.size_px:
            _build(canvas, int(centre[0]), int(centre[1]))


def _build(canvas: _Canvas, row: int, column: int) -> None:
    """Put one building at a pixel, unless water, a road or another building is there."""
    rng = canvas.rng
    is_hall = rng.random() < 0.12
    length, width = rng.uniform((11, 8) if is_hall else (7, 6), (17, 12) if is_hall else (11, 8))  # half of each
    reach = int(np.hypot(length, width)) + 6
    near = (slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1))
    u, v = canvas.u[near] - canvas.u[row, column], canvas.v[near] - canvas.v[row, column]
    if rng.random() < 0.5:
        u, v = v, u
    house = (np.abs(u) < length) & (np.abs(v) < width)
    plot = (np.abs(u) < length + 2) & (np.abs(v) < width + 2)
    if np.isin(canvas.labels[near][plot], (WATER, ROAD, BUILDING)).any():
        return
    height_px = rng.uniform(2.5, 5)
    shadow = np.zeros_like(house)
    for distance in range(1, round(height_px) + 1):
        shadow |= canvas.cast(house, distance)
    canvas.colour[near][shadow & ~house] *= 0.45
    slope = 0.0 if is_hall else rng.uniform(0.06, 0.16)
    roof = rng.choice(_GREY_ROOFS if is_hall or rng.random() < 0.25 else _CLAY_ROOFS)
    shade = 1 + slope * np.sign(v) + 0.015 * canvas.grain[near]
    canvas.labels[near][house] = BUILDING
    canvas.colour[near][house] = (roof * shade[..., None])[house]


def _photograph(canvas: _Canvas, weather: float) -> NDArray[np.uint8]:
    """Take the picture: light, tint, haze, saturation, sharpness and sensor noise of this day."""
    rng = canvas.rng
    gain = 1 + weather * rng.uniform(-0.45, 0.35)
    tint = np.exp(weather * rng.normal(0, 0.14, 3))
    haze = weather * 0.3 * rng.uniform() ** 2
    saturation = np.float32(1 + weather * rng.uniform(-0.85, 0.4))
    light = 1 + 0.07 * canvas.noise(110)[..., None]
    image = canvas.colour * light * (gain * tint).astype(np.float32)
    image = np.float32(1 - haze) * image + np.float32(haze) * _HAZE
    grey = image.mean(axis=2, keepdims=True)
    image = grey + saturation * (image - grey)
    side = np.float32(rng.uniform(0, 0.25))  # weight of each neighbour: 0 sharp, 0.25 soft
    for axis in (0, 1):
        image = (1 - 2 * side) * image + side * (_moved(image, 1 - axis, axis) + _moved(image, axis - 1, -axis))
    image += np.float32(rng.uniform(0.003, 0.02)) * rng.standard_normal(image.shape, np.float32)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _moved(plane: NDArray[Any], down_px: int, right_px: int) -> NDArray[Any]:
    """Move (H, W, ...) by whole pixels, repeating the border."""
    height, width = plane.shape[:2]
    rows = np.clip(np.arange(height) - down_px, 0, height - 1)
    return plane[rows][:, np.clip(np.arange(width) - right_px, 0, width - 1)]


@lru_cache(maxsize=64)
def _spread(size_px: int, period_px: float) -> Plane:
    """Matrix (size_px, knots) that spreads random knots over the pixels by a Gaussian; rows have L2 norm 1.

    With G of independent standard normals, `_spread @ G @ _spread.T` is therefore standard normal at every pixel.
    """
    spacing_px = period_px / 2
    knots = np.arange(-3, int(size_px / spacing_px) + 5) * spacing_px
    weights = np.exp(-0.5 * ((np.arange(size_px)[:, None] - knots) / (0.45 * period_px)) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
