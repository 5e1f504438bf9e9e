"""What every method is: a model of one or two students, and the answers to what the loop asks."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.batches import Batch
from training.parts.losses import AverageCount, cross_entropy, identity
from training.parts.pseudo_labels import PseudoLabels
from training.parts.schedules import Progress
from training.parts.supervision import as_tensor
from training.views import ViewNeeds

Labels = Mapping[str, PseudoLabels]
"""Pseudo-labels (B, S, S) by student."""

Purifier = Callable[[Labels, Tensor, Tensor, int], tuple[Labels, dict[str, Tensor]]]
"""Pseudo-labels, regions, scores, step -> purified pseudo-labels, scalars; see `training.purification.purifier`."""


class Method:
    """Learns from labels alone; a method adds to it what it learns from unlabelled images.

    A student is a network with logits of its own. Co2S holds two in one model, the other models are one. The losses of
    students are added: none reaches the weights of another one unless a method says so.

    Args:
        model: the model; the loop replaces `method.model` by the prepared one.
        class_weights: (N,) weights of the classes in the loss of the labels; None for 1.
        burn_in_steps: first optimizer steps that learn from the labels alone. The papers need none: their trainings are
            a hundred times longer than the time their students take to get anywhere.
        purifier: changes pseudo-labels before they are learned; None for none.
        average_count: maps a pixel count to its mean over the processes.
    """

    needs = ViewNeeds(unlabelled=False, partner=None)
    takes: tuple[str, ...] = ()
    """Arguments of the training script that are arguments of the method, too."""

    def __init__(
        self,
        model: nn.Module,
        *,
        class_weights: Tensor | None = None,
        burn_in_steps: int = 0,
        purifier: Purifier | None = None,
        average_count: AverageCount = identity,
    ) -> None:
        """Keep the model and the settings."""
        self.model = model
        self.students: Mapping[str, str] = model.students  # name of a student -> its field of the model's output
        self.class_weights = class_weights
        self.burn_in_steps = burn_in_steps
        self.purifier = purifier
        self.average_count = average_count

    @classmethod
    def from_arguments(
        cls, model: nn.Module, arguments: Namespace, average_count: AverageCount, **more: Any
    ) -> "Method":
        """Take what concerns this method from the training script's arguments; `more` is for what is made of them."""
        return cls(
            model,
            class_weights=as_tensor(arguments.class_weights),
            average_count=average_count,
            **{name: getattr(arguments, name) for name in cls.takes},
            **more,
        )

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log; 0 if every pixel is ignored."""
        return self.learn_from_labels(batch)

    def after_step(self, progress: Progress) -> None:
        """Do nothing: there is no moving average."""

    def saved(self) -> nn.Module:
        """Return the model to evaluate and to save."""
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs besides the model: nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Accept the empty state."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state of its own, but the checkpoint holds {sorted(state)}")

    # What steps are made of

    def learn_from_labels(self, batch: Batch) -> dict[str, Tensor]:
        """Return the supervised losses of all students."""
        _, logits = self.forward({"x": batch.x})
        return scalars({student: self.supervised(views["x"], batch) for student, views in logits.items()})

    def forward(self, views: Mapping[str, Tensor], **options: Any) -> tuple[Any, dict[str, dict[str, Tensor]]]:
        """Show all views to the model at once: DistributedDataParallel allows one forward per backward.

        Args:
            views: images (B, C, S, S) by the name of the view.
            options: further arguments of the model's forward.

        Returns:
            The output of the model; and the logits (B, N, S, S) by student and view.
        """
        output = self.model(torch.cat(tuple(views.values())), **options)
        rows = [len(images) for images in views.values()]
        return output, {
            student: dict(zip(views, getattr(output, field).split(rows), strict=True))
            for student, field in self.students.items()
        }

    def purify(
        self, own: Labels, partner: Labels, batch: Batch, progress: Progress
    ) -> tuple[Labels, Labels, dict[str, Tensor]]:
        """Return the purified pseudo-labels of images and CutMix partners, and scalars for the log."""
        if self.purifier is None:
            return own, partner, {}
        step = progress.step - self.burn_in_steps
        own, shares = self.purifier(own, batch.u_regions, batch.u_scores, step)
        if batch.pairs is None:
            partner, _ = self.purifier(partner, batch.p_regions, batch.p_scores, step)
        else:
            partner = {student: pseudo.reordered(batch.pairs) for student, pseudo in own.items()}
        return own, partner, shares

    def supervised(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy with the labels."""
        return cross_entropy(logits, batch.y, class_weights=self.class_weights, average_count=self.average_count)


def scalars(
    totals: Mapping[str, Tensor], terms: Mapping[str, Mapping[str, Tensor]] | None = None, **logged: Tensor
) -> dict[str, Tensor]:
    """Return what a step returns: the sum of the students' losses, and everything else detached.

    Args:
        totals: loss of each student; logged as loss_STUDENT.
        terms: what it is made of, unweighted; logged as loss_STUDENT_TERM.
        logged: other scalars under their own names.
    """
    shown = {f"loss_{student}": loss for student, loss in totals.items()}
    for student, parts in (terms or {}).items():
        shown |= {f"loss_{student}_{term}": value for term, value in parts.items()}
    return {"loss": sum(totals.values()), **{name: value.detach() for name, value in (shown | logged).items()}}
