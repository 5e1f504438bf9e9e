"""Inputs that coverage guides, against the parsers: `python tests/faults/guided.py [TARGET ...] [--seconds 120]`.

Needs `pip install atheris` (Linux and macOS; it brings libFuzzer, which grows inputs towards code that none has reached
yet). Every target is a process of its own. The table says how many inputs there were, how many edges of Python code the
first ones reached and how many the last, and what came out that is neither a result nor an error that says what is
wrong; the exit status is then 1. The targets themselves stand in `guided_targets.py`.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

SECONDS = 120
MOST_BYTES = 4096
INSTRUMENTED = ["co2s_hf", "training", "yaml", "json", "csv"]
NAMES = [
    "answers of models", "checkpoint records", "dataset.yaml", "label maps", "model folders", "polygons",
    "safetensors", "split lists", "tables of points and tiles",
]  # fmt: skip


def explore(name: str, seconds: int, seed: int, folder: Path) -> None:
    """Give inputs to one target until the time is over; this process ends with it."""
    atheris = _atheris()
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.faults.guided_targets import TARGETS
    from tests.faults.judge import Row

    target, row = TARGETS[name], Row(name)
    corpus, place = folder / "corpus", folder / "place"
    for made in (corpus, place):
        made.mkdir()
    for number, one in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(one)
    words = "".join('"' + "".join(map("\\x{:02x}".format, word.encode())) + '"\n' for word in target.words)
    (folder / "words").write_text(words or "# none\n")
    take, written = target.prepare(place), [0.0]

    def one_input(data: bytes) -> None:
        lost = row.lost
        row.judge(lambda: take(data), repr(data[:150]))
        if row.lost > lost or time.monotonic() - written[0] > 1:  # libFuzzer ends the process, not this function
            written[0] = time.monotonic()
            (folder / "found.json").write_text(json.dumps({**vars(row), "escaped": dict(row.escaped)}))

    options = [f"-max_total_time={seconds}", f"-seed={seed + 1}", f"-max_len={MOST_BYTES}", f"-dict={folder / 'words'}"]
    options += [
        "-timeout=0",
        "-len_control=20",
        "-rss_limit_mb=4000",
        "-print_final_stats=1",
        str(corpus),
    ]  # the time is ours, see judge
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


def run(names: Sequence[str] = NAMES, seconds: int = SECONDS, seed: int = 0) -> list[dict[str, Any]]:
    """Explore the targets one after the other.

    Returns:
        For each what `tests.faults.judge.Row` counts, and `edges`: of Python code, reached at first and at last.
    """
    _atheris()
    found = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="co2s_guided_") as folder:
            command = [sys.executable, __file__, name, "--seconds", str(seconds), "--seed", str(seed), "--in", folder]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            path = Path(folder) / "found.json"
            one = json.loads(path.read_text()) if path.exists() else {"escaped": {}, "examples": {}, "slowest_s": 0.0}
            counts = [int(text) for text in re.findall(r" cov: (\d+) ", done.stderr)]
            tries = re.search(r"number_of_executed_units: (\d+)", done.stderr)
            if done.returncode or not counts or tries is None:
                one["escaped"]["the process ended"] = 1
                one["examples"]["the process ended"] = f"status {done.returncode}: {done.stderr[-500:]}"
            found.append({**one, "fault": name, "edges": counts[:1] + counts[-1:], "tries": int((tries or "00")[1])})
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write it as Markdown, and below it what escaped."""
    lines = ["| target | inputs | edges at first | at last | escaped | slowest, s |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        edges = " | ".join(map(str, row["edges"] or "--"))
        lost = sum(row["escaped"].values())
        lines.append(f"| {row['fault']} | {row['tries']} | {edges} | {lost} | {row['slowest_s']:.2f} |")
    lines += [
        f"- {row['fault']}: {n} x {what}: {row['examples'][what]}" for row in rows for what, n in row["escaped"].items()
    ]
    return "\n".join(lines)


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        raise SystemExit("This needs atheris, which is not installed. Run `pip install atheris`.") from None
    return atheris


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for each target; default: {SECONDS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)  # of a process that explores one
    given = parser.parse_args(arguments)
    if unknown := set(given.targets) - set(NAMES):
        parser.error(f"no target {', '.join(sorted(unknown))}; expected some of {', '.join(NAMES)}")
    if given.folder is not None:
        explore(given.targets[0], given.seconds, given.seed, given.folder)
        return 0
    rows = run(given.targets or NAMES, given.seconds, given.seed)
    print(table(rows))
    return int(any(row["escaped"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
