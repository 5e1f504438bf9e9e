"""Does a scene look like what the model was trained on? What differs is said with numbers, before any work is done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.areas import ground_areas
from ..raster.errors import RasterError, gdal_refusals
from ..raster.grid import NO_PLACE
from ..raster.image import COLOURS
from ..raster.read import RasterFile
from ..raster.resample import OpenRaster
from .scene import SceneOptions

SAMPLES, SAMPLE_PX = 16, 256
PERCENTILES, PERCENTILE_STEP = (2, 98), 4

# What a person should know about; a model tolerates less than this without a word.
GSD_FACTOR = 1.25
MEAN_SHIFT = 0.5  # in standard deviations of training
STD_FACTOR = 2.0

# Scaled values are meant to be what the model knows. Clouds and snow are brighter than white, and some reflectances are
# below 0; beyond these, or 20 standard deviations of training where that is more, a scale is missing or wrong.
PLAUSIBLE, PLAUSIBLE_STD = (-1.0, 3.0), 20.0


@dataclass(frozen=True)
class SceneStatistics:
    """Statistics of a sample of the pixels of a scene that hold data, on the scale of the model's input.

    Attributes:
        share: of the sample that holds data.
        mean, std, minimum, maximum: (bands,); empty if nothing does.
        low, high: (bands,) 2nd and 98th percentile.
    """

    share: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def sample_statistics(scene: OpenRaster) -> SceneStatistics:
    """Look at 16 squares of at most 256 px that are spread evenly over the scene; one at a time is in memory."""
    found, kept, seen = [], [], 0
    for rows, columns in _squares(scene.height, scene.width, scene.height / scene.native.height):
        raster = scene.read(rows, columns)
        seen += raster.valid.size
        if raster.valid.any():
            unit = raster.unit
            values = unit[:, raster.valid].astype(np.float64)
            size = np.full(len(values), values.shape[1])
            sums = values.sum(axis=1), np.square(values).sum(axis=1)
            found.append([size, *sums, values.min(axis=1), values.max(axis=1)])
            kept.append(values[:, ::PERCENTILE_STEP].astype(np.float32))
    if not found:
        return SceneStatistics(0.0, *[np.zeros(0)] * 6)
    table = np.array(found)  # (squares, 5 numbers, bands)
    count, total, of_squares = table[:, :3].sum(axis=0)
    std = np.sqrt(np.maximum(of_squares / count - (total / count) ** 2, 0))
    ends = table[:, 3].min(axis=0), table[:, 4].max(axis=0)
    percentiles = np.percentile(np.concatenate(kept, axis=1), PERCENTILES, axis=1).astype(np.float64)
    return SceneStatistics(float(count[0]) / seen, total / count, std, *ends, *percentiles)


def _squares(height: int, width: int, detail: float) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the sample; squares are smaller where there are few pixels (`detail`) for one of the file."""
    side, square = round(SAMPLES**0.5), max(1, round(SAMPLE_PX * min(1.0, 4 * detail)))
    for row in range(side):
        for column in range(side):
            top = max(0, height * (2 * row + 1) // (2 * side) - square // 2)
            left = max(0, width * (2 * column + 1) // (2 * side) - square // 2)
            yield slice(top, min(height, top + square)), slice(left, min(width, left + square))


def check_scene(scene: OpenRaster, options: SceneOptions, config: Any) -> list[str]:
    """Refuse a scene whose values the model cannot mean, and compare it with the images that the model was trained on.

    The model's configuration says what these were in `training_images`: a dictionary with `gsd_m`, `dtype`, `scale`,
    `offset`, and `mean` and `std` of each band on the scale of the model's input; all of them may be missing. Without
    statistics the scene is compared with what pixels are normalised with.

    Args:
        scene: see `co2s_hf.geo.scene`.
        options: that it was opened with.
        config: of the model.

    Returns:
        One sentence for each thing that a person should know; empty if there is none.

    Raises:
        RasterError: the values are no reflectances, say, or the scene is damaged where it was looked at.
    """
    trained: dict[str, Any] = config.training_images or {}
    statistics = sample_statistics(scene)
    _refuse_values(scene, statistics, config)
    found = [*_of_file(scene.native), *_of_scale(scene.native, options, trained)]
    found += _of_resolution(ground_areas(scene.grid).gsd_m, trained.get("gsd_m"))
    dtype = trained.get("dtype")
    if dtype is not None and dtype != str(scene.dtype):
        found.append(f"the scene holds {scene.dtype} values, the model was trained on {dtype}")
    if not len(statistics.mean):
        return [*found, "no pixel of a sample holds data: the map may be empty"]
    mean, std = trained.get("mean"), trained.get("std")
    against = "in training" if mean is not None and std is not None else "what pixels are normalised with"
    if mean is None or std is None:
        mean, std = config.image_mean, config.image_std
    return found + _of_bands(statistics, _names(scene, config), mean, std, against)


def require_plausible(scene: OpenRaster, config: Any) -> None:
    """Raise RasterError where a sample shows that a scale is missing or wrong; bytes and 16 bits alone cannot be."""
    if _is_scaled(scene):
        _refuse_values(scene, sample_statistics(scene), config)


def _is_scaled(scene: OpenRaster) -> bool:
    said = _said_scale(scene.native) is not None
    return scene.native.palette is None and (said or scene.dtype.kind == "f")


def _refuse_values(scene: OpenRaster, statistics: SceneStatistics, config: Any) -> None:
    if not _is_scaled(scene):
        return
    bands = zip(
        _names(scene, config), statistics.low, statistics.high, config.image_mean, config.image_std, strict=False
    )
    for name, low, high, mean, std in bands:
        least = min(PLAUSIBLE[0], mean - PLAUSIBLE_STD * std)
        most = max(PLAUSIBLE[1], mean + PLAUSIBLE_STD * std)
        if low < least or high > most:
            said = _said_scale(scene.native)
            scaled = "" if said is None else f", scaled by {said[0]:g} plus {said[1]:g}"
            raise RasterError(
                f"{scene.name}: {name} has values from {low:g} to {high:g} (2nd and 98th percentile{scaled}); expected "
                f"about {mean:g}, with a standard deviation of {std:g}, as the model was made for. Give --scale, and "
                "--offset if there is one: 1e-4 for reflectances times 10,000."
            )


def _names(scene: OpenRaster, config: Any) -> Sequence[str]:
    if config.bands:
        return list(config.bands)
    if scene.native.palette is not None:
        return COLOURS
    return [f"band {band.number}" for band in scene.bands]


def _of_file(file: RasterFile) -> list[str]:
    """What the file leaves open, or says in an unusual way."""
    found = []
    if file.bands_found_by == "order" and file.reading.names is not None:
        pairs = ", ".join(f"{band.number} as {name}" for band, name in zip(file.bands, file.reading.names, strict=True))
        found.append(
            f"the file does not say what its bands are: they are taken in their order, {pairs}; if that is wrong, name "
            "them with --bands, in the model's order"
        )
    points = file.dataset.gcps[0]
    if points and file.grid.is_placed and tuple(file.dataset.transform)[:6] == NO_PLACE:
        found.append(f"placed by its {len(points)} ground control points, and so is the map")
    if file.alpha is not None:
        found += _of_alpha(file)
    return found


def _of_alpha(file: RasterFile) -> list[str]:
    assert file.alpha is not None
    parts = []
    for rows, columns in _squares(file.dataset.height, file.dataset.width, 1.0):
        with gdal_refusals(file.name):
            window = ((rows.start, rows.stop), (columns.start, columns.stop))
            parts.append(file.dataset.read(file.alpha.number, window=window).ravel())
    alpha = np.concatenate(parts)
    if np.isin(alpha, (0, file.alpha.white or alpha.max())).all():
        return []
    return [
        f"band {file.alpha.number} is taken for alpha, as the file calls it, and hides {(alpha == 0).mean():.1%} of "
        f"the scene; but it holds values from {alpha.min():g} to {alpha.max():g}, as near infrared would. If it is no "
        f"alpha, say so in the file: `rio edit-info --colorinterp {file.alpha.number}=undefined {file.name}`"
    ]


def _of_scale(file: RasterFile, options: SceneOptions, trained: dict[str, Any]) -> list[str]:
    """How values become those of the model, where that is not the same for the scene and in training."""
    if "scale" not in trained and "offset" not in trained:
        return []  # nothing is recorded
    is_scaled = trained.get("scale") is not None or trained.get("offset") is not None
    of_training = (trained.get("scale") or 1.0, trained.get("offset") or 0.0) if is_scaled else None
    said = _said_scale(file)
    if said is not None and options.scale is None and options.offset is None and not _file_scales(file):
        return [f"values are scaled as in training, by {said[0]:g} plus {said[1]:g}; the file does not say how"]
    if said is None and of_training is not None and file.dtype.kind in "iu":
        return [
            f"the model was trained on values scaled by {of_training[0]:g} plus {of_training[1]:g}, and the scene does "
            "not say how its own are; give --scale and --offset if they are"
        ]
    if said is not None and (of_training is None or not np.allclose(said, of_training, rtol=1e-6, atol=1e-12)):
        other = "not scaled" if of_training is None else f"scaled by {of_training[0]:g} plus {of_training[1]:g}"
        return [f"values are scaled by {said[0]:g} plus {said[1]:g}; those of training were {other}"]
    return []


def _file_scales(file: RasterFile) -> bool:
    return any(band.is_scaled for band in file.bands)


def _said_scale(file: RasterFile) -> tuple[float, float] | None:
    """Scale and offset of the first band that are not those of its type; None where nobody says any."""
    reading = file.reading
    if reading.scale is None and reading.offset is None and not _file_scales(file):
        return None
    return file.bands[0].factors(reading)


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


__all__ = ["SceneStatistics", "check_scene", "require_plausible", "sample_statistics"]
