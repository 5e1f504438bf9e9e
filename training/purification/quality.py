"""Whether purification was worth it: pseudo-labels before and after it, against labels that training does not see."""

import torch
from torch import Tensor

from training.parts.pseudo_labels import PseudoLabels
from training.purification.regions import boundary_band

_PLACES = ("counted", "band", "changed")


class PurificationQuality:
    """Count right and wrong pixels before and after purification, over any number of pictures.

    Three kinds of pixels are told apart: `counted`, all that count in the loss; `band`, those of them near a boundary
    of the true classes, where the paper sees the gain; `changed`, all whose class the purification changed.

    Args:
        threshold: confidence from which a pixel counts in the loss.
        boundary_radius_px: half the width of the band.
        device: where the counts are kept.
        ignore: value of the truth without a label.
    """

    def __init__(
        self,
        threshold: float,
        *,
        boundary_radius_px: int = 8,
        device: torch.device | str = "cpu",
        ignore: int = 255,
    ) -> None:
        """Start without a pixel."""
        self.threshold, self.boundary_radius_px, self.ignore = threshold, boundary_radius_px, ignore
        self.counts = torch.zeros(
            len(_PLACES), 2, 2, dtype=torch.int64, device=device
        )  # place, before/after, all/right

    def update(self, before: PseudoLabels, after: PseudoLabels, truth: Tensor) -> None:
        """Count the pixels of some pictures, all maps (B, H, W)."""
        known = before.valid & (truth != self.ignore)
        band = boundary_band(truth, known, self.boundary_radius_px)
        changed = known & (before.label != after.label)
        for time, pseudo in enumerate((before, after)):
            counts = known & pseudo.confident(self.threshold)
            if pseudo.weight is not None:
                counts = counts & (pseudo.weight > 0)
            right = pseudo.label == truth
            for place, pixels in enumerate((counts, counts & band, changed)):
                self.counts[place, time] += torch.stack((pixels.sum(), (pixels & right).sum())).to(self.counts)

    def summary(self) -> dict[str, float]:
        """Give the pixels and the share of them that is right, of each kind before and after; nan without a pixel."""
        named = {}
        for place, of_place in zip(_PLACES, self.counts.tolist(), strict=True):
            for time, (pixels, right) in zip(("before", "after"), of_place, strict=True):
                named[f"{place}_px_{time}"] = float(pixels)
                named[f"{place}_accuracy_{time}"] = right / pixels if pixels else float("nan")
        return named
