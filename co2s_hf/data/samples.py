"""`Sample` and `DataSplit`: which images teach and which measure; their labels, read as training sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..raster.grid import Grid
from ..raster.ids import read_ids
from ..raster.image import FileWindow, Raster, Reading
from ..raster.read import open_image
from .label_map import IGNORE, LabelMap, LabelMapError


class DataError(ValueError):
    """The data cannot be trained on; the message names the files, what was expected and the way out."""


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        image: The image file, or a window of one.
        mask: Its mask; None for unlabelled images. Where no mask was found, the path where it was expected, ending in
            `.*`: `check_split` reports it.
        scene: What must not be torn apart between training and validation: neighbouring tiles share a scene.
        label_map: What the values in the mask mean; None where they are class ids, and 255 without a label.
    """

    image: Path | FileWindow
    mask: Path | FileWindow | None
    scene: str
    label_map: LabelMap | None = None

    @property
    def has_mask(self) -> bool:
        """Whether a mask was named or found."""
        return self.mask is not None and path_of(self.mask).suffix != ".*"


@dataclass(frozen=True)
class DataSplit:
    """Which images teach with a mask, which teach without one, and which measure. Class id = place in `classes`.

    Attributes:
        classes: Class names.
        labelled, unlabelled, validation: The three parts.
        unused: Files of the images and masks folders that no sample uses, sidecars aside.
        lone_masks: Those of `unused` that are masks.
    """

    classes: tuple[str, ...]
    labelled: tuple[Sample, ...]
    unlabelled: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    unused: tuple[Path, ...] = ()
    lone_masks: tuple[Path, ...] = ()


def path_of(source: Path | FileWindow) -> Path:
    """The file itself, of a window of one, too."""
    return source.path if isinstance(source, FileWindow) else source


def read_labels(sample: Sample) -> NDArray[np.uint8]:
    """Decode the mask of a sample, lay it on the grid of its image, and translate it; looks at no pixel of the image.

    Returns:
        (H, W) uint8 class ids, 255 where there is no label.

    Raises:
        RasterError: The mask cannot be read, is of another size than its image, or lies elsewhere.
        LabelMapError: It holds values that the label map does not name, or, without one, no ids of 0..255.
    """
    with open_image(sample.image) as file:
        return _labels(sample, file.grid)


def read_sample(sample: Sample, reading: Reading) -> tuple[Raster, NDArray[np.uint8]]:
    """Read the image of a sample and its labels, as `read_labels`: 255 as well where the image holds no data."""
    with open_image(sample.image, reading) as file:
        raster = file.read()
    labels = _labels(sample, raster.grid)
    labels[~raster.valid] = IGNORE
    return raster, labels


def count_class_pixels(
    samples: Sequence[Sample], num_classes: int, reading: Reading
) -> dict[Path | FileWindow, list[int]]:
    """Count the pixels of each class that training sees, by image, under a progress bar.

    What is labelled where the image holds no data does not count; samples without a mask are left out.
    """
    counts = {}
    for sample in tqdm([s for s in samples if s.has_mask], desc="Counting classes", unit="mask", disable=None):
        with open_image(sample.image, reading) as file:
            labels = _labels(sample, file.grid) if file.hides_nothing else read_sample(sample, reading)[1]
        counts[sample.image] = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:num_classes].tolist()
    return counts


def _labels(sample: Sample, grid: Grid) -> NDArray[np.uint8]:
    assert sample.mask is not None, f"{sample.image} has no mask"
    ids = read_ids(sample.mask, onto=grid)
    try:
        return (sample.label_map or _ANY_ID).apply(ids.values, ids.known)
    except LabelMapError as error:
        raise LabelMapError(f"{sample.mask}: {error}", error.unmapped) from None


_ANY_ID = LabelMap.identity(IGNORE)

__all__ = [
    "DataError",
    "DataSplit",
    "Sample",
    "count_class_pixels",
    "path_of",
    "read_labels",
    "read_sample",
]
