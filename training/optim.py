"""What trains, how fast, and the optimizer and schedule that do it."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.parts.schedules import polynomial_factor

TrainablePart = Literal["attention", "all", "none"]

# Group name -> prefix of its parameters. Heads and queries start from scratch, the backbones are pretrained.
GROUPS = {
    "clip_backbone": "clip.backbone.",
    "clip_head": "clip.head.",
    "dinov3_backbone": "dinov3.backbone.",
    "dinov3_head": "dinov3.head.",
    "dinov3_queries": "dinov3.queries",
}

# The attention projections as transformers names them: CLIP `self_attn.q_proj`, DINOv3 `attention.q_proj`.
ATTENTION = (".self_attn.", ".attention.")


def select_trainable(model: nn.Module, part: TrainablePart) -> None:
    """Choose which part of the two backbones trains; heads and queries always do.

    Only ever freezes: what the model froze when it was built can never receive a gradient, and a trainable parameter
    without one stops DistributedDataParallel. So call it once, on a model as it was built or loaded.

    Args:
        model: the two-student model, wrapped by accelerate or not; `requires_grad` is changed in place.
        part: "attention" (query, key, value and output projections with their biases, as in the paper), "all", "none".

    Raises:
        ValueError: the part is unknown, or "attention" finds no such parameter in a backbone.
    """
    if part not in get_args(TrainablePart):
        raise ValueError(f"part must be one of {', '.join(get_args(TrainablePart))}; got '{part}'")
    for group in ("clip_backbone", "dinov3_backbone"):
        parameters = [(n, p) for n, p in _named_parameters(model) if n.startswith(GROUPS[group])]
        chosen = {n for n, _ in parameters if part == "all" or part == "attention" and _is_attention(n)}
        if part == "attention" and not chosen:
            raise ValueError(
                f"no attention parameter below '{GROUPS[group]}': expected names with one of {', '.join(ATTENTION)}, "
                f"found {', '.join(n for n, _ in parameters[:3]) or 'no parameter at all'}; train 'all' or 'none'"
            )
        for name, parameter in parameters:
            parameter.requires_grad_(parameter.requires_grad and name in chosen)


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    backbone_factor: float = 0.01,
    head_factor: float = 10.0,
    weight_decay: float = 0.01,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into named groups with their learning rates.

    Every parameter decays, norms and biases included: the official exemptions never apply, because the rules for
    backbone and head match first.

    Args:
        model: the two-student model, wrapped by accelerate or not.
        lr: base learning rate, that of the queries.
        backbone_factor: learning rate of both backbones, in units of `lr`.
        head_factor: learning rate of both heads, in units of `lr`.
        weight_decay: AdamW's decoupled decay of every group.

    Returns:
        Groups for a torch optimizer in the order of `GROUPS`, each with "name", "params", "lr" and "weight_decay";
        groups without a trainable parameter are left out.

    Raises:
        ValueError: a trainable parameter belongs to no group, or nothing trains.
    """
    factors = {"backbone": backbone_factor, "head": head_factor, "queries": 1.0}
    members: dict[str, list[nn.Parameter]] = {group: [] for group in GROUPS}
    for name, parameter in _named_parameters(model):
        if parameter.requires_grad:
            members[_group_of(name)].append(parameter)
    groups = [
        {"name": name, "params": params, "lr": lr * factors[name.split("_")[1]], "weight_decay": weight_decay}
        for name, params in members.items()
        if params
    ]
    if not groups:
        raise ValueError("the model has no trainable parameter: expected at least its heads to require gradients")
    return groups


def build_optimizer(groups: list[dict[str, Any]]) -> AdamW:
    """Build AdamW over named groups; betas and epsilon are the same in every paper and so no options."""
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)


def build_scheduler(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, released: bool = False) -> LambdaLR:
    """Build the polynomial decay of every group; step it once after each optimizer step.

    Do not hand it to `accelerator.prepare`, which would step it once per process.

    Args:
        optimizer: its current learning rates are the initial ones.
        total_steps: optimizer steps of the whole training, whatever the number of processes and of accumulations.
        warmup_steps: optimizer steps of linear warm-up.
        released: reproduce the off-by-one of the released Co2S code, see `polynomial_factor`.
    """
    return LambdaLR(
        optimizer,
        lambda step: polynomial_factor(step, total_steps, warmup_steps=warmup_steps, released=released),
    )


def _named_parameters(model: nn.Module) -> Sequence[tuple[str, nn.Parameter]]:
    return list(extract_model_from_parallel(model, keep_torch_compile=False).named_parameters())


def _is_attention(name: str) -> bool:
    return any(marker in name for marker in ATTENTION)


def _group_of(name: str) -> str:
    for group, prefix in GROUPS.items():
        if name.startswith(prefix):
            return group
    raise ValueError(
        f"trainable parameter '{name}' belongs to no group: expected a name that starts with one of "
        f"{', '.join(GROUPS.values())}; freeze it or give it a group in training/optim.py"
    )
