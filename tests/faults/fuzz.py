"""Generated input against every door: `python tests/faults/fuzz.py [--tries 10000] [--only NAME] [--seed 0]`.

Each input ends in a result or in an error that says what is wrong, within `LIMIT_S`; the table names everything else,
and the exit status is then 1. What is generated, and for which function, stands in `fuzz_inputs.py`,
`fuzz_geo.py` and `fuzz_models.py`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.faults import fuzz_geo, fuzz_inputs, fuzz_models
from tests.faults.fuzz_values import Target
from tests.faults.judge import Row, table

TRIES = 10_000
TARGETS = {**fuzz_inputs.TARGETS, **fuzz_geo.TARGETS, **fuzz_models.TARGETS}


def run(seed: int = 0, tries: int = TRIES, only: str | None = None) -> list[Row]:
    """Give `tries` inputs to the targets, shared out by their weight; one row each."""
    chosen = {name: target for name, target in TARGETS.items() if only in (None, name)}
    total = sum(target.weight for target in chosen.values())
    with tempfile.TemporaryDirectory(prefix="co2s_fuzz_") as folder:
        return [
            _fuzz(name, target, -(-tries * target.weight // total), seed, Path(folder))
            for name, target in chosen.items()
        ]


def _fuzz(name: str, target: Target, tries: int, seed: int, folder: Path) -> Row:
    row, try_one = Row(name), target.prepare(folder)

    # What escapes is counted and not raised: the first one must not end the search.
    @hypothesis.seed(seed)
    @settings(
        max_examples=tries,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def generated(value: object) -> None:
        if row.tries < tries:
            try_one(row, value)

    while row.tries < tries:  # Hypothesis stops where a strategy has no more different inputs
        before = row.tries
        generated()
        if row.tries == before:
            break
        seed += 1
        generated = hypothesis.seed(seed)(generated)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=TRIES)
    parser.add_argument("--only", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    given_ = parser.parse_args(arguments)
    rows = run(given_.seed, given_.tries, given_.only)
    print(table(rows))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
