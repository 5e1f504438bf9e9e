"""Supervised training of both students on the labelled images only: the baseline of every paper."""

from argparse import Namespace

from torch import Tensor, nn

from training.batches import Batch
from training.parts.losses import AverageCount, cross_entropy, identity
from training.parts.one_model import OneModel
from training.parts.schedules import Progress
from training.views import ViewNeeds


class Supervised(OneModel):
    """Cross-entropy of each student with the labels.

    Args:
        model: a two-student model; the loop replaces `method.model` by the prepared one.
        average_count: maps a pixel count to its mean over the processes.
    """

    needs = ViewNeeds(unlabelled=False, partner=None)

    def __init__(self, model: nn.Module, *, average_count: AverageCount = identity) -> None:
        """Keep the model."""
        self.model = model
        self.average_count = average_count

    @classmethod
    def from_arguments(cls, model: nn.Module, arguments: Namespace, average_count: AverageCount) -> "Supervised":
        """Take what concerns this method from the training script's arguments: nothing."""
        return cls(model, average_count=average_count)

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log; 0 if every pixel is ignored."""
        output = self.model(batch.x)
        loss_clip = cross_entropy(output.clip_logits, batch.y, average_count=self.average_count)
        loss_dinov3 = cross_entropy(output.dinov3_logits, batch.y, average_count=self.average_count)
        return {
            "loss": loss_clip + loss_dinov3,
            "loss_clip": loss_clip.detach(),
            "loss_dinov3": loss_dinov3.detach(),
        }
