"""SemiEarth (arXiv 2602.00202): FixMatch whose pseudo-labels a vision-language model purifies."""

from torch import nn

from training.parts.average_teacher import TaughtByAverage


class SemiEarth(TaughtByAverage):
    """What every method with such a teacher does, where the purifier is not optional.

    As released it equals FixMatch to the last bit (`training.purification.official`, and the parity tests).

    Raises:
        ValueError: there is no purifier.
    """

    def __init__(self, model: nn.Module, **settings) -> None:
        """Keep the model and the settings."""
        if settings.get("purifier") is None:
            raise ValueError(
                "--method semiearth purifies pseudo-labels: make the scores with training/purify_labels.py and name "
                "their folder with --purify."
            )
        super().__init__(model, **settings)
