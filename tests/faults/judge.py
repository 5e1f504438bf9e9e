"""What became of an input: a result, an error that names what is wrong, or something that should never get out."""

import os
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OWN = tuple(str(ROOT / folder) for folder in ("co2s_hf", "training", "model_cards"))
LIMIT_S = 10  # of this process, for one input
PATIENCE = 10  # times as long by the clock: others may use the machine, too


class TooSlowError(BaseException):
    """An input took longer than `LIMIT_S`; no `except Exception` swallows it."""


@dataclass
class Row:
    """A line of the table: one class of faults.

    Attributes:
        fault: its name.
        tries: inputs that were given.
        results: of them, those that gave a result.
        named: those that were refused by an error that says what is wrong.
        escaped: what came out otherwise, and how often; must be empty. `examples` has one input for each.
        slowest_s: seconds of the slowest input, and `slowest`, what it was.
    """

    fault: str
    tries: int = 0
    results: int = 0
    named: int = 0
    escaped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    slowest: str = ""

    @property
    def survived(self) -> int:
        """Inputs after which all was well."""
        return self.results + self.named

    @property
    def lost(self) -> int:
        """Inputs after which something was not."""
        return self.tries - self.survived

    def judge(self, run: Callable[[], Any], shown: str, names: str | None = None) -> Any:
        """Run with one input, and count what becomes of it.

        Args:
            run: what takes the input.
            shown: the input, for the table.
            names: what an error must name, for inputs that are files. Errors of other inputs must be raised by this
                project itself.

        Returns:
            The result, or the error; None for what escaped.
        """
        self.tries += 1
        started = time.perf_counter()
        try:
            with _time_limit():
                found = run()
            self.results += 1
            return found
        except (Exception, TooSlowError, SystemExit) as error:
            if _is_named(error, names):
                self.named += 1
                return error
            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if frame.filename.startswith(OWN)]
            where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
            self.escaped[f"{type(error).__name__} at {where}"] += 1
            self.examples.setdefault(
                f"{type(error).__name__} at {where}", f"{' '.join(str(error).split())[:150]} <- {shown[:200]}"
            )
            return None
        finally:
            seconds = time.perf_counter() - started
            if seconds > self.slowest_s:
                self.slowest_s, self.slowest = seconds, shown[:60]


def _is_named(error: BaseException, names: str | None) -> bool:
    if isinstance(error, SystemExit):
        return error.code == 2  # argparse has said what is wrong
    # A named TypeError is one that this project raises itself, where a caller has mistaken the arguments.
    if names is not None:
        return isinstance(error, (ValueError, OSError)) and names in str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return True  # of the system, which names the file
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, (ValueError, OSError, TypeError)) and raised.startswith(OWN) and bool(str(error))


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlowError(f"more than {LIMIT_S} s")

    before = [(one, signal.signal(one, stop)) for one in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.alarm(PATIENCE * LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for one, handler in before:
            signal.signal(one, handler)


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown, and below it what escaped."""
    lines = [
        "| fault | tries | results | named errors | escaped | slowest, s | slowest input |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in [*rows, _total(rows)]:
        slowest = row.slowest.replace("|", "\\|").replace("\n", " ")
        lines.append(
            f"| {row.fault} | {row.tries} | {row.results} | {row.named} | {row.lost} | {row.slowest_s:.2f} "
            f"| {slowest} |"
        )
    escapes = [
        f"- {row.fault}: {count} x {what}: {row.examples[what]}"
        for row in rows
        for what, count in row.escaped.most_common()
    ]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return "\n".join([*lines, "", *escapes, f"commit {commit.stdout.strip()}, {os.cpu_count()} cores"])


def _total(rows: list[Row]) -> Row:
    total = Row("all")
    for row in rows:
        total.tries, total.results, total.named = (
            total.tries + row.tries,
            total.results + row.results,
            total.named + row.named,
        )
        total.slowest_s = max(total.slowest_s, row.slowest_s)
    return total
