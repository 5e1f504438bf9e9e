"""Pseudo-labels: what a network believes about unlabelled pixels, and how CutMix moves it between pictures."""

from dataclasses import dataclass

import torch
from torch import Tensor


def cutmix(own: Tensor, other: Tensor, box: Tensor) -> Tensor:
    """Paste the pixels of `other` into `own` wherever `box` is true (CutMix, arXiv:1905.04899).

    Args:
        own: (B, C, H, W) images or (B, H, W) maps.
        other: same shape and dtype as `own`.
        box: (B, H, W) bool, true inside the pasted rectangle; all false leaves the picture untouched.

    Returns:
        A new tensor shaped like `own`.

    >>> own, other = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    >>> cutmix(own, other, torch.tensor([[[False, True]]]))
    tensor([[[0., 1.]]])
    """
    return torch.where(box if own.ndim == box.ndim else box.unsqueeze(1), other, own)


def at_least_float32(logits: Tensor) -> Tensor:
    """Return half precision as float32, everything else as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of B pictures as one value, so that nothing is left behind when they are mixed.

    Attributes:
        label: (B, H, W) int64 class ids.
        confidence: (B, H, W) float32, softmax probability of that class.
        valid: (B, H, W) bool, False on padding and wherever else there is nothing to learn, as without data.
        weight: (B, H, W) float32 factor on the loss of a pixel; None means 1 everywhere.
    """

    label: Tensor
    confidence: Tensor
    valid: Tensor
    weight: Tensor | None = None

    @classmethod
    def from_logits(cls, logits: Tensor, valid: Tensor) -> "PseudoLabels":
        """Take the most probable class of every pixel; no gradient flows back, half precision is computed in float32.

        Args:
            logits: (B, N, H, W).
            valid: (B, H, W) bool, False on padding.
        """
        with torch.no_grad():
            confidence, label = at_least_float32(logits).softmax(dim=1).max(dim=1)
        return cls(label=label, confidence=confidence, valid=valid)

    def reordered(self, order: Tensor) -> "PseudoLabels":
        """Take the pictures in another order, (B,) int64."""
        weight = None if self.weight is None else self.weight[order]
        return PseudoLabels(self.label[order], self.confidence[order], self.valid[order], weight)

    def cutmix(self, other: "PseudoLabels", box: Tensor) -> "PseudoLabels":
        """Take the values of `other` inside `box` (B, H, W) bool and keep one's own outside.

        Raises:
            ValueError: only one of the two carries weights.
        """
        if (self.weight is None) != (other.weight is None):
            raise ValueError("CutMix of pseudo-labels with and without `weight`: give both or neither of them weights")
        return PseudoLabels(
            label=cutmix(self.label, other.label, box),
            confidence=cutmix(self.confidence, other.confidence, box),
            valid=cutmix(self.valid, other.valid, box),
            weight=None if self.weight is None else cutmix(self.weight, other.weight, box),
        )

    def confident(self, threshold: float) -> Tensor:
        """Mark the valid pixels whose confidence reaches the threshold: (B, H, W) bool."""
        return (self.confidence >= threshold) & self.valid

    def confident_fraction(self, threshold: float) -> Tensor:
        """Return the share of valid pixels that are confident, a scalar in [0, 1]; 0 if no pixel is valid."""
        return self.confident(threshold).sum() / self.valid.sum().clamp(min=1)


def mutual_masks(first: PseudoLabels, second: PseudoLabels, threshold: float) -> tuple[Tensor, Tensor]:
    """Decide where each of two students learns from the other one (Co2S, stability of co-training).

    A student learns where only the other one is confident, and where both are and the other one at least as much as
    itself; so an exact tie belongs to both, and where none is confident nobody learns. Only `confidence` is read: the
    caller removes padding with `& valid`, which the official code does not do.

    Args:
        first: pseudo-labels of the first student, maps (B, H, W).
        second: pseudo-labels of the second student for the same pictures.
        threshold: confidence in [0, 1] from which a pixel counts as confident.

    Returns:
        (where the first student learns, where the second one learns), each (B, H, W) bool.
    """
    first_high, second_high = first.confidence >= threshold, second.confidence >= threshold
    both_high = first_high & second_high
    first_learns = (second_high & ~first_high) | (both_high & (second.confidence >= first.confidence))
    second_learns = (first_high & ~second_high) | (both_high & (first.confidence >= second.confidence))
    return first_learns, second_learns
