"""Streaming evaluation metrics: integer counts per process, summed over processes, turned into numbers once."""

import math
import os
from collections.abc import Callable
from typing import Any, Literal

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

IGNORE = 255
Reduce = Callable[[Tensor], Tensor]


class ConfusionMatrix:
    """Pixel counts of (true class, predicted class), ignoring true label 255.

    Attributes:
        num_classes: N, between 1 and 255.
        counts: (N, N) int64, rows = truth, columns = prediction.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        """Start at zero on `device`, where the predictions will be."""
        if not 1 <= num_classes <= IGNORE:
            raise ValueError(
                f"num_classes must lie between 1 and {IGNORE} (label {IGNORE} is ignored), got {num_classes}."
            )
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of one image or batch.

        Args:
            prediction: (..., H, W) integer class ids, 0 to N-1 everywhere, also where the truth is ignored.
            target: same shape, integer class ids 0 to N-1, or 255 = ignored.

        Raises:
            ValueError: shapes differ, a tensor holds no integers, or an id is out of range (the ids are named).
        """
        for name, tensor in (("prediction", prediction), ("target", target)):
            if tensor.is_floating_point() or tensor.dtype == torch.bool:
                raise ValueError(
                    f"{name} must hold integer class ids, got {tensor.dtype}: take the argmax of logits first."
                )
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}: "
                "resize the logits to the size of the target first."
            )
        if target.numel() == 0:
            return
        device, size = self.counts.device, self.num_classes
        prediction, target = prediction.to(device).flatten(), target.to(device).flatten()
        _check_ids("prediction", prediction, 0, size - 1, f"0..{size - 1}")
        _check_ids("target", target, 0, IGNORE, f"0..{size - 1} or {IGNORE} (ignored)")
        # One row for each possible label byte: row 255 swallows the ignored pixels without a mask (a masked copy costs
        # several times the count itself), and a pixel in a row between N and 254 is a stray label.
        folded = (target.to(torch.int32) * size).add_(prediction.to(torch.int32))
        rows = torch.bincount(folded, minlength=(IGNORE + 1) * size).view(IGNORE + 1, size)
        stray = rows[size:IGNORE].sum(1).nonzero().flatten() + size
        if len(stray):
            raise ValueError(_id_message("target", stray.tolist(), f"0..{size - 1} or {IGNORE} (ignored)"))
        self.counts += rows[:size]

    def merge(self, reduce: Reduce) -> "ConfusionMatrix":
        """Replace the counts by their sum over all processes; call it once, on every process.

        Args:
            reduce: sums an int64 tensor over processes, e.g. `partial(accelerator.reduce, reduction="sum")`.
        """
        self.counts = reduce(self.counts)
        return self

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        # float64 on the CPU: exact up to 2**53 pixels, and MPS has no float64.
        counts = self.counts.cpu().double()
        return counts.diagonal(), counts.sum(1), counts.sum(0)  # correct, true, predicted pixels per class

    def iou(self) -> Tensor:
        """Intersection over union per class, (N,) float64 in [0, 1]; nan for a class without any pixel."""
        correct, true, predicted = self._parts()
        return correct / (true + predicted - correct)

    def mean_iou(self, absent: Literal["nan", "zero"] = "nan") -> float:
        """Mean of the classes' IoU, in [0, 1].

        Args:
            absent: "nan" leaves classes without any pixel in truth and prediction out of the mean; "zero" counts them
                as 0 and uses I / (U + 1e-10), as the papers' evaluation code does (Co2S, specification section 8).

        Returns:
            The mean; nan if "nan" and no pixel was counted.
        """
        if absent == "nan":
            return self.iou().nanmean().item()
        correct, true, predicted = self._parts()
        return (correct / (true + predicted - correct + 1e-10)).mean().item()

    def precision(self) -> Tensor:
        """Correct / predicted pixels per class, (N,) float64 in [0, 1]; nan for a class never predicted."""
        correct, _, predicted = self._parts()
        return correct / predicted

    def recall(self) -> Tensor:
        """Correct / true pixels per class, (N,) float64 in [0, 1]; nan for a class absent from the truth."""
        correct, true, _ = self._parts()
        return correct / true

    def pixel_share(self) -> Tensor:
        """Each class's share of the counted true pixels, (N,) float64, sum 1; nan if no pixel was counted."""
        _, true, _ = self._parts()
        return true / true.sum()

    def overall_accuracy(self) -> float:
        """Correct / counted pixels, in [0, 1]; nan if no pixel was counted."""
        correct, true, _ = self._parts()
        return (correct.sum() / true.sum()).item()

    def summary(self) -> dict[str, Any]:
        """All numbers above as plain floats and lists, under the names that `report` reads."""
        return {
            "mean_iou": self.mean_iou("nan"),
            "mean_iou_absent_zero": self.mean_iou("zero"),
            "overall_accuracy": self.overall_accuracy(),
            "per_category_iou": self.iou().tolist(),
            "per_category_precision": self.precision().tolist(),
            "per_category_recall": self.recall().tolist(),
            "per_category_pixel_share": self.pixel_share().tolist(),
        }


class PseudoLabelQuality:
    """Coverage and precision of the pixels that a threshold would turn into pseudo-labels.

    Measured on labelled validation images: if the students drift together, precision falls while coverage rises.
    """

    def __init__(self, threshold: float, device: torch.device | str = "cpu") -> None:
        """Start at zero on `device`; a pixel is confident if its largest softmax probability is >= `threshold`."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is a probability between 0 and 1, got {threshold}.")
        self.threshold = threshold
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)  # valid, confident, confident and correct

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count one batch.

        Args:
            logits: (B, N, H, W) floating point.
            target: (B, H, W) integer class ids, 255 = ignored.

        Raises:
            ValueError: the shapes do not belong together.
        """
        if logits.ndim != 4 or target.shape != logits.shape[:1] + logits.shape[2:]:
            raise ValueError(
                f"logits (B, N, H, W) and target (B, H, W) do not match: {tuple(logits.shape)}, {tuple(target.shape)}."
            )
        target = target.to(logits.device)
        confidence, label = logits.float().softmax(1).max(1)
        valid = target != IGNORE
        confident = valid & (confidence >= self.threshold)
        correct = confident & (label == target)
        self.counts += torch.stack([valid.sum(), confident.sum(), correct.sum()]).to(self.counts.device)

    def merge(self, reduce: Reduce) -> "PseudoLabelQuality":
        """Replace the counts by their sum over all processes; call it once, on every process."""
        self.counts = reduce(self.counts)
        return self

    def coverage(self) -> float:
        """Confident / valid pixels, in [0, 1]; nan without valid pixels."""
        valid, confident, _ = self.counts.tolist()
        return confident / valid if valid else math.nan

    def precision(self) -> float:
        """Correct / confident pixels, in [0, 1]; nan without confident pixels."""
        _, confident, correct = self.counts.tolist()
        return correct / confident if confident else math.nan

    def summary(self) -> dict[str, float]:
        """Both numbers, under the names that `report` reads."""
        return {"pseudo_label_coverage": self.coverage(), "pseudo_label_precision": self.precision()}


class ReleasedTestScores:
    """Scores as RS-MTDF's test scripts count them: IoU, F1 and Cohen's kappa (specification section 5).

    Their counts of predicted pixels include predictions where the truth is ignored, so that precision, F1 and kappa
    come out lower than they are; every quotient has 1e-10 in its denominator. To compare with their numbers only.

    Args:
        num_classes: N.
        excluded: class whose truth counts as ignored and that is left out of the means; None for none. The scripts
            exclude 0 on Potsdam and 6 on DeepGlobe.
    """

    def __init__(self, num_classes: int, excluded: int | None = None) -> None:
        """Start at zero."""
        self.confusion = ConfusionMatrix(num_classes)
        self.predicted = torch.zeros(num_classes, dtype=torch.int64)
        self.excluded = excluded

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count pixels, see `ConfusionMatrix.update`."""
        if self.excluded is not None:
            target = target.masked_fill(target == self.excluded, IGNORE)
        self.confusion.update(prediction, target)
        self.predicted += torch.bincount(prediction.flatten().cpu(), minlength=len(self.predicted))

    def summary(self) -> dict[str, Any]:
        """Give "iou_class" and "f1_class" in [0, 1], "kappa", and "mIoU" and "mF1" in percent."""
        counts = self.confusion.counts.cpu().double()
        correct, true, seen, predicted = counts.diagonal(), counts.sum(1), counts.sum(0), self.predicted.double()
        iou = correct / (true + seen - correct + 1e-10)
        precision, recall = correct / (predicted + 1e-10), correct / (true + 1e-10)
        f1 = 2 * precision * recall / (precision + recall + 1e-10)
        agreement, by_chance = correct.sum() / true.sum(), (true * predicted).sum() / true.sum() ** 2
        kept = [k for k in range(len(iou)) if k != self.excluded]
        return {
            "mIoU": 100 * iou[kept].mean().item(),
            "mF1": 100 * f1[kept].mean().item(),
            "kappa": ((agreement - by_chance) / (1 - by_chance)).item(),
            "iou_class": iou.tolist(),
            "f1_class": f1.tolist(),
        }


class MeanIoU(evaluate.Metric):
    """`ConfusionMatrix` with the interface of a Hugging Face metric; works offline and writes no file.

    The library's own `mean_iou` is a script on the Hub that stores every mask in an Arrow file. Here a batch is counted
    when it is added, so memory does not grow and `compute` is immediate.

    >>> metric = MeanIoU(num_classes=2)
    >>> metric.add_batch(predictions=[[[0, 1]]], references=[[[0, 255]]])
    >>> metric.compute()["mean_iou"]
    1.0
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        """Start at zero for `num_classes` classes; counts live on `device`."""
        self.confusion = ConfusionMatrix(num_classes, device)
        self._images = torch.zeros((), dtype=torch.int64, device=device)
        # keep_in_memory: no cache file. seed: the base class otherwise peeks into numpy's global state.
        super().__init__(keep_in_memory=True, seed=0)

    def _info(self) -> evaluate.MetricInfo:
        mask = datasets.Sequence(datasets.Sequence(datasets.Value("uint8")))
        return evaluate.MetricInfo(
            description="Mean intersection over union of semantic segmentation maps; true label 255 is ignored.",
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": mask, "references": mask}),
        )

    def _build_data_dir(self) -> str:
        # The base class creates this folder in the user's cache, also when nothing will be stored in it.
        return os.path.join(self._data_dir_root, self.name, self.config_name)

    def __len__(self) -> int:
        """Number of images, or strips of images, added since the last `compute`."""
        return int(self._images)

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Count a batch: (B, H, W) integer arrays or tensors, or sequences of (H, W) ones of different sizes."""
        if len(predictions) != len(references):
            raise ValueError(f"Got {len(predictions)} predictions but {len(references)} references.")
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Count one image, or rows of one: (H, W) integer arrays, tensors or nested lists."""
        self.confusion.update(_as_tensor(prediction), _as_tensor(reference))
        self._images += 1

    def merge(self, reduce: Reduce) -> "MeanIoU":
        """Sum over all processes before `compute`; call it once, on every process."""
        self.confusion.merge(reduce)
        self._images = reduce(self._images)
        return self

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, Any]:
        """Return `ConfusionMatrix.summary()` of all that was added, and start again at zero."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if not self._images:
            raise ValueError("Nothing to compute: call `add` or `add_batch`, or pass predictions and references.")
        results = self.confusion.summary()
        self.confusion.counts = torch.zeros_like(self.confusion.counts)
        self._images = torch.zeros_like(self._images)
        return results


def _as_tensor(mask: Any) -> Tensor:
    return (
        mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    )  # a copy: torch warns about read-only arrays


def _check_ids(name: str, ids: Tensor, low: int, high: int, expected: str) -> None:
    smallest, largest = (bound.item() for bound in ids.aminmax())
    if smallest < low or largest > high:
        raise ValueError(_id_message(name, ids[(ids < low) | (ids > high)].unique().tolist(), expected))


def _id_message(name: str, found: list[int], expected: str) -> str:
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"{name} holds the ids {found[:8]}{more}, expected {expected}. "
        "Check the number of classes and the label ids of the masks."
    )
