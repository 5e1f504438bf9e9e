"""What every model here does with images, whatever its network: checks, padding, sliding window, loss, freezing."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

IGNORE_INDEX = 255
WINDOW_BATCH = 8  # windows per forward pass of the sliding window: bounds memory, not results


class SegmentationPreTrainedModel(PreTrainedModel):
    """The abilities that transformers asks a model class for, and what a training method asks a model about itself.

    Attributes:
        students: name of each student -> output field of its logits.
        predictions: name of everything that can be evaluated -> output field of its logits.
        perturbed: name of each student -> output field of its logits for `perturbed_rows`.
    """

    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    students: ClassVar[dict[str, str]]
    predictions: dict[str, str]  # fewer in a model of which a student abstains
    perturbed: ClassVar[dict[str, str]]

    def freeze_unused(self) -> None:
        """Freeze what can never get a gradient, so that distributed training need not search for it."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """See `PreTrainedModel.from_pretrained`; loading makes every parameter trainable, so freeze again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_unused()
        return loaded

    def _check_input(self, pixel_values: torch.Tensor, labels: torch.Tensor | None) -> None:
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values are {tuple(pixel_values.shape)}, expected (batch_size, {self.config.num_channels}, "
                f"height, width): this model was built for {self.config.num_channels} bands."
            )
        expected = (pixel_values.shape[0], *pixel_values.shape[-2:])
        if labels is not None and tuple(labels.shape) != expected:
            raise ValueError(f"labels are {tuple(labels.shape)}, expected {expected}, one id for each pixel.")


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels whose label is not 255; without any such pixel 0 and not NaN.

    Args:
        logits: (batch_size, num_labels, height, width), computed in float32.
        labels: (batch_size, height, width) class ids.
    """
    # Summed and divided by hand: the mean over no pixel at all is 0, not NaN.
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


def padded_size(height: int, width: int, multiple: int, smallest: int = 1) -> tuple[int, int]:
    """The next multiples of `multiple` pixels, at least `smallest`."""
    # Integers and `sym_max`: when a model is exported, sizes are symbols, and the graph holds for any of them. Positive
    # ones, because ONNX divides towards 0.
    padded: list[Any] = [
        torch.sym_max((side + multiple - 1) // multiple * multiple, smallest) for side in (height, width)
    ]
    return padded[0], padded[1]


def pad(pixel_values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pad images with 0 at their right and lower border to `size` (height, width)."""
    height, width = pixel_values.shape[-2:]
    return F.pad(pixel_values, (0, size[1] - width, 0, size[0] - height))


def default_stride_px(window_px: int) -> int:
    """5/6 of the window, as the papers evaluate."""
    return int(window_px * (1 - 1 / 6))


def check_window(window_px: int, window_stride_px: int) -> None:
    """ValueError unless windows of this side and stride cover every pixel."""
    if window_px < 1 or not 1 <= window_stride_px <= window_px:
        raise ValueError(
            f"window_stride_px is {window_stride_px} but window_px is {window_px}: "
            f"the stride must lie between 1 and the window, or pixels would be left out."
        )


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows that cover one axis; the last window is shifted back to end at the border."""
    count = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride + window, size) - window, 0) for index in range(count)]


def slide(
    predict: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    pixel_values: torch.Tensor,
    *,
    num_predictions: int,
    num_labels: int,
    window_px: int,
    stride_px: int,
) -> tuple[torch.Tensor, ...]:
    """Logits averaged over overlapping windows; all windows of an image have one size.

    Args:
        predict: from windows (at most `WINDOW_BATCH`, num_channels, h, w) to as many logits for each prediction.
        pixel_values: (batch_size, num_channels, height, width).
        num_predictions: how many logits `predict` gives.
        num_labels: their channels.
        window_px: side of a window; an image smaller than it is a window of its own.
        stride_px: from one window to the next.

    Returns:
        For each prediction (batch_size, num_labels, height, width).
    """
    height, width = pixel_values.shape[-2:]
    corners = [
        (top, left)
        for top in window_starts(height, window_px, stride_px)
        for left in window_starts(width, window_px, stride_px)
    ]
    places = [(row, top, left) for row in range(len(pixel_values)) for top, left in corners]
    sums = pixel_values.new_zeros(num_predictions, len(pixel_values), num_labels, height, width)
    visits = pixel_values.new_zeros(height, width)
    for top, left in corners:
        visits[top : top + window_px, left : left + window_px] += 1
    for start in range(0, len(places), WINDOW_BATCH):
        chunk = places[start : start + WINDOW_BATCH]
        windows = torch.stack(
            [pixel_values[row, :, top : top + window_px, left : left + window_px] for row, top, left in chunk]
        )
        for index, logits in enumerate(predict(windows)):
            for (row, top, left), part in zip(chunk, logits.to(sums.dtype), strict=True):
                sums[index, row, :, top : top + window_px, left : left + window_px] += part
    return tuple(sums / visits)


__all__ = [
    "IGNORE_INDEX",
    "SegmentationPreTrainedModel",
    "check_window",
    "cross_entropy",
    "default_stride_px",
    "pad",
    "padded_size",
    "slide",
    "window_starts",
]
