"""One batch type for every method, and the data sets and loaders that fill it.

What a position of the stream holds depends on (seed, position) alone: not on a global random state, the number of
workers or processes, or where a run was resumed.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from co2s_hf.data.folders import Sample, read_labels
from co2s_hf.data.images import IGNORE, EncodedImage, ImageFile, read_image_and_valid
from training.purification.cache import RegionCache, visible_regions
from training.purification.regions import NO_REGION

from .pools import FilePool, ImageStream, LabelledPool, require_masks
from .views import HUE, ViewNeeds, cutmix_box, random_crop, resize_valid, strong_view

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

    def to(self, device: torch.device | str) -> "Batch":
        """Copy the tensors to a device, without waiting where they are pinned."""
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors()})

    def pin_memory(self) -> "Batch":
        """Pin the tensors; `DataLoader` calls this by its name."""
        return Batch(**{name: tensor.pin_memory() for name, tensor in self._tensors()})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, tensor) for name, tensor in pairs if tensor is not None)


def collate(positions: Sequence[dict[str, Tensor]]) -> Batch:
    """Stack the tensors of several positions into a batch."""
    return Batch(**{name: torch.stack([position[name] for position in positions]) for name in positions[0]})


class SemiDataset(Dataset[dict[str, Tensor]]):
    """The endless stream of training samples: position k is one labelled and, if needed, one unlabelled sample.

    Decoded images of files are kept in memory while there is room.

    Args:
        labelled: Where labelled images come from.
        pool: Where unlabelled images come from; None where `views` needs none.
        crop_px: Side S of the crops.
        seed: Draws the orders and the augmentations.
        views: What the method needs.
        mean: Mean of every band of images in [0, 1]; subtracted.
        std: Standard deviation of every band; divided by.
        scale_range: Bounds of the random scale.
        image_scale: Factor on the size of every image ahead of anything else; 0.5 trains at half the resolution.
        hue_range: Largest turn of the hue in strong views, see `strong_view`.
        nodata: Value of pixels without data, see `read_image_and_valid`. Pixels without data enter no loss; the models
            see them as padding, with 0 in every band.
        cache_bytes: Memory for decoded images, shared by all workers of a loader.
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
        nodata: int | None = None,
        cache_bytes: int = 2 * 2**30,
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
        self.normalise = _Normalise(mean, std)
        self.read = _Reader(image_scale, cache_bytes, nodata, num_bands=len(mean))

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """Make the tensors of one position, named as in `Batch`, without the batch dimension."""
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, Tensor]]:
        """Make those of several positions; `DataLoader` asks for a batch at once. Views shared by two are made once."""
        unlabelled_views = lru_cache(maxsize=None)(self._unlabelled_views)
        samples = []
        for position in positions:
            tensors = self._labelled_crop(position)
            if self.views.unlabelled and position >= self.first_unlabelled:
                views = unlabelled_views(position, _UNLABELLED)
                tensors |= {name: box for name, box in views.items() if name.startswith("box")} | _named("u", views)
                if self.views.partner == "same":
                    tensors |= _named("p", unlabelled_views(position, _PARTNER))
                elif self.views.partner == "other":
                    tensors |= _named("p", unlabelled_views(_partner(position), _UNLABELLED))
            samples.append(tensors)
        if self.views.partner == "other" and positions[0] >= self.first_unlabelled:
            place = {position: torch.tensor(i) for i, position in enumerate(positions)}
            if all(_partner(position) in place for position in positions):
                for position, tensors in zip(positions, samples, strict=True):
                    tensors["pairs"] = place[_partner(position)]
        return samples

    def _labelled_crop(self, position: int) -> dict[str, Tensor]:
        rng = self._rng(position, _LABELLED)
        sample, wanted = self.labelled.draw(position, rng)
        (image, valid), whole_labels = self.read.image(sample.image), self.read.labels(sample)
        for _ in range(1 if wanted is None else _CROP_TRIES):
            crop, labels, _ = self._cut(image, whole_labels, valid, rng)
            if wanted is None or (labels == wanted).float().mean() >= _WANTED_SHARE:
                break
        assert labels is not None
        return {"x": self.normalise(crop), "y": labels.long()}

    def _unlabelled_views(self, position: int, stream: int) -> dict[str, Tensor]:
        rng = self._rng(position, stream)
        crop, valid, scored = self._unlabelled_crop(position, rng)
        image = _to_unit(crop)
        views = {"w": self.normalise(image), "valid": valid, **scored}
        numbers = range(1, self.views.strong_views + 1)
        views |= {f"s{i}": self.normalise(strong_view(image, rng, hue_range=self.hue_range)) for i in numbers}
        return views | {f"box{i}": cutmix_box(self.crop_px, rng) for i in numbers}

    def _unlabelled_crop(self, position: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The crop, where it counts, and what was scored of it."""
        assert self.pool is not None
        file, known = self.pool.draw(position, rng)
        image, valid = self.read.image(file)
        labels = None if known is None else self.read.labels(known)
        if not self.views.regions:
            crop, labels, valid = self._cut(image, labels, valid, rng)
            return crop, valid if labels is None else valid & (labels == IGNORE), {}
        assert self.scores is not None
        regions, scores = self.read.regions(file, self.scores, image.shape[-2:])
        maps = torch.stack((regions, torch.full(image.shape[-2:], float(IGNORE))))
        if labels is not None:
            maps[1] = labels
        crop, maps, valid = self._cut(image, maps, valid, rng)
        assert maps is not None
        regions, scores = visible_regions(maps[0].long().masked_fill(~valid, NO_REGION), scores, MAX_REGIONS)
        return crop, valid & (maps[1] == IGNORE), {"regions": regions, "scores": scores}

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
        mean: Mean of every band of images in [0, 1]; subtracted.
        std: Standard deviation of every band; divided by.
        nodata: Value of pixels without data, see `read_image_and_valid`: their label becomes 255.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        image_scale: float = 1.0,
        nodata: int | None = None,
    ) -> None:
        """Take the list. Raises ValueError where a sample has no mask."""
        require_masks(samples)
        self.samples = tuple(samples)
        self.normalise = _Normalise(mean, std)
        self.read = _Reader(image_scale, 0, nodata, num_bands=len(mean))

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Give pixel values (C, H, W) float32, labels (H', W') int64 as large as the mask file, and the file name."""
        sample = self.samples[index]
        image, valid = self.read.whole_image(sample.image)
        labels = torch.from_numpy(read_labels(sample)).long()
        if valid is not None:
            labels[~valid] = IGNORE
        return self.normalise(self.read.scaled_image(image)), labels, sample.image.name


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
) -> "DataLoader[Batch]":
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
    """
    return DataLoader(
        dataset,
        batch_sampler=_Positions(start_step * accumulation, total_steps * accumulation, batch_size, rank, world_size),
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # without one, an iterator draws the seed of its workers from the global state
    )


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


class _Reader:
    """Reads images and labels at one scale, and keeps them.

    Images are (C, H, W) uint8, or float32 in [0, 1] from 16 bits, with 0 where they hold no data, and come with (H, W)
    bool, False there, or None; masks are (H, W) uint8.
    """

    def __init__(self, scale: float, cache_bytes: int, nodata: int | None, num_bands: int) -> None:
        self.scale, self.cache_bytes, self.nodata, self.num_bands = scale, cache_bytes, nodata, num_bands
        self.cache: dict[Any, tuple[Tensor, Tensor | None]] = {}  # by file, or by (kind, file)
        self.used_bytes = 0

    def image(self, file: ImageFile) -> tuple[Tensor, Tensor | None]:
        cached = self.cache.get(file)
        if cached is not None:
            return cached
        image, valid = self.whole_image(file)
        if valid is not None and self.scale != 1:
            valid = resize_valid(valid, *self._scaled(valid))
        image = self.scaled_image(image)
        # What comes from a stream does not come again.
        return (image, valid) if isinstance(file, EncodedImage) else self._keep(file, image, valid)

    def whole_image(self, file: ImageFile) -> tuple[Tensor, Tensor | None]:
        pixels, valid = read_image_and_valid(file, self.nodata, num_bands=self.num_bands)
        if valid is not None:
            pixels[~valid] = 0  # whatever the file has there, also 65535, must not reach the statistics of a network
        if pixels.dtype == np.uint16:
            pixels = pixels.astype(np.float32) / np.float32(65535)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # (H, W, C) -> (C, H, W)
        return image, None if valid is None else torch.from_numpy(valid)

    def scaled_image(self, image: Tensor) -> Tensor:
        if self.scale == 1:
            return image
        return interpolate(image[None], self._scaled(image), mode="bilinear", antialias=True)[0]

    def labels(self, sample: Sample) -> Tensor:
        cached = self.cache.get(sample.mask)
        if cached is not None:
            return cached[0]
        labels = torch.from_numpy(read_labels(sample))
        if self.scale != 1:
            labels = interpolate(labels[None, None], self._scaled(labels), mode="nearest-exact")[0, 0]
        return self._keep(sample.mask, labels, None)[0]

    def regions(self, file: ImageFile, scores: RegionCache, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Region ids (H, W) of an image of this size, as float32, which holds them exactly; and their scores."""
        cached = self.cache.get(("regions", file))
        if cached is None:
            ids, table = scores.lookup(file)
            ids = resize_ids(ids, size)
            cached = (ids, table) if isinstance(file, EncodedImage) else self._keep(("regions", file), ids, table)
        return cached

    def _scaled(self, plane: Tensor) -> tuple[int, int]:
        height, width = (max(1, int(side * self.scale + 0.5)) for side in plane.shape[-2:])
        return height, width

    def _keep(self, path: Any, tensor: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        worker = get_worker_info()
        size_bytes = tensor.nbytes + (0 if valid is None else valid.nbytes)
        if self.used_bytes + size_bytes <= self.cache_bytes // (worker.num_workers if worker else 1):
            self.cache[path] = tensor, valid
            self.used_bytes += size_bytes
        return tensor, valid


class _Normalise:
    """Turns (C, H, W) uint8, or float32 in [0, 1], into float32 of the given mean and deviation per band."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        if len(image) != len(self.mean):
            raise ValueError(
                f"An image has {len(image)} bands, mean and std have {len(self.mean)}; give one value per band."
            )
        return (_to_unit(image) - self.mean) / self.std


def resize_ids(ids: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (H, W) ids to another size, as float32."""
    ids = ids.float()
    return ids if ids.shape == tuple(size) else interpolate(ids[None, None], tuple(size), mode="nearest-exact")[0, 0]


def _partner(position: int) -> int:
    """Pair the positions 0 and 1, 2 and 3, ...: any even batch holds its partners, on any number of processes."""
    return position ^ 1


def _named(prefix: str, views: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}_{name}": view for name, view in views.items() if not name.startswith("box")}


def _to_unit(image: Tensor) -> Tensor:
    return image / 255 if image.dtype == torch.uint8 else image
