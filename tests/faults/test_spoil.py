"""What puts values of no number into a training, on an optimizer and batches alone."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch.optim import AdamW

from tests.faults import ranks, spoil
from training.batches import Batch, Crops, Normalise
from training.guards import StepGuard
from training.methods.co2s import Co2S


@pytest.fixture(autouse=True)
def mended(monkeypatch):
    """Takes the faults away again."""
    changed = (
        (AdamW, "step"),
        (Crops, "finish"),
        (Accelerator, "__init__"),
        (StepGuard, "judge"),
        (Co2S, "after_step"),
    )
    for owner, name in changed:
        monkeypatch.setattr(owner, name, getattr(owner, name))


def values_after_steps(count):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], lr=0.1, fused=True)
    seen = []
    for _ in range(count):
        weight.grad = torch.ones(3)
        optimizer.step()
        seen.append(weight.detach().clone())
    return seen, optimizer.state[weight]


def test_a_step_that_is_left_out_never_happens():
    whole, _ = values_after_steps(2)
    spoil.leave_out(0, 2)
    seen, state = values_after_steps(4)
    assert state["step"].item() == 2
    assert torch.equal(seen[1], whole[0]) and torch.equal(seen[2], seen[1]) and torch.equal(seen[3], whole[1])


@pytest.mark.parametrize("target", ["weight", "exp_avg_sq"])
def test_a_step_leaves_one_value_behind(target):
    spoil.explode(1, target, math.inf, seed=0)
    seen, state = values_after_steps(2)
    lost = seen[1] if target == "weight" else state["exp_avg_sq"]
    assert seen[0].isfinite().all() and lost.isinf().sum() == 1


def test_a_value_gets_into_its_batch_alone():
    spoil.spoil(spoil.Spoiled("images", "nan", step=1, last=2, seed=2))
    tensors = {name: torch.ones(2, 3, 4, 4) for name in ("x", "u_crop")} | {"y": torch.zeros(2, 4, 4)}
    found = [Crops(tensors, {"u": [(), ()]}).finish(Normalise([0.5] * 3, [0.25] * 3)) for _ in range(4)]
    assert [one.u_w.isnan().sum().item() for one in found] == [0, 48, 48, 0]
    assert all(one.x.isfinite().all() for one in found) and tensors["u_crop"].isfinite().all()


def test_a_run_with_a_scale_has_a_scaler():
    spoil.scale_losses(4.0)
    assert Accelerator(cpu=True).scaler.get_scale() == 4


def test_one_process_is_silenced_in_the_joint_batch():
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    batch = Batch(x=torch.ones(4, 3, 2, 2), y=torch.zeros(4, 2, 2, dtype=torch.int64), u_valid=valid, p_valid=valid)
    quiet = ranks._silenced(batch, ("y", "u_valid"), slice(2, 4))
    assert quiet.y.flatten(1).tolist() == [[0] * 4, [0] * 4, [255] * 4, [255] * 4]
    assert quiet.u_valid.any((1, 2)).tolist() == quiet.p_valid.any((1, 2)).tolist() == [True, True, False, False]
    assert ranks._silenced(batch, ("y",), slice(None)).u_valid.all() and valid.all() and not batch.y.any()
