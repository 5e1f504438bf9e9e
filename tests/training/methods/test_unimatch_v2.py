from types import SimpleNamespace

import pytest
import torch
from torch import nn

from training.methods import METHODS
from training.methods import unimatch_v2 as module
from training.methods.unimatch_v2 import UniMatchV2, complementary_masks
from training.parts.schedules import Progress


class OneStudent(nn.Module):
    """Four feature channels from a 1x1 convolution, masked, and a classifier on top."""

    students = {"dino": "logits"}

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(backbone_config=SimpleNamespace(hidden_size=4))
        self.features, self.classifier = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.masks = None

    def forward(self, pixel_values, channel_masks=None):
        features = self.features(pixel_values)
        if channel_masks is not None:
            self.masks = channel_masks
            features = features * channel_masks[:, :, None, None]
        return SimpleNamespace(logits=self.classifier(features))


@pytest.fixture
def student():
    torch.manual_seed(0)
    return OneStudent()


def test_needs_two_strong_views():
    assert METHODS["unimatch_v2"] is UniMatchV2 and UniMatchV2(OneStudent()).needs.strong_views == 2


def test_what_one_view_drops_the_other_one_doubles():
    torch.manual_seed(0)
    first, second = complementary_masks(torch.zeros(6, 3, 2, 2, dtype=torch.float64), 50)
    assert first.shape == second.shape == (6, 50) and first.dtype == torch.float64
    assert (first + second == 2).all()
    untouched = (first == 1).all(1)
    assert untouched.sum() == 3 and ((first[~untouched] == 0) | (first[~untouched] == 2)).all()
    assert 0.3 < first[~untouched].mean() / 2 < 0.7
    single = complementary_masks(torch.zeros(1, 3, 2, 2), 8)[0]
    assert not (single == 1).any()


def test_step_adds_half_of_each_strong_view(student, batch, monkeypatch):
    masks = torch.tensor([[0.0, 2, 0, 2], [1, 1, 1, 1]])
    monkeypatch.setattr(module, "complementary_masks", lambda images, channels: (masks, 2 - masks))
    terms = UniMatchV2(student, threshold=0.4).step(batch, Progress(3, 10))
    assert torch.equal(student.masks, torch.cat((torch.ones(1, 4), masks, 2 - masks)))
    x, s1, s2 = (terms[f"loss_dino_{name}"] for name in ("x", "s1", "s2"))
    assert s1 > 0 and s2 > 0 and s1 != s2
    torch.testing.assert_close(terms["loss"].detach(), (x + s1 / 2 + s2 / 2) / 2)
    terms["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in student.parameters())


def test_refuses_students_whose_levels_differ(model):
    with pytest.raises(ValueError, match="expected --model dinov2_dpt, found a model of the students clip, dinov3"):
        UniMatchV2(model)
