"""Tests of `co2s_hf.text.concepts`."""

import pytest

from co2s_hf.text import CONCEPTS, PROMPT, concepts_for

# Number of concepts of each class, in the order of the class ids.
COUNTS = {
    "whdld": [6, 6, 6, 6, 6, 7],
    "loveda": [5, 6, 6, 6, 6, 6, 6],
    "potsdam": [6] * 6,
    "gid": [6] * 15,
    "mer": [6] * 9,
    "msl": [6] * 9,
}


@pytest.mark.parametrize("dataset", COUNTS)
def test_concept_facts(dataset):
    assert [len(words) for words in CONCEPTS[dataset].values()] == COUNTS[dataset]
    for name, words in CONCEPTS[dataset].items():
        assert words[0] == name, "the first concept of a class is its name, verbatim"
        assert len(set(words)) == len(words)


def test_six_datasets_and_one_prompt():
    assert CONCEPTS.keys() == COUNTS.keys()
    assert CONCEPTS["msl"] is CONCEPTS["mer"]
    assert PROMPT.format("bare soil") == "a photo of a bare soil"


def test_spot_checks():
    assert CONCEPTS["whdld"]["water"][-1] == "reservoir"
    assert CONCEPTS["loveda"]["background"][1] == "undeveloped land"
    assert list(CONCEPTS["potsdam"])[0] == "impervious_surface"
    assert CONCEPTS["mer"]["Martian Soil"] == CONCEPTS["msl"]["Martian Soil"]


def test_dataset_lists_follow_the_order_of_the_classes():
    found = concepts_for(["water", "building"], dataset="whdld")
    assert found == [CONCEPTS["whdld"]["water"], CONCEPTS["whdld"]["building"]]


def test_own_concepts_win_over_the_dataset():
    found = concepts_for(["water", "my pond"], dataset="whdld", concepts={"my pond": ["pond", "puddle"]})
    assert found == [CONCEPTS["whdld"]["water"], ("pond", "puddle")]
    assert concepts_for(["water"], dataset="whdld", concepts={"water": ["sea"]}) == [("sea",)]


def test_without_a_dataset_a_class_stands_for_itself_verbatim():
    assert concepts_for(["low_vegetation", "Road"]) == [("low_vegetation",), ("Road",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(dataset="potsdm"),
            r"a dataset named 'potsdm'; known: \['gid', 'loveda', 'mer', 'msl', 'potsdam', 'whdld'",
        ),
        (dict(dataset="gid"), r"dataset 'gid' has no class 'water'; its classes: \['industrial_land'"),
        (
            dict(concepts={"watr": ["sea"]}),
            r"given for \['watr'\], which are no classes here; the classes: \['water'\]",
        ),
        (dict(concepts={"water": "sea"}), "concepts of 'water' must be a list of one or more strings, found 'sea'"),
        (dict(concepts={"water": []}), r"must be a list of one or more strings, found \[\]"),
        (dict(concepts={"water": ["sea", " "]}), "must be a list of one or more strings"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        concepts_for(["water"], **arguments)
