"""Weights of classes in the loss of the labels."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_tensor(class_weights: Sequence[float] | None) -> Tensor | None:
    """Make the weights of classes given as arguments a tensor, (N,) float32; None stays None."""
    return None if class_weights is None else torch.tensor(class_weights)


def median_frequency_weights(class_pixels: Sequence[Sequence[int]]) -> list[float]:
    """Weigh classes by median frequency balancing: w_c = median(f) / f_c (arXiv:1411.4734).

    Args:
        class_pixels: (images, N) pixels of each class in every labelled image.

    Returns:
        N weights, where f_c is the share of class c among the labelled pixels of the images that have it; 1 for a class
        without a pixel.

    >>> median_frequency_weights([[6, 2, 0, 0], [2, 0, 2, 0]])  # shares 8/12, 2/8 and 2/4
    [0.75, 2.0, 1.0, 1.0]
    """
    pixels = torch.tensor(class_pixels, dtype=torch.float64)
    base = (pixels.sum(1, keepdim=True) * (pixels > 0)).sum(0)
    shares = pixels.sum(0) / base.clamp(min=1)
    present = shares > 0
    weights = torch.where(present, shares[present].quantile(0.5) / shares, 1.0)
    return [float(weight) for weight in weights]
