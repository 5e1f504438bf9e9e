"""Tiles of scenes through a model, and which of them should be labelled next.

Memory holds the tiles of one batch, and of every tile a few numbers for each class.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..raster.errors import RasterError
from ..raster.image import Raster
from .domain import check_scene
from .labelled import Labelled
from .predict import DEFAULT_BATCH, normalised
from .ranking import TileSummary, rank, summaries
from .scene import SceneOptions, open_scene
from .tiles import Tile, cut_tiles


@dataclass(frozen=True)
class SuggestSettings(SceneOptions):
    """How scenes are read, and tiles are cut and chosen.

    Attributes:
        tile_px: side of a tile; None: the window of the model.
        count: how many to suggest.
        batch: tiles in a forward pass.
        diversity: see `co2s_hf.geo.ranking.rank`.
        min_data: share of a tile that must hold data, above 0.
    """

    tile_px: int | None = None
    count: int = 20
    batch: int = DEFAULT_BATCH
    diversity: float = 1.0
    min_data: float = 0.5


@dataclass(frozen=True)
class TileData:
    """A tile and its pixels."""

    tile: Tile
    raster: Raster

    @property
    def data_share(self) -> float:
        """Of its pixels."""
        return float(self.raster.valid.mean())


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


class StudentTiles:
    """The students of a model, applied to tiles.

    Args:
        model: any model of this package, in eval mode and on its device.
        processor: its image processor.

    Raises:
        RasterError: the processor would resize tiles.

    Attributes:
        fields: name of each student that votes, two or one -> output field of its logits.
        classes: names.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        """Look at the model."""
        if processor.do_resize:
            raise RasterError("The processor resizes images, so that pixels are no pixels; expected do_resize=False.")
        self.model, self.processor = model, processor
        self.classes: list[str] = [model.config.id2label[index] for index in range(model.config.num_labels)]
        # A student of Co2S that was not trained for some class abstains.
        self.fields = {name: field for name, field in model.students.items() if name in model.predictions}

    @torch.inference_mode()
    def probabilities(self, tiles: Sequence[TileData]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(B, N, H, W) of each student, and (B, H, W) where there is data; the tiles are of one size."""
        known = [one.raster.valid for one in tiles]
        values = normalised(self.processor, [one.raster.input for one in tiles], known)
        outputs = self.model(values.to(self.model.device))
        found = [outputs[field].float().softmax(1) for field in self.fields.values()]
        if not all(bool(torch.isfinite(one).all()) for one in found):
            raise RasterError(f"{tiles[0].tile.path}: the model gives NaN. Try --dtype float32.")
        return found, torch.from_numpy(np.stack(known)).to(self.model.device)


def suggest(
    paths: Sequence[str],
    model: Any,
    processor: Any,
    settings: SuggestSettings,
    labelled: Labelled | None = None,
    *,
    progress: bool = False,
    say: Callable[[str], object] | None = None,
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
        say: is told what a person should know of a scene, one sentence at a time, before any work is done.

    Raises:
        RasterError: a scene does not fit the model, or no tile is left.
    """
    students = StudentTiles(model, processor)
    if len(students.classes) < 2:
        raise RasterError("The model has a single class, so that nothing can be disputed; expected at least two.")
    tile_px = settings.tile_px or int(model.config.window_px)
    tiles: list[Tile] = []
    done: list[bool] = []
    for path in paths:  # all of them before the first one is predicted
        with open_scene(path, settings, model.config) as scene:
            mine = cut_tiles(scene.grid, path, tile_px, file_shape=(scene.native.height, scene.native.width))
            notes = check_scene(scene, settings, model.config)
        if say is not None:
            for note in notes:
                say(f"{path}: {note}")
        tiles += mine
        done += [False] * len(mine) if labelled is None else labelled.among(mine).tolist()
    found: dict[int, tuple[float, TileSummary]] = {}
    with tqdm(total=len(tiles), unit="tile", desc="looking at", disable=None if progress else True, leave=False) as bar:
        for batch in _batches(tiles, model.config, settings, bar):
            probabilities, valid = students.probabilities([data for _, data in batch])
            for (place, data), summary in zip(batch, summaries(probabilities, valid), strict=True):
                found[place] = data.data_share, summary
    return _ranked(tiles, done, found, settings)


def _batches(
    tiles: Sequence[Tile], config: Any, settings: SuggestSettings, bar: Any
) -> Iterator[list[tuple[int, TileData]]]:
    """(place, tile) of tiles with enough data: of one size, also of different scenes, at most `settings.batch`."""
    batch: list[tuple[int, TileData]] = []
    for place, data in enumerate(read_tiles(tiles, config, settings)):
        bar.update()
        if not data.data_share or data.data_share < settings.min_data:
            continue
        if batch and (len(batch) == settings.batch or batch[0][1].raster.valid.shape != data.raster.valid.shape):
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
        with open_scene(path, settings, config) as scene:
            while place < len(tiles) and tiles[place].path == path:
                yield TileData(tiles[place], scene.read(tiles[place].rows, tiles[place].columns))
                place += 1


def _ranked(
    tiles: Sequence[Tile],
    done: Sequence[bool],
    found: dict[int, tuple[float, TileSummary]],
    settings: SuggestSettings,
) -> Suggestions:
    places = [place for place in found if not done[place]]
    if not places:
        raise RasterError(
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
    "StudentTiles",
    "SuggestSettings",
    "Suggestion",
    "Suggestions",
    "TileData",
    "read_tiles",
    "suggest",
]
