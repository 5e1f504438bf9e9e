"""The proof that a conversion ends in: where every number of a file went, and what the written model computes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from co2s_hf.convert.released import StateDict

Drops = Sequence[tuple[str, str]]  # pattern of a released name -> why it, or a part of it, is left behind
IMAGE = "pixel_values"


@dataclass(frozen=True)
class FileUse:
    """What became of every tensor of a file.

    Attributes:
        source: the file and which part of it was taken.
        used: released name -> our names, in which all of it is, or all but what `dropped` says.
        dropped: released name -> why it, or a part of it, was left behind.
    """

    source: str
    used: Mapping[str, tuple[str, ...]]
    dropped: Mapping[str, str]

    def to_text(self) -> str:
        """Lines for a terminal."""
        whole = [name for name in self.dropped if name not in self.used]
        lines = [
            self.source,
            f"  {len(self.used) + len(whole)} tensors: {len(self.used)} used, {len(whole)} dropped on purpose",
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        for reason, names in reasons.items():
            for shown in _families(names):
                lines.append(f"  dropped: {shown}: {reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Proof:
    """What was checked about a converted model.

    Attributes:
        files: the fate of every released tensor.
        num_tensors: tensors of our model, all of them filled from the files.
        num_numbers: how many numbers these are.
        reloaded: how many were read again from the written folder, bit by bit the same; 0 before it is written.
        findings: what the weights tell, in sentences.
        agreement: output -> largest absolute difference to the reference; empty without one.
    """

    files: tuple[FileUse, ...]
    num_tensors: int
    num_numbers: int
    findings: tuple[str, ...] = ()
    reloaded: int = 0
    agreement: Mapping[str, float] = field(default_factory=dict)

    def to_text(self) -> str:
        """The whole proof for a terminal."""
        lines = [use.to_text() for use in self.files]
        lines.append(f"Model: all {self.num_tensors} tensors filled from there, {self.num_numbers:,} numbers.")
        if self.reloaded:
            lines.append(f"The folder, loaded again: {self.reloaded} tensors, each bit the same.")
        lines += self.findings
        if self.agreement:
            differences = ", ".join(f"{name} {value:.2g}" for name, value in self.agreement.items())
            lines.append(f"Agreement with the reference, largest absolute difference: {differences}.")
        else:
            lines.append("No reference output was given, so what it computes was not compared.")
        return "\n".join(lines)


def trace(source: str, released: StateDict, convert: Callable[[StateDict], StateDict], drops: Drops) -> FileUse:
    """Find out where a conversion puts every number, by sending numbered tensors through it.

    Args:
        source: what the proof calls the file.
        released: the tensors; only their shapes are looked at.
        convert: from released tensors to ours.
        drops: what may be left behind, and why.

    Raises:
        ValueError: a number was lost without a reason, came twice, or a tensor of ours mixes several.
    """
    names = list(released)
    tags = {name: torch.tensor(float(i)).double().expand(released[name].shape) for i, name in enumerate(names)}
    used: dict[str, list[str]] = {}
    taken: Counter[str] = Counter()
    for ours, tensor in convert(tags).items():
        low, high = (int(value) for value in (tensor.min(), tensor.max()))
        if low != high:
            raise ValueError(f"our tensor {ours!r} mixes {names[low]!r} and {names[high]!r}, which no name table says.")
        used.setdefault(names[low], []).append(ours)
        taken[names[low]] += tensor.numel()
    dropped = {}
    for name in names:
        if taken[name] == released[name].numel():
            continue
        reason = next((why for pattern, why in drops if re.fullmatch(pattern, name)), None)
        if reason is None or taken[name] > released[name].numel():
            raise ValueError(
                f"{source}: {taken[name]} of {released[name].numel()} numbers of {name!r} have a place in the model."
            )
        dropped[name] = reason
    return FileUse(source, {name: tuple(ours) for name, ours in used.items()}, dropped)


def prove(files: Sequence[FileUse], model: nn.Module, findings: Sequence[str] = ()) -> Proof:
    """The proof of a model that these files filled.

    Raises:
        ValueError: a tensor of the model came from none of them.
    """
    tensors = model.state_dict()
    filled = {ours for use in files for names in use.used.values() for ours in names}
    if empty := sorted(set(tensors) ^ filled):
        raise ValueError(f"{len(empty)} tensors of the model and of the files have no partner, such as {empty[0]!r}.")
    return Proof(tuple(files), len(tensors), sum(value.numel() for value in tensors.values()), tuple(findings))


def compare_tensors(model: nn.Module, again: nn.Module) -> int:
    """How many tensors two models have, bit by bit the same; ValueError where one differs."""
    tensors, others = model.state_dict(), again.state_dict()
    different = [n for n in tensors if n not in others or not torch.equal(tensors[n], others[n])]
    if different or len(tensors) != len(others):
        raise ValueError(
            f"the written folder does not give the model back: {different[:1]} differ. Please report this."
        )
    return len(tensors)


@torch.no_grad()
def compare_outputs(model: nn.Module, reference: Path, tolerance: float) -> dict[str, float]:
    """Compare what a model computes with recorded outputs.

    The reference is a safetensors file with `pixel_values` (batch_size, num_channels, height, width), normalised as the
    model takes them, and outputs under the names that the model's own output has: `logits`, `clip_logits` and
    `dinov3_logits`, `image_embeds`, `last_hidden_state`, .... `input_ids` are handed over, too. Several inputs have
    different prefixes: `odd.pixel_values`, `odd.logits`.

    Returns:
        Recorded name -> largest absolute difference, of float32.

    Raises:
        ValueError: the file is no such reference, or an output differs by more than `tolerance`.
    """
    try:
        recorded = load_file(reference)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"the reference {reference} is no readable .safetensors file: {error}") from error
    found: dict[str, float] = {}
    for prefix in [name.removesuffix(IMAGE) for name in recorded if name.endswith(IMAGE)]:
        case = {name.removeprefix(prefix): value for name, value in recorded.items() if name.startswith(prefix)}
        for name, (value, expected) in _computed(model, case, reference).items():
            if value.shape != expected.shape or not value.numel():
                raise ValueError(
                    f"{reference}: {prefix}{name} is {tuple(expected.shape)} but the model gives {tuple(value.shape)}."
                )
            found[prefix + name] = (value - expected).abs().max().item()
    if not found:
        raise ValueError(
            f"the reference {reference} holds {', '.join(sorted(recorded)[:6])}: expected pixel_values and an output "
            "of the model, such as logits."
        )
    worst = max(found, key=lambda name: found[name])
    if not found[worst] <= tolerance:  # NaN is refused, too
        raise ValueError(
            f"{worst} differs from the reference {reference} by {found[worst]:.3g}, more than {tolerance:g}: check the "
            "numbers of heads and the sizes of logits, which no tensor tells, or allow it with --tolerance."
        )
    return found


def _computed(
    model: nn.Module, case: Mapping[str, torch.Tensor], reference: Path
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Output -> (what the model gives, what was recorded), in float32."""
    inputs: dict[str, Any] = {name: case[name] for name in (IMAGE, "input_ids") if name in case}
    try:
        inputs[IMAGE] = inputs[IMAGE].float()  # some are stored in float16
        outputs = model(**inputs)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # of any layer, by what does not fit
        shapes = ", ".join(f"{name} {tuple(value.shape)} of {value.dtype}" for name, value in inputs.items())
        raise ValueError(f"{reference}: the model does not take {shapes} ({error}).") from error
    names = [name for name in case if outputs.get(name) is not None]
    return {name: (outputs[name].float(), case[name].float()) for name in names}


def _families(names: Sequence[str]) -> list[str]:
    """Names in few words: numbers as #, or what they have in common where they are many."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.partition(".")[0], []).append(re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name))
    return [
        f"{len(members)} x {members[0] if len(set(members)) == 1 else commonprefix(members) + '*'}"
        for members in parts.values()
    ]


__all__ = ["FileUse", "Proof", "compare_outputs", "compare_tensors", "prove", "trace"]
