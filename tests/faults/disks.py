"""Trainings that are told to stop, whose disk fails or whose folder goes away, and two trainings in one folder."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tests.faults import jobs
from tests.faults.children import Moment, fresh, kill, start, start_ranks, wait
from training.checkpoints import CheckpointError, verify_checkpoint
from training.guards import LOCK

PROMPT_S = 20.0
"""From a signal to the end of a run of tiny steps, on a machine that others work on, too."""


def signalled(base: Path, tries: int) -> Iterator[str]:
    """SIGTERM and Ctrl-C, to one process or to one of two."""
    train, whole, duration_s = _reference(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        number = int(random.choice([signal.SIGTERM, signal.SIGINT]))
        children = start_ranks(partial(train.run, parts), parts / "log", 1 + seed % 2)
        time.sleep(random.uniform(0, duration_s))
        kill(children[-1], number)
        began = time.monotonic()
        statuses = wait(children)
        log = (parts / "log").read_text(errors="replace")
        if statuses[-1] == 128 + number and "stopped by" in log:  # in the loop: all of them, soon
            if set(statuses) != {128 + number, 143} and set(statuses) != {128 + number}:
                yield f"seed {seed}: ended with {statuses}"
                continue
            if time.monotonic() - began > PROMPT_S:
                yield f"seed {seed}: took {time.monotonic() - began:.0f} s to stop"
                continue
        elif None in statuses or not set(statuses) <= {
            0,
            1,
            128 + number,
            -number,
        }:  # ahead of it or behind it: at once
            yield f"seed {seed}: ended with {statuses}: {_tail(parts)}"
            continue
        yield _go_on(train, whole, parts, seed, 1 + seed % 2)


def full(base: Path, tries: int) -> Iterator[str]:
    """A limit on the size of files, which torch and safetensors meet, and an error at one change of a file."""
    train, whole, _ = _reference(base)
    changes = int((base / "changes").read_text())
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        if seed % 2:
            moment = Moment(file_bytes=int(2 ** random.uniform(11, 20.5)))
        else:
            error = int(random.choice([errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT]))
            moment = Moment("fail", change=int(random.integers(changes)), folder="parts/run", error=error)
        yield _refused(
            train, whole, parts, seed, wait([start(partial(train.run, parts), parts / "log", moment=moment)])
        )


def gone(base: Path, tries: int) -> Iterator[str]:
    """The output folder is moved away while the run goes on."""
    train, whole, duration_s = _reference(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        child = start(partial(train.run, parts), parts / "log")
        while not (parts / "run" / LOCK).is_file():
            time.sleep(0.001)
        time.sleep(random.uniform(0, duration_s * 0.8))
        (parts / "run").rename(parts / "away")
        yield _refused(train, whole, parts, seed, wait([child]))


def second(base: Path, tries: int) -> Iterator[str]:
    """A run enters the folder of another one that goes on."""
    train, whole, duration_s = _reference(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        first = start(partial(train.run, parts), parts / "log")
        while not (parts / "run" / LOCK).is_file() or not (parts / "run" / LOCK).read_text():
            time.sleep(0.001)
        time.sleep(random.uniform(0, duration_s / 4))
        intruder = start(partial(train.run, parts), parts / "second.log")
        statuses = wait([first, intruder])
        said = (parts / "second.log").read_text(errors="replace")
        if statuses != [0, 2] or "is in use by a run that goes on (process" not in said:
            yield f"seed {seed}: ended with {statuses}: {said[-300:]}"
        else:
            yield ", ".join(jobs.training_differences(whole, parts))


def _reference(base: Path) -> tuple[jobs.Training, Path, float]:
    """The training that nothing happens to, and how long it takes."""
    train, whole, began = jobs.Training(base), fresh(base / "whole"), time.monotonic()
    moment = Moment(folder="whole/run")
    statuses = wait([start(partial(train.run, whole), whole / "log", moment=moment, changes=base / "changes")])
    if statuses != [0]:
        raise SystemExit(f"the uninterrupted run ended with {statuses}:\n{(whole / 'log').read_text()}")
    return train, whole, time.monotonic() - began


def _refused(train: jobs.Training, whole: Path, parts: Path, seed: int, statuses: list[int | None]) -> str:
    """One sentence, status 2, and every checkpoint whole; or nothing noticed, and the same results."""
    log = (parts / "log").read_text(errors="replace")
    if statuses == [0]:
        return "" if (parts / "away").exists() else ", ".join(jobs.training_differences(whole, parts))
    if statuses != [2] or "Traceback" in log or log.count("train_semi.py: error: ") != 1:
        return f"seed {seed}: ended with {statuses}: {_tail(parts)}"
    for path in (parts / "run" / "checkpoints").glob("step-*"):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            return f"seed {seed}: {error}"
    if (parts / "away").exists():
        shutil.rmtree(parts / "run", ignore_errors=True)
        os.rename(parts / "away", parts / "run")
    return _go_on(train, whole, parts, seed)


def _go_on(train: jobs.Training, whole: Path, parts: Path, seed: int, processes: int = 1) -> str:
    statuses = wait(start_ranks(partial(train.run, parts), parts / "log", processes))
    if statuses != [0] * processes:
        return f"seed {seed}: going on ended with {statuses}: {_tail(parts)}"
    if processes > 1:  # other batches than those of one process
        return ""
    differences = jobs.training_differences(whole, parts)
    return f"seed {seed}: {', '.join(differences)}" if differences else ""


def _tail(folder: Path) -> str:
    return " | ".join((folder / "log").read_text(errors="replace").strip().splitlines()[-3:])
