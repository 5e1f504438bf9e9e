import torch

from training.methods import METHODS
from training.methods.co2s import Co2S
from training.methods.unimatch import UniMatch
from training.parts.schedules import Progress

PROGRESS = Progress(50, 100)


def test_is_co2s_without_what_students_teach_each_other(model, batch):
    assert METHODS["unimatch"] is UniMatch
    alone = UniMatch(model, threshold=0.6).step(batch, PROGRESS)
    together = Co2S(model, threshold=0.6).step(batch, PROGRESS)
    without = Co2S(model, threshold=0.6, stability_peak=0.0).step(batch, PROGRESS)
    assert together["loss"] > alone["loss"]
    assert set(together) - set(alone) == {"loss_clip_stability", "loss_dinov3_stability", "stability_weight"}
    for name in alone:
        assert torch.equal(alone[name], without[name])


def test_students_do_not_reach_each_other(model, batch):
    terms = UniMatch(model, threshold=0.6).step(batch, PROGRESS)
    terms["loss"].backward()
    before = model.clip.weight.grad.clone()
    model.zero_grad()
    with torch.no_grad():
        model.dinov3.weight.mul_(3)
    UniMatch(model, threshold=0.6).step(batch, PROGRESS)["loss"].backward()
    assert torch.equal(model.clip.weight.grad, before)


def test_learns_from_labels_alone_at_first(model, batch):
    terms = UniMatch(model, burn_in_steps=2).step(batch, Progress(1, 10))
    assert set(terms) == {"loss", "loss_clip", "loss_dinov3"}
