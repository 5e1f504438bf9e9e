"""Kill, starve and damage the work of this project, and count what is lost: python tests/faults/run.py [--quick].

Every try has a fixed seed. Interrupted work goes on and must end in the same bytes as work that nobody interrupted; a
disk that fails must end a run with one sentence, status 2 and every earlier checkpoint whole; a damaged file must be
refused by name, or do no harm. The table says what was tried; the exit status is 1 if anything was lost.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # threads do not survive a fork
os.environ.setdefault("HF_HUB_OFFLINE", "0")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402

from tests.faults import damage, disks, jobs  # noqa: E402
from tests.faults.children import Moment, fresh, kill, start, start_ranks, wait  # noqa: E402

FULL = {
    "training": 20,
    "training, two processes": 20,
    "training, in a checkpoint": 20,
    "training, in an evaluation": 20,
    "training, in a push": 20,
    "training, signals": 20,
    "purification": 20,
    "preparation": 20,
    "full disk": 40,
    "folder gone": 10,
    "second run": 5,
    "flipped bits": 2000,
    "truncated files": 2000,
    "swapped files": 2000,
}
"""Tries of each kind of fault. Scene prediction joins the interrupted work as a `Job` of its own."""

QUICK = {**dict.fromkeys(FULL, 2), **dict.fromkeys(("flipped bits", "truncated files", "swapped files"), 60)}

Outcome = str
"""Empty where nothing was lost, else what."""


def interrupted(name: str, base: Path, tries: int) -> Iterator[Outcome]:
    """Kill work at random moments, go on, and compare."""
    job, whole = JOBS[name](base), fresh(base / "whole")
    changes = base / "changes"
    began = time.monotonic()
    moment = Moment(folder=job.moments(np.random.default_rng(0), 1).folder or "whole/run") if job.moments else Moment()
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
    return jobs.Job(jobs.Training(base).run, jobs.training_differences, **options)


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

    return jobs.Job(run, differences, moments=jobs.in_push)


SERVERS: list[int] = []
JOBS: dict[str, Callable[[Path], jobs.Job]] = {
    "training": training,
    "training, two processes": partial(training, processes=2),
    "training, in a checkpoint": partial(training, moments=jobs.in_checkpoint),
    "training, in an evaluation": partial(training, moments=jobs.in_evaluation),
    "training, in a push": pushed_training,
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
}


def count(name: str, tries: int, outcomes: Counter[bool]) -> None:
    """Try a kind of fault, and count what survived."""
    base, began = Path(tempfile.mkdtemp(prefix="faults-")), time.monotonic()
    try:
        kind = OTHERS[name] if name in OTHERS else partial(interrupted, name)
        for outcome in kind(base, tries):
            outcomes[not outcome] += 1
            if outcome:
                print(f"LOST  {name}: {outcome}", flush=True)
    finally:
        while SERVERS:
            server = SERVERS.pop()
            kill(server)
            os.waitpid(server, 0)
        shutil.rmtree(base, ignore_errors=True)
        print(f"{name}: {outcomes.total()} tries in {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Run the kinds that are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sample of a few minutes")
    parser.add_argument("--only", nargs="+", choices=sorted(FULL), help="kinds of faults")
    parser.add_argument("--tries", type=int, help="of each kind; default: as many as promised")
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else FULL
    table: list[tuple[str, int, int, int]] = []
    try:
        for name in arguments.only or counts:
            outcomes: Counter[bool] = Counter()
            try:
                count(name, arguments.tries or counts[name], outcomes)
            finally:
                table.append((name, outcomes.total(), outcomes[True], outcomes[False]))
    except KeyboardInterrupt:
        print("interrupted: the rest was not tried")
    print(f"\n{'fault class':<28}{'tries':>8}{'survived':>10}{'lost data':>11}")
    for name, tries, survived, lost in table:
        print(f"{name:<28}{tries:>8}{survived:>10}{lost:>11}")
    return int(any(row[3] for row in table) or not all(row[1] for row in table))


if __name__ == "__main__":
    sys.exit(main())
