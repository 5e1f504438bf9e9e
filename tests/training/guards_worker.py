"""Runs of two forked processes for `test_two_guarded.py`, with a fault on one of them."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from functools import partial

import torch
from accelerate.state import AcceleratorState

from co2s_hf.raster.errors import RasterError
from tests.faults.children import start_ranks, wait
from tests.training.tiny_runs import tiny_arguments
from training import train_semi
from training.methods.co2s import Co2S


def ignore_everything(step):
    """The second process has no label and no pixel that counts."""

    def ignoring(self, batch, progress):
        nowhere = torch.zeros_like(batch.u_valid)
        batch = replace(batch, y=torch.full_like(batch.y, 255), u_valid=nowhere, p_valid=nowhere)
        return step(self, batch, progress)

    Co2S.step = ignoring


def lose_numbers(first, last, step):
    """The loss of the second process is nan in some steps."""

    def nan(self, batch, progress):
        scalars = step(self, batch, progress)
        if first <= progress.step <= last:
            scalars["loss"] = scalars["loss"] * torch.nan
        return scalars

    Co2S.step = nan


def miss_an_image(step):
    """The second process cannot read an image of its third step."""

    def missing(self, batch, progress):
        if progress.step == 2:
            raise RasterError("a.png does not exist.")
        return step(self, batch, progress)

    Co2S.step = missing


def send(number, step):
    """The second process gets a signal during its third step."""

    def hit(self, batch, progress):
        if progress.step == 2:
            os.kill(os.getpid(), number)
        return step(self, batch, progress)

    Co2S.step = hit


FAULTS = {
    "ignored": ignore_everything,
    "nan": partial(lose_numbers, 1, 1),
    "nan for good": partial(lose_numbers, 2, 99),
    "image": miss_an_image,
    "signal": partial(send, signal.SIGTERM),
    "death": partial(send, signal.SIGKILL),
}


def run_two(name, folder):
    """Run two processes with a fault; returns their statuses and what they printed."""
    statuses = wait(start_ranks(partial(_run, name, folder), folder / "log", 2), timeout_s=120)
    return statuses, (folder / "log").read_text()


def _run(name, folder):
    os.environ["ACCELERATE_USE_CPU"] = "1"
    AcceleratorState._reset_state(reset_partial_state=True)  # of the parent's own runs
    rank = int(os.environ["RANK"])
    if rank == 1:
        FAULTS[name](Co2S.step)

    def report(accelerator, method, validation, metrics, *rest):
        digest = hashlib.sha256()
        for value in method.model.state_dict().values():
            digest.update(value.numpy().tobytes())
        numbers = {"weights": digest.hexdigest(), "skipped": metrics["skipped_steps"]}
        (folder / f"{rank}.json").write_text(json.dumps(numbers))

    train_semi.write_report = report
    train_semi.class_table = lambda *rest: ""
    train_semi.main(tiny_arguments(folder, save_every=2, eval_every=4, max_skipped_steps=2, timeout_minutes=0.5))
