"""Files that mean harm: `python tests/faults/hostile.py [--only NAME]`; exit status 1 where one of them succeeds.

Each attack ends in an error that names the file, or in a result that is none the worse; no canary appears, nothing is
written outside of the folder that a command was given, and neither time nor memory run away.
"""

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

from tests.faults import hostile_code, hostile_files
from tests.faults.hostile_code import warm_up
from tests.faults.judge import Row, table

NONE = "\0"  # attacks look at the errors themselves: what gets out of one is not named
MOST_MB = 1500  # that an attack may add to the peak of this process
Attack = Callable[[Path, Path], Any]

ATTACKS: dict[str, dict[str, Attack]] = {**hostile_code.ATTACKS, **hostile_files.ATTACKS}


def run(seed: int = 0, tries: int | None = None, only: str | None = None) -> list[Row]:
    """Make every attack once, whatever `seed` and `tries`; one row for each kind."""
    warm_up()  # transformers imports for seconds where it first makes a model
    return [_attack(kind, attacks) for kind, attacks in ATTACKS.items() if only in (None, kind)]


def _attack(kind: str, attacks: dict[str, Attack]) -> Row:
    row = Row(kind)
    for name, attack in attacks.items():
        with tempfile.TemporaryDirectory(prefix="co2s_hostile_") as place:
            folder, canary = Path(place) / "work", Path(place) / "canary"
            folder.mkdir()
            before, cwd, memory = _elsewhere(), os.getcwd(), _peak_mb()
            os.chdir(folder)
            try:
                row.judge(lambda attack=attack, f=folder, c=canary: attack(f, c), name, names=NONE)
            finally:
                os.chdir(cwd)
            wrong = []
            if canary.exists() or sorted(os.listdir(place)) not in (["work"], ["canary", "work"]):
                wrong.append(f"ran or wrote outside: {sorted(os.listdir(place))}")
            if _elsewhere() != before:
                wrong.append(f"wrote {sorted(_elsewhere() - before)}")
            if _peak_mb() - memory > MOST_MB:
                wrong.append(f"took {_peak_mb() - memory:.0f} MB")
            for what in wrong:
                row.results -= 1  # whatever it was: it is lost
                row.escaped[what] += 1
                row.examples[what] = name
    return row


def _elsewhere() -> set[str]:
    places = [Path.home(), Path(tempfile.gettempdir())]
    return {str(path) for place in places for path in place.glob("*hostile_left*")}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where an attack succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(ATTACKS))
    rows = run(only=parser.parse_args(arguments).only)
    print(table(rows))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
