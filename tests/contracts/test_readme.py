"""The README keeps its word: its two commands, its flags and its files exist."""

import re
from pathlib import Path

import pytest

from co2s_hf.__main__ import main
from training import purify_labels
from training.arguments import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_stand_as_the_project_promises_them():
    assert "pip install -e . && accelerate launch training/train_semi.py\n" in README
    assert 'pip install -e ".[test]" && pytest\n' in README


def test_every_flag_is_an_argument(capsys):
    actions = [*build_parser()._actions, *purify_labels.build_parser()._actions]
    known = {flag for action in actions for flag in action.option_strings}
    data = [["data", action] for action in ("init", "check", "show", "split", "prepare", "fetch")]
    for command in (
        *data,
        ["push"],
        ["export"],
        *(["predict"], ["suggest"], ["evaluate-map"]),
        *(["convert", kind] for kind in ("co2s", "rs-mtdf", "clip", "dino")),
    ):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        known |= set(re.findall(r"(--[a-z0-9_]+)", capsys.readouterr().out))
    known |= {"--num_processes"}  # of accelerate launch
    flags = set(re.findall(r"(--[a-z0-9_]+)", README))
    assert len(flags) > 10
    assert flags <= known


def test_every_file_of_the_house_exists():
    tree = README.split("## The house")[1].split("```")[1]
    folder, found = ROOT, 0
    for line in tree.strip().splitlines():
        names = re.findall(r"[\w.]+(?:\.py|\.md|/)", line.split("  ")[0] if line[0] != " " else line)
        for name in names:
            path = (ROOT if line[0] != " " else folder) / name
            if name.endswith("/") and line[0] != " ":
                folder = path
            assert path.exists(), f"README names {path.relative_to(ROOT)}"
            found += 1
    assert found > 20


def test_recipes_and_records_are_linked_and_there():
    links = re.findall(r"\]\((training/[\w./]+)\)", README)
    assert len(links) >= 2
    assert all((ROOT / link).is_file() for link in links)
