import pytest
import torch
from torch import nn

from training.methods.fixmatch import FixMatch
from training.parts.average_teacher import MovingAverage
from training.parts.schedules import Progress

from ..methods.conftest import TwoConvolutions


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TwoConvolutions()


class WithBuffer(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("count", torch.tensor(3))


def test_follows_the_model_step_by_step():
    model = WithBuffer(0.0)
    average = MovingAverage(model)
    expected = 0.0
    for step, value in enumerate([4.0, 8.0, -2.0]):
        with torch.no_grad():
            model.weight.fill_(value)
            model.mean.fill_(value)
            model.count.fill_(step)
        average.update(model, step)
        ratio = min(1 - 1 / (step + 1), 0.996)
        expected = ratio * expected + (1 - ratio) * value
        assert average.model.weight.item() == pytest.approx(expected)
        assert average.model.mean.item() == pytest.approx(expected) and average.model.count == step
    average.update(model, 10**6)
    assert average.model.weight.item() == pytest.approx(0.996 * expected + 0.004 * -2.0, rel=1e-5)


def test_copies_and_never_trains():
    model = WithBuffer(1.0)
    average = MovingAverage(model)
    with torch.no_grad():
        model.weight.fill_(5.0)
    assert average.model.weight.item() == 1.0
    assert not average.model.weight.requires_grad and not average.model.training and model.weight.requires_grad


def test_the_first_step_makes_the_teacher_the_student(model):
    method = FixMatch(model)
    with torch.no_grad():
        model.clip.weight.add_(1)
    method.after_step(Progress(0, 10))
    assert torch.equal(method.teacher.model.clip.weight, model.clip.weight)


def test_state_comes_back(model):
    method, other = FixMatch(model, threshold=0.9, class_share=0.5), FixMatch(TwoConvolutions(), class_share=0.5)
    method.see(torch.randn(2, 3, 6, 6), torch.ones(2, 6, 6, dtype=torch.bool), update=True)
    with torch.no_grad():
        method.teacher.model.clip.weight.mul_(2)
    state = method.state_dict()
    assert set(state) == {"teacher", "clip_confidence_counts", "dinov3_confidence_counts"}
    other.load_state_dict(state)
    assert torch.equal(other.teacher.model.clip.weight, method.teacher.model.clip.weight)
    for student in ("clip", "dinov3"):
        one, two = (m.labeller.class_thresholds[student].counts for m in (method, other))
        assert torch.equal(one, two)


def test_teacher_or_student_is_saved(model):
    assert FixMatch(model).saved() is model
    method = FixMatch(model, use_teacher=True)
    assert method.saved() is method.teacher.model
