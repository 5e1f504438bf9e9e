"""Scores by similarity: crops of regions against texts of classes, with CLIP, SigLIP, RemoteCLIP, GeoRSCLIP, ..."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from training.purification.class_bank import ClassBank
from training.purification.crops import CropOptions, crop_boxes, hidden_outside, region_views
from training.purification.regions import count_regions
from training.purification.scorers import Audit, empty_scores
from training.purification.towers import Towers


class DualEncoderScorer:
    """Score a region by the cosine of its views with the best word of each class, times the scale of the towers.

    Args:
        towers: image and text tower.
        bank: the classes in words.
        crops: how a region is shown.
        view_weights: of the plain view and of the one with the outside blurred.
        batch_size: regions at a time.
    """

    def __init__(
        self,
        towers: Towers,
        bank: ClassBank,
        *,
        crops: CropOptions | None = None,
        view_weights: tuple[float, float] = (0.5, 0.5),
        batch_size: int = 32,
    ) -> None:
        """Embed the texts, once."""
        self.towers, self.bank, self.batch_size = towers, bank, batch_size
        self.crops = crops or CropOptions()
        self.view_weights = (1.0,) if self.crops.outside == "none" else view_weights
        self.texts = bank.embed(towers.embed_texts)
        self.audit = Audit()

    def parameters(self) -> dict[str, Any]:
        """Give what the scores depend on."""
        return {
            "scorer": "dual_encoder",
            **self.towers.identity,
            **self.bank.parameters(),
            **asdict(self.crops),
            "view_weights": self.view_weights,
        }

    @torch.no_grad()
    def score(self, image: Tensor, regions: Tensor) -> Tensor:
        """Score the regions (H, W) of a picture (3, H, W); see `Scorer`."""
        scores = empty_scores(count_regions(regions), len(self.bank.names))
        boxes = list(crop_boxes(regions, self.crops).items())
        outside = hidden_outside(image, self.crops)
        for start in range(0, len(boxes), self.batch_size):
            chunk = dict(boxes[start : start + self.batch_size])
            views = region_views(image, outside, regions, chunk, self.towers.size_px)
            embedded = self.towers.embed_images(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (R, V, E)
            self.audit.calls += 1
            weights = embedded.new_tensor(self.view_weights)[:, None]
            cosines = (embedded * weights).sum(1) @ self.texts.rows.T  # (R, V, E) -> (R, E) -> (R, P)
            scores[list(chunk)] = self.towers.scale * self.texts.class_scores(cosines).cpu()
        return scores
