"""Regions: the places of a picture that a vision-language model is asked about, as maps of region ids."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d

RegionSource = Literal["boundary", "uncertain", "label"]

NO_REGION = -1
_NEIGHBOURS = np.ones((3, 3), bool)  # eight


def boundary_band(label: Tensor, valid: Tensor, radius_px: int) -> Tensor:
    """Mark the pixels that have another class within `radius_px` rows and columns.

    Args:
        label: (B, H, W) int64 class ids.
        valid: (B, H, W) bool; pixels that are not valid are of no class and in no band.
        radius_px: 1 marks the pixels on both sides of a boundary, 0 none.

    Returns:
        (B, H, W) bool.

    Raises:
        ValueError: the radius is negative.

    >>> boundary_band(torch.tensor([[[0, 0, 0, 1, 1]]]), torch.ones(1, 1, 5, dtype=torch.bool), 1).int()
    tensor([[[0, 0, 1, 1, 0]]], dtype=torch.int32)
    """
    if radius_px < 0:
        raise ValueError(f"radius_px is {radius_px}, expected 0 or more pixels")
    own = label.float()
    highest = _window_maximum(own.masked_fill(~valid, -torch.inf), radius_px)
    lowest = -_window_maximum((-own).masked_fill(~valid, -torch.inf), radius_px)
    return valid & ((highest != own) | (lowest != own))


def find_regions(
    label: Tensor,
    confidence: Tensor,
    valid: Tensor,
    *,
    source: RegionSource = "boundary",
    tau: float = 0.7,
    boundary_radius_px: int = 8,
    min_area_px: int = 64,
    max_regions: int = 32,
) -> Tensor:
    """Find the connected pixels of one pseudo-class that are worth a question, the most worthwhile ones first.

    A region is worth its area times 1 minus its mean confidence. Pixels touch each other at sides and corners.

    Args:
        label: (B, H, W) int64 pseudo-classes.
        confidence: (B, H, W) float32 in [0, 1].
        valid: (B, H, W) bool.
        source: "boundary" for pixels below `tau` in the `boundary_band`; "uncertain" for all pixels below `tau`;
            "label" for all valid pixels, which a veto of confident pixels needs.
        tau: confidence below which a pixel is uncertain.
        boundary_radius_px: half the width of the band.
        min_area_px: smaller regions are dropped.
        max_regions: of one picture.

    Returns:
        (B, H, W) int64 on the device of `label`: ids from 0 in each picture, -1 for no region.

    Raises:
        ValueError: the source is unknown, or a number makes no sense.
    """
    if source not in get_args(RegionSource):
        raise ValueError(f"source must be one of {', '.join(get_args(RegionSource))}; got '{source}'")
    if min_area_px < 1 or max_regions < 1:
        raise ValueError(f"min_area_px is {min_area_px} and max_regions {max_regions}, expected at least 1 of each")
    wanted = valid if source == "label" else valid & (confidence < tau)
    if source == "boundary":
        wanted = wanted & boundary_band(label, valid, boundary_radius_px)
    maps = [
        _components(*picture, min_area_px, max_regions)
        for picture in zip(_numpy(label), _numpy(confidence.float()), _numpy(wanted), strict=True)
    ]
    return torch.from_numpy(np.stack(maps)).to(label.device)


def segment_regions(image: Tensor, valid: Tensor | None = None, *, region_px: int = 24) -> Tensor:
    """Cut a picture into superpixels (SLIC, 10.1109/TPAMI.2012.120), for scores that are made ahead of training.

    Args:
        image: (C, H, W) float32 in [0, 1].
        valid: (H, W) bool, False where the picture holds no data; None for data everywhere.
        region_px: side of a square of the mean area of a superpixel.

    Returns:
        (H, W) int64: ids from 0, -1 where there is no data.

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: `region_px` is below 2.
    """
    if region_px < 2:
        raise ValueError(f"region_px is {region_px}, expected at least 2 pixels")
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError(
            'Superpixels need scikit-image, which is not installed: run `pip install "co2s_hf[purify]"`, or give '
            "region maps of your own."
        ) from error
    height, width = image.shape[1:]
    segments = slic(
        image.permute(1, 2, 0).double().cpu().numpy(),  # (C, H, W) -> (H, W, C)
        n_segments=max(1, round(height * width / region_px**2)),
        channel_axis=-1,
        convert2lab=image.shape[0] == 3,
    )
    return number_regions(torch.from_numpy(segments), valid)


def number_regions(ids: Tensor, valid: Tensor | None = None) -> Tensor:
    """Number the regions of any map of integers (H, W) from 0; where `valid` (H, W) is False there is none: -1.

    >>> number_regions(torch.tensor([[7, 7, 300]]), torch.tensor([[True, False, True]]))
    tensor([[ 0, -1,  1]])
    """
    numbered = torch.full(ids.shape, NO_REGION, dtype=torch.int64)
    inside = torch.ones(ids.shape, dtype=torch.bool) if valid is None else valid.cpu()
    numbered[inside] = ids.cpu()[inside].unique(return_inverse=True)[1]
    return numbered


def count_regions(regions: Tensor) -> int:
    """Count the ids of a map from 0 to its largest one, the rows that a table of its scores has."""
    return int(regions.max()) + 1 if regions.numel() else 0


def _window_maximum(values: Tensor, radius_px: int) -> Tensor:
    """Take the largest of the (2 r + 1)^2 values around each of (B, H, W); rows and columns apart, which is faster."""
    rows = max_pool2d(values, (2 * radius_px + 1, 1), stride=1, padding=(radius_px, 0))
    return max_pool2d(rows, (1, 2 * radius_px + 1), stride=1, padding=(0, radius_px))


def _components(
    label: np.ndarray, confidence: np.ndarray, wanted: np.ndarray, min_area_px: int, max_regions: int
) -> np.ndarray:
    """Number the connected components of each class in (H, W) maps by their worth."""
    components, count = np.zeros(label.shape, np.int64), 0  # 0 is none, as in scipy
    for class_id in np.unique(label[wanted]):
        of_class, found = ndimage.label(wanted & (label == class_id), structure=_NEIGHBOURS)
        components = np.where(of_class > 0, of_class + count, components)
        count += found
    areas = np.bincount(components.ravel(), minlength=count + 1)
    doubts = areas - np.bincount(components.ravel(), weights=confidence.ravel(), minlength=count + 1)
    large = 1 + np.flatnonzero(areas[1:] >= min_area_px)
    best = large[np.argsort(-doubts[large], kind="stable")][:max_regions]
    numbers = np.full(count + 1, NO_REGION, np.int64)
    numbers[best] = np.arange(len(best))
    return numbers[components]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
