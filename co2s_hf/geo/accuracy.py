"""How good a map is: numbers from a confusion matrix, of all pixels or of a sample of points. No file is read here.

Confusion matrices have the classes of the map as rows and those of the reference as columns, as in Olofsson et al.
(2014), "Good practices for estimating area and assessing accuracy of land change", Remote Sensing of Environment 148;
equations are numbered as there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.96
"""Half the width of a 95 % confidence interval, in standard errors, as rounded by Olofsson et al."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of every class, counted over all that was compared; NaN where nothing was.

    Attributes:
        counts: (N, N) int64, rows = map, columns = reference.
    """

    counts: NDArray[np.int64]

    @property
    def overall_accuracy(self) -> float:
        """Share of what was compared where map and reference agree."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts) / total) if total else math.nan

    @property
    def users_accuracy(self) -> NDArray[np.float64]:
        """(N,) share of a class of the map that is right: precision, one minus errors of commission."""
        return _quotient(np.diagonal(self.counts), self.counts.sum(axis=1))

    @property
    def producers_accuracy(self) -> NDArray[np.float64]:
        """(N,) share of a class of the reference that the map finds: recall, one minus errors of omission."""
        return _quotient(np.diagonal(self.counts), self.counts.sum(axis=0))

    @property
    def f1(self) -> NDArray[np.float64]:
        """(N,) harmonic mean of user's and producer's accuracy."""
        return _quotient(2 * np.diagonal(self.counts), self.counts.sum(axis=0) + self.counts.sum(axis=1))

    @property
    def iou(self) -> NDArray[np.float64]:
        """(N,) intersection over union."""
        correct = np.diagonal(self.counts)
        return _quotient(correct, self.counts.sum(axis=0) + self.counts.sum(axis=1) - correct)


@dataclass(frozen=True)
class Estimate:
    """Estimates of a value for each class, or of one value, with their standard errors.

    Attributes:
        value: NaN where the sample says nothing.
        standard_error: NaN also where a stratum has a single point.
    """

    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    @property
    def margin(self) -> NDArray[np.float64]:
        """Half the width of the 95 % confidence interval."""
        return Z_95 * self.standard_error

    def times(self, factor: float) -> "Estimate":
        """The same in another unit."""
        return Estimate(self.value * factor, self.standard_error * factor)


@dataclass(frozen=True)
class SampleEstimates:
    """What a sample of points says of the whole map.

    Attributes:
        proportions: (N, N) estimated share of the area in each cell of the confusion matrix, equation 4.
        overall_accuracy: equations 1 and 5.
        users_accuracy: of each class, equations 2 and 6.
        producers_accuracy: of each class, equations 3 and 7.
        area_share: true share of each class, equations 9 and 10; times the area of the map, equation 11.
        sampled_share: share of the map's area in classes that have a point; all estimates are of that part.
    """

    proportions: NDArray[np.float64]
    overall_accuracy: Estimate
    users_accuracy: Estimate
    producers_accuracy: Estimate
    area_share: Estimate
    sampled_share: float


def sample_estimates(counts: NDArray[np.int64], mapped: Sequence[float] | NDArray[np.float64]) -> SampleEstimates:
    """Accuracies and areas from a random sample within each class of the map, or one of the whole map.

    The strata are the classes of the map. A simple or systematic random sample of the whole map is estimated with the
    same equations, as if it had been stratified afterwards.

    Args:
        counts: (N, N) points, rows = map, columns = reference.
        mapped: (N,) area of each class in the map, in any unit.

    Raises:
        ValueError: other shapes, no point, a negative count or area, an area that is not finite, or points in a class
            that the map does not hold.
    """
    counts, mapped = np.asarray(counts, np.float64), np.asarray(mapped, np.float64)
    if mapped.ndim != 1 or counts.shape != (len(mapped), len(mapped)):
        raise ValueError(
            f"counts are {counts.shape} and mapped is {mapped.shape}; expected (N, N) and (N,) for N classes."
        )
    points = counts.sum(axis=1)
    if not points.any():
        raise ValueError("The sample holds no point on the map; expected at least two in each class of the map.")
    if (counts < 0).any() or not np.isfinite(mapped).all() or (mapped < 0).any():
        raise ValueError(
            "A count or an area is negative or not finite; expected points and areas of the map's classes."
        )
    if (mapped[points > 0] == 0).any():
        raise ValueError("A class of the map has points but no area; expected the areas of the map that was sampled.")
    sampled = np.where(points > 0, mapped, 0.0)
    weights = sampled / sampled.sum()  # W_i
    within = np.divide(counts, points[:, None], out=np.zeros_like(counts), where=points[:, None] > 0)  # n_ij / n_i.
    proportions = weights[:, None] * within  # equation 4
    # Of the mean of a stratum; a class without area in the map adds nothing, one with a single point is unknown.
    degrees = np.where(points > 1, points - 1, np.nan)[:, None]
    variance = np.where(points[:, None] > 0, within * (1 - within) / degrees, 0.0)
    users = np.where(points > 0, np.diagonal(within), np.nan)  # equation 2
    users_variance = np.where(points > 0, np.diagonal(variance), np.nan)  # equation 6
    total = proportions.sum(axis=0)  # equation 9
    share_variance = (weights[:, None] ** 2 * variance).sum(axis=0)  # equation 10, squared
    overall_variance = (weights**2 * np.diagonal(variance)).sum()  # equation 5
    producers = _quotient(np.diagonal(proportions), total)  # equation 3
    return SampleEstimates(
        proportions=proportions,
        overall_accuracy=_estimate(np.array(np.trace(proportions)), np.array(overall_variance)),
        users_accuracy=_estimate(users, users_variance),
        producers_accuracy=_estimate(producers, _producers_variance(producers, weights, variance, total)),
        area_share=_estimate(total, share_variance),
        sampled_share=float(sampled.sum() / mapped.sum()),
    )


def stratified_estimates(counts: NDArray[np.int64], areas: Sequence[float] | NDArray[np.float64]) -> SampleEstimates:
    """Accuracies and areas from a random sample within strata that are not the classes of the map.

    Stehman (2014), "Estimating area and map accuracy for stratified random sampling when the strata are different from
    the map classes", International Journal of Remote Sensing 35(13): shares are stratified means, user's and
    producer's accuracies are ratios of two of them; without the finite population correction.

    Args:
        counts: (S, N, N) points of each stratum, rows = map, columns = reference.
        areas: (S,) of the strata, in any unit.

    Returns:
        The estimates; `sampled_share` is that of the strata that have a point.

    Raises:
        ValueError: other shapes, no point, or an area that is none.
    """
    counts, areas = np.asarray(counts, np.float64), np.asarray(areas, np.float64)
    if areas.ndim != 1 or counts.ndim != 3 or len(counts) != len(areas) or counts.shape[1] != counts.shape[2]:
        raise ValueError(f"counts are {counts.shape} and areas {areas.shape}; expected (S, N, N) and (S,).")
    if (counts < 0).any() or not counts.any() or not (np.isfinite(areas) & (areas > 0)).all():
        raise ValueError("A count or an area is negative or not finite, or no point is there; expected areas above 0.")
    points = counts.sum(axis=(1, 2))
    known = points > 0
    sampled = _Strata(counts[known] / points[known, None, None], points[known], areas[known] / areas[known].sum())
    size = counts.shape[1]
    whole, agreed, one = np.ones((size, size)), np.eye(size), np.eye(size)

    def each(pairs: list[Estimate]) -> Estimate:
        return Estimate(
            *(np.array(column) for column in zip(*((p.value, p.standard_error) for p in pairs), strict=True))
        )

    return SampleEstimates(
        proportions=np.tensordot(sampled.weights, sampled.within, 1),
        overall_accuracy=sampled.ratio(agreed, whole),
        users_accuracy=each([sampled.ratio(agreed * row[:, None], whole * row[:, None]) for row in one]),
        producers_accuracy=each([sampled.ratio(agreed * column, whole * column) for column in one]),
        area_share=each([sampled.ratio(whole * column, whole) for column in one]),
        sampled_share=float(areas[known].sum() / areas.sum()),
    )


@dataclass(frozen=True)
class _Strata:
    """Shares (S, N, N) of the points of each stratum, how many these are, and the weights of the strata."""

    within: NDArray[np.float64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    def ratio(self, above: NDArray[np.float64], below: NDArray[np.float64]) -> Estimate:
        """Of the shares of the area in two sets of cells (N, N) of the confusion matrix (Stehman 2014, section 3)."""
        total = self.weights @ self._means(below)
        value = _quotient(self.weights @ self._means(above), total)
        # The variance of y - R x is s_y^2 + R^2 s_x^2 - 2 R s_xy; of a single point it is unknown.
        residual = above - value * below
        degrees = np.where(self.points > 1, self.points - 1, np.nan)
        variance = (self._means(residual**2) - self._means(residual) ** 2) / degrees
        return _estimate(value, _quotient(self.weights**2 @ variance, total**2))

    def _means(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.tensordot(self.within, cells, 2)
        return means


def _producers_variance(
    producers: NDArray[np.float64],
    weights: NDArray[np.float64],
    variance: NDArray[np.float64],
    total: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Equation 7, with shares of the area in place of numbers of pixels."""
    scaled = weights[:, None] ** 2 * variance
    own = np.diagonal(scaled)
    others = scaled.sum(axis=0) - own
    return _quotient((1 - producers) ** 2 * own + producers**2 * others, total**2)


def _estimate(value: NDArray[np.float64], variance: NDArray[np.float64]) -> Estimate:
    return Estimate(value, np.sqrt(np.maximum(variance, 0.0)))


def _quotient(above: NDArray[np.generic], below: NDArray[np.generic]) -> NDArray[np.float64]:
    """NaN where the denominator is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


__all__ = ["ClassScores", "Estimate", "SampleEstimates", "Z_95", "sample_estimates", "stratified_estimates"]
