import json
import shutil

import numpy as np
import pytest
import torch

from co2s_hf import Co2SImageProcessor, Dinov2DPTForSemanticSegmentation
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.image import COLOURS, Band, Raster, Reading
from segmenter import ModelError, Segmenters

from .conftest import HOSTILE


def raster(pixels, valid=None):
    bands = tuple(Band(number, "", colour, "uint8", None, 255) for number, colour in enumerate(COLOURS, 1))
    known = np.ones(pixels.shape[:2], bool) if valid is None else valid
    return Raster("x.png", pixels.transpose(2, 0, 1), known, bands, Reading(), Grid(*known.shape))


@pytest.fixture(scope="module")
def segmenters():
    return Segmenters(keep=1)


def test_class_maps_are_those_of_the_model(segmenters, space_model, tiny_model, pixels):
    segmenter = segmenters.get(str(space_model))
    assert segmenter.classes == ["road", "water", HOSTILE] and segmenter.num_bands == 3
    maps = segmenter.segment(raster(pixels, valid=np.arange(120)[:, None].repeat(150, 1) >= 7))
    assert list(maps) == ["Fused", "CLIP", "DINOv3"]
    with torch.no_grad():
        inputs = Co2SImageProcessor()(pixels)["pixel_values"]
        inputs[:, :, :7] = 0  # without data: the mean of training
        outputs = tiny_model(inputs)
    for name, field in (("Fused", "logits"), ("CLIP", "clip_logits"), ("DINOv3", "dinov3_logits")):
        assert maps[name].dtype == np.uint8 and (maps[name][:7] == 255).all()
        assert np.array_equal(maps[name][7:], outputs[field].argmax(1)[0, 7:].numpy())


def test_a_model_with_one_prediction_gives_one_map(segmenters, tmp_path, pixels):
    torch.manual_seed(0)
    Dinov2DPTForSemanticSegmentation.from_backbones(None, ["a", "b"], window_px=96).save_pretrained(tmp_path)
    Co2SImageProcessor().save_pretrained(tmp_path)
    maps = segmenters.get(str(tmp_path)).segment(raster(pixels))
    assert list(maps) == ["Prediction"] and maps["Prediction"].shape == (120, 150)


def test_models_stay_in_memory_as_long_as_there_is_room(segmenters, space_model):
    first = segmenters.get(str(space_model))
    assert segmenters.get(str(space_model)) is first and len(segmenters._loaded) == 1


def test_what_is_no_model_of_ours_gets_a_sentence(segmenters, tmp_path):
    with pytest.raises(ModelError, match="nowhere cannot be found. Check the spelling"):
        segmenters.get(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "segformer"}')
    with pytest.raises(ModelError, match="is a segformer model; this page shows models of co2s and dinov2_dpt"):
        segmenters.get(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "co2s"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        segmenters.get(str(tmp_path))


def test_code_of_another_repository_is_not_run(segmenters, space_model, tmp_path):
    folder = shutil.copytree(space_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModel"] = "evil/repo--evil.Evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="runs code of evil/repo, another repository"):
        segmenters.get(str(folder))
