"""That growth is seen; the long work itself takes an hour and is done by hand."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.long import GROWTH_MB, Look, Watch, draw, look, problems, read, summary
from tests.training.tiny_runs import ROOT

FLAT = [Look(25 * i, 600 + i % 3, 500, 28, 4, 1, 5.0) for i in range(1, 201)]


def test_work_that_holds_on_to_nothing_has_no_problems():
    assert problems(FLAT) == []
    first_use = [replace(one, memory_mb=400, handles=20) for one in FLAT[:20]]  # the first tenth warms up
    assert problems(first_use + FLAT[20:]) == []
    peak = [*FLAT[:-3], *(replace(one, memory_mb=900) for one in FLAT[-3:])]  # as an evaluation has one
    assert problems(peak) == []
    jump = [*FLAT[:80], *(replace(one, memory_mb=one.memory_mb + 2 * GROWTH_MB) for one in FLAT[80:])]  # of the heap
    assert problems(jump) == []


def test_growth_that_begins_late_or_in_many_jumps_is_growth():
    late = [replace(one, memory_mb=600 + max(0, one.step - 2000) * 4 * GROWTH_MB / 3000) for one in FLAT]
    jumps = [replace(one, memory_mb=600 + one.step // 1000 * 1.1 * GROWTH_MB) for one in FLAT]
    for looks in (late, jumps):
        (problem,) = problems(looks)
        assert problem.startswith("memory_mb grew from 600.0 to 6")


@pytest.mark.parametrize(
    ("name", "per_step", "said"),
    [
        ("memory_mb", 1.2 * GROWTH_MB / 4500, "memory_mb grew from 6"),
        ("worker_mb", 1.2 * GROWTH_MB / 4000, "worker_mb grew from 50"),
        ("handles", 1 / 2500, "handles grew from 28 to 30"),
        ("threads", 1 / 2500, "threads grew from 4 to 6"),
        ("children", 1 / 2500, "children grew from 1 to 3"),
    ],
)
def test_what_grows_is_named(name, per_step, said):
    whole = name in ("handles", "threads", "children")
    more = [per_step * one.step for one in FLAT]
    grown = [
        replace(one, **{name: getattr(one, name) + (int(extra) if whole else extra)})
        for one, extra in zip(FLAT, more, strict=True)
    ]
    (problem,) = problems(grown)
    assert problem.startswith(said)


def test_too_few_looks_are_a_problem():
    assert problems(FLAT[:9]) == ["only 9 looks: too few to tell"]


def test_a_look_sees_what_this_process_opens(tmp_path):
    before = look(0, tmp_path)
    (tmp_path / "file").write_bytes(bytes(2**20))
    block = bytearray(os.urandom(2**25))
    with open(tmp_path / "file", "rb"), subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as child:
        after = look(1, tmp_path)
        child.stdin.close()
    assert after.handles >= before.handles + 2 and after.children == before.children + 1
    assert after.disk_mb - before.disk_mb == 1 and after.memory_mb - before.memory_mb > 25 and len(block)
    assert look(2, tmp_path).handles == before.handles


def test_looks_are_written_as_they_come_read_again_and_drawn(tmp_path):
    class Work:
        def step(self):
            return "done"

    watch = Watch(tmp_path / "looks.csv", every=2, output=tmp_path)
    watch.after(Work, "step")
    assert [Work().step() for _ in range(5)] == ["done"] * 5
    looks = read(tmp_path / "looks.csv")
    assert [one.step for one in looks] == [2, 4] and isinstance(looks[0].handles, int) and looks[0].memory_mb > 10
    assert "memory" in summary(FLAT) and "28 to 28" in summary(FLAT)
    draw(looks, "work", tmp_path / "looks.png")
    assert (tmp_path / "looks.png").stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "purification"])
def test_short_work_holds_on_to_nothing(kind, tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("long.py")), "--steps", "400", "--output", str(tmp_path)]
    command += ["--only", kind]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".png", ".log"}
