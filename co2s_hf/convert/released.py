"""What every conversion of released checkpoints does: rename all tensors, read shapes off them, load all or refuse."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

StateDict = Mapping[str, torch.Tensor]
Names = Sequence[tuple[str, str]]  # pattern of a released name -> template of ours

AnyModel = TypeVar("AnyModel", bound=nn.Module)


def without_prefix(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Names as the model has them, without the `module.` of distributed training."""
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def rename(state_dict: StateDict, names: Names) -> dict[str, torch.Tensor]:
    """Each tensor under the name that the first matching pattern gives it.

    A template with a list in braces, as `{q,k,v}`, stands for several tensors: the released one is cut into them.

    Raises:
        ValueError: no pattern matches a tensor.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, value in state_dict.items():
        match, template = next(
            ((m, template) for pattern, template in names if (m := re.fullmatch(pattern, name))), (None, "")
        )
        if match is None:
            raise ValueError(f"tensor {name!r} of shape {tuple(value.shape)} has no place in the model.")
        target = match.expand(template)
        if braces := re.search(r"\{(.*)\}", target):
            parts = braces[1].split(",")
            for part, tensor in zip(parts, value.chunk(len(parts)), strict=True):
                renamed[target.replace(braces[0], part)] = tensor
        else:
            renamed[target] = value
    return renamed


def load_all(model: AnyModel, tensors: StateDict) -> AnyModel:
    """Load renamed tensors into a model, which goes to eval mode; nothing stays random and nothing is left over.

    Raises:
        ValueError: the model has a tensor that is not among them, or one of them has another shape or no place in it.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if missing := sorted(expected.keys() - tensors.keys()):
        raise ValueError(
            f"the checkpoint lacks {len(missing)} tensors of the model, the first is {missing[0]!r}: take the file as "
            "it was released."
        )
    if foreign := sorted(tensors.keys() - expected.keys()):
        raise ValueError(
            f"the checkpoint has {len(foreign)} tensors without a place in the model, the first is {foreign[0]!r}."
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name!r} is {tuple(tensors[name].shape)} in the checkpoint, expected {shape}.")
    model.load_state_dict(tensors)
    return model.eval()


def label_fields(class_names: Sequence[str] | None, num_labels: int) -> dict[str, Any]:
    """Names of the classes as fields of a configuration; without any `LABEL_0`, ...

    Raises:
        ValueError: there are more or fewer names than classes.
    """
    names = list(class_names) if class_names is not None else [f"LABEL_{index}" for index in range(num_labels)]
    if len(names) != num_labels:
        raise ValueError(
            f"class_names has {len(names)} entries but the checkpoint has {num_labels} classes: name each, in the "
            "order of their ids."
        )
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def find_tensor(state_dict: StateDict, name: str) -> torch.Tensor:
    """The tensor of this name; ValueError where there is none."""
    if name not in state_dict:
        raise ValueError(f"the checkpoint has no tensor {name!r}: expected the state dict of a released student.")
    return state_dict[name]


def grid_side(state_dict: StateDict, name: str) -> int:
    """Side in patches of the square grid of position embeddings (1, 1 + side * side, width)."""
    positions = find_tensor(state_dict, name).shape[1] - 1
    side = math.isqrt(positions)
    if side**2 != positions:
        raise ValueError(f"{name} has {positions} patch positions, expected a square grid.")
    return side


def count_up(state_dict: StateDict, pattern: str) -> int:
    """How many numbers from 0 a pattern's first group takes; ValueError where nothing matches."""
    numbers = [int(match[1]) for name in state_dict if (match := re.match(pattern, name))]
    if not numbers:
        raise ValueError(f"the checkpoint has no tensor {pattern.replace(chr(92), '')!r}: take the file as released.")
    return 1 + max(numbers)


def count_heads(width: int, given: int | None, argument: str) -> int:
    """The given number of attention heads, or one for each 64 channels, as all published ViTs of these sizes have.

    Raises:
        ValueError: it does not divide the width, or must be given with the `argument`.
    """
    if given is None and width % 64:
        raise ValueError(
            f"no tensor tells the number of heads and width {width} is no multiple of 64: give `{argument}`."
        )
    heads = width // 64 if given is None else given
    if heads < 1 or width % heads:
        raise ValueError(f"{argument} is {heads}, which does not divide the checkpoint's width {width}.")
    return heads


__all__ = [
    "Names",
    "StateDict",
    "count_heads",
    "count_up",
    "find_tensor",
    "grid_side",
    "label_fields",
    "load_all",
    "rename",
    "without_prefix",
]
