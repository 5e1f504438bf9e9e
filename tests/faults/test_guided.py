"""The targets of coverage-guided inputs take their first ones, and cut ones; atheris itself is not needed for that."""

import sys

import pytest

from tests.faults import guided
from tests.faults.guided_targets import TARGETS
from tests.faults.judge import Row


@pytest.mark.filterwarnings("ignore")  # libraries warn about what they are given here
@pytest.mark.parametrize("name", guided.NAMES)
def test_a_target_takes_its_first_inputs(name, tmp_path):
    target, row = TARGETS[name], Row(name)
    take = target.prepare(tmp_path)
    for data in target.seeds:
        row.judge(lambda data=data: take(data), "whole")
        row.judge(lambda data=data: take(data[: len(data) // 2]), "cut")
    assert not row.lost and row.results, row.examples


def test_all_targets_have_names():
    assert guided.NAMES == sorted(TARGETS)


def test_without_atheris_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="pip install atheris"):
        guided.run()


def test_another_target_is_refused(capsys):
    with pytest.raises(SystemExit):
        guided.main(["none"])
    assert "no target none; expected some of answers" in capsys.readouterr().err
