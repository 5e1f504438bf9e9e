"""From the logits of students to pseudo-labels."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from training.parts.losses import AverageCount, identity
from training.parts.pseudo_labels import PseudoLabels
from training.parts.thresholds import ClassThresholds


class Labeller:
    """Pseudo-labels whose confidences `threshold` divides, whatever the class.

    Args:
        students: their names.
        threshold: confidence in [0, 1] from which a pseudo-label counts.
        class_share: part of the pixels predicted as a class that counts at least, see `ClassThresholds`; 0 for one
            threshold for all classes, as in the papers.
        average_count: maps a pixel count to its mean over the processes.
    """

    def __init__(
        self,
        students: Iterable[str],
        threshold: float = 0.95,
        class_share: float = 0.0,
        average_count: AverageCount = identity,
    ) -> None:
        """Start without having seen a pixel."""
        self.threshold, self.average_count = threshold, average_count
        self.class_thresholds = {student: ClassThresholds(threshold, class_share) for student in students}

    def label(self, student: str, logits: Tensor, valid: Tensor, *, update: bool = False) -> PseudoLabels:
        """Return the pseudo-labels of a student's logits (B, N, H, W); `update` counts them for its thresholds."""
        pseudo = PseudoLabels.from_logits(logits, valid)
        if update:
            self.class_thresholds[student].update(pseudo, logits.shape[1], self.average_count)
        return self.class_thresholds[student].relative(pseudo)

    def confident(self, pseudo: Mapping[str, PseudoLabels]) -> dict[str, Tensor]:
        """Return the share of confident pixels of every student, for the log."""
        return {f"confident_{student}": one.confident_fraction(self.threshold) for student, one in pseudo.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts behind the thresholds of classes, for a resume."""
        counts = {student: thresholds.counts for student, thresholds in self.class_thresholds.items()}
        return {f"{student}_confidence_counts": value for student, value in counts.items() if value is not None}

    def take_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Take such counts back; returns what is left of the state."""
        rest = dict(state)
        for student, thresholds in self.class_thresholds.items():
            thresholds.counts = rest.pop(f"{student}_confidence_counts", None)
        return rest


def predict(model: Any, images: Tensor) -> Any:
    """Return the output of a model that trains for (B, C, S, S) images, in evaluation mode and without gradient."""
    model.eval()
    with torch.no_grad():
        output = model(images)
    model.train()
    return output
