"""One batch type for every method, and the data sets and loaders that fill it.

What a position of the stream holds depends on (seed, position) alone: not on a global random state, the number of
workers or processes, or where a run was resumed.

Workers decode and crop, and draw. What they pass on is small: crops of 8 bits, and what was drawn for the strong views.
The views themselves are made on the device that trains.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from co2s_hf.data.folders import Sample, read_sample
from co2s_hf.data.label_map import IGNORE
from co2s_hf.raster.image import Reading
from training.purification.cache import RegionCache, visible_regions
from training.purification.regions import NO_REGION

from .pools import FilePool, ImageStream, LabelledPool, require_masks
from .reader import ImageReader
from .tile_cache import TileCache
from .views import HUE, StrongDraw, ViewNeeds, cutmix_box, draw_strong, random_crop, strong_view

# Streams of random numbers: each of them goes its own way, so that a method without a partner sees the same crops.
_LABELLED, _UNLABELLED, _PARTNER = range(1, 4)
# A crop that should show a class is drawn again until it does (DAFormer: 3,000 of 512 x 512 pixels, ten times).
_CROP_TRIES, _WANTED_SHARE = 10, 0.01
MAX_REGIONS = 4096
"""Scored regions of a crop, the largest ones: superpixels of 24 px in a crop of 512 px at half size are 1,820."""


@dataclass
class Batch:
    """A batch of B positions with C bands and crops of S pixels; everything after `y` is None where not needed.

    Attributes:
        x: Labelled crops (B, C, S, S) float32, normalised like all images here.
        y: Their class ids (B, S, S) int64, 255 ignored: without a label, on padding, or without data.
        u_w: Weak view of unlabelled crops (B, C, S, S); u_s1, u_s2 their strong views.
        u_valid: (B, S, S) bool, False on padding, where there is no data, and where the label is known.
        box1: CutMix box of s1 (B, S, S) bool; box2 that of s2.
        p_w: Weak view of the CutMix partner; p_s1, p_s2 its strong views; p_valid as u_valid.
        u_regions: (B, S, S) int64 regions of the weak view, rows of u_scores, -1 for none.
        u_scores: (B, R, N) float32 class probabilities of the regions; rows of nan where there is no opinion.
        p_regions, p_scores: those of the partner.
        pairs: (B,) int64 where the partners are in the batch themselves: p_w is u_w[pairs], and so on.
    """

    x: Tensor
    y: Tensor
    u_w: Tensor | None = None
    u_s1: Tensor | None = None
    u_s2: Tensor | None = None
    u_valid: Tensor | None = None
    box1: Tensor | None = None
    box2: Tensor | None = None
    p_w: Tensor | None = None
    p_s1: Tensor | None = None
    p_s2: Tensor | None = None
    p_valid: Tensor | None = None
    u_regions: Tensor | None = None
    u_scores: Tensor | None = None
    p_regions: Tensor | None = None
    p_scores: Tensor | None = None
    pairs: Tensor | None = None


class Normalise:
    """Turns (…, C, H, W) as of `Raster.input` into float32 of a mean about 0 and a deviation about 1 per band."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        """Take the numbers to the device of the images, once: from then on no call waits for it."""
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        """Normalise."""
        return (_to_unit(image) - self.mean).div_(self.std)

    def to(self, device: torch.device | str) -> "Normalise":
        """The same on another device."""
        return Normalise(self.mean.flatten().tolist(), self.std.flatten().tolist(), device)


@dataclass
class Crops:
    """What a batch is made of: the tensors of `Batch` that are no views, and the crops that views are made of.

    Attributes:
        tensors: x, u_crop and p_crop are (B, C, S, S) as decoded, uint8 or float32, see `Raster.input`; those of the
            partners only where they are not in the batch. The others have the names that they have in `Batch`, and
            the smallest types that hold them.
        draws: Of u and p: for each position those of its strong views.
    """

    tensors: dict[str, Tensor]
    draws: dict[str, list[tuple[StrongDraw, ...]]]

    def to(self, device: torch.device | str) -> "Crops":
        """Copy the tensors to a device, without waiting where they are pinned."""
        return Crops({name: one.to(device, non_blocking=True) for name, one in self.tensors.items()}, self.draws)

    def pin_memory(self) -> "Crops":
        """Pin the tensors; `DataLoader` calls this by its name."""
        return Crops({name: one.pin_memory() for name, one in self.tensors.items()}, self.draws)

    def finish(self, normalise: Normalise) -> Batch:
        """Make the views, on the device of the crops."""
        made = {name: plane for name, plane in self.tensors.items() if name != "x" and "crop" not in name}
        made |= {name: plane.long() for name, plane in made.items() if name == "y" or name.endswith("regions")}
        made["x"] = normalise(self.tensors["x"])
        for prefix, draws in self.draws.items():
            crops = self.tensors[f"{prefix}_crop"]
            images, bounds = _to_unit(crops), [_bounds(crop) for crop in crops]
            made[f"{prefix}_w"] = normalise(images)
            for number, drawn in enumerate(zip(*draws, strict=True), start=1):
                views = [strong_view(*one) for one in zip(images, drawn, bounds, strict=True)]
                made[f"{prefix}_s{number}"] = normalise(torch.stack(views))
        if "pairs" in made:
            own = [name for name in made if name.startswith("u_")]
            made |= {name.replace("u_", "p_"): made[name][made["pairs"]] for name in own}
        return Batch(**made)


def collate(positions: Sequence[dict[str, Any]]) -> Crops:
    """Stack the tensors of several positions."""
    tensors = {name: _stack([one[name] for one in positions]) for name in positions[0] if "draws" not in name}
    draws = {name: [one[f"{name}_draws"] for one in positions] for name in "up" if f"{name}_draws" in positions[0]}
    return Crops(tensors, draws)


class SemiDataset(Dataset[dict[str, Any]]):
    """The endless stream of training samples: position k is one labelled and, if needed, one unlabelled sample.

    Decoded images of files are kept, in memory while there is room, or on disk.

    Args:
        labelled: Where labelled images come from.
        pool: Where unlabelled images come from; None where `views` needs none.
        crop_px: Side S of the crops.
        seed: Draws the orders and the augmentations.
        views: What the method needs.
        mean: Mean of every band of images, see `Raster.unit`; subtracted.
        std: Standard deviation of every band; divided by.
        scale_range: Bounds of the random scale.
        image_scale: Factor on the size of every image ahead of anything else; 0.5 trains at half the resolution.
        hue_range: Largest turn of the hue in strong views, see `draw_strong`.
        reading: What the files do not say of themselves; None: nothing but the number of bands. Pixels without data
            enter no loss; the models see them as padding, with 0 in every band.
        cache_bytes: Memory for decoded images and regions, shared by all workers of a loader.
        tiles: Where images are kept instead, for all workers and processes and for later runs.
        scores: Of the regions of unlabelled images, where `views` needs them.
        first_unlabelled: Position from which on there are unlabelled samples; a method that learns from labels alone at
            first need not wait for images it does not look at.
    """

    def __init__(
        self,
        labelled: LabelledPool,
        pool: FilePool | ImageStream | None,
        *,
        crop_px: int,
        seed: int,
        views: ViewNeeds,
        mean: Sequence[float],
        std: Sequence[float],
        scale_range: tuple[float, float] = (0.5, 2.0),
        image_scale: float = 1.0,
        hue_range: float = HUE,
        reading: Reading | None = None,
        cache_bytes: int = 2 * 2**30,
        tiles: TileCache | None = None,
        scores: RegionCache | None = None,
        first_unlabelled: int = 0,
    ) -> None:
        """Take the pools; no file is read before the first position. Raises ValueError where one is missing."""
        if views.unlabelled and pool is None:
            raise ValueError("There is no pool of unlabelled images; expected one for a method that needs their views.")
        if views.regions and scores is None:
            raise ValueError("There are no scores of regions; expected a cache for a method that needs them.")
        self.labelled, self.pool, self.scores = labelled, pool, scores
        self.crop_px, self.scale_range, self.seed, self.views = crop_px, scale_range, seed, views
        self.hue_range, self.first_unlabelled = hue_range, first_unlabelled
        self.normalise = Normalise(mean, std)
        self.read = ImageReader(image_scale, cache_bytes, reading or Reading(count=len(mean)), tiles)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Make the parts of one position, see `__getitems__`."""
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Make what `collate` takes of several positions; `DataLoader` asks for a batch at once.

        The tensors and draws of `Crops`, without the batch dimension. Crops shared by two positions are made once.
        """
        unlabelled_crop = lru_cache(maxsize=None)(self._unlabelled_crop)
        pairs = self._pairs(positions)
        samples = []
        for place, position in enumerate(positions):
            parts = self._labelled_crop(position)
            if self.views.unlabelled and position >= self.first_unlabelled:
                parts |= _named("u", unlabelled_crop(position, _UNLABELLED))
                if pairs is not None:
                    parts["pairs"] = pairs[place]
                elif self.views.partner is not None:
                    same = self.views.partner == "same"
                    partner = (position, _PARTNER) if same else (_partner(position), _UNLABELLED)
                    parts |= {
                        name: part for name, part in _named("p", unlabelled_crop(*partner)).items() if "box" not in name
                    }
            samples.append(parts)
        return samples

    def batch(self, positions: Sequence[int]) -> Batch:
        """Make the batch of several positions here and now."""
        return collate(self.__getitems__(positions)).finish(self.normalise)

    def _pairs(self, positions: Sequence[int]) -> list[Tensor] | None:
        """Places of the partners where all of them are among the positions."""
        if self.views.partner != "other" or positions[0] < self.first_unlabelled:
            return None
        place = {position: torch.tensor(i) for i, position in enumerate(positions)}
        return [place[_partner(p)] for p in positions] if all(_partner(p) in place for p in positions) else None

    def _labelled_crop(self, position: int) -> dict[str, Any]:
        rng = self._rng(position, _LABELLED)
        sample, wanted = self.labelled.draw(position, rng)
        (image, valid), whole_labels = self.read.image(sample.image), self.read.labels(sample)
        for _ in range(1 if wanted is None else _CROP_TRIES):
            crop, labels, _ = self._cut(image, whole_labels, valid, rng)
            if wanted is None or (labels == wanted).float().mean() >= _WANTED_SHARE:
                break
        assert labels is not None
        return {"x": crop, "y": labels}

    def _unlabelled_crop(self, position: int, stream: int) -> dict[str, Any]:
        """A crop, where it counts, what was scored of it, and what was drawn for its views."""
        assert self.pool is not None
        rng = self._rng(position, stream)
        file, known = self.pool.draw(position, rng)
        image, valid = self.read.image(file)
        labels = None if known is None else self.read.labels(known)
        scored = {}
        if not self.views.regions:
            crop, labels, valid = self._cut(image, labels, valid, rng)
        else:
            assert self.scores is not None
            regions, scores = self.read.regions(file, self.scores, image.shape[-2:])
            maps = torch.stack((regions, torch.full(image.shape[-2:], float(IGNORE))))
            if labels is not None:
                maps[1] = labels
            crop, maps, valid = self._cut(image, maps, valid, rng)
            assert maps is not None
            labels = maps[1]
            regions, scores = visible_regions(maps[0].long().masked_fill(~valid, NO_REGION), scores, MAX_REGIONS)
            scored = {"regions": regions.short(), "scores": scores}
        counts = valid if labels is None else valid & (labels == IGNORE)
        numbers = range(1, self.views.strong_views + 1)
        draws = tuple(draw_strong(rng, hue_range=self.hue_range) for _ in numbers)
        boxes = {f"box{i}": cutmix_box(self.crop_px, rng) for i in numbers}
        return {"crop": crop, "valid": counts, **scored, "draws": draws, **boxes}

    def _cut(
        self, image: Tensor, labels: Tensor | None, valid: Tensor | None, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        return random_crop(image, labels, valid, crop_px=self.crop_px, scale_range=self.scale_range, rng=rng)

    def _rng(self, position: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, position, stream))


class EvaluationDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Whole images with their labels, for evaluation; files are read anew every time.

    Args:
        samples: Samples with masks.
        image_scale: Factor on the size of every image; the labels keep their size, for predictions to be resized to.
        mean: Mean of every band of images, see `Raster.unit`; subtracted.
        std: Standard deviation of every band; divided by.
        reading: See `SemiDataset`; the label of pixels without data becomes 255.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        image_scale: float = 1.0,
        reading: Reading | None = None,
    ) -> None:
        """Take the list. Raises ValueError where a sample has no mask."""
        require_masks(samples)
        self.samples = tuple(samples)
        self.normalise = Normalise(mean, std)
        self.read = ImageReader(image_scale, 0, reading or Reading(count=len(mean)))

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Give pixel values (C, H, W) float32, labels (H', W') int64 as large as the mask file, and the file name."""
        sample = self.samples[index]
        raster, labels = read_sample(sample, self.read.reading)
        image = self.read.scaled_image(torch.from_numpy(raster.input))
        return self.normalise(image), torch.from_numpy(labels).long(), sample.image.name


def train_loader(
    dataset: SemiDataset,
    *,
    batch_size: int,
    start_step: int,
    total_steps: int,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> "BatchLoader":
    """Load the batches of one process from optimizer step `start_step` up to `total_steps`.

    Every step has `accumulation` batches of `batch_size` positions on each of `world_size` processes, next to each
    other in the stream. The loader leaves the global random state alone. Workers compute on one thread each: torch
    sees to that.

    Args:
        dataset: The stream.
        batch_size: Positions per batch and process.
        start_step: First optimizer step, not 0 after a resume.
        total_steps: Optimizer step to end before.
        rank: Of this process.
        world_size: Number of processes.
        accumulation: Batches per optimizer step.
        num_workers: Worker processes; 0 loads in this one.
        device: Where the batches are wanted.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=_Positions(start_step * accumulation, total_steps * accumulation, batch_size, rank, world_size),
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # without one, an iterator draws the seed of its workers from the global state
    )
    return BatchLoader(loader, dataset.normalise.to(device), device)


class BatchLoader:
    """The batches of a loader of crops, finished on the device where they are wanted."""

    def __init__(self, loader: DataLoader[Crops], normalise: Normalise, device: torch.device | str) -> None:
        """Take what `train_loader` has made."""
        self.loader, self.normalise, self.device = loader, normalise, device

    def __len__(self) -> int:
        """Count the batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Start the workers, if there are any; each batch is finished when it is asked for."""
        return map(self._finished, iter(self.loader))

    def _finished(self, crops: Crops) -> Batch:
        return crops.to(self.device).finish(self.normalise)


class TimedBatches:
    """The batches of a loader, and the share of the training's time that was spent waiting for them."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        """Start the loader's workers, if it has any."""
        self.batches = iter(loader)
        self.waited_s = self.worked_s = 0.0
        self.left_at: float | None = None

    def __next__(self) -> Batch:
        """Wait for the next batch; what happens until the one after it is asked for is the training's work."""
        asked_at = time.perf_counter()
        if self.left_at is not None:
            self.worked_s += asked_at - self.left_at
        batch = next(self.batches)
        self.left_at = time.perf_counter()
        self.waited_s += self.left_at - asked_at
        return batch

    def pause(self) -> None:
        """Count what happens until the next batch neither as waiting nor as training."""
        self.left_at = None

    @property
    def waiting_share(self) -> float:
        """The share in [0, 1]; 0 before the second batch."""
        return self.waited_s / (self.waited_s + self.worked_s) if self.worked_s else 0.0


class _Positions(Sampler[list[int]]):
    """The stream positions of the batches `start` to `stop` of one process."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, world_size: int) -> None:
        self.batches = range(start, stop)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def _partner(position: int) -> int:
    """Pair the positions 0 and 1, 2 and 3, ...: any even batch holds its partners, on any number of processes."""
    return position ^ 1


def _named(prefix: str, parts: dict[str, Any]) -> dict[str, Any]:
    return {name if name.startswith("box") else f"{prefix}_{name}": part for name, part in parts.items()}


def _stack(planes: Sequence[Tensor]) -> Tensor:
    """Stack planes; crops of 8 bits and float ones, which are already on the scale of `Raster.unit`, meet there."""
    return torch.stack(list(planes) if len({plane.dtype for plane in planes}) == 1 else [_to_unit(p) for p in planes])


def _bounds(crop: Tensor) -> tuple[Tensor, Tensor] | None:
    """Darkest and brightest value that a strong view of a crop may have; None for 8 bits, which lie in [0, 1]."""
    return None if crop.dtype == torch.uint8 else (crop.amin().clamp_(max=0), crop.amax().clamp_(min=1))


def _to_unit(image: Tensor) -> Tensor:
    return image / 255 if image.dtype == torch.uint8 else image
