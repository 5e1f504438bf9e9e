"""Thresholds of confidence for each class, where one for all would leave the rare classes without pseudo-labels."""

import math

import torch
from torch import Tensor

from training.parts.losses import AverageCount, identity
from training.parts.pseudo_labels import PseudoLabels

BINS = 200
MOMENTUM = 0.95


class ClassThresholds:
    """The confidence that the `share` most confident of a class's pixels reach, but never more than `ceiling`.

    A student is never as sure of a road as it is of the sea: with one threshold for all classes it goes on learning
    what it knows. Choosing a share of every class instead is class-balanced self-training (CBST, arXiv:1810.07911); a
    running histogram of the confidences stands for its pass through all images.

    Args:
        ceiling: threshold in (0, 1) of a class whose pixels are confident anyway.
        share: part in [0, 1] of the pixels predicted as a class that shall count; 0 for `ceiling` everywhere.
    """

    def __init__(self, ceiling: float, share: float) -> None:
        """Start without having seen a pixel."""
        if not 0 <= share <= 1 or (share > 0 and not 0 < ceiling < 1):
            raise ValueError(
                f"share is {share} and ceiling {ceiling}, expected a share in [0, 1], and then 0 < ceiling < 1"
            )
        self.ceiling, self.share = ceiling, share
        self.counts: Tensor | None = None  # (N, BINS) float32: running mean of the pixels of a class and confidence

    def update(self, pseudo: PseudoLabels, num_classes: int, average_count: AverageCount = identity) -> None:
        """Count the valid pixels of a step; the same on every process if `average_count` averages over them."""
        if self.share == 0:
            return
        # Half precision can overflow: its pixels of no number are not counted, and must not become a place either.
        known = pseudo.valid & pseudo.confidence.isfinite()
        bins = (pseudo.confidence.nan_to_num() * BINS).long().clamp(max=BINS - 1)
        # Added up by index: to count, or to pick what is valid, a GPU would have to be waited for.
        seen = pseudo.confidence.new_zeros(num_classes * BINS)
        seen.index_add_(0, (pseudo.label * BINS + bins).flatten(), known.flatten().to(seen))
        counts = average_count(seen.view(num_classes, BINS))
        self.counts = counts if self.counts is None else torch.lerp(counts, self.counts.to(counts), MOMENTUM)

    def thresholds(self) -> Tensor:
        """(N,) float32 thresholds, resolved to 1 / BINS; `ceiling` for a class without a pixel.

        Raises:
            ValueError: `share` is 0 or nothing was counted: there are no thresholds of classes.
        """
        if self.counts is None:
            raise ValueError("no pseudo-label was counted yet, or share is 0")
        reaching = self.counts.flip(1).cumsum(1).flip(1)  # pixels of a bin and of all above it
        pixels = reaching[:, :1]
        highest = (reaching >= self.share * pixels).sum(1) - 1  # fewer and fewer reach the next bin
        values = (highest / BINS).clamp(min=1 / BINS, max=self.ceiling)
        return torch.where(pixels[:, 0] > 0, values, self.ceiling)

    def relative(self, pseudo: PseudoLabels) -> PseudoLabels:
        """Bend the confidence of every class so that its threshold becomes `ceiling`, and 0 and 1 stay 0 and 1.

        So all that compares confidences with one threshold, or two students with each other, need not know of classes.
        """
        if self.share == 0:
            return pseudo
        exponents = math.log(self.ceiling) / self.thresholds().log()
        confidence = pseudo.confidence ** exponents[pseudo.label]
        return PseudoLabels(pseudo.label, confidence, pseudo.valid, pseudo.weight)
