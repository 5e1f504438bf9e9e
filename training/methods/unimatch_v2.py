"""UniMatch V2 (arXiv 2410.10777): FixMatch with two strong views that see complementary channels of the features."""

import torch
from torch import Tensor, nn

from training.batches import Batch
from training.parts.average_teacher import TaughtByAverage
from training.parts.method import scalars
from training.parts.pseudo_labels import cutmix
from training.parts.schedules import Progress


class UniMatchV2(TaughtByAverage):
    """L = (L_x + L_s1 / 2 + L_s2 / 2) / 2.

    Raises:
        ValueError: the model's feature levels do not have one number of channels to drop together.
    """

    strong_views = 2

    def __init__(self, model: nn.Module, **settings) -> None:
        """Keep the settings."""
        super().__init__(model, **settings)
        self.channels = feature_channels(model)

    def step(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return `loss` to be backpropagated and detached scalars for the log."""
        if progress.step < self.burn_in_steps:
            return self.learn_from_labels(batch)
        own, partner, purified = self.purify(*self.teach(batch), batch, progress)
        u_s1 = cutmix(batch.u_s1, batch.p_s1, batch.box1)
        u_s2 = cutmix(batch.u_s2, batch.p_s2, batch.box2)
        masks = torch.cat((batch.x.new_ones(len(batch.x), self.channels), *complementary_masks(u_s1, self.channels)))
        _, logits = self.forward({"x": batch.x, "u_s1": u_s1, "u_s2": u_s2}, channel_masks=masks)
        terms = self.terms(logits, own, partner, batch)
        totals = {student: (parts["x"] + (parts["s1"] + parts["s2"]) / 2) / 2 for student, parts in terms.items()}
        return scalars(totals, terms, **self.labeller.confident(own), **purified)


def complementary_masks(images: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Draw factors on the feature channels of two views of B images: what one drops, the other one doubles.

    Half of the images, drawn at random, keep all channels in both views.

    Returns:
        Two (B, channels) tensors of 0 and 2, or of 1, on the device and in the dtype of the images.
    """
    first = 2 * torch.bernoulli(torch.full((len(images), channels), 0.5))
    second = 2 - first
    untouched = torch.randperm(len(images))[: len(images) // 2]
    first[untouched] = second[untouched] = 1
    return first.to(images), second.to(images)


def feature_channels(model: nn.Module) -> int:
    """Channels of every feature level of the model."""
    if list(model.students) != ["dino"]:
        raise ValueError(
            f"unimatch_v2 drops the same channels of all feature levels; expected --model dinov2_dpt, found a model of "
            f"the students {', '.join(model.students)}, whose levels differ. Take unimatch instead."
        )
    return model.config.backbone_config.hidden_size
