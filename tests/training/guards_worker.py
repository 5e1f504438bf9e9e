"""Runs of two processes for `test_guards.py`, each with a fault on one of them; forked, so libraries load once."""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork

import torch  # noqa: E402

from tests.faults.children import start_ranks, wait  # noqa: E402
from tests.training.tiny_runs import tiny_arguments  # noqa: E402
from training import train_semi  # noqa: E402
from training.batches import Batch  # noqa: E402
from training.methods.co2s import Co2S  # noqa: E402


def ignore_everything(step):
    """No pixel of the second process has a label or may get one."""
    to = Batch.to

    def without_labels(batch, device):
        batch = to(batch, device)
        nowhere = torch.zeros_like(batch.u_valid)
        return replace(batch, y=torch.full_like(batch.y, 255), u_valid=nowhere, p_valid=nowhere)

    Batch.to = without_labels


def lose_numbers(first, last, step):
    """The loss of the second process is nan in some steps."""

    def nan(self, batch, progress):
        scalars = step(self, batch, progress)
        if first <= progress.step <= last:
            scalars["loss"] = scalars["loss"] * torch.nan
        return scalars

    Co2S.step = nan


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
    "signal": partial(send, signal.SIGTERM),
    "death": partial(send, signal.SIGKILL),
}


def run(name, folder):
    """One process of a run with a fault."""
    os.environ["ACCELERATE_USE_CPU"] = "1"
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


def main(folder):
    """Run all of them, one after the other, and write what came of each."""
    for name in FAULTS:
        here = folder / name
        here.mkdir()
        began = time.monotonic()
        statuses = wait(start_ranks(partial(run, name, here), here / "log", 2), timeout_s=120)
        seconds = time.monotonic() - began
        (here / "end.json").write_text(json.dumps({"statuses": statuses, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
