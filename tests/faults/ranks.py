"""Two processes of one training: all pixels of one are ignored, or one of them ends or falls silent in a step."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor
from torch.optim import AdamW

from co2s_hf.data.label_map import IGNORE
from co2s_hf.raster.write import write_image, write_mask
from tests.faults import jobs, spoil
from tests.faults.children import fresh, kill, start, start_ranks, wait
from tests.training.tiny_runs import build_tiny_model, load_batches
from training.batches import Batch, EvaluationDataset, SemiDataset
from training.guards import StepGuard
from training.methods.co2s import Co2S
from training.methods.fixmatch import FixMatch
from training.optim import build_optimizer, parameter_groups
from training.parts.schedules import Progress

METHODS: dict[str, Callable[..., Any]] = {
    "co2s": partial(Co2S, threshold=0.2, feature_dropout=0.0),
    "fixmatch": partial(FixMatch, threshold=0.2),
}
STEPS = 3
APART = 1e-6
"""Largest difference of a weight from that of the joint batch, in float64 and after steps of about 1e-3."""
PROMPT_S = 40.0
"""From the end of one process to that of the other one, on a machine that others work on, too."""
SILENCE_MINUTES = 0.2
"""--timeout_minutes where one process falls silent."""


# ---------------------------------------------------------------------------------------------------------------------
# Ignored pixels
# ---------------------------------------------------------------------------------------------------------------------


def ignored(base: Path, tries: int) -> Iterator[str]:
    """In some steps a process has no label, no unlabelled pixel, or neither: weights equal the joint batch."""
    data = _draw_images(base / "data")
    for seed in range(tries):
        random, here = np.random.default_rng(seed), fresh(base / "here")
        method = sorted(METHODS)[seed % 2]
        parts = [("y",), ("u_valid",), ("y", "u_valid")]
        silent = {  # by step and rank
            (step, rank): parts[random.integers(3)] for step in range(STEPS) for rank in (0, 1) if random.random() < 0.5
        }
        joint = wait([start(partial(_learn, data, here / "joint.pt", method, silent), here / "log")])
        both = wait(start_ranks(partial(_learn, data, here / "rank{}.pt", method, silent), here / "log", 2))
        shown = f"seed {seed}, {method}, {silent}"
        if joint + both != [0, 0, 0]:
            yield f"{shown}: ended with {joint + both}: {(here / 'log').read_text()[-300:]}"
            continue
        first, second, whole = (torch.load(here / f"{name}.pt") for name in ("rank0", "rank1", "joint"))
        apart = max(float((first[name] - whole[name]).abs().max()) for name in whole)
        found = [] if all(torch.equal(first[name], second[name]) for name in first) else ["the processes differ"]
        if not apart < APART:
            found.append(f"the weights are {apart:g} from those of the joint batch")
        yield f"{shown}: {', '.join(found)}" if found else ""


def _draw_images(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        write_image(folder / "images" / f"i{number}.png", random.integers(0, 256, (36, 40, 3), dtype=np.uint8))
        if number < 4:
            write_mask(folder / "labels" / f"i{number}.png", random.integers(0, 3, (36, 40), dtype=np.uint8))
    return folder


def _learn(data: Path, out: Path, method_name: str, silent: dict[tuple[int, int], tuple[str, ...]]) -> None:
    """Some steps of the loop's arithmetic in float64, of one of two processes or of one with the batches of both."""
    os.environ["ACCELERATE_USE_CPU"] = "1"
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    rank, count = accelerator.process_index, accelerator.num_processes
    average = {} if count == 1 else {"average_count": lambda pixels: accelerator.reduce(pixels, "mean")}
    method = METHODS[method_name](build_tiny_model(), **average)
    model = method.model
    optimizer = build_optimizer(parameter_groups(model, lr=1e-3, backbone_factor=1, head_factor=1))
    method.model, optimizer = accelerator.prepare(model, optimizer)
    guard = StepGuard(accelerator, model, optimizer.optimizer, limit=STEPS)
    batches = load_batches(data, batch_size=4 // count, rank=rank, world_size=count, steps=STEPS)
    for step, batch in enumerate(batches):
        for (when, whose), names in silent.items():
            if when == step and (count == 1 or whose == rank):
                batch = _silenced(batch, names, slice(2 * whose, 2 * whose + 2) if count == 1 else slice(None))
        progress = Progress(step, STEPS)
        accelerator.backward(guard.marked(method.step(batch, progress)["loss"]))
        guard.judge()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(progress)
    if guard.read(STEPS, None):
        raise SystemExit("a step was left out")
    torch.save(model.state_dict(), str(out).format(rank))
    accelerator.end_training()


def _silenced(batch: Batch, names: tuple[str, ...], rows: slice) -> Batch:
    def without(values: Tensor, value: int) -> Tensor:
        values = values.clone()
        values[rows] = value
        return values

    if "y" in names:
        batch = replace(batch, y=without(batch.y, IGNORE))
    if "u_valid" in names:
        batch = replace(batch, u_valid=without(batch.u_valid, 0), p_valid=without(batch.p_valid, 0))
    return batch


# ---------------------------------------------------------------------------------------------------------------------
# The end of one
# ---------------------------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[Any, str]] = {
    "a batch": (SemiDataset, "__getitems__"),
    "the forward": (Co2S, "forward"),
    "the loss": (Co2S, "stability"),
    "the backward": (Co2S, "step"),
    "the optimizer": (AdamW, "step"),
    "an evaluation": (EvaluationDataset, "__getitem__"),
    "a checkpoint": (Accelerator, "save_state"),
}
"""Where one process meets its end: at a call of a function."""

SAVE_EVERY = 4
CALLS = {"an evaluation": 1, "a checkpoint": -(-jobs.STEPS // SAVE_EVERY)}
"""How many there are; of the others one for each step."""


def ended(base: Path, tries: int) -> Iterator[str]:
    """One process is killed, raises or stands still: the other one ends in time, says why, and the run goes on."""
    train, whole = jobs.Training(base), fresh(base / "whole")
    statuses = wait(start_ranks(partial(_train, train, whole), whole / "log", 2))
    if statuses != [0, 0]:
        raise SystemExit(f"the run that nothing happens to ended with {statuses}: {(whole / 'log').read_text()}")
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        place, victim = sorted(PLACES)[seed % len(PLACES)], int(random.integers(2))
        how = "silence" if seed % 5 == 4 else str(random.choice(["death", "error"]))
        call = int(random.integers(CALLS.get(place, jobs.STEPS)))
        strike = partial(_strike_at, place, call, how, victim, parts / "struck")
        children = start_ranks(partial(_train, train, parts, strike), parts / "log", 2)
        (status,) = wait([children[1 - victim]], 120)
        took_s = time.time() - float((parts / "struck").read_text()) if (parts / "struck").exists() else 0.0
        kill(children[victim], signal.SIGKILL if how == "silence" else 0)
        (own,) = wait([children[victim]], 60)
        shown = f"seed {seed}, {how} of process {victim} in {place} {call}"
        yield _judge(train, whole, parts, shown, (status, own), how, took_s)


def _judge(
    train: jobs.Training, whole: Path, parts: Path, shown: str, statuses: tuple[Any, Any], how: str, took_s: float
) -> str:
    log = (parts / "log").read_text(errors="replace")
    if not (parts / "struck").exists():
        return f"{shown}: never happened; ended with {statuses}: {log[-300:]}"
    if statuses != (1, 1 if how == "error" else -signal.SIGKILL):
        return f"{shown}: ended with {statuses}: {log[-300:]}"
    if "another process of this run is gone or does not answer (" not in log:
        return f"{shown}: no reason was given: {log[-300:]}"
    if took_s > PROMPT_S + (60 * SILENCE_MINUTES if how == "silence" else 0):
        return f"{shown}: the other one went on for {took_s:.0f} s"
    again = wait(start_ranks(partial(_train, train, parts), parts / "log", 2))
    if again != [0, 0]:
        return f"{shown}: going on ended with {again}: {(parts / 'log').read_text()[-300:]}"
    differences = jobs.training_differences(whole, parts)
    return f"{shown}: {', '.join(differences)}" if differences else ""


def _train(train: jobs.Training, folder: Path, strike: Callable[[], None] | None = None) -> None:
    spoil.lean()
    if strike is not None:
        strike()
    train.run(folder, eval_every=jobs.STEPS, save_every=SAVE_EVERY, timeout_minutes=SILENCE_MINUTES)


def _strike_at(place: str, call: int, how: str, victim: int, note: Path) -> None:
    if int(os.environ["RANK"]) != victim:
        return
    owner, name = PLACES[place]
    original, calls = getattr(owner, name), [0]

    def act(*_: Any) -> None:
        note.write_text(str(time.time()))
        if how == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "silence":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            raise KeyError("a mistake in one process")

    def striking(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] - 1 != call:
            return original(*arguments, **named)
        if place == "the backward":
            found = original(*arguments, **named)
            found["loss"].register_hook(act)
            return found
        return act()

    setattr(owner, name, striking)
