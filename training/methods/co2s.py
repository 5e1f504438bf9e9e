"""Co2S: a CLIP and a DINOv3 student teach themselves from pseudo-labels and each other through a stability term."""

from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.batches import Batch
from training.parts.losses import (
    AverageCount,
    ConfidenceMode,
    confident_cross_entropy,
    cross_entropy,
    identity,
    stability_loss,
)
from training.parts.one_model import OneModel
from training.parts.pseudo_labels import PseudoLabels, cutmix, mutual_masks
from training.parts.schedules import Progress, stability_weight
from training.parts.supervision import as_tensor, learn_from_labels
from training.parts.thresholds import ClassThresholds
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


class Co2S(OneModel):
    """Co2S as in the paper, or as released.

    Args:
        model: the two-student model; the loop replaces `method.model` by the prepared one.
        threshold: confidence in [0, 1] from which a pseudo-label counts, for consistency and stability alike.
        class_share: part of the pixels predicted as a class that counts at least, see `ClassThresholds`; 0 for one
            threshold for all classes, as in the paper.
        confidence_mode: how confidence enters the consistency terms, see `reduce_confident`.
        feature_dropout: probability of zeroing a feature channel in the perturbed prediction.
        stability_peak: weight of the stability term after its ramp.
        burn_in_steps: first optimizer steps that learn from the labels alone. The paper needs none: its trainings are a
            hundred times longer than the time its students take to get anywhere. In a short one, a student that is
            ahead teaches the other one the most frequent class before that one has learned to tell classes apart.
        cut_stability_gradient: detach the students in the stability term, as released: it is logged and trains nothing.
        official: reproduce the released code: that cut; the stability term and two of the confidence modes count
            padding, and what else is not valid; every process divides by its own counts; the CutMix partner is another
            augmentation of the same image.
        class_weights: (N,) weights of the classes in the term of the labels; None for 1.
        average_count: maps a pixel count to its mean over the processes; unused if `official`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        threshold: float = 0.95,
        class_share: float = 0.0,
        confidence_mode: ConfidenceMode = "pixelwise",
        feature_dropout: float = 0.5,
        stability_peak: float = 0.5,
        burn_in_steps: int = 0,
        cut_stability_gradient: bool = False,
        official: bool = False,
        class_weights: Tensor | None = None,
        average_count: AverageCount = identity,
    ) -> None:
        """Keep the model and the settings."""
        self.model = model
        self.threshold = threshold
        self.class_thresholds = {student: ClassThresholds(threshold, class_share) for student in ("clip", "dinov3")}
        self.confidence_mode: ConfidenceMode = confidence_mode
        self.feature_dropout = feature_dropout
        self.stability_peak = stability_peak
        self.burn_in_steps = burn_in_steps
        self.cut_stability_gradient = cut_stability_gradient or official
        self.official = official
        self.class_weights = class_weights
        self.average_count = identity if official else average_count
        self.needs = ViewNeeds(unlabelled=True, partner="same" if official else "other", from_step=burn_in_steps)

    @classmethod
    def from_arguments(cls, model: nn.Module, arguments: Namespace, average_count: AverageCount) -> "Co2S":
        """Take what concerns this method from the training script's arguments."""
        return cls(
            model,
            threshold=arguments.threshold,
            class_share=arguments.class_share,
            confidence_mode=arguments.confidence_mode,
            feature_dropout=arguments.feature_dropout,
            stability_peak=arguments.stability_peak,
            burn_in_steps=arguments.burn_in_steps,
            cut_stability_gradient=arguments.cut_stability_gradient,
            official=arguments.official,
            class_weights=as_tensor(arguments.class_weights),
            average_count=average_count,
        )

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return learn_from_labels(self.model, batch.x, batch.y, self.class_weights, self.average_count)
        u_s1 = cutmix(batch.u_s1, batch.p_s1, batch.box1)
        u_s2 = cutmix(batch.u_s2, batch.p_s2, batch.box2)
        partners = None if batch.pairs is not None else self.predict(batch.p_w)

        # One forward for everything that trains: DistributedDataParallel allows one per backward.
        rows = [len(batch.x), len(batch.u_w), len(u_s1), len(u_s2)]
        output = self.model(
            torch.cat((batch.x, batch.u_w, u_s1, u_s2)),
            perturbed_rows=(rows[0], rows[0] + rows[1]),
            feature_dropout=self.feature_dropout,
        )
        clip = split(output.clip_logits, output.clip_perturbed_logits, rows)
        dinov3 = split(output.dinov3_logits, output.dinov3_perturbed_logits, rows)

        clip_pseudo = self.pseudo_labels("clip", clip.u_w, batch.u_valid, update=True)
        dinov3_pseudo = self.pseudo_labels("dinov3", dinov3.u_w, batch.u_valid, update=True)
        if partners is None:
            clip_partner, dinov3_partner = clip_pseudo.reordered(batch.pairs), dinov3_pseudo.reordered(batch.pairs)
        else:
            clip_partner = self.pseudo_labels("clip", partners.clip_logits, batch.p_valid)
            dinov3_partner = self.pseudo_labels("dinov3", partners.dinov3_logits, batch.p_valid)
        clip_terms = self.student_losses(clip, clip_pseudo, clip_partner, batch)
        dinov3_terms = self.student_losses(dinov3, dinov3_pseudo, dinov3_partner, batch)

        clip_learns, dinov3_learns = mutual_masks(clip_pseudo, dinov3_pseudo, self.threshold)
        clip_terms["stability"] = self.stability(clip, dinov3, clip_learns, batch)
        dinov3_terms["stability"] = self.stability(dinov3, clip, dinov3_learns, batch)

        start = self.burn_in_steps
        weight = stability_weight(progress.step - start, progress.total_steps - start, peak=self.stability_peak)
        loss_clip, loss_dinov3 = total(clip_terms, weight), total(dinov3_terms, weight)
        logged = {
            "loss_clip": loss_clip,
            "loss_dinov3": loss_dinov3,
            **{f"loss_clip_{name}": term for name, term in clip_terms.items()},
            **{f"loss_dinov3_{name}": term for name, term in dinov3_terms.items()},
            "stability_weight": loss_clip.new_tensor(weight),
            "confident_clip": clip_pseudo.confident_fraction(self.threshold),
            "confident_dinov3": dinov3_pseudo.confident_fraction(self.threshold),
        }
        return {"loss": loss_clip + loss_dinov3, **{name: value.detach() for name, value in logged.items()}}

    @torch.no_grad()
    def predict(self, images: Tensor) -> Any:
        """Return the model's output for (B, C, S, S) images without gradient, in evaluation mode."""
        self.model.eval()
        output = self.model(images)
        self.model.train()
        return output

    def pseudo_labels(self, student: str, logits: Tensor, valid: Tensor, update: bool = False) -> PseudoLabels:
        """Return a student's pseudo-labels with confidences that `threshold` divides, whatever the class."""
        pseudo = PseudoLabels.from_logits(logits, valid)
        if update:
            self.class_thresholds[student].update(pseudo, logits.shape[1], self.average_count)
        return self.class_thresholds[student].relative(pseudo)

    def student_losses(
        self, logits: StudentLogits, own: PseudoLabels, partner: PseudoLabels, batch: Batch
    ) -> dict[str, Tensor]:
        """Return one student's own terms x, s1, s2, fp, unweighted; its targets are its own pseudo-labels."""

        def consistency(prediction: Tensor, pseudo: PseudoLabels) -> Tensor:
            return confident_cross_entropy(
                prediction,
                pseudo,
                threshold=self.threshold,
                mode=self.confidence_mode,
                counts_invalid=self.official,
                average_count=self.average_count,
            )

        return {
            "x": cross_entropy(logits.x, batch.y, class_weights=self.class_weights, average_count=self.average_count),
            "s1": consistency(logits.u_s1, own.cutmix(partner, batch.box1)),
            "s2": consistency(logits.u_s2, own.cutmix(partner, batch.box2)),
            "fp": consistency(logits.u_fp, own),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counts behind the thresholds of classes, for a resume."""
        counts = {student: thresholds.counts for student, thresholds in self.class_thresholds.items()}
        return {f"{student}_confidence_counts": value for student, value in counts.items() if value is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take such counts back."""
        rest = dict(state)
        for student, thresholds in self.class_thresholds.items():
            thresholds.counts = rest.pop(f"{student}_confidence_counts", None)
        super().load_state_dict(rest)

    def stability(self, student: StudentLogits, teacher: StudentLogits, learns: Tensor, batch: Batch) -> Tensor:
        """Return the unweighted stability term of a student that learns from the other one where `learns`."""
        student_logits = student.u_w.detach() if self.cut_stability_gradient else student.u_w
        learns = learns if self.official else learns & batch.u_valid
        return stability_loss(student_logits, teacher.u_w, learns, average_count=self.average_count)


def split(logits: Tensor, perturbed: Tensor, rows: list[int]) -> StudentLogits:
    """Name one student's logits: rows x, u_w, s1, s2 of the joint forward, and perturbed u_w."""
    x, u_w, u_s1, u_s2 = logits.split(rows)
    return StudentLogits(x=x, u_w=u_w, u_fp=perturbed, u_s1=u_s1, u_s2=u_s2)


def total(terms: dict[str, Tensor], weight: float) -> Tensor:
    """Return one student's loss: (x + s1/4 + s2/4 + fp/2) / 2 + weight * stability."""
    own = (terms["x"] + 0.25 * terms["s1"] + 0.25 * terms["s2"] + 0.5 * terms["fp"]) / 2
    return own + weight * terms["stability"]
