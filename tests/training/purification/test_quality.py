import math
from dataclasses import replace

import pytest
import torch

from training.parts.pseudo_labels import PseudoLabels
from training.purification.quality import PurificationQuality


def test_pixels_are_counted_by_hand():
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1, 255]]])
    before = PseudoLabels(
        label=torch.tensor([[[0, 0, 0, 1, 1, 0, 0]]]),
        confidence=torch.tensor([[[0.99, 0.2, 0.99, 0.3, 0.99, 0.99, 0.99]]]),
        valid=torch.tensor([[[True, True, True, True, True, True, True]]]),
    )
    after = replace(
        before,
        label=torch.tensor([[[0, 0, 0, 0, 1, 0, 0]]]),
        confidence=torch.tensor([[[0.99, 1.0, 0.99, 1.0, 0.99, 0.99, 0.99]]]),
        weight=torch.tensor([[[1.0, 0.4, 1.0, 0.4, 1.0, 0.0, 1.0]]]),  # the wrong one at the right is vetoed
    )
    quality = PurificationQuality(0.95, boundary_radius_px=1)
    quality.update(before, after, truth)
    assert quality.summary() == pytest.approx(
        {
            "counted_px_before": 4,
            "counted_accuracy_before": 3 / 4,
            "counted_px_after": 5,
            "counted_accuracy_after": 1,
            "band_px_before": 1,
            "band_accuracy_before": 1,
            "band_px_after": 2,
            "band_accuracy_after": 1,
            "changed_px_before": 1,
            "changed_accuracy_before": 0,
            "changed_px_after": 1,
            "changed_accuracy_after": 1,
        }
    )
    quality.update(before, after, truth)
    assert quality.summary()["counted_px_after"] == 10


def test_without_a_pixel_accuracy_is_unknown():
    assert math.isnan(PurificationQuality(0.95).summary()["band_accuracy_after"])
