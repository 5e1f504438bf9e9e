import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from training import purify_labels
from training.purification.cache import CacheError, RegionCache
from training.purification.regions import count_regions
from training.purification.scorers import Audit, empty_scores

CLASSES = ("road", "water", "tree")
COLOURS = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


class ColourScorer:
    """Knows the classes by their colours, and fails at a given call."""

    def __init__(self, fails_at=None):
        self.audit, self.fails_at = Audit(), fails_at

    def parameters(self):
        return {"scorer": "colours", "names": CLASSES}

    def score(self, image, regions):
        self.audit.calls += 1
        if self.audit.calls == self.fails_at:
            raise KeyboardInterrupt
        scores = empty_scores(count_regions(regions), len(CLASSES))
        for region in range(len(scores)):
            scores[region] = -5 * (image[:, regions == region].mean(1) - COLOURS).norm(dim=1)
        return scores


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six images of three stripes: i0 for validation, i1 and i2 labelled, the others not."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("images", "labels", "maps"):
        (folder / name).mkdir()
    for i in range(6):
        label = np.roll(np.repeat(np.arange(3), 16)[None].repeat(40, 0), 5 * i, axis=1).astype(np.uint8)
        noise = np.random.default_rng(i).normal(0, 5, (40, 48, 3))
        pixels = (255 * COLOURS.numpy()[label] + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"i{i}.png")
        Image.fromarray((np.arange(48)[None] // 12).repeat(40, 0).astype(np.uint8)).save(folder / "maps" / f"i{i}.png")
        if i < 3:
            Image.fromarray(label).save(folder / "labels" / f"i{i}.png")
    return folder


@pytest.fixture
def purify(root, tmp_path, monkeypatch):
    """Run the script on those images with a scorer that knows the colours; `purify.scorer` is the one it used."""

    def run(*argv, scorer=None):
        run.scorer = scorer or ColourScorer()
        monkeypatch.setattr(purify_labels, "load_scorer", lambda *arguments: run.scorer)
        base = ["--data_dir", str(root), "--classes", *CLASSES, "--validation", "i0.png", "--vlm", "stub"]
        base += ["--min_area_px", "20", "--region_px", "8"]
        return purify_labels.main([*base, "--output", str(tmp_path / "cache"), *argv])

    run.cache = tmp_path / "cache"
    return run


def refusal(run, capsys, *argv, **options):
    with pytest.raises(SystemExit) as stopped:
        run(*argv, **options)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_every_image_that_training_may_show_is_scored(purify, root, capsys):
    audit = purify()
    cache = RegionCache(purify.cache)
    assert not cache.missing([root / "images" / f"i{i}.png" for i in range(1, 6)])
    assert cache.missing([root / "images" / "i0.png"])  # validation is no business of training
    regions, probabilities = cache.lookup(root / "images" / "i5.png")
    truth = torch.from_numpy(np.roll(np.repeat(np.arange(3), 16)[None].repeat(40, 0), 25, axis=1).copy())
    assert (probabilities.argmax(1)[regions] == truth).float().mean() > 0.95
    assert audit["images"] == 5 and audit["vlm_calls"] == 7  # two of them for the calibration
    assert cache.calibration().barred == () and cache.calibration().accuracy == 1
    assert json.loads((purify.cache / "audit.json").read_text())["vlm_calls"] == 7
    printed = capsys.readouterr().out
    assert "100 % recognised" in printed and "7 calls of the model" in printed and "ms per image" in printed


def test_finished_images_are_skipped_after_an_interruption(purify, root):
    with pytest.raises(KeyboardInterrupt):
        purify(scorer=ColourScorer(fails_at=5))
    assert purify()["vlm_calls"] == 3  # of seven, four were finished
    assert purify()["vlm_calls"] == 0


def test_other_parameters_need_another_folder(purify, capsys):
    purify()
    assert "made with region_px = 8; expected 12" in refusal(purify, capsys, "--region_px", "12")


def test_changed_labels_are_calibrated_anew(purify, root):
    purify()
    file = root / "labels" / "i1.png"
    kept = file.read_bytes()
    Image.fromarray((np.arange(40)[:, None] > 12).repeat(48, 1).astype(np.uint8)).save(file)
    try:
        assert purify()["vlm_calls"] == 1  # superpixels are cut at other places
        assert RegionCache(purify.cache).calibration().accuracy < 0.9
    finally:
        file.write_bytes(kept)


def test_maps_of_the_user_are_taken(purify, root):
    purify("--regions", str(root / "maps"))
    regions, _ = RegionCache(purify.cache).read(root / "images" / "i4.png")
    assert torch.equal(regions, (torch.arange(48) // 12).expand(40, 48))


def test_the_audit_with_a_teacher_says_what_changes(purify, root, tiny_model, tmp_path, capsys):
    tiny_model.save_pretrained(tmp_path / "teacher")
    options = ("--teacher", str(tmp_path / "teacher"), "--threshold", "0.9", "--regions", "uncertain")
    audit = purify(*options)
    assert audit["low"] == 1 and audit["vetoed"] == 0  # a fresh head is sure of nothing
    assert audit["admitted"] == pytest.approx(audit["agreed"] + audit["relabelled"]) and audit["admitted"] > 0
    assert audit["counted_px_before"] == 0 and audit["counted_px_after"] > 0
    assert json.loads((purify.cache / "audit.json").read_text())["counted_accuracy_before"] is None
    printed = capsys.readouterr().out
    assert "% confirmed" in printed and "validation, of them near boundaries" in printed
    assert purify(*options)["vlm_calls"] == 0


def test_bad_input_is_refused_before_the_work(purify, root, tmp_path, capsys):
    assert "is no folder; expected superpixels" in refusal(purify, capsys, "--regions", "squares")
    assert "give the --teacher" in refusal(purify, capsys, "--regions", "boundary")
    assert "--background names sky" in refusal(purify, capsys, "--background", "sky")
    shutil.copytree(root / "maps", tmp_path / "maps")
    (tmp_path / "maps" / "i4.png").unlink()
    assert "0 maps for i4.png" in refusal(purify, capsys, "--regions", str(tmp_path / "maps"))
    (tmp_path / "dataset.yaml").write_text("")
    with pytest.raises(SystemExit):
        described = ["--dataset", str(tmp_path / "dataset.yaml"), "--validation", "i0.png"]
        purify_labels.main([*described, "--vlm", "stub", "--output", str(tmp_path / "c")])
    assert "--dataset says it already: leave out --validation" in capsys.readouterr().err
    assert "matches no image" in refusal(purify, capsys, "--unlabelled", "j*.png")
    assert not purify.cache.exists()


def test_a_missing_model_is_refused_by_name(root, tmp_path, capsys):
    argv = ["--data_dir", str(root), "--classes", *CLASSES, "--validation", "i0.png", "--output", str(tmp_path / "c")]
    with pytest.raises(SystemExit):
        purify_labels.main([*argv, "--vlm", str(tmp_path / "no-model")])
    assert "no-model has no image and text towers" in capsys.readouterr().err


def test_a_model_that_guesses_is_refused(purify, capsys):
    class Guessing(ColourScorer):
        def score(self, image, regions):
            return torch.zeros(count_regions(regions), 3)

    assert "expected more than 38 %" in refusal(purify, capsys, scorer=Guessing())
    with pytest.raises(CacheError, match="was not finished"):
        RegionCache(purify.cache).calibration()


def test_a_clip_from_a_folder_goes_all_the_way(root, tmp_path, clip_folder, monkeypatch):
    monkeypatch.setattr(purify_labels, "fit_calibration", lambda scores, truth, **options: fitted(scores, truth))
    argv = ["--data_dir", str(root), "--classes", *CLASSES, "--validation", "i0.png", "--output", str(tmp_path / "c")]
    argv += ["--concepts", "{water: [lake, sea]}", "--region_px", "16", "--negatives"]
    audit = purify_labels.main([*argv, "--vlm", str(clip_folder)])
    regions, probabilities = RegionCache(tmp_path / "c").lookup(root / "images" / "i3.png")
    assert audit["images"] == 5 and probabilities.shape == (count_regions(regions), 3)
    assert RegionCache(tmp_path / "c").parameters["synonyms"] == [["road"], ["lake", "sea"], ["tree"]]


def fitted(scores, truth):
    """A calibration that does not ask whether random weights know anything."""
    from training.purification.calibration import Calibration

    assert len(scores) == len(truth) > 0
    return Calibration(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, 1.0, ())
