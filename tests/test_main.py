"""The `co2s` command, from a folder to lists that train."""

import json

import numpy as np
import pytest

from co2s_hf.__main__ import main
from co2s_hf.data.description import DatasetDescription
from co2s_hf.raster.write import write_image, write_mask


@pytest.fixture
def folder(tmp_path):
    """Four scenes of two images with masks, and classes for them; an image without a mask."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for i in range(9):
        write_image(tmp_path / "images" / f"t{i // 2}_{i % 2}.png", rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        if i < 8:
            write_mask(tmp_path / "labels" / f"t{i // 2}_{i % 2}.png", np.resize(np.array([0, 1], np.uint8), (4, 6)))
    classes = [{"id": 0, "name": "sea"}, {"id": 1, "name": "land"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": classes}))
    return tmp_path


@pytest.fixture
def description(folder):
    """The description of `init`, its one open value filled in."""
    assert main(["data", "init", str(folder)]) == 0
    path = folder / "dataset.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(r"scene_pattern: (t\d)_" + "\n" if "TODO: a regular" in line else line for line in lines))
    return path


def test_init_says_what_is_open_and_check_refuses_it(folder, capsys):
    assert main(["data", "init", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert (
        "9 images in images; 8 masks in labels." in printed
        and printed.count("\n  --") == 1
        and "--scene_pattern" in printed
    )
    assert main(["data", "check", str(folder / "dataset.yaml")]) == 1
    assert "scene_pattern" in capsys.readouterr().out
    before = (folder / "dataset.yaml").read_text()
    assert main(["data", "init", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["data", "init", str(folder), "--force"]) == 0
    assert (folder / "dataset.yaml").read_text() == before


def test_check_writes_its_reports_once(description, tmp_path, capsys):
    page, values = tmp_path / "out" / "report.html", tmp_path / "out" / "report.json"
    command = ["data", "check", str(description), "--html", str(page), "--json", str(values)]
    assert main(command) == 0
    assert "fit for training: 0 errors" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>") and json.loads(values.read_text())["errors"] == 0
    values.unlink()
    assert main(command) == 2 and not values.exists()
    assert main([*command, "--force"]) == 0 and values.exists()


def test_split_draws_lists_with_their_own_description(description, tmp_path, capsys):
    out = tmp_path / "quarter"
    command = ["data", "split", str(description), str(out), "--count", "2", "--validation_fraction", "0.25"]
    assert main(command) == 0
    assert "2 labelled, 5 unlabelled, 2 validation images." in capsys.readouterr().out
    split = DatasetDescription.load(out / "dataset.yaml").find_split()
    assert (len(split.labelled), len(split.unlabelled), len(split.validation)) == (2, 5, 2)
    training = {sample.scene for sample in split.labelled + split.unlabelled}
    assert training.isdisjoint(sample.scene for sample in split.validation)
    assert main(["data", "check", str(out / "dataset.yaml")]) == 0
    assert main(command) == 2 and main([*command, "--force", "--seed", "1"]) == 0
    assert "exists already" in capsys.readouterr().err


def test_split_keeps_the_validation_images_that_are_named(description, tmp_path, capsys):
    path = tmp_path / "named.yaml"
    path.write_text(description.read_text().replace("validation: null", "validation: [t3_0.png]"))
    out = tmp_path / "out"
    refused = ["data", "split", str(path), str(out), "--fraction", "0.5", "--validation_fraction", "0.5"]
    assert main(refused) == 2 and "names its validation images already" in capsys.readouterr().err
    assert main(refused[:-2]) == 0
    split = DatasetDescription.load(out / "dataset.yaml").find_split()
    assert [sample.image.name for sample in split.validation] == ["t3_0.png"] and len(split.labelled) == 3


def test_split_by_tile_warns_of_scenes_on_both_sides_in_the_report(description, tmp_path, capsys):
    out = tmp_path / "tiles"
    assert main(["data", "split", str(description), str(out), "--fraction", "0.5", "--group", "tile"]) == 0
    main(["data", "check", str(out / "dataset.yaml")])
    assert "scenes on both sides" in capsys.readouterr().out
    block = ["data", "split", str(description), str(tmp_path / "b"), "--count", "1", "--group", "block"]
    assert main(block) == 2 and "--group block needs --tile_pattern" in capsys.readouterr().err


def test_an_interruption_is_one_line(folder, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("co2s_hf.data.command.prepare", interrupt)
    monkeypatch.setattr("co2s_hf.data.command.check_dataset", interrupt)
    assert main(["data", "prepare", "LoveDA", str(tmp_path), str(tmp_path / "x"), "--protocol", "Co2S"]) == 130
    assert capsys.readouterr().err == "co2s: interrupted; the same command goes on\n"
    assert main(["data", "check", str(folder / "dataset.yaml")]) == 130
    assert capsys.readouterr().err == "co2s: interrupted\n"


def test_prepare_names_what_it_does_not_know(tmp_path, capsys):
    assert main(["data", "prepare", "Nowhere", str(tmp_path), str(tmp_path / "x"), "--protocol", "a"]) == 2
    assert "co2s: error:" in capsys.readouterr().err and not (tmp_path / "x").exists()
