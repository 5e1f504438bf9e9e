"""A sample of the generated inputs; `python tests/faults/fuzz.py` gives all of them."""

import pytest

from tests.faults import fuzz
from tests.faults.fuzz import TARGETS
from tests.faults.judge import Row, table

SLOW = {"geo: predict", "geo: suggest", "geo: evaluate-map"}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then reads or refuses
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_but_results_and_named_errors_gets_out(name):
    tries = 5 if name in SLOW else 25
    (row,) = fuzz.run(seed=7, tries=tries, only=name)
    assert row.tries >= tries and row.survived
    assert not row.lost, row.examples


def test_the_tries_are_shared_out(monkeypatch):
    monkeypatch.setattr(fuzz, "_fuzz", lambda name, target, tries, seed, folder: Row(name, tries=tries))
    assert sum(row.tries for row in fuzz.run(tries=10_000)) >= 10_000


def test_what_escapes_is_counted_with_an_example():
    row = Row("broken")
    row.judge(lambda: {}["a"], "an empty dictionary")
    row.judge(lambda: int("x"), "no number")  # a ValueError, but nobody here has raised it
    row.judge(lambda: open("/nowhere"), "no file", "nowhere")
    row.judge(lambda: 1, "one")
    assert (row.tries, row.results, row.named, row.lost) == (4, 1, 1, 2)
    assert "| broken | 4 | 1 | 1 | 2 |" in table([row]) and "KeyError at ?: 'a' <- an empty dictionary" in table([row])


def test_an_input_has_a_time(monkeypatch):
    monkeypatch.setattr("tests.faults.judge.LIMIT_S", 1)
    row = Row("endless")

    def endless():
        while True:
            pass

    row.judge(endless, "a loop")
    assert row.lost == 1 and "TooSlowError" in str(row.escaped)
