"""What two students learn from labels alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.parts.losses import AverageCount, cross_entropy


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


def learn_from_labels(
    model: nn.Module, images: Tensor, labels: Tensor, class_weights: Tensor | None, average_count: AverageCount
) -> dict[str, Tensor]:
    """Return `loss`, the cross-entropy of both students with the labels, and their detached shares.

    Args:
        model: a two-student model.
        images: labelled crops (B, C, S, S).
        labels: their class ids (B, S, S), 255 ignored; the loss is 0 if every pixel is.
        class_weights: (N,) weights of the classes; None for 1.
        average_count: maps a pixel count to its mean over the processes.
    """
    output = model(images)
    shared = {"class_weights": class_weights, "average_count": average_count}
    loss_clip = cross_entropy(output.clip_logits, labels, **shared)
    loss_dinov3 = cross_entropy(output.dinov3_logits, labels, **shared)
    return {"loss": loss_clip + loss_dinov3, "loss_clip": loss_clip.detach(), "loss_dinov3": loss_dinov3.detach()}
