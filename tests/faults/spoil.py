"""Values that are no numbers, put into one step of a training, and the same training without that step.

All of it changes classes of the training script in place: for forked children.
"""

import hashlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW

from training import train_semi
from training.batches import Batch, Crops, Normalise
from training.guards import StepGuard
from training.methods.co2s import Co2S

VALUES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
TERMS = ("x", "s1", "s2", "fp", "stability")
TOUCHED = 3
"""Exit status of a run whose spoiled step has changed the model."""


@dataclass(frozen=True)
class Spoiled:
    """One value in one step.

    Attributes:
        place: "loss"; a term of it; one of the "images"; one number of the "logits" or of a "gradient".
        value: of `VALUES`, or "large": finite, but with a square that is not.
        step: first one, from 0; `last`, the last one.
        micro: batch of the step that has it, of several that are accumulated.
        seed: of the student, the view, the pixel or the parameter.
    """

    place: str
    value: str
    step: int
    last: int
    micro: int = 0
    seed: int = 0


def lean() -> None:
    """Leave out pictures: nothing here looks at them."""
    train_semi.draw_examples = train_semi.draw_curves = lambda *arguments, **options: None
    train_semi.complete_cards = lambda *arguments: None


def spoil(fault: Spoiled) -> None:
    """Put the value into its place."""
    clock = _Clock(fault)
    random = np.random.default_rng(fault.seed)
    value = 1e25 if fault.value == "large" else VALUES[fault.value]
    student = ("clip", "dinov3")[fault.seed % 2]
    if fault.place == "gradient":
        _before(StepGuard, "judge", lambda guard: clock.now() and _spoil_gradient(guard.parameters, value, random))
    elif fault.place == "images":
        name = ("x", "u_w", "u_s1", "u_s2")[fault.seed // 2 % 4]
        _after(
            Crops, "finish", lambda batch: replace(batch, **{name: _spoil_image(getattr(batch, name), value)}), clock
        )
    elif fault.place == "logits":
        view = ("x", "u_w", "u_s1")[fault.seed // 2 % 3]
        _after(Co2S, "forward", lambda found: _spoil_logits(*found, student, view, value, random), clock)
    elif fault.place == "stability":
        _after(Co2S, "stability", lambda term: term + value, clock)
    elif fault.place == "loss":
        _after(Co2S, "step", lambda scalars: {**scalars, "loss": scalars["loss"] + value}, clock)
    else:
        _after(Co2S, "terms", lambda terms: {**terms, fault.place: terms[fault.place] + value}, clock)
    _watch_touch(clock)


def leave_out(*steps: int) -> None:
    """Never make some optimizer steps: what a run with spoiled ones must be equal to."""
    calls = [0]
    original = AdamW.step

    def counting(self: AdamW, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        return None if calls[0] - 1 in steps else original(self, *arguments, **named)

    AdamW.step = counting


def explode(step: int, target: str, value: float, seed: int) -> None:
    """The optimizer leaves a value of no number behind its step: in a weight, or in what it remembers of one."""
    calls, original, random = [0], AdamW.step, np.random.default_rng(seed)

    def exploding(self: AdamW, *arguments: Any, **named: Any) -> Any:
        found = original(self, *arguments, **named)
        calls[0] += 1
        if calls[0] - 1 == step:
            parameters = [one for group in self.param_groups for one in group["params"]]
            parameter = parameters[random.integers(len(parameters))]
            tensor = parameter.data if target == "weight" else self.state[parameter][target]
            tensor.view(-1)[random.integers(tensor.numel())] = value
        return found

    AdamW.step = exploding


def scale_losses(first_scale: float) -> None:
    """Give the run a GradScaler, as fp16 does on a GPU; its numbers stay float32, which overflow above 3e38."""
    original = Accelerator.__init__

    def scaling(self: Accelerator, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=first_scale, growth_interval=10**6)

    Accelerator.__init__ = scaling


class _Clock:
    """Knows the step by the batches that were taken, so that it is not one of the things that are spoiled."""

    def __init__(self, fault: Spoiled) -> None:
        self.fault, self.batches, self.per_step = fault, 0, 1
        original, clock = Crops.finish, self

        def counting(self: Crops, normalise: Normalise) -> Batch:
            clock.batches += 1
            return original(self, normalise)

        Crops.finish = counting

    def step(self) -> int:
        return (self.batches - 1) // self.per_step

    def now(self) -> bool:
        micro = (self.batches - 1) % self.per_step
        return self.fault.step <= self.step() <= self.fault.last and micro == self.fault.micro


def _after(owner: Any, name: str, change: Callable[[Any], Any], clock: _Clock) -> None:
    original = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        return change(found) if clock.now() else found

    setattr(owner, name, changed)


def _before(owner: Any, name: str, act: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    def acting(self: Any, *arguments: Any) -> Any:
        act(self)
        return original(self, *arguments)

    setattr(owner, name, acting)


def _spoil_image(images: Tensor, value: float) -> Tensor:
    images = images.clone()
    images[0] = value  # all of it: a single pixel may lie where CutMix pastes another image
    return images


def _spoil_pixel(images: Tensor, value: float, random: np.random.Generator) -> Tensor:
    images = images.clone()
    images.view(-1)[random.integers(images.numel())] = value
    return images


def _spoil_logits(
    output: Any,
    logits: dict[str, dict[str, Tensor]],
    student: str,
    view: str,
    value: float,
    random: np.random.Generator,
) -> tuple[Any, dict[str, dict[str, Tensor]]]:
    return output, {**logits, student: {**logits[student], view: _spoil_pixel(logits[student][view], value, random)}}


def _spoil_gradient(parameters: list[torch.nn.Parameter], value: float, random: np.random.Generator) -> None:
    gradient = parameters[random.integers(len(parameters))].grad
    gradient.view(-1)[random.integers(gradient.numel())] = value


def _watch_touch(clock: _Clock) -> None:
    """End the run where a spoiled step changes a bit of the weights or of what the optimizer remembers."""
    before = {}

    def remember(guard: StepGuard) -> None:
        clock.per_step = guard.accelerator.gradient_accumulation_steps
        before[clock.step()] = _digest(guard.model, guard.optimizer)
        clock.guard = guard

    def compare(method: Co2S) -> None:
        step, guard = clock.step(), clock.guard
        spoiled = clock.fault.step <= step <= clock.fault.last
        if spoiled != (_digest(guard.model, guard.optimizer) == before[step]):
            print(f"step {step} {'changed' if spoiled else 'did not change'} the model")
            sys.exit(TOUCHED)

    _before(StepGuard, "judge", remember)
    original = Co2S.after_step

    def compared(self: Co2S, progress: Any) -> None:
        compare(self)
        original(self, progress)

    Co2S.after_step = compared


def _digest(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
        for value in optimizer.state.get(parameter, {}).values():
            if value.any():  # all zeros is what an optimizer starts with
                digest.update(value.numpy().tobytes())
    return digest.hexdigest()
