import time

import pytest

from co2s_hf.data import patterns
from co2s_hf.data.folders import DataError, find_split
from co2s_hf.data.patterns import PatternError, first_groups


def test_the_first_group_of_each_name():
    names = ["a/tile1_0.png", "tile22_x", "none", "\udcff\u2028tile3_\N{SNOWMAN}"]
    assert first_groups(r"(tile\d+)_(.)", names) == ["tile1", "tile22", None, "tile3"]
    assert first_groups(r"(x)?tile", names) == [None] * 4  # found, but its group is not
    assert first_groups(r"(\N{SNOWMAN})", names)[3] == "\N{SNOWMAN}"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("tile", "has no group"),
        ("(tile", "no regular expression: missing"),
        ("(\N{SNOWMAN}[)", "no regular expression"),
        ("(a){99999999999999999999}", "no regular expression"),
        ("(a)" * 200, "600 characters"),
    ],
)
def test_other_patterns_are_refused(pattern, said):
    with pytest.raises(PatternError, match=said):
        first_groups(pattern, ["a"])


@pytest.mark.parametrize(
    "pattern",
    [
        r"((a+)+)$",
        "(" + ".*" * 30 + ")x",
    ],
)
def test_a_pattern_that_takes_for_ever_is_stopped(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "LIMIT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(PatternError, match="takes more than|memory"):
        first_groups(pattern, ["a" * 200 + "!"])
    assert time.monotonic() - began < 5


def test_a_split_names_the_pattern(tmp_path, monkeypatch):
    monkeypatch.setattr(patterns, "LIMIT_S", 0.5)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{'a' * 200}!.png").touch()
    with pytest.raises(DataError, match=r"scene pattern '\(\(a\+\)\+\)\$' cannot be used: it takes more"):
        find_split(tmp_path, classes=["a"], scene_pattern="((a+)+)$", validation_fraction=0.5)
