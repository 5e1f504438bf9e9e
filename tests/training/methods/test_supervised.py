from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from training.methods import METHODS
from training.methods.supervised import Supervised
from training.parts.schedules import Progress

from .conftest import TwoConvolutions


def test_needs_no_unlabelled_images():
    assert METHODS["supervised"] is Supervised
    assert not Supervised.needs.unlabelled and Supervised.needs.partner is None


def test_loss_is_the_cross_entropy_of_both_students(model, batch):
    terms = Supervised(model).step(replace(batch, u_w=None), Progress(0, 10))
    expected = [F.cross_entropy(student(batch.x), batch.y, ignore_index=255) for student in (model.clip, model.dinov3)]
    torch.testing.assert_close(terms["loss"], sum(expected))
    torch.testing.assert_close((terms["loss_clip"], terms["loss_dinov3"]), tuple(loss.detach() for loss in expected))
    terms["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert not terms["loss_clip"].requires_grad


def test_all_ignored_is_zero(model, batch):
    loss = Supervised(model).step(replace(batch, y=torch.full_like(batch.y, 255)), Progress(0, 10))["loss"]
    loss.backward()
    assert loss.item() == 0 and all(parameter.grad.abs().sum() == 0 for parameter in model.parameters())


def test_the_averaged_count_is_the_denominator(model, batch):
    plain = Supervised(model).step(batch, Progress(0, 10))["loss"]
    doubled = Supervised(model, average_count=lambda count: count * 2).step(batch, Progress(0, 10))["loss"]
    torch.testing.assert_close(doubled, plain / 2)


def test_evaluates_and_saves_its_current_model_and_has_no_state(model):
    method = Supervised(TwoConvolutions())
    method.model = model
    method.after_step(Progress(0, 10))
    assert method.saved() is model
    method.load_state_dict(method.state_dict())
    with pytest.raises(ValueError, match=r"no state of its own, but the checkpoint holds \['ema'\]"):
        method.load_state_dict({"ema": 1})
