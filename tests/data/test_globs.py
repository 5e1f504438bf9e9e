"""What a glob matches, what its wildcards stand for, and that no glob takes long."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from co2s_hf.data.globs import GlobError, Names, plain

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("images", "images/a/b.png", "a/b"),
        ("images", "labels/a.png", None),
        ("*_sat.jpg", "a_b_sat.jpg", "a_b"),
        ("*/t?/*_sat.jpg", "x/t1/a_sat.jpg", "x|1|a"),
        ("**/*.png", "a.png", "|a"),
        ("d/**/*.png", "d/e/f/a.png", "e/f/|a"),
        ("d/**", "d/e/a.png", "e/|a.png"),
        ("d/**/**/a.png", "d/e/a.png", "e/"),
        ("*.png", "e/a.png", None),
        ("*a/*b", "aa/bb", "a|b"),
        ("*_a*_b.png", "x_a_a_b.png", "x|_a"),  # the first wildcard takes what it can at first sight
    ],
)
def test_a_key_is_what_the_wildcards_stand_for(text, place, key):
    assert Names(ROOT, text).key(ROOT / place) == key


SHORT = st.text("ab/", max_size=9).map(lambda text: re.sub("/+", "/", f"x{text}b"))


@given(st.text("ab*?/", max_size=8).map(lambda text: re.sub("/+", "/", f"x{text}b").replace("**", "*")), SHORT)
def test_what_matches_is_what_tries_of_all_ways_would_match(text, place):
    names = Names(ROOT, text)
    if names.glob:
        every_way = "".join({"*": "[^/]*", "?": "[^/]"}.get(letter, letter) for letter in text)
        assert (names.key(ROOT / place) is not None) == (re.fullmatch(every_way, place) is not None)


def test_many_wildcards_take_no_longer():
    """Tried in all ways, the first of these would take longer than the Earth is old."""
    assert Names(ROOT, "*a" * 30 + "b").key(ROOT / ("a" * 200)) is None
    assert Names(ROOT, "/".join(["*a*a*a*a*b"] * 20)).key(ROOT / "/".join(["a" * 60 + "b"] * 19 + ["a"])) is None
    assert Names(ROOT, "**/" * 30 + "*.png").key(ROOT / ("d/" * 500 + "a.jpg")) is None


def test_too_deep_a_glob_is_refused():
    assert plain("**/**/a/**/**/*") == "**/a/**/*"
    with pytest.raises(GlobError, match=r"it has \*\* 3 times, more than 2"):
        plain("**/a/**/b/**/*.png")
