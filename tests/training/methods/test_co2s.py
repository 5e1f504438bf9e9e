from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from training.methods import METHODS
from training.methods.co2s import Co2S
from training.parts.schedules import Progress

from .conftest import TwoConvolutions

PROGRESS = Progress(50, 100)  # after the ramp: the stability weight is 0.5
THRESHOLD = 0.6


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_needs_a_partner():
    assert METHODS["co2s"] is Co2S
    model = TwoConvolutions()
    assert Co2S(model).needs.unlabelled and Co2S(model).needs.partner == "other"
    assert Co2S(model, official=True).needs.partner == "same"
    assert Co2S(model, burn_in_steps=7).needs.from_step == 7


def test_step_runs_and_every_term_is_logged(model, batch):
    terms = Co2S(model, threshold=THRESHOLD).step(batch, PROGRESS)
    students = [
        f"loss_{student}{term}"
        for student in ("clip", "dinov3")
        for term in ("", "_x", "_s1", "_s2", "_fp", "_stability")
    ]
    assert set(terms) == {"loss", *students, "stability_weight", "confident_clip", "confident_dinov3"}
    assert all(value.shape == () and torch.isfinite(value) for value in terms.values())
    assert {name for name, value in terms.items() if value.requires_grad} == {"loss"}
    assert 0 < terms["confident_clip"] < 1 and terms["loss_clip_stability"] > 0
    assert terms["stability_weight"] == 0.5
    assert all(gradient.abs().sum() > 0 for gradient in gradients(model, terms["loss"]))


def test_one_forward_trains_and_one_without_gradient_labels_the_partner(model, batch):
    Co2S(model, feature_dropout=0.25).step(batch, PROGRESS)
    partner, joint = model.calls
    assert partner["images"] is batch.p_w and not partner["gradient"] and not partner["training"]
    assert joint["gradient"] and joint["training"] and joint["rows"] == (1, 3) and joint["dropout"] == 0.25
    x, u_w, u_s1, u_s2 = joint["images"].split([1, 2, 2, 2])
    assert torch.equal(x, batch.x) and torch.equal(u_w, batch.u_w)
    for mixed, own, other, box in (
        (u_s1, batch.u_s1, batch.p_s1, batch.box1),
        (u_s2, batch.u_s2, batch.p_s2, batch.box2),
    ):
        inside = box[:, None].expand_as(own)
        assert torch.equal(mixed[inside], other[inside]) and torch.equal(mixed[~inside], own[~inside])


def test_partners_within_the_batch_are_not_predicted_twice(model, batch):
    pairs = torch.tensor([1, 0])
    views = {f"p_{view}": getattr(batch, f"u_{view}")[pairs] for view in ("w", "s1", "s2", "valid")}
    method = Co2S(model, threshold=THRESHOLD)
    apart = method.step(replace(batch, **views), PROGRESS)
    assert len(model.calls) == 2
    paired = method.step(replace(batch, **views, pairs=pairs), PROGRESS)
    assert len(model.calls) == 3
    assert apart["loss_clip_s1"] > 0 and apart.keys() == paired.keys()
    for name in apart:
        torch.testing.assert_close(apart[name], paired[name])
    for one, two in zip(gradients(model, apart["loss"]), gradients(model, paired["loss"]), strict=True):
        torch.testing.assert_close(one, two)


def test_values_follow_the_paper(model, batch):
    """One student's loss, written out pixel by pixel, without any of the parts."""
    terms = Co2S(model, threshold=THRESHOLD).step(batch, PROGRESS)

    def consistency(prediction, box):
        total, valid = 0.0, 0
        for i, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(6)).tolist():
            source, mask = (batch.p_w, batch.p_valid) if box[i, row, column] else (batch.u_w, batch.u_valid)
            if not mask[i, row, column]:
                continue
            valid += 1
            confidence, label = model.clip(source)[i, :, row, column].softmax(0).max(0)
            if confidence >= THRESHOLD:
                total = total - prediction[i, :, row, column].log_softmax(0)[label].item()
        return total / valid

    with torch.no_grad():
        s1 = model.clip(torch.where(batch.box1[:, None], batch.p_s1, batch.u_s1))
        s2 = model.clip(torch.where(batch.box2[:, None], batch.p_s2, batch.u_s2))
        expected = {
            "x": F.cross_entropy(model.clip(batch.x), batch.y, ignore_index=255).item(),
            "s1": consistency(s1, batch.box1),
            "s2": consistency(s2, batch.box2),
            "fp": consistency(model.clip(batch.u_w * 1.5), torch.zeros_like(batch.box1)),
        }
        clip, dinov3 = model.clip(batch.u_w).softmax(1), model.dinov3(batch.u_w).softmax(1)
        learns = (dinov3.amax(1) >= THRESHOLD) & (clip.amax(1) <= dinov3.amax(1)) & batch.u_valid
        expected["stability"] = (clip - dinov3).square().mean(1)[learns].mean().item()
    assert {name: terms[f"loss_clip_{name}"].item() for name in expected} == pytest.approx(expected, rel=1e-5)
    own = (expected["x"] + expected["s1"] / 4 + expected["s2"] / 4 + expected["fp"] / 2) / 2
    assert terms["loss_clip"].item() == pytest.approx(own + 0.5 * expected["stability"], rel=1e-5)
    torch.testing.assert_close(terms["loss"].detach(), terms["loss_clip"] + terms["loss_dinov3"])


def test_stability_teaches_the_student_and_not_its_teacher(model, batch):
    with_term, without = (
        gradients(model, Co2S(model, threshold=THRESHOLD, stability_peak=peak).step(batch, PROGRESS)["loss"])
        for peak in (0.5, 0.0)
    )
    assert not any(torch.allclose(a, b) for a, b in zip(with_term, without, strict=True))
    # With a constant DINOv3 student CLIP's gradient must stay the same: nothing reached it as a teacher.
    constant = [model.dinov3.weight.requires_grad_(False), model.dinov3.bias.requires_grad_(False)]
    model.zero_grad()
    Co2S(model, threshold=THRESHOLD).step(batch, PROGRESS)["loss"].backward()
    assert all(parameter.grad is None for parameter in constant)
    torch.testing.assert_close([p.grad for p in model.clip.parameters()], with_term[:2])


def test_official_stability_has_no_gradient_but_a_value(model, batch):
    terms, removed = (
        Co2S(model, threshold=THRESHOLD, stability_peak=peak, official=True).step(batch, PROGRESS)
        for peak in (0.5, 0.0)
    )
    assert terms["loss"] > removed["loss"]
    for a, b in zip(gradients(model, terms["loss"]), gradients(model, removed["loss"]), strict=True):
        assert torch.equal(a, b)


def test_official_stability_counts_padding_and_local_pixels(model, batch):
    wild = replace(batch, u_w=torch.where(batch.u_valid[:, None], batch.u_w, 9.0))
    ours, official = (Co2S(model, threshold=THRESHOLD, official=o).step(wild, PROGRESS) for o in (False, True))
    assert ours["loss_clip_stability"] != official["loss_clip_stability"]
    assert ours["loss_clip_s1"] == official["loss_clip_s1"]
    doubled = [
        Co2S(model, threshold=THRESHOLD, official=o, average_count=lambda count: count * 2).step(wild, PROGRESS)
        for o in (False, True)
    ]
    torch.testing.assert_close(doubled[0]["loss"], ours["loss"] / 2)
    torch.testing.assert_close(doubled[1]["loss"], official["loss"])


def test_nothing_labelled_and_nothing_valid_is_zero(model, batch):
    nowhere = torch.zeros_like(batch.u_valid)
    empty = replace(batch, y=torch.full_like(batch.y, 255), u_valid=nowhere, p_valid=nowhere)
    loss = Co2S(model, threshold=THRESHOLD).step(empty, PROGRESS)["loss"]
    assert loss.item() == 0 and all(gradient.abs().sum() == 0 for gradient in gradients(model, loss))


def test_ramp_starts_without_stability(model, batch):
    terms = Co2S(model, threshold=THRESHOLD).step(batch, Progress(0, 100))
    assert terms["stability_weight"] == 0 and terms["loss_clip_stability"] > 0


def test_confidence_mode_reaches_the_loss(model, batch):
    values = {
        Co2S(model, threshold=THRESHOLD, confidence_mode=mode).step(batch, PROGRESS)["loss_clip_fp"].item()
        for mode in ("pixelwise", "pixelratio", "pixelavg")
    }
    assert len(values) == 3
    with pytest.raises(ValueError, match="got 'pixel'"):
        Co2S(model, confidence_mode="pixel").step(batch, PROGRESS)


@pytest.mark.parametrize("mode", ["pixelwise", "pixelratio", "pixelavg"])
def test_pixels_that_are_not_valid_enter_no_term(model, batch, mode):
    """Whatever stands where there is no data, on padding or without a label: every term and gradient is the same."""

    def elsewhere(images, valid):
        return torch.where(valid[:, None], images, 50 - 3 * images)

    changed = replace(
        batch,
        x=elsewhere(batch.x, batch.y != 255),
        **{name: elsewhere(getattr(batch, name), batch.u_valid) for name in ("u_w", "u_s1", "u_s2")},
        **{name: elsewhere(getattr(batch, name), batch.p_valid) for name in ("p_w", "p_s1", "p_s2")},
    )
    method = Co2S(model, threshold=THRESHOLD, confidence_mode=mode)
    one, two = method.step(batch, PROGRESS), method.step(changed, PROGRESS)
    assert one["loss_clip_s1"] > 0 and one["loss_clip_fp"] > 0 and one["loss_dinov3_stability"] > 0
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(gradients(model, two["loss"]), gradients(model, one["loss"]))


def test_evaluates_and_saves_its_current_model_and_has_no_state(model):
    method = Co2S(TwoConvolutions())
    method.model = model
    method.after_step(PROGRESS)
    assert method.saved() is model
    method.load_state_dict(method.state_dict())
    with pytest.raises(ValueError, match=r"no state of its own, but the checkpoint holds \['ema'\]"):
        method.load_state_dict({"ema": 1})


def test_burn_in_learns_from_labels_alone_and_the_ramp_starts_after_it(model, batch):
    method = Co2S(model, burn_in_steps=40)
    labels_only = replace(batch, **{name: None for name in vars(batch) if name not in ("x", "y")})
    burning, plain = method.step(labels_only, Progress(39, 100)), METHODS["supervised"](model).step(batch, PROGRESS)
    assert torch.equal(burning["loss"], plain["loss"])
    assert set(burning) == set(plain)
    assert method.step(batch, Progress(40, 100))["stability_weight"] == 0
    assert method.step(batch, Progress(52, 100))["stability_weight"] == 0.5  # 20 % of the 60 steps that are left


def test_class_thresholds_let_more_pixels_count_and_survive_a_resume(model, batch):
    plain = Co2S(model, threshold=0.9).step(batch, PROGRESS)
    method = Co2S(model, threshold=0.9, class_share=0.8)
    terms = method.step(batch, PROGRESS)
    for student in ("clip", "dinov3"):
        assert plain[f"confident_{student}"] < 0.5 < terms[f"confident_{student}"]
        assert terms[f"loss_{student}_fp"] > plain[f"loss_{student}_fp"]
        assert terms[f"loss_{student}_x"] == plain[f"loss_{student}_x"]
    resumed = Co2S(model, threshold=0.9, class_share=0.8)
    resumed.load_state_dict({name: counts.clone() for name, counts in method.state_dict().items()})
    fresh = Co2S(model, threshold=0.9, class_share=0.8)
    fresh.load_state_dict(fresh.state_dict())
    other = replace(batch, u_w=batch.u_w.flip(1) / 3)
    first, second, third = (one.step(other, PROGRESS)["loss"] for one in (method, resumed, fresh))
    assert torch.equal(first, second) and not torch.equal(first, third)
