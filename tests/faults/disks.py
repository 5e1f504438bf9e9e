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
from training.checkpoints import latest_checkpoint
from training.guards import LOCK

PROMPT_S = 20.0
"""From a signal to the end of a run of tiny steps, on a machine that others work on, too."""


def signalled(base: Path, tries: int) -> Iterator[str]:
    """SIGTERM and Ctrl-C, to one process, or of two processes to both, to the first one or to the second one."""
    train = jobs.Training(base)
    references = {processes: _reference(train, base / f"whole{processes}", processes) for processes in (1, 2)}
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        number = int(random.choice([signal.SIGTERM, signal.SIGINT]))
        processes, hit = ((2, [0, 1]), (1, [0]), (2, [1]), (2, [0]))[seed % 4]
        whole, duration_s = references[processes]
        children = start_ranks(partial(train.run, parts), parts / "log", processes)
        time.sleep(random.uniform(0, duration_s))
        for rank in hit:
            kill(children[rank], number)
        began = time.monotonic()
        statuses = wait(children)
        wrong = _stopped(parts, number, [statuses[rank] for rank in hit], statuses, time.monotonic() - began)
        yield _of(seed, wrong or _go_on(train, whole, parts, processes))


def _stopped(parts: Path, number: int, hit: list[int | None], statuses: list[int | None], took_s: float) -> str:
    """What is wrong with the end of a run that was told to stop."""
    log = (parts / "log").read_text(errors="replace")
    if "stopped by" in log:  # in the loop: all of them, soon, with a checkpoint
        if set(hit) != {128 + number} or not set(statuses) <= {128 + number, 143}:
            return f"ended with {statuses}: {_tail(parts)}"
        if took_s > PROMPT_S:
            return f"took {took_s:.0f} s to stop"
        latest = latest_checkpoint(parts / "run" / "checkpoints")
        if latest is None or f"; {latest}" not in log:
            return f"left no checkpoint but {latest}: {_tail(parts)}"
    elif None in statuses or not set(statuses) <= {0, 1, 128 + number, -number}:  # ahead of it or behind it: at once
        return f"ended with {statuses}: {_tail(parts)}"
    return ", ".join(jobs.training_torn(parts, parts))


def full(base: Path, tries: int) -> Iterator[str]:
    """An error at each change of a file; a disk full from each of them on; and limits on the size of any file.

    Each of them once, in a random order, where there are as many tries: torch and safetensors write behind Python's
    back, between one change and the next one, so that the second kind is for them.
    """
    train = jobs.Training(base)
    whole, _ = _reference(train, base / "whole")
    random = np.random.default_rng(0)
    changes = range(int((base / "whole" / "changes").read_text()))
    moments = [Moment("fail", change=change, folder="/run", error=errno.ENOSPC) for change in changes]
    sizes = [0 if change % 2 else int(2 ** random.uniform(6, 19)) for change in changes]
    moments += [Moment("fill", change=change, folder="/run", file_bytes=sizes[change]) for change in changes]
    moments += [Moment(file_bytes=int(2**exponent)) for exponent in np.linspace(10, 20.5, 24)]  # a recipe has 700 bytes
    for number in random.permutation(len(moments))[:tries]:
        parts = fresh(base / "parts")
        statuses = wait([start(partial(train.run, parts), parts / "log", moment=moments[number])])
        yield _of(moments[number], _refused(train, whole, parts, statuses))


def gone(base: Path, tries: int) -> Iterator[str]:
    """The output folder is moved away while the run goes on."""
    train = jobs.Training(base)
    whole, duration_s = _reference(train, base / "whole")
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        child = start(partial(train.run, parts), parts / "log")
        while not (parts / "run" / LOCK).is_file():
            time.sleep(0.001)
        time.sleep(random.uniform(0, duration_s * 0.8))
        (parts / "run").rename(parts / "away")
        yield _of(seed, _refused(train, whole, parts, wait([child])))


def second(base: Path, tries: int) -> Iterator[str]:
    """A run enters the folder of another one that goes on."""
    train = jobs.Training(base)
    whole, duration_s = _reference(train, base / "whole")
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
            yield _of(seed, f"ended with {statuses}: {said[-300:]}")
        else:
            yield _of(seed, ", ".join(jobs.training_differences(whole, parts)))


def _reference(train: jobs.Training, whole: Path, processes: int = 1) -> tuple[Path, float]:
    """The training that nothing happens to, and how long it takes."""
    fresh(whole)
    began, options = time.monotonic(), {}
    if processes == 1:
        options = dict(moment=Moment(folder="/run"), changes=whole / "changes")
    statuses = wait(start_ranks(partial(train.run, whole), whole / "log", processes, **options))
    if statuses != [0] * processes:
        raise SystemExit(f"the uninterrupted run ended with {statuses}:\n{(whole / 'log').read_text()}")
    return whole, time.monotonic() - began


def _refused(train: jobs.Training, whole: Path, parts: Path, statuses: list[int | None]) -> str:
    """One sentence, status 2, and everything finished whole; or nothing noticed, and the same results."""
    log = (parts / "log").read_text(errors="replace")
    if statuses == [0]:
        return "" if (parts / "away").exists() else ", ".join(jobs.training_differences(whole, parts))
    if statuses != [2] or "Traceback" in log or log.count("train_semi.py: error: ") != 1:
        return f"ended with {statuses}: {_tail(parts)}"
    torn = jobs.training_torn(whole, parts)
    if torn:
        return ", ".join(torn)
    if (parts / "away").exists():
        shutil.rmtree(parts / "run", ignore_errors=True)
        os.rename(parts / "away", parts / "run")
    return _go_on(train, whole, parts)


def _go_on(train: jobs.Training, whole: Path, parts: Path, processes: int = 1) -> str:
    statuses = wait(start_ranks(partial(train.run, parts), parts / "log", processes))
    if statuses != [0] * processes:
        return f"going on ended with {statuses}: {_tail(parts)}"
    return ", ".join(jobs.training_differences(whole, parts))


def _of(seed: object, outcome: str) -> str:
    return f"seed {seed}: {outcome}" if outcome else ""


def _tail(folder: Path) -> str:
    return " | ".join((folder / "log").read_text(errors="replace").strip().splitlines()[-3:])
