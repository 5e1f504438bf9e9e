"""A training that pushes: what is on the Hub afterwards, what its card states, and a network that fails."""

import json
import math
import re

import pytest
from huggingface_hub import ModelCard

from co2s_hf.publish.push import named_card
from tests.training.tiny_runs import STAND_INS, save_students, tiny_arguments
from training.train_semi import main

pytestmark = [pytest.mark.filterwarnings(STAND_INS), pytest.mark.usefixtures("fresh_accelerate_state")]

REPO = "me/run"


@pytest.fixture
def arguments(tmp_path):
    return tiny_arguments(tmp_path, "--push_to_hub", REPO, **save_students(tmp_path))


def numbers_in(tree):
    """Every number of a record, as a card writes it: as it is, in percent, in whole seconds."""
    if isinstance(tree, dict):
        return {one for value in tree.values() for one in numbers_in(value)}
    if isinstance(tree, list | tuple):
        return {one for value in tree for one in numbers_in(value)}
    if isinstance(tree, str):
        return set(re.findall(r"\d+(?:\.\d+)?", tree))
    if isinstance(tree, int | float) and math.isfinite(tree):
        return {str(tree), f"{100 * tree:.2f}", f"{tree:.0f}"}
    return set()


def test_best_and_last_are_on_the_hub_with_cards_of_recorded_numbers(hub, arguments, tmp_path, capsys):
    main(arguments)
    printed, run, repository = capsys.readouterr().out, tmp_path / "run", hub.repositories[REPO]
    for branch, name in (("main", "best"), ("last", "model")):
        arrived = repository.files(branch)
        local = {path.relative_to(run / name).as_posix(): path for path in (run / name).rglob("*") if path.is_file()}
        assert set(arrived) == set(local) | {".gitattributes"}
        assert all(
            arrived[file].read_bytes() == path.read_bytes() for file, path in local.items() if file != "README.md"
        )
        assert arrived["README.md"].read_text() == named_card(local["README.md"].read_text(), REPO)
        assert f"pushed {run / name} to {REPO}, {branch}: " in printed
        ModelCard(arrived["README.md"].read_text()).validate()
    assert not (run / ".push").exists()
    assert printed.index("pushed") < printed.index("import co2s_hf")  # how to load it stays the last word

    # Every number of the cards is a recorded one: of metrics.json, the counts of images, class ids, the parents.
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["best_seconds"] <= metrics["seconds"] < 300
    known = numbers_in(metrics) | {"3", "4", "2"} | {str(index) for index in range(6)}
    fixed = r"CLIP|DINOv3|dinov3|Co2S|co2s\w*|arXiv 2512\.23035|arxiv\.org/abs/2512\.23035|pache-2\.0|pytest-\w+"
    for name in ("best", "model"):
        card = (run / name / "README.md").read_text()
        stated = set(re.findall(r"\d+(?:\.\d+)?", re.sub(fixed, "", card)))
        assert len(stated) > 10 and stated <= known, stated - known
        assert "](curves.png)" in card and ("](panel.png)" in card) == (run / name / "panel.png").is_file()
        assert (
            "drawn scenes" in card and "- `dinov3`: DINOv3 License" in card and "license_name: dinov3-license" in card
        )


def test_without_a_login_the_run_does_not_start(hub, arguments, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and not (tmp_path / "run" / "scenes").exists()
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("train_semi.py: error: the Hub does not know you (401 for me/run)")


def test_a_network_that_fails_costs_the_run_nothing(hub, arguments, tmp_path, capsys):
    hub.fail(r"preupload|/commit/", times=None)  # connections drop from here on
    metrics = main(arguments)
    printed, run = capsys.readouterr().out, tmp_path / "run"
    assert metrics["steps"] == 4 and all((run / name / "model.safetensors").is_file() for name in ("best", "model"))
    assert "warning: a push failed, the training goes on: me/run@main was not reached" in printed
    assert f"To send it: co2s push {run / 'best'} {REPO}\n" in printed
    assert f"To send it: co2s push {run / 'model'} {REPO} --revision last\n" in printed
    assert "model.safetensors" not in hub.repositories[REPO].files()
