"""What a vision-language model sees of a region: a square crop around it, also with the surroundings blurred."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from training.purification.regions import count_regions
from training.views import gaussian_blur

Outside = Literal["blur", "mean", "none"]

BLUR_PX = 10.0
OUTLINE = (1.0, 0.0, 0.0)
OUTLINE_PX = 2  # half its width


@dataclass(frozen=True)
class CropOptions:
    """How a region is shown.

    Attributes:
        context: what a crop shows around the region, as a share of its larger side.
        min_crop_px: side of the smallest crop.
        outside: what the second view shows outside the region: "blur", its "mean" colour, or "none" for no such view.
    """

    context: float = 0.5
    min_crop_px: int = 64
    outside: Outside = "blur"

    def __post_init__(self) -> None:
        """Refuse what makes no crop."""
        if self.context < 0 or self.min_crop_px < 1 or self.outside not in get_args(Outside):
            raise ValueError(
                f"context is {self.context}, min_crop_px {self.min_crop_px} and outside '{self.outside}'; expected a "
                f"context from 0, at least 1 pixel, and one of {', '.join(get_args(Outside))}"
            )


def crop_boxes(regions: Tensor, options: CropOptions) -> dict[int, tuple[int, int, int, int]]:
    """Find the square around each region, moved inside the picture and cut to it where it is too large.

    Args:
        regions: (H, W) int64, -1 for none.
        options: how a region is shown.

    Returns:
        top, left, bottom, right of every id that has a pixel.
    """
    places = regions.cpu()
    rows, columns = torch.nonzero(places >= 0, as_tuple=True)
    ids, count = places[rows, columns], count_regions(places)
    first, last = (
        [
            torch.zeros(count, dtype=torch.int64).scatter_reduce(0, ids, at, how, include_self=False)
            for at in (rows, columns)
        ]
        for how in ("amin", "amax")
    )
    boxes = {}
    for region in ids.unique().tolist():
        low, high = ([int(axis[region]) for axis in ends] for ends in (first, last))
        extent = max(high[0] - low[0], high[1] - low[1]) + 1
        side = max(round(extent * (1 + options.context)), options.min_crop_px)
        starts, stops = [], []
        for axis, length in enumerate(places.shape):
            start = min(max((low[axis] + high[axis] + 1 - side) // 2, 0), max(length - side, 0))
            starts.append(start)
            stops.append(min(start + side, length))
        boxes[region] = (starts[0], starts[1], stops[0], stops[1])
    return boxes


def hidden_outside(image: Tensor, options: CropOptions) -> Tensor | None:
    """Make the picture (3, H, W) whose pixels the second view shows outside a region; None for no such view."""
    if options.outside == "none":
        return None
    if options.outside == "mean":
        return image.mean((1, 2), keepdim=True).expand_as(image)
    return gaussian_blur(image.cpu(), BLUR_PX).to(image.device)


def region_views(
    image: Tensor, outside: Tensor | None, regions: Tensor, boxes: dict[int, tuple[int, int, int, int]], size_px: int
) -> Tensor:
    """Show regions plainly and, where there is an `outside`, with its pixels around them.

    Args:
        image: (3, H, W) float32 in [0, 1].
        outside: the same, see `hidden_outside`.
        regions: (H, W) int64 on the same device.
        boxes: of the regions that are shown, see `crop_boxes`.
        size_px: side S of a view.

    Returns:
        (R, V, 3, S, S) float32 in [0, 1], with V = 1 or 2.
    """
    shown = []
    for region, (top, left, bottom, right) in boxes.items():
        place = (slice(top, bottom), slice(left, right))
        views = [image[:, *place]]
        if outside is not None:
            views.append(torch.where(regions[place] == region, image[:, *place], outside[:, *place]))
        shown.append(resized(torch.stack(views), size_px))
    return torch.stack(shown)


def outlined_crop(image: Tensor, regions: Tensor, region: int, box: Sequence[int], size_px: int) -> Tensor:
    """Show a region with a red line around it: (3, S, S) float32 in [0, 1]; arguments as of `region_views`."""
    top, left, bottom, right = box
    crop = resized(image[None, :, top:bottom, left:right], size_px)[0]
    inside = (regions[top:bottom, left:right] == region).float()
    inside = interpolate(inside[None, None], (size_px, size_px), mode="nearest-exact")[0]
    grown = max_pool2d(inside, 2 * OUTLINE_PX + 1, stride=1, padding=OUTLINE_PX)
    return torch.where((grown > 0) & (inside == 0), crop.new_tensor(OUTLINE)[:, None, None], crop)


def resized(images: Tensor, size_px: int) -> Tensor:
    """Resize (B, 3, H, W) in [0, 1] to squares."""
    return interpolate(images, (size_px, size_px), mode="bicubic", antialias=True).clamp(0, 1)
