"""Kill, starve and damage the work of this project, and count what is lost: python tests/faults/run.py [--quick].

Every try has a fixed seed. Interrupted work goes on and must end in the same bytes as work that nobody interrupted; a
disk that fails must end a run with one sentence, status 2 and every earlier checkpoint whole; a damaged file must be
refused by name, or do no harm; an input, generated, hostile or one of many at once, ends in a result or a named error.
The table says what was tried; the exit status is 1 if anything was lost.
"""

import argparse
import importlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # threads do not survive a fork
os.environ.setdefault("HF_HUB_OFFLINE", "0")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402

from tests.faults import damage, disks, jobs, long, numerics  # noqa: E402
from tests.faults.children import Moment, fresh, kill, start, start_ranks, wait  # noqa: E402

FULL = {
    "training": 20,
    "training, two processes": 20,
    "training, in a checkpoint": 20,
    "training, in an evaluation": 20,
    "training, in a push": 20,
    "scene prediction": 30,
    "purification": 20,
    "preparation": 20,
    "training, signals": 40,
    "full disk": 300,
    "folder gone": 10,
    "second run": 5,
    "flipped bits": 2000,
    "truncated files": 2000,
    "swapped files": 2000,
    **dict.fromkeys(numerics.ROWS, 12),
    "fuzz": 10_000,
    "hostile": 1,
    "crowd": 1000,
    "long work": 5000,
}
"""Tries of each kind of fault, at most: there are two full disks for each change of a file, and some; each hostile file
is tried once; of the long work these are the steps of a training."""

INPUTS = ("fuzz", "hostile", "crowd")
INPUTS_S = 4 * 3600.0
"""The kinds that give inputs and interrupt nothing, and what all of one may take."""

QUICK = {
    **dict.fromkeys(FULL, 1),
    **dict.fromkeys(("flipped bits", "truncated files", "swapped files"), 50),
    "full disk": 4,
    "fuzz": 300,
    "crowd": 40,
}
del QUICK["long work"]  # what it holds shows after minutes

Outcome = str
"""Empty where nothing was lost, else what."""


def interrupted(name: str, base: Path, tries: int) -> Iterator[Outcome]:
    """Kill work at random moments, go on, and compare."""
    job, whole = JOBS[name](base), fresh(base / "whole")
    changes = base / "changes"
    began = time.monotonic()
    moment = Moment(folder=job.folder)
    statuses = wait(launch(job, whole, moment=moment, changes=changes if job.processes == 1 else None))
    if statuses != [0] * job.processes:
        raise SystemExit(f"{name}: the uninterrupted run ended with {statuses}:\n{(whole / 'log').read_text()}")
    duration_s = time.monotonic() - began
    total = int(changes.read_text()) if changes.is_file() else 1
    for seed in range(tries):
        yield one_interruption(job, whole, fresh(base / "parts"), seed, duration_s, max(total, 1))


def one_interruption(job: jobs.Job, whole: Path, parts: Path, seed: int, duration_s: float, total: int) -> Outcome:
    """One to three kills, and the same command again until it ends by itself."""
    random = np.random.default_rng(seed)
    for _ in range(int(random.integers(1, 4))):
        moment = None if job.moments is None else job.moments(random, total)
        children = launch(job, parts, moment=moment)
        if moment is None:
            time.sleep(random.uniform(0, duration_s))
            victims = children if random.random() < 0.5 else children[-1:]  # one of several, or all of them
            for child in victims:
                kill(child)
        statuses = wait(children)
        torn = job.torn(whole, parts)
        if torn:
            return f"seed {seed}: taken for finished after a kill: {', '.join(torn)}"
        if None in statuses:
            return f"seed {seed}: a process hung after another one was killed"
        if not set(statuses) <= {0, 1, -signal.SIGKILL}:
            return f"seed {seed}: ended with {statuses}: {tail(parts)}"
        if statuses == [0] * job.processes:
            break
    statuses = wait(launch(job, parts))
    if statuses != [0] * job.processes:
        return f"seed {seed}: going on ended with {statuses}: {tail(parts)}"
    differences = job.differences(whole, parts)
    return f"seed {seed}: {', '.join(differences)}" if differences else ""


def launch(job: jobs.Job, folder: Path, **options: object) -> list[int]:
    """Start the processes of a run in a folder."""
    work = partial(job.run, folder)
    if job.processes == 1:
        return [start(work, folder / "log", **options)]
    options.pop("changes", None)
    return start_ranks(work, folder / "log", job.processes, **options)


def tail(folder: Path, count: int = 3) -> str:
    """The last lines that a child printed."""
    return " | ".join((folder / "log").read_text(errors="replace").strip().splitlines()[-count:])


def training(base: Path, **options: object) -> jobs.Job:
    """The job of a training."""
    return jobs.Job(jobs.Training(base).run, jobs.training_differences, torn=jobs.training_torn, **options)


def pushed_training(base: Path) -> jobs.Job:
    """The job of a training that pushes to a double of the Hub, a process of its own."""
    read, write = os.pipe()
    server = start(partial(jobs.serve_hub, base / "hub", write), base / "hub.log")
    SERVERS.append(server)
    url = os.read(read, 200).decode()
    train = jobs.Training(base)

    def run(folder: Path) -> None:
        jobs.meet_double(url)
        train.run(folder, "--push_to_hub", f"me/{folder.name}")

    def differences(whole: Path, parts: Path) -> list[str]:
        return jobs.training_differences(whole, parts) + jobs.hub_differences(url, f"me/{parts.name}", parts)

    return jobs.Job(run, differences, moments=jobs.in_push, torn=jobs.training_torn)


def mapping(base: Path) -> jobs.Job:
    """The job of a map of a scene."""
    return jobs.Job(jobs.Mapping(base).run, jobs.tree_differences, moments=jobs.in_map, torn=jobs.map_torn)


SERVERS: list[int] = []
JOBS: dict[str, Callable[[Path], jobs.Job]] = {
    "training": training,
    "training, two processes": partial(training, processes=2),
    "training, in a checkpoint": partial(training, moments=jobs.in_checkpoint, folder="/checkpoints"),
    "training, in an evaluation": partial(training, moments=jobs.in_evaluation),
    "training, in a push": pushed_training,
    "scene prediction": mapping,
    "purification": lambda base: jobs.Job(jobs.Purification(base).run, jobs.tree_differences),
    "preparation": lambda base: jobs.Job(jobs.Preparation(base).run, jobs.tree_differences),
}
OTHERS: dict[str, Callable[[Path, int], Iterator[Outcome]]] = {
    "training, signals": disks.signalled,
    "full disk": disks.full,
    "folder gone": disks.gone,
    "second run": disks.second,
    "flipped bits": partial(damage.damaged, "flip"),
    "truncated files": partial(damage.damaged, "truncate"),
    "swapped files": partial(damage.damaged, "swap"),
    **numerics.ROWS,
    "long work": long.held,
}


@dataclass
class Line:
    """A line of the table."""

    fault: str
    tries: int = 0
    survived: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Tries after which something was lost."""
        return self.tries - self.survived


def count(name: str, tries: int, lines: list[Line]) -> None:
    """Try a kind of fault, and append what survived, as far as it gets."""
    base, began, first = Path(tempfile.mkdtemp(prefix="faults-")), time.monotonic(), len(lines)
    try:
        if name in INPUTS:
            _count_inputs(name, base, tries, lines)
        else:
            lines.append(Line(name))
            _count_outcomes((OTHERS.get(name) or partial(interrupted, name))(base, tries), lines[-1])
    except (Exception, SystemExit) as error:  # of the kind itself: the others are tried all the same
        lines.append(Line(f"{name}: ended", tries=1))
        print(f"LOST  {name}: {type(error).__name__}: {error}", flush=True)
    finally:
        while SERVERS:
            server = SERVERS.pop()
            kill(server)
            os.waitpid(server, 0)
        shutil.rmtree(base, ignore_errors=True)
        seconds = time.monotonic() - began
        print(f"{name}: {sum(line.tries for line in lines[first:])} tries in {seconds:.0f} s", flush=True)
        if len(lines) > first:
            lines[first].seconds = seconds


def _count_outcomes(outcomes: Iterator[Outcome], line: Line) -> None:
    for outcome in outcomes:
        line.tries += 1
        line.survived += not outcome
        if outcome:
            print(f"LOST  {line.fault}: {outcome}", flush=True)


def _count_inputs(name: str, base: Path, tries: int, lines: list[Line]) -> None:
    """A process of its own gives the inputs: they change what a process is like, and may end it."""
    kept = base / "rows"

    def give() -> None:
        kept.write_bytes(pickle.dumps(importlib.import_module(f"tests.faults.{name}").run(tries=tries)))

    statuses = wait([start(give, base / "log")], timeout_s=INPUTS_S)
    if statuses != [0]:
        lines.append(Line(name, tries=1))
        print(f"LOST  {name}: ended with {statuses}: {tail(base)}", flush=True)
        return
    for row in pickle.loads(kept.read_bytes()):
        lines.append(Line(f"{name}: {row.fault}", row.tries, row.survived))
        for what, times in row.escaped.items():
            print(f"LOST  {name}: {row.fault}: {times} x {what}: {row.examples.get(what)}", flush=True)


def main() -> int:
    """Run the kinds that are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sample of a few minutes")
    parser.add_argument("--only", nargs="+", choices=sorted(FULL), help="kinds of faults")
    parser.add_argument("--tries", type=int, help="of each kind; default: as many as promised")
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else FULL
    lines: list[Line] = []
    try:
        for name in arguments.only or counts:
            if name == "crowd" and find_spec("gradio") is None and not arguments.only:
                print("crowd: not tried, it needs: pip install -e '.[space]'", flush=True)
                continue
            count(name, arguments.tries or counts.get(name, FULL[name]), lines)
    except KeyboardInterrupt:
        print("interrupted: the rest was not tried")
    lines.append(Line("all", sum(line.tries for line in lines), sum(line.survived for line in lines)))
    lines[-1].seconds = sum(line.seconds for line in lines)
    print(f"\n{'fault class':<44}{'tries':>8}{'survived':>10}{'lost data':>11}{'seconds':>9}")
    for line in lines:
        seconds = f"{line.seconds:.0f}" if line.seconds else ""
        print(f"{line.fault:<44}{line.tries:>8}{line.survived:>10}{line.lost:>11}{seconds:>9}")
    return int(any(line.lost or not line.tries for line in lines))


if __name__ == "__main__":
    sys.exit(main())
