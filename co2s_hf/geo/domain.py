"""Does a scene look like what the model was trained on? What differs is said with numbers, before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scenes import SceneReader

SAMPLES, SAMPLE_PX = 16, 256
FULL_SCALE = {"uint8": 255.0, "uint16": 65535.0}

# What a person should know about; a model tolerates less than this without a word.
GSD_FACTOR = 1.25
MEAN_SHIFT = 0.5  # in standard deviations of training
STD_FACTOR = 2.0


@dataclass(frozen=True)
class SceneStatistics:
    """Statistics of a sample of the pixels of a scene that hold data, on the scale [0, 1] of the model's input.

    Attributes:
        share: of the sample that holds data.
        mean, std, minimum, maximum: (bands,); empty if nothing does.
    """

    share: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]


def sample_statistics(reader: SceneReader) -> SceneStatistics:
    """Look at 16 squares of at most 256 px that are spread evenly over the scene; one at a time is in memory."""
    grid, side = reader.grid, round(SAMPLES**0.5)
    found, seen = [], 0
    for row in range(side):
        for column in range(side):
            top = max(0, grid.height * (2 * row + 1) // (2 * side) - SAMPLE_PX // 2)
            left = max(0, grid.width * (2 * column + 1) // (2 * side) - SAMPLE_PX // 2)
            rows = slice(top, min(grid.height, top + SAMPLE_PX))
            pixels, valid = reader.read(rows, slice(left, min(grid.width, left + SAMPLE_PX)))
            seen += valid.size
            if valid.any():
                factor = 1.0 if reader.scale is not None else FULL_SCALE.get(str(pixels.dtype), 1.0)
                values = pixels[:, valid].astype(np.float64) / factor
                size = np.full(len(values), values.shape[1])
                sums = values.sum(axis=1), np.square(values).sum(axis=1)
                found.append([size, *sums, values.min(axis=1), values.max(axis=1)])
    if not found:
        return SceneStatistics(0.0, *[np.zeros(0)] * 4)
    table = np.array(found)  # (squares, 5 numbers, bands)
    count, total, of_squares = table[:, :3].sum(axis=0)
    std = np.sqrt(np.maximum(of_squares / count - (total / count) ** 2, 0))
    low, high = table[:, 3].min(axis=0), table[:, 4].max(axis=0)
    return SceneStatistics(float(count[0]) / seen, total / count, std, low, high)


def domain_differences(reader: SceneReader, gsd_m: float | None, config: Any) -> list[str]:
    """Compare a scene with the images that a model was trained on.

    The model's configuration says what these were in `training_images`: a dictionary with `gsd_m`, `dtype`, and `mean`
    and `std` of each band on the scale [0, 1]; all of them may be missing. Without statistics the scene is compared
    with what pixels are normalised with.

    Args:
        reader: the scene.
        gsd_m: its metres per pixel; None where it does not say.
        config: of the model.

    Returns:
        One sentence for each difference that matters; empty if there is none.
    """
    trained: dict[str, Any] = config.training_images or {}
    found = _of_resolution(gsd_m, trained.get("gsd_m"))
    dtype = trained.get("dtype")
    if dtype is not None and dtype != str(reader.dtype):
        found.append(f"the scene holds {reader.dtype} values, the model was trained on {dtype}")
    statistics = sample_statistics(reader)
    if not len(statistics.mean):
        return [*found, "no pixel of a sample holds data: the map may be empty"]
    mean, std = trained.get("mean"), trained.get("std")
    against = "in training" if mean is not None and std is not None else "what pixels are normalised with"
    if mean is None or std is None:
        mean, std = config.image_mean, config.image_std
    names = config.bands or [f"band {number}" for number in reader.bands]
    return found + _of_bands(statistics, names, mean, std, against)


def _of_resolution(gsd_m: float | None, trained_m: float | None) -> list[str]:
    if gsd_m is None or trained_m is None:
        return []
    factor = gsd_m / trained_m
    if 1 / GSD_FACTOR <= factor <= GSD_FACTOR:
        return []
    return [
        f"pixels are {gsd_m:.3g} m, in training {trained_m:.3g} m ({max(factor, 1 / factor):.1f} times "
        f"{'coarser' if factor > 1 else 'finer'}); --gsd training resamples"
    ]


def _of_bands(
    statistics: SceneStatistics, names: Sequence[str], mean: Sequence[float], std: Sequence[float], against: str
) -> list[str]:
    found = []
    for index, name in enumerate(names):
        here, spread = float(statistics.mean[index]), float(statistics.std[index])
        shift = (here - mean[index]) / std[index]
        wide = spread / std[index]
        if abs(shift) > MEAN_SHIFT or not 1 / STD_FACTOR <= wide <= STD_FACTOR:
            found.append(
                f"{name} has mean {here:.3f} and standard deviation {spread:.3f} (values "
                f"{statistics.minimum[index]:.3f} to {statistics.maximum[index]:.3f} of 1), {against} "
                f"{mean[index]:.3f} and {std[index]:.3f}"
            )
    return found


__all__ = ["SceneStatistics", "domain_differences", "sample_statistics"]
