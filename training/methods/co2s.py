"""Co2S: a CLIP and a DINOv3 student teach themselves from pseudo-labels and each other through a stability term."""

from torch import Tensor, nn

from training.batches import Batch
from training.parts.losses import AverageCount, identity, stability_loss
from training.parts.method import scalars
from training.parts.pseudo_labels import mutual_masks
from training.parts.schedules import Progress, stability_weight
from training.parts.self_taught import SelfTaught, StudentLogits, weigh


class Co2S(SelfTaught):
    """Co2S as in the paper, or as released. A burn-in matters more here than for one student alone: in a short training
    a student that is ahead teaches the other one the most frequent class before that one can tell classes apart.

    Args:
        model: the two-student model; the loop replaces `method.model` by the prepared one.
        stability_peak: weight of the stability term after its ramp.
        cut_stability_gradient: detach the students in the stability term, as released: it is logged and trains nothing.
        official: reproduce the released code: that cut; the stability term and two of the confidence modes count
            padding, and what else is not valid; every process divides by its own counts; the CutMix partner is another
            augmentation of the same image.
        average_count: maps a pixel count to its mean over the processes; unused if `official`.
        settings: of `SelfTaught`; `threshold` counts for consistency and stability alike.
    """

    takes = (*SelfTaught.takes, "stability_peak", "cut_stability_gradient", "official")

    def __init__(
        self,
        model: nn.Module,
        *,
        stability_peak: float = 0.5,
        cut_stability_gradient: bool = False,
        official: bool = False,
        average_count: AverageCount = identity,
        **settings,
    ) -> None:
        """Keep the model and the settings."""
        super().__init__(
            model,
            average_count=identity if official else average_count,
            counts_invalid=official,
            partner="same" if official else "other",
            **settings,
        )
        self.stability_peak = stability_peak
        self.cut_stability_gradient = cut_stability_gradient or official
        self.official = official

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return self.learn_from_labels(batch)
        logits, own, partner = self.see(batch)
        clip_learns, dinov3_learns = mutual_masks(own["clip"], own["dinov3"], self.threshold)
        own, partner, purified = self.purify(own, partner, batch, progress)
        terms = {student: self.terms(views, own[student], partner[student], batch) for student, views in logits.items()}
        terms["clip"]["stability"] = self.stability(logits["clip"], logits["dinov3"], clip_learns, batch)
        terms["dinov3"]["stability"] = self.stability(logits["dinov3"], logits["clip"], dinov3_learns, batch)

        start = self.burn_in_steps
        weight = stability_weight(progress.step - start, progress.total_steps - start, peak=self.stability_peak)
        totals = {student: weigh(parts) + weight * parts["stability"] for student, parts in terms.items()}
        shown = {"stability_weight": batch.x.new_tensor(weight), **self.labeller.confident(own), **purified}
        return scalars(totals, terms, **shown)

    def stability(self, student: StudentLogits, teacher: StudentLogits, learns: Tensor, batch: Batch) -> Tensor:
        """Return the unweighted stability term of a student that learns from the other one where `learns`."""
        student_logits = student.u_w.detach() if self.cut_stability_gradient else student.u_w
        learns = learns if self.official else learns & batch.u_valid
        return stability_loss(student_logits, teacher.u_w, learns, average_count=self.average_count)
