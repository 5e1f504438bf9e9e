"""Which tiles are worth a person's time: numbers only, no file and no model.

A tile is worth labelling where the two students of Co2S disagree, and where no tile chosen before shows the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

CERTAIN = 1e-12  # below it a probability is none: 0 log 0 = 0


@dataclass(frozen=True)
class TileSummary:
    """What a model says of a tile, averaged over its pixels that hold data.

    Attributes:
        disagreement: in [0, 1], see `disagreement_by_class`.
        by_class: (N,) what each class adds to it.
        shares: (N,) mean probability of each class, of both students.
        differing: share of the pixels where the two students name different classes; NaN for one student.
    """

    disagreement: float
    by_class: NDArray[np.float64]
    shares: NDArray[np.float64]
    differing: float

    @property
    def descriptor(self) -> NDArray[np.float64]:
        """(2N,) square roots of which classes there are, and which of them are disputed: each half sums to 1/2.

        The distance of two descriptors is that of Hellinger, from 0 (same classes, same disputes) to 1.
        """
        disputed = self.by_class / max(self.by_class.sum(), CERTAIN)
        return np.sqrt(np.concatenate([self.shares / max(self.shares.sum(), CERTAIN), disputed]) / 2)


def disagreement_by_class(probabilities: Sequence[torch.Tensor]) -> torch.Tensor:
    """What each class adds to the disagreement of a pixel.

    Two students: the Jensen-Shannon divergence of their probabilities p and q in bits, with m = (p + q) / 2:
    sum over classes of (p log2 p/m + q log2 q/m) / 2. 0 where they are equal, 1 where each is certain of another class;
    where both are unsure it is small, and unlike the share of pixels with different classes it does not jump where two
    classes are nearly equal. No class adds less than 0.

    One student: its entropy, divided by log2 N: 0 where it is certain, 1 where all classes are equal.

    Args:
        probabilities: one or two of (B, N, H, W), N at least 2.

    Returns:
        (B, N, H, W); the sum over N lies in [0, 1].
    """
    if len(probabilities) == 1:
        (p,) = probabilities
        return torch.special.entr(p) / math.log(p.shape[1])
    p, q = probabilities
    middle = ((p + q) / 2).clamp_min(CERTAIN)
    divergence = torch.xlogy(p, p.clamp_min(CERTAIN) / middle) + torch.xlogy(q, q.clamp_min(CERTAIN) / middle)
    return (divergence / (2 * math.log(2))).clamp_min(0)


def summaries(probabilities: Sequence[torch.Tensor], valid: torch.Tensor) -> list[TileSummary]:
    """Summarise tiles.

    Args:
        probabilities: (B, N, H, W) of each student.
        valid: (B, H, W) bool, True where a tile holds data, at least once in each.
    """
    weights = valid[:, None].float()  # not every device has float64
    pixels = weights.sum((2, 3))
    added = (disagreement_by_class(probabilities) * weights).sum((2, 3)) / pixels
    mean = torch.stack([(one * weights).sum((2, 3)) / pixels for one in probabilities]).mean(0)
    differing = torch.full((len(valid),), math.nan)
    if len(probabilities) == 2:
        one, other = (each.argmax(1) for each in probabilities)
        differing = ((one != other) & valid).sum((1, 2)) / pixels[:, 0]
    return [
        TileSummary(float(by_class.sum()), by_class.numpy(), shares.numpy(), float(share))
        for by_class, shares, share in zip(added.cpu().double(), mean.cpu().double(), differing.cpu(), strict=True)
    ]


def rank(
    tiles: Sequence[TileSummary],
    count: int,
    *,
    diversity: float = 1.0,
    chosen: Sequence[TileSummary] = (),
    overlapping: Callable[[int], NDArray[np.bool_]] | None = None,
) -> list[tuple[int, float]]:
    """Choose tiles one after the other: disagreement times the distance to the nearest tile chosen before.

    This is the greedy farthest-point choice of k centres with weights: of tiles that show the same, one is chosen, and
    a tile that is merely odd is not chosen unless the students disagree on it. The scores of the result never rise.

    Args:
        tiles: to choose from.
        count: how many, at most.
        diversity: power of the distance: 0 ranks by disagreement alone.
        chosen: tiles that need no label any more; what resembles them comes late.
        overlapping: for a place in `tiles`, (n,) the tiles that share pixels with it, itself among them: one of them
            is chosen at most.

    Returns:
        (place in `tiles`, score when it was chosen), the best first; the same for the same input, ties go to the larger
        disagreement, then to the first place.
    """
    if not tiles:
        return []
    descriptors = np.stack([one.descriptor for one in tiles])
    values = np.array([one.disagreement for one in tiles])
    nearest = np.ones(len(tiles))
    for known in chosen:
        nearest = np.minimum(nearest, _distances(descriptors, known.descriptor))
    free = np.ones(len(tiles), np.bool_)
    found: list[tuple[int, float]] = []
    while free.any() and len(found) < count:
        scores = values * nearest**diversity
        places = np.flatnonzero(free)
        best = int(places[np.lexsort((places, -values[places], -scores[places]))[0]])
        found.append((best, float(scores[best])))
        free[best if overlapping is None else overlapping(best)] = False
        nearest = np.minimum(nearest, _distances(descriptors, descriptors[best]))
    return found


def _distances(descriptors: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hellinger distances (n,) in [0, 1]; differences and not 1 - products, so that equal ones are at exactly 0."""
    return np.minimum(np.sqrt(np.square(descriptors - one).sum(axis=1) / 2), 1.0)


__all__ = ["TileSummary", "disagreement_by_class", "rank", "summaries"]
