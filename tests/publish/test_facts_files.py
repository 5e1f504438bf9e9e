"""`model_cards/` says of the public data sets what the package knows, and nothing else."""

from pathlib import Path

import pytest
import yaml

from co2s_hf.data.facts import FACTS

FOLDER = Path(__file__).parents[2] / "model_cards"


def document(facts):
    """What the file of a data set holds."""
    return {
        "title": facts.title,
        "page": facts.page,
        "hub_id": facts.hub_id,
        "licence": facts.licence,
        "citation": facts.citation,
        "gsd_m": facts.gsd_m,
        "bands": None if facts.bands is None else list(facts.bands),
        "protocols": [
            {
                "name": protocol.name,
                "classes": list(protocol.classes),
                "splits": {
                    ratio.name: {"labelled": ratio.labelled, "unlabelled": ratio.unlabelled}
                    for ratio in protocol.ratios
                },
                "validation": protocol.validation,
                "test": protocol.test,
                "excluded_ids": list(protocol.excluded_ids),
                "note": protocol.note,
            }
            for protocol in facts.protocols
        ],
    }


def test_there_is_one_file_for_each_data_set():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(FACTS) and len(FACTS) >= 8


@pytest.mark.parametrize("name", FACTS)
def test_a_file_says_what_the_package_knows(name):
    assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) == document(FACTS[name])
