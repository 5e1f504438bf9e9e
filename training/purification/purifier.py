"""A method's purifier: the decisions of `purify`, step by step, with scores that were made ahead of training."""

from collections.abc import Mapping

from torch import Tensor

from training.parts.pseudo_labels import PseudoLabels
from training.purification.decisions import PurifierSettings, admission_weight, purify


class Purifier:
    """Purifies the pseudo-labels of every student of a method, see `purify`.

    Args:
        settings: which answers count.
        threshold: confidence from which the loss counts a pixel, the same as there.
    """

    def __init__(self, settings: PurifierSettings, threshold: float) -> None:
        """Keep the settings."""
        self.settings, self.threshold = settings, threshold

    def __call__(
        self, pseudo: Mapping[str, PseudoLabels], regions: Tensor, scores: Tensor, step: int
    ) -> tuple[dict[str, PseudoLabels], dict[str, Tensor]]:
        """Purify the pseudo-labels of each student.

        Args:
            pseudo: by student, (B, H, W).
            regions: (B, H, W) int64, see `Batch`.
            scores: (B, R, N) float32.
            step: optimizer step since the burn-in, for the ramp of the weight.

        Returns:
            The purified pseudo-labels, and the shares of `purify` for the log, as purified_STUDENT_SHARE.
        """
        settings = self.settings
        weight = admission_weight(
            step, peak=settings.lambda_peak, start_step=settings.start_step, ramp_steps=settings.ramp_steps
        )
        purified, logged = {}, {}
        for student, labels in pseudo.items():
            purified[student], shares = purify(
                labels, regions, scores, settings=settings, threshold=self.threshold, admission_weight=weight
            )
            logged |= {f"purified_{student}_{name}": share for name, share in shares.items()}
        return purified, logged
