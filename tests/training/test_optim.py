import pytest
import torch
from torch import nn

from training.optim import build_optimizer, build_scheduler, parameter_groups, select_trainable


class Backbone(nn.Module):
    """Parameters named like transformers' CLIP or DINOv3, one of them frozen by the model itself."""

    def __init__(self, attention):
        super().__init__()
        self.norm = nn.LayerNorm(2)
        layer = nn.Module()
        layer.add_module(attention, nn.ModuleDict({"q_proj": nn.Linear(2, 2), "v_proj": nn.Linear(2, 2)}))
        layer.mlp = nn.Linear(2, 2)
        self.layer = nn.ModuleList([layer])
        self.get_submodule(f"layer.0.{attention}.q_proj").requires_grad_(False)


class TwoStudents(nn.Module):
    def __init__(self):
        super().__init__()
        self.clip = nn.ModuleDict({"backbone": Backbone("self_attn"), "head": nn.Linear(2, 2)})
        self.dinov3 = nn.ModuleDict({"backbone": Backbone("attention"), "head": nn.Linear(2, 2)})
        self.dinov3.register_parameter("queries", nn.Parameter(torch.zeros(3, 2)))


class OneStudent(nn.Module):
    """Parameters named like those of DINOv2 + DPT with a translator."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone("attention")
        self.translators = nn.ModuleList([nn.Linear(2, 2)])
        self.head = nn.Linear(2, 2)


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


HEADS = {f"{student}.head.{kind}" for student in ("clip", "dinov3") for kind in ("weight", "bias")} | {"dinov3.queries"}
VALUES = {
    f"{prefix}.v_proj.{kind}"
    for prefix in ("clip.backbone.layer.0.self_attn", "dinov3.backbone.layer.0.attention")
    for kind in ("weight", "bias")
}


def test_attention_trains_projections_heads_and_queries():
    model = TwoStudents()
    select_trainable(model, "attention")
    assert trainable(model) == HEADS | VALUES


def test_none_trains_heads_and_queries():
    model = TwoStudents()
    select_trainable(model, "none")
    assert trainable(model) == HEADS


def test_all_keeps_what_the_model_froze_itself():
    model = TwoStudents()
    before = trainable(model)
    select_trainable(model, "all")
    assert trainable(model) == before and not any("q_proj" in name for name in before)


def test_groups_have_their_learning_rates():
    model = TwoStudents()
    select_trainable(model, "attention")
    groups = parameter_groups(model, lr=1e-4)
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx(
        {
            "clip_backbone": 1e-6,
            "clip_head": 1e-3,
            "dinov3_backbone": 1e-6,
            "dinov3_head": 1e-3,
            "dinov3_queries": 1e-4,
        }
    )
    assert {group["weight_decay"] for group in groups} == {0.01}
    assert sum(len(group["params"]) for group in groups) == len(HEADS | VALUES)


def test_one_student_has_two_groups():
    model = OneStudent()
    head = {f"{part}.{kind}" for part in ("head", "translators.0") for kind in ("weight", "bias")}
    value = {f"backbone.layer.0.attention.v_proj.{kind}" for kind in ("weight", "bias")}
    before = trainable(model)
    select_trainable(model, "all")
    assert trainable(model) == before
    groups = parameter_groups(model, lr=5e-6, backbone_factor=1.0, head_factor=40.0)
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx({"dino_backbone": 5e-6, "dino_head": 2e-4})
    assert [len(group["params"]) for group in groups] == [len(before) - 4, 4]
    select_trainable(model, "attention")
    assert trainable(model) == head | value
    select_trainable(model, "none")
    assert trainable(model) == head
    assert [group["name"] for group in parameter_groups(model, lr=5e-6)] == ["dino_head"]


def test_one_student_refuses_foreign_parameters():
    model = OneStudent()
    model.queries = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="'queries' belongs to no group: .* backbone., head., translators.;"):
        parameter_groups(model, lr=5e-6)


def test_a_wrapped_model_gives_the_same_groups():
    model = TwoStudents()
    select_trainable(torch.nn.DataParallel(model), "none")
    bare, wrapped = (parameter_groups(m, lr=1e-4) for m in (model, torch.nn.DataParallel(model)))
    assert trainable(model) == HEADS
    assert [group["name"] for group in bare] == ["clip_head", "dinov3_head", "dinov3_queries"]
    for one, other in zip(bare, wrapped, strict=True):
        assert one["name"] == other["name"] and all(a is b for a, b in zip(one["params"], other["params"], strict=True))


def test_refusals():
    model = TwoStudents()
    with pytest.raises(ValueError, match="attention, all, none; got 'mlp'"):
        select_trainable(model, "mlp")
    with pytest.raises(ValueError, match="no attention parameter below 'clip.backbone.'.*found no parameter at all"):
        select_trainable(nn.Linear(2, 2), "attention")
    with pytest.raises(ValueError, match="trainable parameter 'weight' belongs to no group: .*clip.backbone."):
        parameter_groups(nn.Linear(2, 2), lr=1e-4)
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(model.requires_grad_(False), lr=1e-4)


def test_optimizer_is_the_official_adamw_and_names_survive_saving():
    optimizer = build_optimizer(parameter_groups(TwoStudents(), lr=1e-4))
    assert all(group["betas"] == (0.9, 0.999) and group["eps"] == 1e-8 for group in optimizer.param_groups)
    assert [group["name"] for group in optimizer.state_dict()["param_groups"]][0] == "clip_backbone"


@pytest.mark.parametrize(("released", "factors"), [(False, (1, 0.75, 0.5, 0.25)), (True, (1, 1, 0.75, 0.5))])
def test_scheduler_moves_every_group_and_resumes(released, factors):
    optimizer = build_optimizer(parameter_groups(TwoStudents(), lr=1e-4))
    scheduler = build_scheduler(optimizer, total_steps=4, released=released)
    initial = scheduler.base_lrs
    for factor in factors:
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([lr * factor**0.9 for lr in initial])
        optimizer.step()
        scheduler.step()
    resumed = build_scheduler(build_optimizer(parameter_groups(TwoStudents(), lr=1e-4)), 4, released=released)
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.last_epoch == 4 and resumed.get_last_lr() == scheduler.get_last_lr()
