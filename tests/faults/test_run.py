"""The harness itself: that it finds what is lost; its own kinds of faults take minutes and are run by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.children import fresh
from tests.faults.damage import _damage
from tests.faults.jobs import tree_differences
from tests.training.tiny_runs import ROOT


@pytest.mark.parametrize("how", ["flip", "truncate", "swap"])
def test_damage_is_damage_and_leaves_the_sound_files_alone(how, tmp_path):
    sound, copy = fresh(tmp_path / "sound"), fresh(tmp_path / "copy")
    for number in range(3):
        (sound / f"{number}").write_bytes(bytes([number]) * 9)
        (copy / f"{number}").hardlink_to(sound / f"{number}")
    for seed in range(9):
        if _damage(how, sorted(copy.iterdir()), np.random.default_rng(seed)) is not None:
            break
    assert [path.read_bytes() for path in sorted(sound.iterdir())] == [bytes([number]) * 9 for number in range(3)]
    assert any(path.read_bytes() != (sound / path.name).read_bytes() for path in copy.iterdir())


def test_differences_are_seen(tmp_path):
    whole, parts = (fresh(tmp_path / name / "run") for name in ("whole", "parts"))
    for folder in (whole, parts):
        (folder / "a").write_text("one")
    assert tree_differences(whole.parent, parts.parent) == []
    (parts / "a").write_text("two")
    (whole / "b").touch()
    assert tree_differences(whole.parent, parts.parent) == ["b", "a"]


def breaks(base, tries):
    yield ""
    raise SystemExit("the uninterrupted run failed")


@pytest.mark.parametrize(
    ("kind", "status", "lines"),
    [
        (lambda base, tries: iter([""] * tries), 0, [("folder gone", 3, 3, 0), ("all", 3, 3, 0)]),
        (lambda base, tries: iter(["", "a checkpoint", ""]), 1, [("folder gone", 3, 2, 1), ("all", 3, 2, 1)]),
        (breaks, 1, [("folder gone", 1, 1, 0), ("folder gone: ended", 1, 0, 1)]),
    ],
)
def test_whatever_is_lost_is_in_the_table_and_ends_with_status_1(kind, status, lines, monkeypatch, capsys):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # run.py sets them where they are not
    from tests.faults import run

    monkeypatch.setattr(run, "OTHERS", {"folder gone": kind})
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "folder gone", "--tries", "3"])
    assert run.main() == status
    said = capsys.readouterr().out
    for fault, *numbers in lines:
        assert f"{fault:<44}" + "{:>8}{:>10}{:>11}".format(*numbers) in said


@pytest.mark.slow
def test_a_sample_of_every_kind_loses_nothing():
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
    assert "fault class" in ended.stdout and "lost data" in ended.stdout
