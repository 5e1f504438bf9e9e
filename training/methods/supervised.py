"""Supervised training of both students on the labelled images only: the baseline of every paper."""

from argparse import Namespace

from torch import Tensor, nn

from training.batches import Batch
from training.parts.losses import AverageCount, identity
from training.parts.one_model import OneModel
from training.parts.schedules import Progress
from training.parts.supervision import as_tensor, learn_from_labels
from training.views import ViewNeeds


class Supervised(OneModel):
    """Cross-entropy of each student with the labels.

    Args:
        model: a two-student model; the loop replaces `method.model` by the prepared one.
        class_weights: (N,) weights of the classes in the loss; None for 1.
        average_count: maps a pixel count to its mean over the processes.
    """

    needs = ViewNeeds(unlabelled=False, partner=None)

    def __init__(
        self, model: nn.Module, *, class_weights: Tensor | None = None, average_count: AverageCount = identity
    ) -> None:
        """Keep the model and the weights."""
        self.model = model
        self.class_weights = class_weights
        self.average_count = average_count

    @classmethod
    def from_arguments(cls, model: nn.Module, arguments: Namespace, average_count: AverageCount) -> "Supervised":
        """Take what concerns this method from the training script's arguments."""
        return cls(model, class_weights=as_tensor(arguments.class_weights), average_count=average_count)

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log; 0 if every pixel is ignored."""
        return learn_from_labels(self.model, batch.x, batch.y, self.class_weights, self.average_count)
