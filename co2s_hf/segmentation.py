"""What every model here does with images, whatever its network: checks, padding, sliding window, loss, freezing.

One rule makes one map of an image above a window, in `model(image)`, in evaluation and in maps of scenes: windows
overlap, and where they do, the probabilities of each prediction are averaged with a weight that falls towards a
window's border but never to 0. Probabilities and not logits: they are bounded, so no window can outvote all others, and
they are what a confidence means. Both are whole numbers, probabilities in steps of 1/65535 and weights from 1 to 32
along each axis, so that sums do not depend on their order, and windows that agree leave no seam.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from transformers import PreTrainedModel

IGNORE_INDEX = 255
WINDOW_BATCH = 8  # windows per forward pass of the sliding window: bounds memory, not results

PROBABILITY_STEPS = 65535
"""A probability of 1 as the whole number that is summed up."""

WEIGHT_STEPS = 32
"""The weight of a window's middle along one axis. With at most 5 windows above a pixel on either axis, sums of
probabilities stay below 5 * 32 * 5 * 32 * 65535 < 2^31."""

WindowAverage = Literal["probabilities", "logits"]
Predict = Callable[[torch.Tensor], Sequence[torch.Tensor]]
Strip = tuple[int, slice, list[torch.Tensor]]
"""Index of an image, pixel rows of it, and there each prediction's logits (num_labels, rows, width)."""


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

    def student_logits(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Logits of each student that votes, from one pass over whole images."""
        raise NotImplementedError

    def all_predictions(self, student_logits: list[torch.Tensor], fusion: str | None = None) -> list[torch.Tensor]:
        """Logits of each of `predictions`, in their order, from those of the students."""
        raise NotImplementedError

    def strips(self, pixel_values: torch.Tensor, fusion: str | None = None) -> Iterator[Strip]:
        """Segment images by a sliding window and give the result from the top to the bottom, in bounded memory.

        Args:
            pixel_values: (batch_size, num_channels, height, width), on any device: windows go to the model's.
            fusion: overrides that of the configuration, in a model that fuses students.

        Returns:
            Strips of one image after the other; each has the logits of all `predictions`, in their order.
        """
        config = self.config
        fuses_first = config.window_average == "probabilities"

        def predict(windows: torch.Tensor) -> list[torch.Tensor]:
            logits = self.student_logits(windows.to(self.device))
            return self.all_predictions(logits, fusion) if fuses_first else logits

        for image, rows, found in slide_strips(
            predict,
            pixel_values,
            window_px=config.window_px,
            stride_px=config.window_stride_px,
            average=config.window_average,
        ):
            if not fuses_first:
                found = [logits[0] for logits in self.all_predictions([logits[None] for logits in found], fusion)]
            yield image, rows, found

    def _slide(self, pixel_values: torch.Tensor, fusion: str | None = None) -> list[torch.Tensor]:
        """Logits of all `predictions` for whole images, by a sliding window."""
        return _collect(self.strips(pixel_values, fusion), pixel_values.shape)

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


def window_overlap_px(window_px: int, stride_px: int) -> int:
    """What neighbouring windows share whose probabilities are averaged: at most 3/4 of the window.

    Windows of a smaller stride would pile up higher than sums of whole numbers have room for, see `WEIGHT_STEPS`.
    """
    return min(window_px - stride_px, window_px * 3 // 4)


def blend_weights(size: int, overlap_px: int) -> NDArray[np.int32]:
    """(size,) weight of a window along one axis: 32 in its middle, falling over the overlap to at least 1."""
    steps = np.arange(size)
    from_border = np.minimum(np.minimum(steps, steps[::-1]), overlap_px) + 1
    return (-(-WEIGHT_STEPS * from_border // (overlap_px + 1))).astype(np.int32)


def in_steps(probabilities: torch.Tensor) -> torch.Tensor:
    """Probabilities as whole numbers up to `PROBABILITY_STEPS`; gradients pass as if nothing were rounded."""
    exact = probabilities * PROBABILITY_STEPS
    whole = exact.round()
    return exact + (whole - exact).detach() if exact.requires_grad else whole  # the same numbers


def slide_strips(
    predict: Predict,
    pixel_values: torch.Tensor,
    *,
    window_px: int,
    stride_px: int,
    average: WindowAverage,
) -> Iterator[Strip]:
    """Average predictions of overlapping windows, and give rows as soon as no later window touches them.

    Memory holds the sums of one row of windows. Gradients pass, as if probabilities were not rounded.

    Args:
        predict: from windows (at most `WINDOW_BATCH`, num_channels, h, w) to as many logits for each prediction; all
            windows of an image have one size.
        pixel_values: (batch_size, num_channels, height, width).
        window_px: side of a window; an image smaller than it is a window of its own.
        stride_px: from one window to the next; see `window_overlap_px`.
        average: "probabilities", weighted (see the module): logits are then the logarithm of the average, in float32
            or better, at least log(65535^-2); "logits", all alike.
    """
    height, width = pixel_values.shape[-2:]
    blends = average == "probabilities"
    overlap = window_overlap_px(window_px, stride_px) if blends else window_px - stride_px
    tops, lefts = (window_starts(side, window_px, window_px - overlap) for side in (height, width))
    sides = min(window_px, height), min(window_px, width)
    weights = [torch.from_numpy(blend_weights(s, overlap)) if blends else torch.ones(s).int() for s in sides]
    totals = _totals(tops, weights[0], height)[:, None], _totals(lefts, weights[1], width)
    precise = torch.promote_types(pixel_values.dtype, torch.float32)
    sums: list[torch.Tensor] = []
    rows_of_windows = [(image, top) for image in range(len(pixel_values)) for top in tops]
    stops = [*tops[1:], height]
    places = [(*row, left) for row in rows_of_windows for left in lefts]
    for batch in _batches(places, len(lefts) if blends else len(places)):
        windows = [pixel_values[i, :, top : top + window_px, left : left + window_px] for i, top, left in batch]
        found = list(predict(torch.stack(windows)))
        device = found[0].device
        # Sums of whole numbers are exact in float64, which MPS lacks.
        dtype = pixel_values.dtype if not blends else torch.float32 if device.type == "mps" else torch.float64
        weight = (weights[0][:, None] * weights[1]).to(device, dtype)
        parts = [(in_steps(logits.float().softmax(1)) if blends else logits).to(dtype) for logits in found]
        for index, (image, top, left) in enumerate(batch):
            if not sums:
                sums = [part.new_zeros(part.shape[1], sides[0], width) for part in parts]
            for total, part in zip(sums, parts, strict=True):
                total[..., left : left + window_px] += part[index] * weight
            if left < lefts[-1]:
                continue
            rows = slice(top, stops[tops.index(top)])
            final = rows.stop - rows.start
            visits = (totals[0][rows] * totals[1]).to(device, dtype)
            means = (total[:, :final] / visits for total in sums)
            yield image, rows, [_log(mean).to(precise) if blends else mean for mean in means]
            # The last row of an image leaves nothing to the next image.
            sums = [] if rows.stop == height else [F.pad(total[:, final:], (0, 0, 0, final)) for total in sums]


def _batches(places: Sequence[tuple[int, int, int]], together: int) -> Iterator[Sequence[tuple[int, int, int]]]:
    """Groups of at most `WINDOW_BATCH`, of every `together` places on their own."""
    for first in range(0, len(places), together):
        for start in range(first, first + together, WINDOW_BATCH):
            yield places[start : min(start + WINDOW_BATCH, first + together)]


def _log(steps: torch.Tensor) -> torch.Tensor:
    """Logarithm of mean probabilities, finite where they are 0; their smallest other mean is a little larger."""
    return (steps / PROBABILITY_STEPS).clamp(min=PROBABILITY_STEPS**-2).log()


def _totals(starts: Sequence[int], weights: torch.Tensor, size: int) -> torch.Tensor:
    totals = weights.new_zeros(size)
    for start in starts:
        totals[start : start + len(weights)] += weights
    return totals


def _collect(strips: Iterator[Strip], shape: Sequence[int]) -> list[torch.Tensor]:
    """Put strips together: for each prediction (batch_size, num_labels, height, width)."""
    whole: list[torch.Tensor] = []
    for image, rows, found in strips:
        if not whole:
            whole = [one.new_empty(shape[0], one.shape[0], *shape[-2:]) for one in found]
        for target, one in zip(whole, found, strict=True):
            target[image, :, rows] = one
    return whole


def slide(
    predict: Predict, pixel_values: torch.Tensor, *, window_px: int, stride_px: int, average: WindowAverage
) -> list[torch.Tensor]:
    """Average predictions of overlapping windows: see `slide_strips`, put together.

    Returns:
        For each prediction (batch_size, num_labels, height, width).
    """
    found = slide_strips(predict, pixel_values, window_px=window_px, stride_px=stride_px, average=average)
    return _collect(found, pixel_values.shape)


__all__ = [
    "IGNORE_INDEX",
    "PROBABILITY_STEPS",
    "SegmentationPreTrainedModel",
    "Strip",
    "WEIGHT_STEPS",
    "WINDOW_BATCH",
    "WindowAverage",
    "blend_weights",
    "check_window",
    "cross_entropy",
    "default_stride_px",
    "in_steps",
    "pad",
    "padded_size",
    "slide",
    "slide_strips",
    "window_overlap_px",
    "window_starts",
]
