"""The views of an image that training sees: random crops, strong colour views and CutMix boxes.

All randomness comes from the `numpy.random.Generator` that is passed in, never from a global one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchvision.transforms.v2 import functional as F

from co2s_hf.data.label_map import IGNORE

FLIP_PROBABILITY = 0.5
# Strong view (spec section 7; the ranges of UniMatch, which the released Co2S keeps)
JITTER_PROBABILITY, GREY_PROBABILITY, BLUR_PROBABILITY = 0.8, 0.2, 0.5
BRIGHTNESS = CONTRAST = SATURATION = (0.5, 1.5)
HUE = 0.25  # largest turn of the colour circle, either way
BLUR_SIGMA_PX = (0.1, 2.0)
# CutMix box
NO_BOX_PROBABILITY = 0.5
BOX_AREA = (0.02, 0.4)  # share of the crop
BOX_RATIO = (0.3, 1 / 0.3)  # height / width


@dataclass(frozen=True)
class ViewNeeds:
    """What a method wants beside the labelled crops.

    Attributes:
        unlabelled: A weak view of an unlabelled image and its strong views, each with a CutMix box.
        strong_views: How many of them, 1 or 2.
        partner: A second unlabelled crop with the same views, to paste from: "other" from another image, "same" another
            augmentation of the same image, as the released Co2S trains; None for no partner.
        regions: The regions of unlabelled images and their scores, made ahead of training.
        from_step: First optimizer step that has them; before it there are labelled crops alone.
    """

    unlabelled: bool
    partner: Literal["other", "same"] | None = None
    from_step: int = 0
    strong_views: int = 2
    regions: bool = False

    def __post_init__(self) -> None:
        """Refuse a partner without unlabelled views."""
        if self.partner is not None and not self.unlabelled:
            raise ValueError(f'partner is "{self.partner}" but unlabelled is False; a partner is an unlabelled image.')


def random_crop(
    image: Tensor,
    mask: Tensor | None,
    valid: Tensor | None = None,
    *,
    crop_px: int,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Scale an image by a random ratio, crop it at a random place and flip it half of the time (spec section 7).

    The part that the crop shows is cut out first and then resized, so that the time does not grow with the image. Where
    the scaled image is smaller than the crop, it is padded at the right and at the bottom.

    Args:
        image: (C, H, W) uint8 or float32.
        mask: (H, W) uint8 class ids, or (M, H, W) maps of ids in any dtype that holds them, or None.
        valid: (H, W) bool, False where the image holds no data; None where it holds data everywhere.
        crop_px: Side S of the crop.
        scale_range: Bounds of the ratio, uniform between them; 2.0 shows everything twice as large.
        rng: Draws the ratio, the corner and the flip.

    Returns:
        The crop (C, S, S) of the dtype of the image, 0 on padding; its mask (…, S, S), 255 on padding, or None; and
        (S, S) bool, False on padding. A pixel into which one without data was resampled counts as one without data:
        its mask is 255, too.
    """
    ratio = rng.uniform(*scale_range)
    top, rows, height = _crop_span(image.shape[1], ratio, crop_px, rng)
    left, columns, width = _crop_span(image.shape[2], ratio, crop_px, rng)
    region = slice(top, top + rows), slice(left, left + columns)
    padding = (0, crop_px - width, 0, crop_px - height)
    flip = rng.random() < FLIP_PROBABILITY

    def finish(plane: Tensor, fill: int) -> Tensor:
        padded = pad(plane, padding, value=fill)
        return padded.flip(-1) if flip else padded

    crop = interpolate(image[:, *region][None], (height, width), mode="bilinear", antialias=True)[0].contiguous()
    if valid is None:
        counts = torch.ones(height, width, dtype=torch.bool)
    else:
        counts = resize_valid(valid[region], height, width)
    if mask is None:
        return finish(crop, 0), None, finish(counts, False)
    maps = mask.view(-1, *mask.shape[-2:])[:, *region]
    labels = interpolate(maps[None], (height, width), mode="nearest-exact")[0].view(*mask.shape[:-2], height, width)
    if valid is not None:
        labels = labels.masked_fill(~counts, IGNORE)
    return finish(crop, 0), finish(labels, IGNORE), finish(counts, False)


def resize_valid(valid: Tensor, height: int, width: int) -> Tensor:
    """Resize (H, W) bool as an image is: True where nothing but pixels that hold data flow into a pixel."""
    share = interpolate(valid[None, None].float(), (height, width), mode="bilinear", antialias=True)[0, 0]
    return share > 1 - 1e-4  # less than any weight of a filter of 8 bits, more than the rounding of its sum


@dataclass(frozen=True)
class StrongDraw:
    """What chance has decided about a strong view, see `draw_strong`: small, where the view itself is megabytes.

    Attributes:
        jitter: The four steps of the colour jitter in their order, numbers of `strong_view`; () for none.
        brightness, contrast, saturation: Factors.
        hue: Turn of the colour circle, in turns.
        grey: Whether the colours are dropped.
        sigma_px: Of the blur; None for none.
    """

    jitter: tuple[int, ...]
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey: bool
    sigma_px: float | None


def draw_strong(rng: np.random.Generator, *, hue_range: float = HUE) -> StrongDraw:
    """Draw a strong view: jitter, grey and blur, each by chance (spec section 7). The same number of values each time.

    Args:
        rng: Draws everything.
        hue_range: Largest turn of the colour circle either way, in [0, 0.5] turns.
    """
    jitter, grey, blur = rng.random(3) < (JITTER_PROBABILITY, GREY_PROBABILITY, BLUR_PROBABILITY)
    factors = [rng.uniform(*bounds) for bounds in (BRIGHTNESS, CONTRAST, SATURATION, (-hue_range, hue_range))]
    order, sigma_px = rng.permutation(4).tolist(), rng.uniform(*BLUR_SIGMA_PX)
    return StrongDraw(tuple(order) if jitter else (), *factors, bool(grey), sigma_px if blur else None)


def strong_view(image: Tensor, draw: StrongDraw, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Jitter the colours, drop them, blur, as drawn; on whatever device the image is, without waiting for it.

    Images of three bands are taken for RGB. Of others only brightness, contrast (around the mean of all bands) and blur
    are varied: hue, saturation and grey have no meaning there.

    Args:
        image: (C, S, S) float32.
        draw: What is done to it.
        bounds: Smallest and largest value of the view; None for those of colours, 0 and 1. Reflectances of clouds lie
            beyond white, elevations in metres far beyond: cut off at 1, a view would show them where its weak one, and
            with it the pseudo-label, has something else. So floats may be as dark and as bright as they are already.

    Returns:
        (C, S, S) float32 within the bounds.
    """
    is_rgb = image.shape[0] == 3
    low, high = (0, 1) if bounds is None else bounds
    steps = (
        lambda x: (x * draw.brightness).clamp_(low, high),
        lambda x: torch.lerp(_mean_grey(x), x, draw.contrast).clamp_(low, high),
        lambda x: torch.lerp(F.rgb_to_grayscale(x), x, draw.saturation).clamp_(low, high) if is_rgb else x,
        lambda x: turn_hue(x, draw.hue) if is_rgb else x,
    )
    for step in draw.jitter:
        image = steps[step](image)
    if draw.grey and is_rgb:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    return image if draw.sigma_px is None else gaussian_blur(image, draw.sigma_px)


def turn_hue(image: Tensor, turns: float) -> Tensor:
    """Turn the hue of (3, H, W) float32 RGB, as torchvision's `adjust_hue` does, in a quarter of its time.

    Of the way over HSV only this is left: with the largest band M and the smallest m, a band is M or m in a third of
    the colour circle each, and on a slope between them in a sixth each.
    """
    red, green, blue = image.unbind()
    largest, smallest = torch.maximum(red, green).maximum(blue), torch.minimum(red, green).minimum(blue)
    spread = largest - smallest
    base = spread.clamp(min=1e-12)  # grey has no hue; times a spread of 0 any will do
    sixths = torch.where(
        largest == red,
        green - blue,
        torch.where(largest == green, (blue - red).add_(base, alpha=2), (red - green).sub_(base, alpha=2)),
    )
    sixths.div_(base).add_(6 * turns)
    sixths.sub_((sixths / 6).round_(), alpha=6)  # into [-3, 3], red in the middle; remainder_ takes longer
    red = largest - sixths.abs().sub_(1).clamp_(0, 1).mul_(spread)
    green = sixths.add(1).abs_().sub_(1).clamp_(0, 1).mul_(spread).add_(smallest)
    blue = sixths.sub_(1).abs_().sub_(1).clamp_(0, 1).mul_(spread).add_(smallest)
    return torch.stack((red, green, blue))


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """Blur (C, H, W) float32 by a Gaussian of `sigma_px`, cut at three sigma; the border is mirrored.

    Shifted copies are added up, as the kernels are short: for planes of one channel that takes half the time of conv2d.
    """
    reach = min(math.ceil(3 * sigma_px), min(image.shape[1:]) - 1)
    weights = [math.exp(-0.5 * (offset / sigma_px) ** 2) for offset in range(-reach, reach + 1)]
    kernel = [weight / sum(weights) for weight in weights]
    for dim, border in ((1, (0, 0, reach, reach)), (2, (reach, reach, 0, 0))):
        length, padded = image.shape[dim], pad(image, border, mode="reflect")
        image = padded.narrow(dim, reach, length) * kernel[reach]
        for offset, weight in enumerate(kernel):
            if offset != reach:
                image.add_(padded.narrow(dim, offset, length), alpha=weight)
    return image


def cutmix_box(size_px: int, rng: np.random.Generator) -> Tensor:
    """Draw the CutMix box of a strong view: half of the time none, else up to 40 % of the area (spec section 7).

    Returns:
        (size_px, size_px) bool, True in the box.
    """
    box = torch.zeros(size_px, size_px, dtype=torch.bool)
    if rng.random() < NO_BOX_PROBABILITY:
        return box
    area = rng.uniform(*BOX_AREA) * size_px**2
    while True:
        ratio = rng.uniform(*BOX_RATIO)
        width, height = int(math.sqrt(area / ratio)), int(math.sqrt(area * ratio))
        x, y = rng.integers(0, size_px, 2)
        if x + width <= size_px and y + height <= size_px:
            box[y : y + height, x : x + width] = True
            return box


def _crop_span(side_px: int, ratio: float, crop_px: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw one axis of a crop: its start and length in the source, and its length after scaling (crop_px or less)."""
    scaled_px = max(1, int(side_px * ratio + 0.5))
    corner = int(rng.integers(0, max(scaled_px - crop_px, 0) + 1))  # inclusive
    length = min(crop_px, scaled_px)
    start = min(round(corner * side_px / scaled_px), side_px - 1)
    stop = max(round((corner + length) * side_px / scaled_px), start + 1)
    return start, stop - start, length


def _mean_grey(image: Tensor) -> Tensor:
    """Mean luminance of an RGB image, mean of all bands of others: what contrast is stretched around."""
    return (F.rgb_to_grayscale(image) if image.shape[0] == 3 else image).mean()
