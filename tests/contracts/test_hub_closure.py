"""What `save_pretrained` writes is complete: it loads and segments where this package is not installed."""

import json

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation, Co2SImageProcessor
from co2s_hf.configuration_co2s import AUTO_MAP

CODE = {
    "class_texts_co2s.py",
    "configuration_co2s.py",
    "guidance_head_co2s.py",
    "image_processing_co2s.py",
    "modeling_co2s.py",
    "pretrained_backbones.py",
    "segmentation.py",
}
FILES = CODE | {"config.json", "model.safetensors", "preprocessor_config.json"}


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def masks_partition_the_image(masks):
    masks = np.stack(masks)
    return masks.shape[1:] == (300, 470) and set(np.unique(masks)) <= {0, 255} and ((masks == 255).sum(0) == 1).all()


def test_the_folder_holds_exactly_these_files(saved):
    assert {path.name for path in saved.iterdir()} == FILES
    assert read_json(saved / "config.json")["auto_map"] == AUTO_MAP
    processor = {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]}
    assert read_json(saved / "preprocessor_config.json")["auto_map"] == processor


def test_auto_map_names_code_that_is_in_the_folder(saved):
    for reference in AUTO_MAP.values():
        module, name = reference.split(".")
        assert f"class {name}(" in (saved / f"{module}.py").read_text(encoding="utf-8")


def test_nothing_stale_survives_a_save(saved, tmp_path):
    config = Co2SConfig.from_pretrained(saved, auto_map={"AutoModel": "old.Model", "AutoModelForCTC": "old.Model"})
    config.save_pretrained(tmp_path)
    assert read_json(tmp_path / "config.json")["auto_map"] == AUTO_MAP


def test_loads_without_the_package_and_without_optional_libraries(isolated):
    model = "Co2SForSemanticSegmentation"
    classes = ["Co2SConfig", "Co2SImageProcessor", model, model]
    assert isolated[1]["without_package"] == {"classes": classes, "loaded": []}


def test_logits_agree_in_every_bit(isolated, saved, pixels, tiny_model):
    # Loaded here too: tensors of a file are aligned otherwise than fresh ones, and convolutions round accordingly.
    model = Co2SForSemanticSegmentation.from_pretrained(saved)
    with torch.no_grad():
        here, fresh = model(pixels).logits, tiny_model(pixels).logits
    found = torch.load(isolated[0] / "logits.pt")
    assert len(found) == 2 and all(torch.equal(logits, here) for logits in found)
    torch.testing.assert_close(here, fresh, atol=1e-5, rtol=0)


def test_six_bands_of_16_bits_load_without_the_package(isolated, saved_six_bands):
    processor = Co2SImageProcessor.from_pretrained(saved_six_bands)
    model = Co2SForSemanticSegmentation.from_pretrained(saved_six_bands)
    image = np.random.default_rng(0).integers(0, 65536, (48, 56, 6), dtype=np.uint16)
    with torch.no_grad():
        here = model(**processor(image)).logits
    assert here.shape == (1, 2, 48, 56) and torch.equal(torch.load(isolated[0] / "six_bands.pt"), here)
    assert isolated[1]["bands"] == model.config.bands == ["blue", "green", "red", "nir", "swir1", "swir2"]


def test_the_pipeline_segments_without_the_package(isolated, tiny_model):
    assert tiny_model.config.window_px < 300, "or the window does not slide"
    with np.load(isolated[0] / "masks.npz") as found:
        assert set(found) <= set(tiny_model.config.label2id)
        assert masks_partition_the_image(list(found.values()))


def test_what_was_loaded_that_way_saves_the_same_folder(isolated, saved):
    again = isolated[0] / "again"
    assert {path.name for path in again.iterdir()} == FILES
    for name in FILES - {"config.json"}:
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name
    config, first = read_json(again / "config.json"), read_json(saved / "config.json")
    for student in ("clip_config", "dinov3_config"):
        assert config[student]["dtype"] == "float32"  # loading notes the dtype in the sub-configurations, too
        # and transformers 5.17 then writes their defaults out
        config[student] = {name: config[student][name] for name in first[student]}
    assert config == first


def test_the_imported_package_needs_no_trust(saved, pixels):
    assert type(AutoConfig.from_pretrained(saved)) is Co2SConfig
    assert type(AutoImageProcessor.from_pretrained(saved)) is Co2SImageProcessor
    models = [auto.from_pretrained(saved) for auto in (AutoModel, AutoModelForSemanticSegmentation)]
    assert [type(model) for model in models] == [Co2SForSemanticSegmentation] * 2
    with torch.no_grad():
        first, second = (model(pixels).logits for model in models)
    assert torch.equal(first, second)
    assert type(AutoModel.from_config(models[0].config)) is Co2SForSemanticSegmentation


def test_the_pipeline_segments_with_the_imported_package(saved, tiny_model):
    picture = np.random.default_rng(0).integers(0, 256, (300, 470, 3), dtype=np.uint8)
    found = pipeline("image-segmentation", model=str(saved))(Image.fromarray(picture))
    assert {segment["label"] for segment in found} <= set(tiny_model.config.label2id)
    assert masks_partition_the_image([np.asarray(segment["mask"]) for segment in found])
