"""Range, mean and standard deviation of every band of a data set, image by image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class BandStatistics:
    """Streamed statistics of images of C bands, in the values of the files; holds a few numbers per band.

    Attributes:
        pixels: Pixels so far, without those that hold no data.
        minimum, maximum, mean: (C,) float64; only once there is a pixel.
    """

    def __init__(self, num_bands: int) -> None:
        """Start without a pixel."""
        self.pixels = 0
        self.minimum, self.maximum = np.full(num_bands, np.inf), np.full(num_bands, -np.inf)
        self.mean, self._squares = np.zeros(num_bands), np.zeros(num_bands)

    def update(self, image: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """Add an image (H, W, C); where `valid` (H, W) is False, a pixel does not count. Takes one band at a time."""
        if image.shape[2] != len(self.mean):
            raise ValueError(f"An image has {image.shape[2]} bands; expected {len(self.mean)}, as in those before it.")
        count = image.shape[0] * image.shape[1] if valid is None else int(valid.sum())
        if count == 0:
            return
        for band in range(len(self.mean)):
            values = image[..., band] if valid is None else image[..., band][valid]
            self.minimum[band] = min(self.minimum[band], values.min())
            self.maximum[band] = max(self.maximum[band], values.max())
            mean = values.mean(dtype=np.float64)
            step = mean - self.mean[band]
            # Chan et al. 1979: the sums of squares of two parts, and of their means around the common one.
            self._squares[band] += np.square(values - mean, dtype=np.float64).sum()
            self._squares[band] += step**2 * self.pixels * count / (self.pixels + count)
            self.mean[band] += step * count / (self.pixels + count)
        self.pixels += count

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (C,) over all pixels (population, not sample)."""
        return np.sqrt(self._squares / max(self.pixels, 1))

    def rounded(self) -> tuple[list[float], list[float]]:
        """Mean and std, one number per band, as a description writes them."""
        return [significant(value) for value in self.mean], [significant(value) for value in self.std]


def significant(value: float) -> float:
    """A statistic in six digits, whatever its size: reflectances are as small as counts are large."""
    return float(f"{value:.6g}")
