"""What trains, how fast, and the optimizer and schedule that do it."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.parts.schedules import polynomial_factor

TrainablePart = Literal["attention", "all", "none"]

# Model -> group name -> prefixes of its parameters. Heads, translators and queries start from scratch, the backbones
# are pretrained.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "co2s": {
        "clip_backbone": ("clip.backbone.",),
        "clip_head": ("clip.head.",),
        "dinov3_backbone": ("dinov3.backbone.",),
        "dinov3_head": ("dinov3.head.",),
        "dinov3_queries": ("dinov3.queries",),
    },
    "dinov2_dpt": {
        "dino_backbone": ("backbone.",),
        "dino_head": ("head.", "translators."),
    },
}

# The attention projections as transformers names them: CLIP `self_attn.q_proj`, DINO `attention.q_proj`.
ATTENTION = (".self_attn.", ".attention.")


def select_trainable(model: nn.Module, part: TrainablePart) -> None:
    """Choose which part of the backbones trains; heads, translators and queries always do.

    Only ever freezes: what the model froze when it was built can never receive a gradient, and a trainable parameter
    without one stops DistributedDataParallel. So call it once, on a model as it was built or loaded.

    Args:
        model: a model of this package, wrapped by accelerate or not; `requires_grad` is changed in place.
        part: "attention" (query, key, value and output projections with their biases, as Co2S does), "all" (as all
            papers on DINOv2 + DPT do), "none".

    Raises:
        ValueError: the part is unknown, or "attention" finds no such parameter in a backbone.
    """
    if part not in get_args(TrainablePart):
        raise ValueError(f"part must be one of {', '.join(get_args(TrainablePart))}; got '{part}'")
    named = _named_parameters(model)
    for prefixes in (prefixes for group, prefixes in _groups_of(named).items() if group.endswith("_backbone")):
        parameters = [(n, p) for n, p in named if n.startswith(prefixes)]
        chosen = {n for n, _ in parameters if part == "all" or part == "attention" and _is_attention(n)}
        if part == "attention" and not chosen:
            raise ValueError(
                f"no attention parameter below '{prefixes[0]}': expected names with one of {', '.join(ATTENTION)}, "
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

    Every parameter decays, norms and biases included: the official exemptions of Co2S never apply, because the rules
    for backbone and head match first.

    Args:
        model: a model of this package, wrapped by accelerate or not.
        lr: base learning rate, that of the queries.
        backbone_factor: learning rate of the backbones, in units of `lr`; Co2S 0.01, the papers on DINOv2 + DPT 1.
        head_factor: learning rate of heads and translators, in units of `lr`; Co2S 10, the others 40.
        weight_decay: AdamW's decoupled decay of every group.

    Returns:
        Groups for a torch optimizer in the order of the model's `GROUPS`, each with "name", "params", "lr" and
        "weight_decay"; groups without a trainable parameter are left out.

    Raises:
        ValueError: a trainable parameter belongs to no group, or nothing trains.
    """
    factors = {"backbone": backbone_factor, "head": head_factor, "queries": 1.0}
    named = _named_parameters(model)
    prefixes = _groups_of(named)
    members: dict[str, list[nn.Parameter]] = {group: [] for group in prefixes}
    for name, parameter in named:
        if parameter.requires_grad:
            members[_group_of(name, prefixes)].append(parameter)
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


def _groups_of(named: Sequence[tuple[str, nn.Parameter]]) -> dict[str, tuple[str, ...]]:
    """The groups of the model that has parameters of these names; those of Co2S where it is no model we know."""
    first_groups = {kind: next(iter(groups.values())) for kind, groups in GROUPS.items()}
    kinds = [kind for kind, prefixes in first_groups.items() if any(name.startswith(prefixes) for name, _ in named)]
    return GROUPS[kinds[0] if kinds else "co2s"]


def _group_of(name: str, groups: dict[str, tuple[str, ...]]) -> str:
    for group, prefixes in groups.items():
        if name.startswith(prefixes):
            return group
    raise ValueError(
        f"trainable parameter '{name}' belongs to no group: expected a name that starts with one of "
        f"{', '.join(prefix for prefixes in groups.values() for prefix in prefixes)}; freeze it or give it a group in "
        "training/optim.py"
    )
