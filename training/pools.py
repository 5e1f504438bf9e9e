"""Where images come from, and in which order: labelled and unlabelled files, and streams that are never listed."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from co2s_hf.data.folders import Sample, read_labels
from co2s_hf.data.hub import read_named
from co2s_hf.data.label_map import IGNORE
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import EncodedImage, FileWindow, Reading
from co2s_hf.raster.read import open_image, read_raster

WINDOW = 128
"""Images, still encoded, that are held at a time and whose order is shuffled."""

# Streams of random numbers, apart from those of batches.py
_LABELLED_ORDER, _FILE_ORDER, _STREAM_ORDER = 4, 5, 6

_FORMATS = {".tar": "webdataset", ".parquet": "parquet", ".arrow": "arrow"}


class StreamError(ValueError):
    """A stream that cannot be used; the message says what was found and how to go on."""


class LabelledPool:
    """Labelled images: each once in a pass, in an order of its own; or rare classes more often than common ones.

    Rare class sampling (DAFormer, arXiv:2111.14887): draw a class c with P(c) ~ exp((1 - f_c) / T), where f_c is its
    share of the labelled pixels, then one of the images that have it; the crop should show some of it.

    Args:
        samples: Samples with masks.
        seed: Draws the orders.
        class_pixels: Pixels of each class in every image, see `count_class_pixels`; None for each image once in a pass.
        temperature: T; the smaller, the more often the rarest class. Unused without `class_pixels`.

    Raises:
        ValueError: There is no sample, or one without a mask.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        seed: int,
        class_pixels: Mapping[Path | FileWindow, Sequence[int]] | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Take the list, and the counts apart."""
        self.samples, self.seed = tuple(samples), seed
        require_masks(self.samples)
        if not self.samples:
            raise ValueError("There are 0 labelled images; expected some.")
        if class_pixels is None:
            self.having = None
            return
        pixels = np.array([class_pixels[sample.image] for sample in self.samples])  # (images, classes)
        shares = pixels.sum(0) / pixels.sum()
        likely = np.where(shares > 0, np.exp((shares[shares > 0].min() - shares) / temperature), 0)
        self.class_odds = likely / likely.sum()
        self.having = [np.flatnonzero(column) for column in pixels.T]

    def draw(self, position: int, rng: np.random.Generator) -> tuple[Sample, int | None]:
        """Give the sample of a position; and the class that its crop should show, if one was drawn."""
        if self.having is None:
            epoch, place = divmod(position, len(self.samples))
            return self.samples[_order(len(self.samples), self.seed, epoch)[place]], None
        wanted = int(rng.choice(len(self.class_odds), p=self.class_odds))
        return self.samples[rng.choice(self.having[wanted])], wanted


class FilePool:
    """Listed files. A pass shows an image as often as its area is of the pool: no pixel is likelier than another one.

    A labelled image with points, scribbles or one corner labelled is two things: what is labelled teaches as in every
    labelled image, and the image is also one of this pool, where it counts but for its labelled pixels, which a
    pseudo-label could only contradict. So that almost completely labelled images do not crowd out unlabelled ones with
    hardly a pixel to learn from, such an image stands back at random for an unlabelled one, as often as the share of
    its pixels that are labelled.

    Args:
        samples: Samples whose masks are never looked at.
        partly_labelled: Labelled samples that join them, with the share of their pixels that do, in (0, 1]; see
            `find_partly_labelled`.
        areas: Pixels of the first and, after them, of the second; None for all alike.
        seed: Draws the orders of the passes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        partly_labelled: Sequence[tuple[Sample, float]] = (),
        areas: Sequence[int] | None = None,
        seed: int,
    ) -> None:
        """Take the lists. Raises ValueError without any sample, or where the areas are of others."""
        if not samples and not partly_labelled:
            raise ValueError(
                "There is no unlabelled image, and no image that is labelled in part; expected some. Check the "
                "unlabelled entries, or train with --method supervised."
            )
        self.samples, self.partly_labelled, self.seed = tuple(samples), tuple(partly_labelled), seed
        count = len(self.samples) + len(self.partly_labelled)
        self.areas = np.asarray([1] * count if areas is None else areas, np.float64)
        if len(self.areas) != count:
            raise ValueError(f"There are {len(self.areas)} areas of {count} images; expected one for each.")
        self.passes: dict[int, np.ndarray] = {}

    def draw(self, position: int, rng: np.random.Generator) -> tuple[Path | FileWindow, Sample | None]:
        """Give the file of a position; and the sample whose labelled pixels must be left out, if there are any."""
        index = self._index(position)
        if index >= len(self.samples):
            sample, share = self.partly_labelled[index - len(self.samples)]
            if rng.random() < share or not self.samples:
                return sample.image, sample
            index = int(rng.integers(len(self.samples)))
        return self.samples[index].image, None

    def _index(self, position: int) -> int:
        length = len(self.areas) + len(self.areas) % 2  # even, so that no pair of partners is of two passes
        epoch, place = divmod(position, length)
        if epoch not in self.passes:
            if len(self.passes) > 4:
                self.passes.clear()
            self.passes[epoch] = _draw_pass(self.areas, length, np.random.default_rng((self.seed, epoch, _FILE_ORDER)))
        return int(self.passes[epoch][place])


class ImageStream:
    """The endless stream of one process, addressed by number: the same number always means the same image.

    Whoever asks for growing numbers, as a training does, gets every image read once and passed on. A resumed training
    asks for a number further on: what lies before is passed over without decoding it. The order of the shards is drawn
    anew for each pass and, within windows of `WINDOW` images, that of the images; several processes share the shards,
    or, where there are too few of them, the images. Where a pass has fewer than `WINDOW` images, a window goes on
    into the next one, and an image can become its own partner.

    Args:
        source: WebDataset shards (`.tar`), `.parquet` or `.arrow` files, globs of them, a folder of them or of images;
            or the id of a data set on the Hub.
        column: Column of the images; None for the only one there is.
        seed: Draws the orders.
        batch_size: Positions of this process that follow each other.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        source: Sequence[str],
        column: str | None = None,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Open the stream and look at its columns. Raises StreamError where there is no image to be found."""
        self.source, self.seed = list(source), seed
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.dataset = _load(self.source)
        self.column = _image_column(self.dataset, column, self.source)
        self.window: list[EncodedImage] = []
        self.window_number = -1
        self.windows: Iterator[list[EncodedImage]] | None = None

    def check(self, reading: Reading) -> None:
        """Decode the first image; the others come as they come. StreamError where it cannot be read like this."""
        try:
            _ = read_raster(self[0], reading).input
        except RasterError as error:
            raise StreamError(f"The first image of {self.source[0]} does not fit the training: {error}") from error

    def draw(self, position: int, rng: np.random.Generator) -> tuple[EncodedImage, None]:
        """Give the image of a position of this process, and that none of its pixels is labelled."""
        batch, place = position // (self.batch_size * self.world_size), position % self.batch_size
        return self[batch * self.batch_size + place], None

    def __getitem__(self, number: int) -> EncodedImage:
        """Give the encoded image of a number. Going back is possible and starts from the beginning."""
        wanted, place = divmod(number, WINDOW)
        if self.windows is None or wanted < self.window_number:
            self.windows, self.window_number = self._read_windows(), -1
        while self.window_number < wanted:
            self.window = next(self.windows)
            self.window_number += 1
        order = np.random.default_rng((self.seed, wanted, self.rank, _STREAM_ORDER)).permutation(WINDOW)
        return self.window[order[place]]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind on the way to a worker process."""
        return {**vars(self), "windows": None, "window": [], "window_number": -1}

    def _read_windows(self) -> Iterator[list[EncodedImage]]:
        window = []
        for image in self._read_images():
            window.append(image)
            if len(window) == WINDOW:
                yield window
                window = []

    def _read_images(self) -> Iterator[EncodedImage]:
        from datasets.distributed import split_dataset_by_node

        # Orders the shards; the window does the rest. Ten at a time, the default, end every pass with 5 s of sleep.
        dataset = self.dataset.shuffle(seed=self.seed, buffer_size=1, max_buffer_input_shards=1)
        if self.world_size > 1:
            dataset = split_dataset_by_node(dataset, self.rank, self.world_size)
        epoch = 0
        while True:
            dataset.set_epoch(epoch)
            count = 0
            for count, row in enumerate(dataset, start=1):
                place = f"image {count} of pass {epoch + 1} through {self.source[0]}"
                yield _encoded(row, self.column, place, self.source[0])
            if count == 0:
                raise StreamError(
                    f"{self.source[0]} has no image for process {self.rank} of {self.world_size}; expected at least "
                    "one for each. Take fewer processes, or more images."
                )
            epoch += 1


def _load(source: Sequence[str]) -> Any:
    import datasets

    files = _files(source)
    try:
        if files:
            kind = _FORMATS[Path(files[0]).suffix]
            return datasets.load_dataset(kind, data_files={"train": files}, split="train", streaming=True).decode(False)
        if len(source) > 1 or glob.has_magic(source[0]):
            raise StreamError(
                f"{' '.join(source)} matches no file; expected {', '.join(_FORMATS)} files. Quote globs, and check the "
                "folder."
            )
        return datasets.load_dataset(source[0], split="train", streaming=True).decode(False)
    except StreamError:
        raise
    except Exception as error:  # of the network, of a file system, of any format
        raise StreamError(
            f"{' '.join(source)} cannot be streamed ({type(error).__name__}: {error}); expected {', '.join(_FORMATS)} "
            "files, a folder of images, or the id of a data set on the Hub with a split `train`."
        ) from error


def _files(source: Sequence[str]) -> list[str]:
    found: list[str] = []
    for entry in source:
        if Path(entry).is_dir():
            found += [str(path) for path in sorted(Path(entry).rglob("*")) if path.suffix in _FORMATS]
        else:
            found += sorted(path for path in glob.glob(entry, recursive=True) if Path(path).suffix in _FORMATS)
    kinds = {Path(path).suffix for path in found}
    if len(kinds) > 1:
        raise StreamError(
            f"{' '.join(source)} has files of {', '.join(sorted(kinds))}; expected one format in a stream."
        )
    return found


def _image_column(dataset: Any, column: str | None, source: Sequence[str]) -> str:
    """Find the column, and leave its images encoded."""
    import datasets

    features = dataset.features or dataset._resolve_features().features or {}  # shards do not say: their first rows do
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    binary = [name for name, kind in features.items() if getattr(kind, "dtype", "") in ("binary", "large_binary")]
    candidates = images or binary
    if column is not None and column in images + binary:
        return column
    if column is not None or len(candidates) != 1:
        raise StreamError(
            f"{source[0]} has the columns {', '.join(features) or '(none)'}, and {', '.join(candidates) or 'none'} "
            f"could be images; expected {column or 'one of them'}. Name it with --stream_column."
        )
    return candidates[0]


def _encoded(row: dict[str, Any], column: str, place: str, source: str) -> EncodedImage:
    value = row[column]
    name = str(row.get("__key__", place))
    if isinstance(value, dict):
        name, value = str(value.get("path") or name), value.get("bytes")
        if value is None:  # a folder of images: its rows are paths, on disk or on the Hub
            value = read_named(name, source)
    if not value:
        raise StreamError(f"{name}: no bytes of an image in the column {column!r}; expected an encoded image.")
    return EncodedImage(name, bytes(value))


def _draw_pass(areas: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a pass of even length: each image as often as its share, rounded either way, and pairs of different ones."""
    images = rng.permutation(len(areas))
    ends = areas[images].cumsum()
    points = (np.arange(length) + rng.random()) * (ends[-1] / length)
    drawn = images[np.searchsorted(ends, points, side="right").clip(max=len(areas) - 1)]
    # Half a pass apart lie two images, unless one of them is more than half of the pool.
    pairs = np.stack([drawn[: length // 2], drawn[length // 2 :]], axis=1)
    return rng.permuted(rng.permutation(pairs), axis=1).reshape(-1)


def find_partly_labelled(samples: Sequence[Sample], reading: Reading) -> list[tuple[Sample, float]]:
    """Find the samples with masks where pixels hold data but have no label, and the share of the pixels that do.

    Args:
        samples: Samples with masks.
        reading: How the images are read; pixels without data are not asked for a label.
    """
    found = []
    for sample in samples:
        unlabelled = read_labels(sample) == IGNORE
        if not unlabelled.any():
            continue
        valid = np.ones_like(unlabelled)
        with open_image(sample.image, reading) as file:
            if not file.hides_nothing:
                valid = file.read().valid
        share = float((unlabelled & valid).sum() / valid.sum().clip(min=1))
        if share > 0:
            found.append((sample, share))
    return found


def require_masks(samples: Sequence[Sample]) -> None:
    """Raise ValueError where a sample has no mask."""
    missing = [sample.image.name for sample in samples if sample.mask is None]
    if missing:
        raise ValueError(f"{len(missing)} samples have no mask, such as {missing[0]}; expected a mask for each.")


@lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Draw the order of one pass through the labelled images; kept, because it is asked for at every position."""
    return np.random.default_rng((seed, epoch, _LABELLED_ORDER)).permutation(count)
