import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from training.methods import METHODS
from training.methods.fixmatch import FixMatch
from training.parts.schedules import Progress

from .conftest import TwoConvolutions

THRESHOLD = 0.6


def test_needs_one_strong_view_and_a_partner():
    assert METHODS["fixmatch"] is FixMatch
    needs = FixMatch(TwoConvolutions(), burn_in_steps=7).needs
    assert needs.unlabelled and needs.partner == "other" and needs.strong_views == 1 and needs.from_step == 7


def test_values_follow_the_paper(model, batch):
    """Written out pixel by pixel; the teacher differs from the student, so that it matters who labels."""
    method = FixMatch(model, threshold=THRESHOLD)
    with torch.no_grad():
        for parameter in method.teacher.model.parameters():
            parameter.mul_(1.5)
    teacher = copy.deepcopy(method.teacher.model)
    terms = method.step(replace(batch, u_s2=None, p_s2=None, box2=None), Progress(3, 10))

    total, valid = 0.0, 0
    for i, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(6)).tolist():
        pasted = bool(batch.box1[i, row, column])
        weak, strong, ok = (batch.p_w, batch.p_s1, batch.p_valid) if pasted else (batch.u_w, batch.u_s1, batch.u_valid)
        if not ok[i, row, column]:
            continue
        valid += 1
        sure, label = teacher.clip(weak)[i, :, row, column].softmax(0).max(0)
        if sure >= THRESHOLD:
            total += F.cross_entropy(model.clip(strong)[i, :, row, column], label).item()
    supervised = F.cross_entropy(model.clip(batch.x), batch.y, ignore_index=255)
    assert total > 0
    assert terms["loss_clip_s1"].item() == pytest.approx(total / valid, rel=1e-5)
    assert terms["loss_clip"].item() == pytest.approx((supervised.item() + total / valid) / 2, rel=1e-5)
    torch.testing.assert_close(terms["loss"].detach(), terms["loss_clip"] + terms["loss_dinov3"])


def test_partners_within_the_batch_are_not_labelled_twice(model, batch):
    pairs = torch.tensor([1, 0])
    views = {f"p_{view}": getattr(batch, f"u_{view}")[pairs] for view in ("w", "s1", "valid")}
    method = FixMatch(model, threshold=THRESHOLD)
    apart = method.step(replace(batch, **views), Progress(3, 10))
    labelled_apart = len(method.teacher.model.calls)
    paired = method.step(replace(batch, **views, pairs=pairs), Progress(3, 10))
    assert (labelled_apart, len(method.teacher.model.calls)) == (2, 3)
    for name in apart:
        torch.testing.assert_close(apart[name], paired[name])


def test_learns_from_labels_alone_at_first(model, batch):
    terms = FixMatch(model, burn_in_steps=2).step(replace(batch, u_w=None), Progress(1, 10))
    assert set(terms) == {"loss", "loss_clip", "loss_dinov3"}


def test_only_the_student_gets_a_gradient(model, batch):
    method = FixMatch(model, threshold=0.0)
    method.step(batch, Progress(3, 10))["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert all(not parameter.requires_grad for parameter in method.teacher.model.parameters())
