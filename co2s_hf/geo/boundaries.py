"""Boundary IoU (Cheng et al., CVPR 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation")."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..raster.cog import NODATA


@dataclass
class BoundaryCounts:
    """Pixels near the outlines of each class, added up block by block.

    |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|, where G_d are the pixels of class mask G not farther than d from
    its outline and P_d those of the map's; d is measured along the longer of the two axes, as by eroding d times with
    a square of 3 px. All classes at once: a pixel lies in the band of its own class if another class is within d.

    The end of the reference, of the data or of the map is no outline of a class: what lies behind is not known. (The
    authors' code counts the border of an image as an outline.)

    Args:
        num_classes: N.
        width_px: d.
    """

    num_classes: int
    width_px: int

    def __post_init__(self) -> None:
        """Start at zero."""
        self.both, self.mapped, self.reference = (np.zeros(self.num_classes, np.int64) for _ in range(3))

    def add(self, mapped: NDArray[np.uint8], reference: NDArray[np.uint8], inner: tuple[slice, slice]) -> None:
        """Count one block.

        Args:
            mapped, reference: (H, W) class ids, 255 where nothing is known, with `width_px` more than `inner` on every
                side on which there is more.
            inner: rows and columns of the pixels to count.
        """
        known = (mapped != NODATA) & (reference != NODATA)
        in_map, in_reference = (self.band(one, known)[inner] for one in (mapped, reference))
        of_map, of_reference = mapped[inner], reference[inner]
        self.mapped += self._counted(of_map[in_map])
        self.reference += self._counted(of_reference[in_reference])
        self.both += self._counted(of_map[in_map & in_reference & (of_map == of_reference)])

    def band(self, classes: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Known pixels (H, W) with a known pixel of another class within `width_px`."""
        size = 2 * self.width_px + 1
        # What is not known is neither the largest nor the smallest class of any neighbourhood.
        highest = ndimage.maximum_filter(np.where(known, classes, 0), size, mode="nearest")
        lowest = ndimage.minimum_filter(np.where(known, classes, NODATA), size, mode="nearest")
        band: NDArray[np.bool_] = known & ((highest != classes) | (lowest != classes))
        return band

    def _counted(self, classes: NDArray[np.uint8]) -> NDArray[np.int64]:
        return np.bincount(classes, minlength=self.num_classes).astype(np.int64)

    def iou(self) -> NDArray[np.float64]:
        """(N,) boundary IoU in [0, 1]; NaN for a class without an outline in the reference."""
        union = self.mapped + self.reference - self.both
        found = self.reference > 0
        return np.divide(self.both, union, out=np.full(self.num_classes, np.nan), where=found)


__all__ = ["BoundaryCounts"]
