"""Evaluation of whole images: hand-computed scores, and the command line on a saved model."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn
from torch.nn import functional as F

from co2s_hf.data.folders import Sample
from co2s_hf.modeling_co2s import Co2SForSemanticSegmentation
from co2s_hf.raster.image import NoData, Reading
from co2s_hf.raster.write import write_image, write_mask
from training.batches import EvaluationDataset
from training.eval_semi import _displayed, evaluate, main, predict
from training.report import class_table

CLASSES = ("road", "water", "tree")


class ByBrightness(nn.Module):
    """CLIP sees dark pixels as class 0 and bright ones as class 1; DINOv3 says class 0 everywhere, less surely."""

    predictions = Co2SForSemanticSegmentation.predictions

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(num_labels=2, id2label={0: "dark", 1: "bright"})

    def forward(self, pixel_values):
        assert not self.training and not torch.is_grad_enabled()
        bright = (pixel_values.mean(1) > 0.5).long()
        clip = 9.0 * F.one_hot(bright, 2).permute(0, 3, 1, 2)
        dinov3 = torch.zeros_like(clip)
        dinov3[:, 0] = 1.0
        return {"clip_logits": clip, "dinov3_logits": dinov3, "logits": clip}


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def dataset(tmp_path):
    """Two images of 4 x 4 px, dark in the upper half; the masks agree but for one pixel, and ignore one row."""
    samples = []
    for i in range(2):
        image, mask = tmp_path / f"i{i}.png", tmp_path / f"m{i}.png"
        pixels, ids = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
        pixels[2:], ids[2:] = 255, 1
        ids[0, 0], ids[3] = (1 if i == 0 else 0), 255
        write_image(image, pixels)
        write_mask(mask, ids)
        samples.append(Sample(image, mask, str(i)))
    return EvaluationDataset(samples, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_scores_by_hand(dataset, accelerator):
    model = ByBrightness().train()
    results = evaluate(model, dataset, accelerator, threshold=0.9)
    # Over both images 24 pixels count: 15 of class 0, 9 of class 1. CLIP finds 16 and 8 and errs at one pixel.
    assert results["clip"]["per_category_iou"] == pytest.approx([15 / 16, 8 / 9])
    assert results["clip"]["mean_iou"] == pytest.approx((15 / 16 + 8 / 9) / 2)
    assert results["dinov3"]["per_category_iou"] == pytest.approx([15 / 24, 0.0])
    assert results["fused"]["mean_iou"] == results["clip"]["mean_iou"]
    # softmax(9, 0) = 0.9999 is confident, softmax(1, 0) = 0.73 is not
    assert results["clip"]["pseudo_label_coverage"] == 1 and results["dinov3"]["pseudo_label_coverage"] == 0
    assert results["clip"]["pseudo_label_precision"] == pytest.approx(23 / 24)
    assert model.training


def test_logits_of_no_number_have_no_score(dataset, accelerator, capsys):
    class Overflown(ByBrightness):
        def forward(self, pixel_values):
            output = super().forward(pixel_values)
            output["dinov3_logits"][:, 1, 2, 2] = math.nan
            return output

    results = evaluate(Overflown(), dataset, accelerator, threshold=0.9)
    assert "warning: DINOv3 gives 2 images no finite logits, and so has no scores" in capsys.readouterr().out
    assert all(np.isnan(value).all() for value in results["dinov3"].values())
    assert results["clip"] == results["fused"] == evaluate(ByBrightness(), dataset, accelerator, threshold=0.9)["clip"]
    assert class_table(results, ("dark", "bright")).count("–") == 4


def test_pixels_without_data_are_not_measured(tmp_path, accelerator):
    pixels = np.full((4, 4, 3), 255, np.uint8)
    pixels[:2, :2] = 7  # the model calls them dark, the mask bright
    write_image(tmp_path / "i.png", pixels)
    write_mask(tmp_path / "m.png", np.ones((4, 4), np.uint8))
    samples = [Sample(tmp_path / "i.png", tmp_path / "m.png", "i")]
    for reading, right, counted in ((Reading(nodata=NoData(7)), 12, 12), (None, 12, 16)):
        dataset = EvaluationDataset(samples, mean=(0.0,) * 3, std=(1.0,) * 3, reading=reading)
        results = evaluate(ByBrightness(), dataset, accelerator, threshold=0.9)
        assert results["clip"]["overall_accuracy"] == results["clip"]["pseudo_label_precision"] == right / counted
        assert results["dinov3"]["overall_accuracy"] == 0


def test_named_colours_of_many_bands_are_shown(tmp_path):
    pixels = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    bands = ["nir", "blue", "green", "red"]
    four, two = Reading(count=4), Reading(count=2)
    assert _displayed(tmp_path / "i.png", four, bands).tolist() == pixels[:, :, [3, 2, 1]].tolist()
    assert _displayed(tmp_path / "i.png", four, ["a", "b", "c", "d"]).tolist() == pixels[:, :, :3].tolist()
    Image.fromarray(pixels[:, :, :2].copy(), "LA").save(tmp_path / "two.png")
    assert _displayed(tmp_path / "two.png", two, ["a", "b"]).tolist() == pixels[:, :, [0, 0, 0]].tolist()


def test_logits_are_resized_to_the_labels(tiny_model, accelerator):
    image = torch.randn(3, 32, 40)
    own = predict(tiny_model, image, (32, 40), accelerator)
    assert {name: tuple(logits.shape) for name, logits in own.items()} == dict.fromkeys(
        ("clip", "dinov3", "fused"), (1, 3, 32, 40)
    )
    larger = predict(tiny_model, image, (64, 80), accelerator)["fused"]
    assert torch.equal(larger, F.interpolate(own["fused"], (64, 80), mode="bilinear"))
    aligned = predict(tiny_model, image, (64, 80), accelerator, align_corners=True)["fused"]
    assert torch.equal(aligned, F.interpolate(own["fused"], (64, 80), mode="bilinear", align_corners=True))


def test_images_of_16_bits_are_stretched_for_the_eye(tmp_path):
    write_image(tmp_path / "deep.png", np.linspace(1000, 3000, 64).reshape(8, 8, 1).astype(np.uint16))
    shown = _displayed(tmp_path / "deep.png", Reading())
    assert shown.dtype == np.uint8 and shown.shape == (8, 8, 3)
    assert shown.min() == 0 and shown.max() == 255


@pytest.fixture
def folder(tmp_path, tiny_model):
    """A saved model at `model`, and two images of 40 x 48 px with masks of its classes."""
    copy.deepcopy(tiny_model).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        write_mask(tmp_path / "labels" / f"{name}.png", rng.integers(0, 3, (40, 48), dtype=np.uint8))
    return tmp_path


def test_the_command_prints_a_table_and_writes_its_numbers(folder, tiny_model, accelerator, capsys):
    out = folder / "out"
    results = main([str(folder / "model"), "--data_dir", str(folder), "--output_dir", str(out), "--threshold", "0.4"])
    table = capsys.readouterr().out
    assert all(name in table for name in (*CLASSES, "CLIP", "DINOv3", "Fused"))
    assert json.loads((out / "metrics.json").read_text())["fused"]["mean_iou"] == results["fused"]["mean_iou"]
    with Image.open(out / "panel.png") as picture:
        assert min(picture.size) > 100

    samples = [Sample(folder / "images" / f"{n}.png", folder / "labels" / f"{n}.png", n) for n in ("a", "b")]
    config = tiny_model.config
    dataset = EvaluationDataset(samples, mean=config.image_mean, std=config.image_std)
    assert evaluate(tiny_model, dataset, accelerator, threshold=0.4) == results


def test_only_the_named_images_count(folder):
    both, one = (
        main([str(folder / "model"), "--data_dir", str(folder), "--validation", pattern]) for pattern in ("*", "a.png")
    )
    assert both["fused"]["mean_iou"] != one["fused"]["mean_iou"]
