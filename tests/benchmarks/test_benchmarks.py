"""The benchmarks run and say what they promise; no time is asserted."""

import json

import pytest

from tests.benchmarks import evaluate, loader, scaling, scene, train_step

TINY = ["--size", "tiny", "--threads", "1", "--repeats", "1", "--num_classes", "2", "--json"]
MODULES = {"evaluate": evaluate, "train_step": train_step, "loader": loader, "scaling": scaling, "scene": scene}
CASES = {
    "evaluate": ["--sides", "64", "96"],
    "train_step": ["--side", "64", "--activation_checkpointing"],
    "scene": ["--sides", "96", "--window", "64"],
    "loader": ["--crops", "32", "--workers", "0", "--positions", "2"],
    "scaling": ["--axis", "classes", "pixels", "--side", "64", "--classes", "2", "3", "--sides", "64"],
}
PROMISED = {
    "evaluate": {"in C", "ratio", "ceiling", "share"},
    "train_step": {"in D", "ratio", "ceiling", "share", "peak GB"},
    "scene": {"in C per MP", "of the forward passes", "MP/s"},
    "loader": {"in C", "positions/s", "crops"},
    "scaling": {"of the first"},
}


@pytest.mark.parametrize("name", CASES)
def test_it_runs(name, capsys, monkeypatch):
    monkeypatch.setattr(train_step, "peak_of", lambda arguments, dtype: 1.0)  # a process of its own: the test below
    check(name, CASES[name], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["accumulation", "processes"])
def test_steps_of_several_processes(axis, capsys):
    check("scaling", ["--axis", axis, "--side", "64"], capsys)


@pytest.mark.slow
def test_peak_memory(capsys):
    check("train_step", CASES["train_step"], capsys)


def check(name, arguments, capsys):
    rows = MODULES[name].main([*TINY, *arguments])
    printed = json.loads(capsys.readouterr().out)
    assert printed["benchmark"] == name and len(printed["rows"]) == len(rows) >= 1
    for row in printed["rows"]:
        assert PROMISED[name] <= row.keys()
        assert all(value > 0 for value in row.values() if isinstance(value, float))
