"""The recorded training step of Co2S, taken by our method: what tests/test_parity_co2s.py compares with it."""

import copy
from dataclasses import dataclass
from functools import cache

import torch

from tests.released_co2s import official_names, settings, tensors
from training.batches import Batch
from training.methods.co2s import Co2S
from training.optim import build_optimizer, parameter_groups, select_trainable
from training.parts.losses import stability_loss
from training.parts.pseudo_labels import cutmix
from training.parts.schedules import Progress

STUDENTS = ("clip", "dinov3")


@dataclass(frozen=True)
class Step:
    """What one training step left behind."""

    terms: dict
    outputs: list  # of the model: the CutMix partner's, then the joint one
    gradients: dict
    parameters: dict  # after AdamW


def need_step(golden):
    """Skip where the directory cannot replay the training step."""
    golden.need("train_batch", "img_x")
    for student in STUDENTS:
        golden.need_weights(student, official_names(student))
    return golden.need_settings("train_step_ropefp32", "variants")


@cache
def recorded_batch(dtype):
    recorded = tensors("train_batch")

    def images(name):
        return recorded[name].to(dtype)

    return Batch(
        x=images("img_x"),
        y=recorded["mask_x"].long(),
        u_w=images("img_w"),
        u_s1=images("img_s1"),
        u_s2=images("img_s2"),
        u_valid=recorded["ignore_mask"] != 255,
        box1=recorded["mix1"].bool(),
        box2=recorded["mix2"].bool(),
        p_w=images("img_w_other"),
        p_s1=images("img_s1_other"),
        p_s2=images("img_s2_other"),
        p_valid=recorded["ignore_mask_other"] != 255,
    )


def co2s(network, variant="released", mode="pixelwise"):
    recorded = settings("train_step")
    method = Co2S(
        network,
        threshold=recorded["conf_thresh"],
        confidence_mode=mode,
        feature_dropout=recorded["fp_rate"],
        official=variant == "released",
    )
    if variant == "paper":  # recorded with a gradient, but with padding in the masks, which ours leaves out
        method.stability = lambda student, teacher, learns, batch: stability_loss(student.u_w, teacher.u_w, learns)
    return method


def progress():
    return Progress(settings("train_step")["iters"], settings("train_step")["total_iters"])


def optimizer_groups(network):
    select_trainable(network, "attention")
    recorded = settings("train_step")["optimizer"]
    factors = recorded["paramwise_cfg"]["custom_keys"]
    return parameter_groups(
        network,
        lr=recorded["lr"],
        backbone_factor=factors["backbone"]["lr_mult"],
        head_factor=factors["head"]["lr_mult"],
        weight_decay=recorded["weight_decay"],
    )


def step_taker(model):
    """Take one step of a copy of the model, for a variant and a dtype; each is taken once."""

    @cache
    def take(variant, dtype):
        network, outputs = copy.deepcopy(model).to(dtype).train(), []
        network.register_forward_hook(lambda _, __, output: outputs.append(output))
        optimizer = build_optimizer(optimizer_groups(network))
        terms = co2s(network, variant).step(recorded_batch(dtype), progress())
        terms["loss"].backward()
        gradients = {
            name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
            for name, value in network.named_parameters()
        }
        optimizer.step()
        return Step(
            terms={name: value.item() for name, value in terms.items()},
            outputs=[{name: value.detach() for name, value in output.items()} for output in outputs],
            gradients=gradients,
            parameters={name: value.detach() for name, value in network.named_parameters()},
        )

    return take


def student_rows(step, student):
    """(weak view's logits, partner's logits, strong view 1's, strong view 2's) of the recorded step."""
    partner, joint = step.outputs
    _, weak, strong1, strong2 = joint[f"{student}_logits"].chunk(4)
    return weak, partner[f"{student}_logits"], strong1, strong2


def rounding_slack(step, student, margin=5e-6):
    """By how much losses may differ because a pixel lies within float32 rounding of a decision."""
    batch, threshold = recorded_batch(torch.float32), settings("train_step")["conf_thresh"]
    weak, partner, strong1, strong2 = student_rows(step, student)
    no_box = torch.zeros_like(batch.box1)
    slack = {}
    for name, logits, box in (("s1", strong1, batch.box1), ("s2", strong2, batch.box2), ("fp", weak, no_box)):
        confidence, second = cutmix(weak.softmax(1), partner.softmax(1), box).topk(2, dim=1).values.unbind(1)
        undecided = ((confidence - threshold).abs() < margin) | (confidence - second < margin)
        worst = -logits.log_softmax(1).amin(1)
        slack[name] = (worst * undecided).sum().item() / batch.u_valid.sum().item()
    first, other = (student_rows(step, name)[0].softmax(1).amax(1) for name in STUDENTS)
    undecided = ((first - threshold).abs() < margin) | ((other - threshold).abs() < margin)
    undecided |= (first - other).abs() < margin
    slack["stab"] = 2 * undecided.sum().item() / weak.shape[1] / undecided.numel()
    return slack | {"x": 0.0, "total": sum(slack.values())}
