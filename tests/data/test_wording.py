import doctest

from co2s_hf.data import wording


def test_docstring_examples():
    results = doctest.testmod(wording)
    assert results.attempted > 0 and results.failed == 0


def test_few_are_all_named():
    assert wording.some(["a", "b"]) == "a, b" and wording.some([]) == ""
