"""Every attack by itself; those that take seconds are slow."""

import os

import pytest

from tests.faults import hostile

SLOW = {"shard of a stream", "tar shard", "text of a PNG", "tensors of checkpoints", "auto_map, another repository"}
SLOW |= {"resume, random states", "resume, optimizer", "num_hidden_layers", "head_channels", "open_clip text tower"}
CASES = [
    pytest.param(kind, name, marks=[pytest.mark.slow] if name in SLOW else [], id=f"{kind}: {name}")
    for kind, attacks in hostile.ATTACKS.items()
    for name in attacks
]


@pytest.mark.filterwarnings("ignore")  # libraries warn about what they are given here
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_no_attack_succeeds(kind, name):
    row = hostile._attack(kind, {name: hostile.ATTACKS[kind][name]})
    assert row.results == 1 and not row.escaped, row.examples


def test_code_that_runs_is_noticed():
    row = hostile._attack("code", {"runs": lambda folder, canary: os.system(f"touch {canary}")})
    assert row.lost == 1 and "ran or wrote outside" in str(row.escaped)
