"""A teacher that is the moving average of the model it teaches (FixMatch with EMA, UniMatch V2)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from training.batches import Batch
from training.parts.labeller import Labeller
from training.parts.losses import confident_cross_entropy
from training.parts.method import Method, scalars
from training.parts.pseudo_labels import PseudoLabels, cutmix
from training.parts.schedules import Progress
from training.views import ViewNeeds

EMA_DECAY = 0.996


class MovingAverage:
    """The exponential moving average of a model: parameters and buffers.

    ema <- r ema + (1 - r) model,   r = min(1 - 1 / (t + 1), 0.996)

    After step t = 0 it equals the model; so the first pseudo-labels are those of the pretrained model.

    Args:
        model: the model to follow; it is copied.
    """

    def __init__(self, model: nn.Module) -> None:
        """Copy the model as it is."""
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model after its optimizer step `step`, the first one being 0."""
        ratio = min(1 - 1 / (step + 1), EMA_DECAY)
        followed = extract_model_from_parallel(model, keep_torch_compile=False).state_dict()
        for name, average in self.on(next(iter(followed.values())).device).state_dict().items():
            if average.is_floating_point():
                average.lerp_(followed[name], 1 - ratio)
            else:
                average.copy_(followed[name])

    def on(self, device: torch.device) -> nn.Module:
        """Return the average, moved to a device: it is made before the model that trains is moved to its own."""
        return self.model.to(device)


class TaughtByAverage(Method):
    """Each student learns in a strong view what its moving average sees in the weak one: L = (L_x + L_s1) / 2.

    Args:
        model: the model.
        threshold: confidence in [0, 1] from which a pseudo-label counts.
        class_share: see `Labeller`.
        use_teacher: evaluate and save the moving average instead of the model.
        settings: of `Method`.
    """

    takes = ("threshold", "class_share", "burn_in_steps", "use_teacher")
    strong_views = 1

    def __init__(
        self,
        model: nn.Module,
        *,
        threshold: float = 0.95,
        class_share: float = 0.0,
        use_teacher: bool = False,
        **settings,
    ) -> None:
        """Keep the settings and copy the model."""
        super().__init__(model, **settings)
        self.threshold, self.use_teacher = threshold, use_teacher
        self.labeller = Labeller(self.students, threshold, class_share, self.average_count)
        self.teacher = MovingAverage(model)
        self.needs = ViewNeeds(
            unlabelled=True,
            partner="other",
            strong_views=self.strong_views,
            regions=self.purifier is not None,
            from_step=self.burn_in_steps,
        )

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return self.learn_from_labels(batch)
        own, partner, purified = self.purify(*self.teach(batch), batch, progress)
        _, logits = self.forward({"x": batch.x, "u_s1": cutmix(batch.u_s1, batch.p_s1, batch.box1)})
        terms = self.terms(logits, own, partner, batch)
        totals = {student: (parts["x"] + parts["s1"]) / 2 for student, parts in terms.items()}
        return scalars(totals, terms, **self.labeller.confident(own), **purified)

    def teach(self, batch: Batch) -> tuple[dict[str, PseudoLabels], dict[str, PseudoLabels]]:
        """Return the teacher's pseudo-labels of the images and those of their CutMix partners, by student."""
        own = self.see(batch.u_w, batch.u_valid, update=True)
        if batch.pairs is None:
            return own, self.see(batch.p_w, batch.p_valid)
        return own, {student: pseudo.reordered(batch.pairs) for student, pseudo in own.items()}

    @torch.no_grad()
    def see(self, images: Tensor, valid: Tensor, *, update: bool = False) -> dict[str, PseudoLabels]:
        """Return the teacher's pseudo-labels of weak views (B, C, S, S), by student."""
        output = self.teacher.on(images.device)(images)
        return {
            student: self.labeller.label(student, getattr(output, field), valid, update=update)
            for student, field in self.students.items()
        }

    def terms(
        self,
        logits: Mapping[str, Mapping[str, Tensor]],
        own: Mapping[str, PseudoLabels],
        partner: Mapping[str, PseudoLabels],
        batch: Batch,
    ) -> dict[str, dict[str, Tensor]]:
        """Return every student's terms, unweighted: x, and s1 and s2 for the strong views it has seen."""
        return {
            student: {
                "x": self.supervised(views["x"], batch),
                **{
                    name: self.consistency(views[f"u_{name}"], own[student].cutmix(partner[student], box))
                    for name, box in (("s1", batch.box1), ("s2", batch.box2))
                    if f"u_{name}" in views
                },
            }
            for student, views in logits.items()
        }

    def consistency(self, logits: Tensor, pseudo: PseudoLabels) -> Tensor:
        """Return the cross-entropy with the pseudo-labels where they are confident."""
        return confident_cross_entropy(logits, pseudo, threshold=self.threshold, average_count=self.average_count)

    def after_step(self, progress: Progress) -> None:
        """Move the teacher towards the model."""
        self.teacher.update(self.model, progress.step)

    def saved(self) -> nn.Module:
        """Return the model to evaluate and to save."""
        return self.teacher.model if self.use_teacher else self.model

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher, and the counts behind the thresholds of classes."""
        return {"teacher": self.teacher.model.state_dict(), **self.labeller.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        rest = self.labeller.take_state(state)
        self.teacher.model.load_state_dict(rest.pop("teacher"))
        super().load_state_dict(rest)
