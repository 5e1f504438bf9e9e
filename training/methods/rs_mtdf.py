"""RS-MTDF (arXiv 2506.08772): FixMatch whose student imitates foundation models and decodes what it imitates."""

import math
from argparse import Namespace
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.batches import Batch
from training.parts.average_teacher import TaughtByAverage
from training.parts.losses import AverageCount, distillation_loss
from training.parts.method import scalars
from training.parts.pseudo_labels import cutmix
from training.parts.schedules import Progress
from training.parts.teachers import load_teachers, resize_features


class RSMTDF(TaughtByAverage):
    """L = (L_x + L_s1 + L_dis) / 3.

    The distillation sees what the student sees: labelled images, and strong views after CutMix.

    Args:
        model: a model with one translator for each of the foundation models, in their order.
        foundation_models: give patch features (B, width, h, w) of images; they are never saved.
        settings: of `TaughtByAverage`.
    """

    def __init__(self, model: nn.Module, *, foundation_models: Sequence[nn.Module], **settings) -> None:
        """Keep the models and the settings."""
        super().__init__(model, **settings)
        self.foundation_models = foundation_models

    @classmethod
    def from_arguments(cls, model: nn.Module, arguments: Namespace, average_count: AverageCount) -> "RSMTDF":
        """Load the foundation models that the arguments name."""
        return super().from_arguments(
            model, arguments, average_count, foundation_models=load_teachers(arguments, model.config)
        )

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return self.learn_from_labels(batch)
        own, partner, purified = self.purify(*self.teach(batch), batch, progress)
        views = {"x": batch.x, "u_s1": cutmix(batch.u_s1, batch.p_s1, batch.box1)}
        output, logits = self.forward(views)
        terms = self.terms(logits, own, partner, batch)
        distillation = distillation_loss(output.translated, self.targets(output.translated, views))
        totals = {student: (parts["x"] + parts["s1"] + distillation) / 3 for student, parts in terms.items()}
        return scalars(totals, terms, loss_distillation=distillation, **self.labeller.confident(own), **purified)

    def targets(self, translated: Sequence[Tensor], views: dict[str, Tensor]) -> list[Tensor]:
        """Return what to imitate, shaped like the translated tokens (B, h * w, width) of square views."""
        images = torch.cat(tuple(views.values()))
        features = [model.to(images.device)(images) for model in self.foundation_models]
        return [
            resize_features(of_model, math.isqrt(tokens.shape[1])).flatten(2).transpose(1, 2)
            for of_model, tokens in zip(features, translated, strict=True)
        ]
