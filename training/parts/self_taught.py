"""Students that label their own weak views and learn them under strong and feature perturbations (UniMatch)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from training.batches import Batch
from training.parts.labeller import Labeller, predict
from training.parts.losses import ConfidenceMode, confident_cross_entropy
from training.parts.method import Method
from training.parts.pseudo_labels import PseudoLabels, cutmix
from training.views import ViewNeeds


@dataclass(frozen=True)
class StudentLogits:
    """What one student predicts in a step, each (B, N, S, S), named by the view it saw.

    `x` labelled; `u_w` weak, `u_fp` weak with perturbed features, `u_s1`, `u_s2` strong views after CutMix.
    """

    x: Tensor
    u_w: Tensor
    u_fp: Tensor
    u_s1: Tensor
    u_s2: Tensor


class SelfTaught(Method):
    """Each student is its own teacher, as in UniMatch (arXiv 2208.09910) and everything that grew from it.

    Args:
        model: a model with `perturbed`: the fields of its output with the logits of perturbed features, by student.
        threshold: confidence in [0, 1] from which a pseudo-label counts.
        class_share: see `Labeller`.
        confidence_mode: how confidence enters the consistency terms, see `reduce_confident`.
        feature_dropout: probability of zeroing a feature channel in the perturbed prediction.
        counts_invalid: two of the confidence modes count padding, as released.
        partner: what CutMix pastes, see `ViewNeeds`.
        settings: of `Method`.
    """

    takes = ("threshold", "class_share", "confidence_mode", "feature_dropout", "burn_in_steps")

    def __init__(
        self,
        model: nn.Module,
        *,
        threshold: float = 0.95,
        class_share: float = 0.0,
        confidence_mode: ConfidenceMode = "pixelwise",
        feature_dropout: float = 0.5,
        counts_invalid: bool = False,
        partner: str = "other",
        **settings,
    ) -> None:
        """Keep the model and the settings."""
        super().__init__(model, **settings)
        self.perturbed = model.perturbed
        self.threshold = threshold
        self.labeller = Labeller(self.students, threshold, class_share, self.average_count)
        self.confidence_mode: ConfidenceMode = confidence_mode
        self.feature_dropout = feature_dropout
        self.counts_invalid = counts_invalid
        self.needs = ViewNeeds(
            unlabelled=True,
            partner=partner,
            regions=self.purifier is not None,
            from_step=self.burn_in_steps,
        )

    def see(self, batch: Batch) -> tuple[dict[str, StudentLogits], dict[str, PseudoLabels], dict[str, PseudoLabels]]:
        """Return, by student, what it predicts, the pseudo-labels of the images, and those of their partners."""
        partners = self.show_partners(batch)
        logits = self.show(batch)
        return logits, *self.label(logits, partners, batch)

    def show(self, batch: Batch) -> dict[str, StudentLogits]:
        """Return what every student predicts for the labelled, weak and strong views."""
        views = {
            "x": batch.x,
            "u_w": batch.u_w,
            "u_s1": cutmix(batch.u_s1, batch.p_s1, batch.box1),
            "u_s2": cutmix(batch.u_s2, batch.p_s2, batch.box2),
        }
        perturbed_rows = (len(batch.x), len(batch.x) + len(batch.u_w))
        output, logits = self.forward(views, perturbed_rows=perturbed_rows, feature_dropout=self.feature_dropout)
        return {
            student: StudentLogits(**of_views, u_fp=getattr(output, self.perturbed[student]))
            for student, of_views in logits.items()
        }

    def show_partners(self, batch: Batch) -> dict[str, Tensor] | None:
        """Return the logits of the partners' weak views; None where the partners are in the batch themselves."""
        if batch.pairs is not None:
            return None
        output = predict(self.model, batch.p_w)
        return {student: getattr(output, field) for student, field in self.students.items()}

    def label(
        self, logits: dict[str, StudentLogits], partners: dict[str, Tensor] | None, batch: Batch
    ) -> tuple[dict[str, PseudoLabels], dict[str, PseudoLabels]]:
        """Return the pseudo-labels of the images and those of their CutMix partners, by student."""
        own = {
            student: self.labeller.label(student, views.u_w, batch.u_valid, update=True)
            for student, views in logits.items()
        }
        if partners is None:
            return own, {student: pseudo.reordered(batch.pairs) for student, pseudo in own.items()}
        return own, {student: self.labeller.label(student, weak, batch.p_valid) for student, weak in partners.items()}

    def terms(self, logits: StudentLogits, own: PseudoLabels, partner: PseudoLabels, batch: Batch) -> dict[str, Tensor]:
        """Return one student's terms x, s1, s2, fp, unweighted; its targets are its own pseudo-labels."""

        def consistency(prediction: Tensor, pseudo: PseudoLabels) -> Tensor:
            return confident_cross_entropy(
                prediction,
                pseudo,
                threshold=self.threshold,
                mode=self.confidence_mode,
                counts_invalid=self.counts_invalid,
                average_count=self.average_count,
            )

        return {
            "x": self.supervised(logits.x, batch),
            "s1": consistency(logits.u_s1, own.cutmix(partner, batch.box1)),
            "s2": consistency(logits.u_s2, own.cutmix(partner, batch.box2)),
            "fp": consistency(logits.u_fp, own),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counts behind the thresholds of classes, for a resume."""
        return self.labeller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take such counts back."""
        super().load_state_dict(self.labeller.take_state(state))


def weigh(terms: dict[str, Tensor]) -> Tensor:
    """Return one student's loss: (x + s1/4 + s2/4 + fp/2) / 2."""
    return (terms["x"] + 0.25 * terms["s1"] + 0.25 * terms["s2"] + 0.5 * terms["fp"]) / 2
