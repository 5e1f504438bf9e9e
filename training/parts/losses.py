"""Losses as pure functions.

Several processes: every mean divides by `average_count(local count)`. Where that is the mean of the counts over the
processes, DistributedDataParallel's mean of the gradients equals the gradient of the loss of the joint batch; the
default leaves the count local. It is called the same number of times on every process, whatever the data.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from training.parts.pseudo_labels import PseudoLabels, at_least_float32

IGNORE = 255

AverageCount = Callable[[Tensor], Tensor]
ConfidenceMode = Literal["pixelwise", "pixelratio", "pixelavg"]


def identity(count: Tensor) -> Tensor:
    """Return the count of this process: the `average_count` of a single process."""
    return count


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    average_count: AverageCount = identity,
) -> Tensor:
    """Cross-entropy with the labels, averaged over the pixels that have one.

    L_x = sum_{y != 255} -w_y log softmax(logits)_y / sum_{y != 255} w_y   (Co2S, supervised term, where all w are 1)

    Args:
        logits: (B, N, H, W) in any float dtype; half precision is computed in float32.
        labels: (B, H, W) int64 in [0, N), or 255 for ignored pixels.
        class_weights: (N,) float32 weights w; None for 1.
        average_count: maps the local pixel count to its mean over the processes (see the module).

    Returns:
        Scalar, divided by the weight of the pixels that are not 255; 0 with zero gradient if there is none.

    Raises:
        ValueError: the shapes of logits and labels do not belong together.

    >>> logits = torch.zeros(1, 2, 1, 2)
    >>> round(cross_entropy(logits, torch.tensor([[[0, 255]]])).item(), 4)  # log 2 over one pixel
    0.6931
    >>> cross_entropy(logits, torch.tensor([[[255, 255]]])).item()
    0.0
    """
    loss_map, counts = _cross_entropy_map(logits, labels), labels != IGNORE
    if class_weights is None:
        return _divide(loss_map.sum(), counts.sum(), average_count)
    weights = class_weights.to(loss_map)[torch.where(counts, labels, 0)] * counts
    return _divide((loss_map * weights).sum(), weights.sum(), average_count)


def confident_cross_entropy(
    logits: Tensor,
    pseudo: PseudoLabels,
    *,
    threshold: float,
    mode: ConfidenceMode = "pixelwise",
    counts_invalid: bool = False,
    average_count: AverageCount = identity,
) -> Tensor:
    """Cross-entropy with pseudo-labels, counted where they are confident (FixMatch, arXiv:2001.07685, per pixel).

    L_u = reduce_confident(weight * -log softmax(logits)_label, confidence, valid)

    Args:
        logits: (B, N, H, W) prediction for the strong view, any float dtype.
        pseudo: pseudo-labels (B, H, W) of the same pictures, after the same CutMix.
        threshold: confidence in [0, 1] from which a pixel counts.
        mode: see `reduce_confident`.
        counts_invalid: leave the loss on pixels that are not valid to the mode, as released: two of the three count it.
        average_count: maps the local pixel count to its mean over the processes (see the module).

    Returns:
        Scalar, divided by the number of valid (not of confident) pixels; 0 with zero gradient if there is none.

    Raises:
        ValueError: the shapes do not belong together, or the mode is unknown.

    >>> label, sure = torch.tensor([[[0, 1]]]), torch.tensor([[[0.9, 0.4]]])
    >>> pseudo = PseudoLabels(label, sure, valid=torch.ones(1, 1, 2, dtype=torch.bool))
    >>> round(confident_cross_entropy(torch.zeros(1, 2, 1, 2), pseudo, threshold=0.5).item(), 4)  # log 2 / 2
    0.3466
    """
    loss_map = _cross_entropy_map(logits, pseudo.label)
    if pseudo.weight is not None:
        loss_map = loss_map * pseudo.weight
    if not counts_invalid:
        loss_map = torch.where(pseudo.valid, loss_map, 0)
    return reduce_confident(
        loss_map, pseudo.confidence, pseudo.valid, threshold=threshold, mode=mode, average_count=average_count
    )


def reduce_confident(
    loss_map: Tensor,
    confidence: Tensor,
    valid: Tensor,
    *,
    threshold: float,
    mode: ConfidenceMode = "pixelwise",
    average_count: AverageCount = identity,
) -> Tensor:
    """Reduce a map of per-pixel losses l to a scalar by the confidence c of their targets.

    With v the valid pixels of the batch and v_i those of picture i:
      pixelwise   sum_v l [c >= threshold] / |v|                                       (the papers)
      pixelratio  sum_i (sum l_i) |v_i and c >= threshold| / |v_i| / |v|               (released alternative)
      pixelavg    (sum l) (sum_i mean_{v_i} c) / |v|                                   (released alternative)
    The last two sum l over padding as well, as released. `pixelavg` reads no threshold, couples the pictures of a
    batch and grows with its size, so several processes do not equal their joint batch.

    Args:
        loss_map: (B, H, W) losses.
        confidence: (B, H, W) in [0, 1].
        valid: (B, H, W) bool, False on padding.
        threshold: confidence in [0, 1] from which a pixel counts.
        mode: one of the three above.
        average_count: maps the local pixel count to its mean over the processes (see the module).

    Returns:
        Scalar, divided by the number of valid pixels of the whole batch; 0 with zero gradient if there is none.

    Raises:
        ValueError: the mode is unknown.

    >>> loss, sure = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.9, 0.4]]])
    >>> valid = torch.ones(1, 1, 2, dtype=torch.bool)
    >>> [round(reduce_confident(loss, sure, valid, threshold=0.5, mode=m).item(), 2) for m in get_args(ConfidenceMode)]
    [0.5, 1.0, 1.3]
    """
    if mode == "pixelwise":
        total = torch.where(valid & (confidence >= threshold), loss_map, 0).sum()
    elif mode == "pixelratio":
        share = _mean_per_picture((confidence >= threshold).to(loss_map.dtype), valid)
        total = (loss_map.sum(dim=(1, 2)) * share).sum()
    elif mode == "pixelavg":
        total = loss_map.sum() * _mean_per_picture(confidence, valid).sum()
    else:
        raise ValueError(f"mode must be one of {', '.join(get_args(ConfidenceMode))}; got '{mode}'")
    return _divide(total, valid.sum(), average_count)


def stability_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, average_count: AverageCount = identity
) -> Tensor:
    """Squared distance of two students' class probabilities; only the student gets a gradient.

    L_stab = sum_{mask, n} (softmax(student)_n - softmax(teacher)_n)^2 / (|mask| N)   (Co2S, stability term)

    Args:
        student_logits: (B, N, H, W) in any float dtype; half precision is computed in float32.
        teacher_logits: (B, N, H, W); detached here.
        mask: (B, H, W) bool, where the student learns from the teacher.
        average_count: maps the local pixel count to its mean over the processes (see the module).

    Returns:
        Scalar in [0, 2 / N], divided by masked pixels times classes; 0 with zero gradient if the mask is empty.

    Raises:
        ValueError: student, teacher and mask do not have matching shapes.

    >>> student, teacher = torch.zeros(1, 2, 1, 1), torch.tensor([100.0, 0.0]).view(1, 2, 1, 1)
    >>> stability_loss(student, teacher, torch.ones(1, 1, 1, dtype=torch.bool)).item()  # (0.5^2 + 0.5^2) / 2
    0.25
    >>> stability_loss(student, teacher, torch.zeros(1, 1, 1, dtype=torch.bool)).item()
    0.0
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"teacher logits must have the student's shape {tuple(student_logits.shape)}, "
            f"got {tuple(teacher_logits.shape)}"
        )
    _check_map(student_logits, mask, "mask")
    difference = at_least_float32(student_logits).softmax(1) - at_least_float32(teacher_logits.detach()).softmax(1)
    total = torch.where(mask, difference.square().sum(dim=1), 0).sum()  # (B, N, H, W) -> (B, H, W) -> scalar
    return _divide(total, mask.sum(), average_count) / student_logits.shape[1]


def distillation_loss(translated: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Squared distance of a student's translated features to those of its teachers; teachers get no gradient.

    L_dis = 1/T sum_t mean (translated_t - target_t)^2   (RS-MTDF, arXiv:2506.08772, where T is 2)

    Features are not normalised, as released: a teacher's channels of large magnitude dominate.

    Args:
        translated: T tensors (B, tokens_t, width_t) in any float dtype; half precision is computed in float32.
        targets: T tensors of the same shapes; detached here.

    Returns:
        Scalar, for each teacher divided by all its elements, then by the number of teachers; 0 with zero gradient for a
        batch without images.

    Raises:
        ValueError: there is no teacher, or a target is missing or has another shape.

    >>> student = [torch.ones(1, 2, 1), torch.zeros(1, 1, 3)]
    >>> distillation_loss(student, [torch.zeros(1, 2, 1), torch.full((1, 1, 3), 2.0)]).item()  # (1 + 4) / 2
    2.5
    """
    shapes = [[tuple(one.shape) for one in features] for features in (translated, targets)]
    if not translated or shapes[0] != shapes[1]:
        raise ValueError(f"expected targets of at least one teacher, shaped as translated {shapes[0]}, got {shapes[1]}")
    totals = [
        (at_least_float32(student) - at_least_float32(teacher.detach())).square().sum() / max(student.numel(), 1)
        for student, teacher in zip(translated, targets, strict=True)
    ]
    return torch.stack(totals).mean()


def _cross_entropy_map(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B, H, W) losses, 0 at label 255. PyTorch's own reduction over pixels is not deterministic on CUDA."""
    _check_map(logits, labels, "labels")
    return F.cross_entropy(at_least_float32(logits), labels, ignore_index=IGNORE, reduction="none")


def _mean_per_picture(values: Tensor, valid: Tensor) -> Tensor:
    """Average (B, H, W) values over the valid pixels of each picture -> (B,); 0 where a picture has none."""
    return torch.where(valid, values, 0).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)


def _divide(total: Tensor, count: Tensor, average_count: AverageCount) -> Tensor:
    """Divide by the averaged count, which is a fraction where few processes have a pixel, so it is not clamped to 1."""
    count = average_count(count.to(torch.float32))
    return total / torch.where(count > 0, count, 1)


def _check_map(logits: Tensor, pixels: Tensor, name: str) -> None:
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(pixels.shape) != expected:
        raise ValueError(
            f"{name} must be (B, H, W) = {expected} for logits {tuple(logits.shape)}, got {tuple(pixels.shape)}"
        )
