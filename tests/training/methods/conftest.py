from dataclasses import dataclass

import pytest
import torch
from torch import nn

from co2s_hf import Co2SForSemanticSegmentation
from training.batches import Batch

NUM_CLASSES, SIZE_PX = 3, 6


@dataclass
class Output:
    clip_logits: torch.Tensor
    dinov3_logits: torch.Tensor
    clip_perturbed_logits: torch.Tensor | None
    dinov3_perturbed_logits: torch.Tensor | None


class TwoConvolutions(nn.Module):
    """The forward of the two-student model with a 1x1 convolution per student; remembers how it was called."""

    students = Co2SForSemanticSegmentation.students
    perturbed = Co2SForSemanticSegmentation.perturbed

    def __init__(self):
        super().__init__()
        self.clip = nn.Conv2d(3, NUM_CLASSES, 1)
        self.dinov3 = nn.Conv2d(3, NUM_CLASSES, 1)
        self.calls = []

    def forward(self, pixel_values, labels=None, *, perturbed_rows=None, feature_dropout=0.5, fusion=None):
        self.calls.append(
            {
                "images": pixel_values,
                "rows": perturbed_rows,
                "dropout": feature_dropout,
                "gradient": torch.is_grad_enabled(),
                "training": self.training,
            }
        )
        perturbed = None if perturbed_rows is None else pixel_values[slice(*perturbed_rows)] * (1 + feature_dropout)
        return Output(
            clip_logits=self.clip(pixel_values),
            dinov3_logits=self.dinov3(pixel_values),
            clip_perturbed_logits=None if perturbed is None else self.clip(perturbed),
            dinov3_perturbed_logits=None if perturbed is None else self.dinov3(perturbed),
        )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoConvolutions()


@pytest.fixture
def batch():
    """One labelled and two unlabelled pictures with padding, CutMix boxes and partners."""
    generator = torch.Generator().manual_seed(1)

    def images(count):
        return 2 * torch.randn(count, 3, SIZE_PX, SIZE_PX, generator=generator)

    def rectangle(rows, columns):
        mask = torch.zeros(2, SIZE_PX, SIZE_PX, dtype=torch.bool)
        mask[0, rows, columns] = True
        return mask

    y = torch.randint(0, NUM_CLASSES, (1, SIZE_PX, SIZE_PX), generator=generator)
    y[:, 0] = 255
    return Batch(
        x=images(1),
        y=y,
        u_w=images(2),
        u_s1=images(2),
        u_s2=images(2),
        u_valid=~rectangle(slice(5, 6), slice(0, 6)),
        box1=rectangle(slice(1, 4), slice(2, 5)),
        box2=rectangle(slice(0, 2), slice(0, 2)),
        p_w=images(2),
        p_s1=images(2),
        p_s2=images(2),
        p_valid=~rectangle(slice(0, 6), slice(4, 6)),
    )
