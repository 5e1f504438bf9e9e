"""What two students learn from labels alone."""

from torch import Tensor, nn

from training.parts.losses import AverageCount, cross_entropy


def learn_from_labels(
    model: nn.Module, images: Tensor, labels: Tensor, average_count: AverageCount
) -> dict[str, Tensor]:
    """Return `loss`, the cross-entropy of both students with the labels, and their detached shares.

    Args:
        model: a two-student model.
        images: labelled crops (B, C, S, S).
        labels: their class ids (B, S, S), 255 ignored; the loss is 0 if every pixel is.
        average_count: maps a pixel count to its mean over the processes.
    """
    output = model(images)
    loss_clip = cross_entropy(output.clip_logits, labels, average_count=average_count)
    loss_dinov3 = cross_entropy(output.dinov3_logits, labels, average_count=average_count)
    return {"loss": loss_clip + loss_dinov3, "loss_clip": loss_clip.detach(), "loss_dinov3": loss_dinov3.detach()}
