"""Tiles of scenes through a model, and which of them should be labelled next.

Memory holds the tiles of one batch, and of every tile a few numbers for each class.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..segmentation import window_starts
from .labelled import Labelled
from .predict import DEFAULT_BATCH
from .ranking import TileSummary, rank, summaries
from .scenes import Grid, SceneError, SceneReader, choose_bands, opened

MAX_TILES = 1_000_000
"""Each is remembered with some numbers; a few bytes of a file can say that it holds any number of them."""


@dataclass(frozen=True)
class SuggestSettings:
    """How tiles are cut and chosen.

    Attributes:
        tile_px: side of a tile; None: the window of the model.
        count: how many to suggest.
        batch: tiles in a forward pass.
        diversity: see `co2s_hf.geo.ranking.rank`.
        min_data: share of a tile that must hold data, above 0.
        bands, nodata, scale: as in `co2s_hf.geo.predict.PredictSettings`.
    """

    tile_px: int | None = None
    count: int = 20
    batch: int = DEFAULT_BATCH
    diversity: float = 1.0
    min_data: float = 0.5
    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Tile:
    """A rectangle of a scene.

    Attributes:
        path: of the scene.
        grid: of the scene.
        rows, columns: of the scene, in px.
    """

    path: str
    grid: Grid
    rows: slice
    columns: slice


@dataclass(frozen=True)
class TileData:
    """Pixels (bands, H, W) of a tile and (H, W) bool, where they hold data."""

    tile: Tile
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Suggestion:
    """A tile to label.

    Attributes:
        rank: from 1.
        score: disagreement times the distance to what was chosen before.
        tile: where it is.
        data_share: of its pixels.
        summary: what the model says of it.
    """

    rank: int
    score: float
    tile: Tile
    data_share: float
    summary: TileSummary


@dataclass(frozen=True)
class Suggestions:
    """What came of it.

    Attributes:
        chosen: the best first.
        tiles: how many there were to choose from.
        labelled: how many were labelled already.
        empty: how many hold too little data.
    """

    chosen: list[Suggestion]
    tiles: int
    labelled: int
    empty: int


def cut_tiles(grid: Grid, path: str, tile_px: int) -> list[Tile]:
    """All tiles of a scene, row by row.

    They lie side by side; the last of an axis is moved back to end at the border, so that all are of one size; a scene
    smaller than a tile is one tile along that axis.

    Raises:
        SceneError: there are more than `MAX_TILES`.
    """
    height, width = min(tile_px, grid.height), min(tile_px, grid.width)
    count = -(-grid.height // height) * -(-grid.width // width)
    if count > MAX_TILES:
        raise SceneError(
            f"{path} of {grid.height} x {grid.width} px has {count} tiles of {tile_px} px; expected at most "
            f"{MAX_TILES}. Name parts of it, or a larger --tile_px."
        )
    return [
        Tile(path, grid, slice(top, top + height), slice(left, left + width))
        for top in window_starts(grid.height, height, height)
        for left in window_starts(grid.width, width, width)
    ]


class StudentTiles:
    """The students of a model, applied to tiles.

    Args:
        model: any model of this package, in eval mode and on its device.
        processor: its image processor.

    Raises:
        SceneError: the processor would resize tiles.

    Attributes:
        fields: name of each student that votes, two or one -> output field of its logits.
        classes: names.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        """Look at the model."""
        if processor.do_resize:
            raise SceneError("The processor resizes images, so that pixels are no pixels; expected do_resize=False.")
        self.model, self.processor = model, processor
        self.classes: list[str] = [model.config.id2label[index] for index in range(model.config.num_labels)]
        # A student of Co2S that was not trained for some class abstains.
        self.fields = {name: field for name, field in model.students.items() if name in model.predictions}

    @torch.inference_mode()
    def probabilities(self, tiles: Sequence[TileData]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(B, N, H, W) of each student, and (B, H, W) where there is data; the tiles are of one size."""
        try:
            inputs = self.processor(
                [one.pixels for one in tiles], input_data_format="channels_first", return_tensors="pt"
            )
        except ValueError as error:
            raise SceneError(f"{tiles[0].tile.path}: {error} For a scene that is --scale.") from error
        valid = torch.from_numpy(np.stack([one.valid for one in tiles]))
        # Pixels without data are the mean of the training images to the model, as when a scene is mapped.
        outputs = self.model(inputs["pixel_values"].masked_fill(~valid[:, None], 0.0).to(self.model.device))
        found = [outputs[field].float().softmax(1) for field in self.fields.values()]
        if not all(bool(torch.isfinite(one).all()) for one in found):
            raise SceneError(f"{tiles[0].tile.path}: the model gives NaN. Try --dtype float32.")
        return found, valid.to(self.model.device)


def open_reader(dataset: Any, config: Any, settings: SuggestSettings) -> SceneReader:
    """A reader of the bands that the model takes."""
    bands = choose_bands(dataset, settings.bands, config.num_channels, config.bands)
    return SceneReader(dataset, bands, nodata=settings.nodata, scale=settings.scale)


def suggest(
    paths: Sequence[str],
    model: Any,
    processor: Any,
    settings: SuggestSettings,
    labelled: Labelled | None = None,
    *,
    progress: bool = False,
) -> Suggestions:
    """Rank the tiles of scenes: the ones to label next come first.

    Args:
        paths: scenes, images; each is opened when its turn has come.
        model: any model of this package, in eval mode and on its device. Where one student votes, its uncertainty
            takes the place of disagreement; see `co2s_hf.geo.ranking`.
        processor: its image processor.
        settings: see there.
        labelled: what has labels already. It is not suggested, but looked at: what resembles it comes late.
        progress: show a bar.

    Raises:
        SceneError: a scene does not fit the model, or no tile is left.
    """
    students = StudentTiles(model, processor)
    if len(students.classes) < 2:
        raise SceneError("The model has a single class, so that nothing can be disputed; expected at least two.")
    tile_px = settings.tile_px or int(model.config.window_px)
    tiles: list[Tile] = []
    done: list[bool] = []
    for path in paths:  # all of them before the first one is predicted
        with opened(path) as dataset:
            mine = cut_tiles(open_reader(dataset, model.config, settings).grid, path, tile_px)
        tiles += mine
        done += [False] * len(mine) if labelled is None else labelled.among(mine).tolist()
    found: dict[int, tuple[float, TileSummary]] = {}
    with tqdm(total=len(tiles), unit="tile", desc="looking at", disable=not progress, leave=False) as bar:
        for batch in _batches(tiles, model.config, settings, bar):
            probabilities, valid = students.probabilities([data for _, data in batch])
            for (place, data), summary in zip(batch, summaries(probabilities, valid), strict=True):
                found[place] = float(data.valid.mean()), summary
    return _ranked(tiles, done, found, settings)


def _batches(
    tiles: Sequence[Tile], config: Any, settings: SuggestSettings, bar: Any
) -> Iterator[list[tuple[int, TileData]]]:
    """(place, tile) of tiles with enough data: of one size, also of different scenes, at most `settings.batch`."""
    batch: list[tuple[int, TileData]] = []
    for place, data in enumerate(read_tiles(tiles, config, settings)):
        bar.update()
        if not data.valid.any() or data.valid.mean() < settings.min_data:
            continue
        if batch and (len(batch) == settings.batch or batch[0][1].pixels.shape != data.pixels.shape):
            yield batch
            batch = []
        batch.append((place, data))
    if batch:
        yield batch


def read_tiles(tiles: Sequence[Tile], config: Any, settings: SuggestSettings) -> Iterator[TileData]:
    """Read tiles one after the other; neighbours of one scene are read from one open file."""
    place = 0
    while place < len(tiles):
        path = tiles[place].path
        with opened(path) as dataset:
            reader = open_reader(dataset, config, settings)
            while place < len(tiles) and tiles[place].path == path:
                yield TileData(tiles[place], *reader.read(tiles[place].rows, tiles[place].columns))
                place += 1


def _ranked(
    tiles: Sequence[Tile],
    done: Sequence[bool],
    found: dict[int, tuple[float, TileSummary]],
    settings: SuggestSettings,
) -> Suggestions:
    places = [place for place in found if not done[place]]
    if not places:
        raise SceneError(
            f"None of {len(tiles)} tiles is left to be labelled: {sum(done)} are labelled, "
            f"{len(tiles) - len(found)} hold data in less than {settings.min_data:.0%} of their pixels. Name other "
            "scenes, or a smaller --min_data."
        )
    scenes = {path: index for index, path in enumerate(dict.fromkeys(one.path for one in tiles))}
    edges = np.array(
        [
            (scenes[one.path], one.rows.start, one.rows.stop, one.columns.start, one.columns.stop)
            for one in (tiles[place] for place in places)
        ]
    )

    def overlapping(place: int) -> NDArray[np.bool_]:
        scene, top, bottom, left, right = edges[place]
        shared: NDArray[np.bool_] = (edges[:, 0] == scene) & (edges[:, 1] < bottom) & (edges[:, 2] > top)
        return shared & (edges[:, 3] < right) & (edges[:, 4] > left)

    order = rank(
        [found[place][1] for place in places],
        settings.count,
        diversity=settings.diversity,
        chosen=[summary for place, (_, summary) in found.items() if done[place]],
        overlapping=overlapping,
    )
    chosen = [
        Suggestion(number, score, tiles[places[index]], *found[places[index]])
        for number, (index, score) in enumerate(order, 1)
    ]
    return Suggestions(chosen, len(places), sum(done), sum(place not in found for place in range(len(tiles))))


__all__ = [
    "MAX_TILES",
    "StudentTiles",
    "SuggestSettings",
    "Suggestion",
    "Suggestions",
    "Tile",
    "TileData",
    "cut_tiles",
    "open_reader",
    "read_tiles",
    "suggest",
]
