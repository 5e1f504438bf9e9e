"""What `save_pretrained` writes is complete: it loads and segments where this package is not installed."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation, pipeline

from co2s_hf import (
    Co2SConfig,
    Co2SForSemanticSegmentation,
    Co2SImageProcessor,
    Dinov2DPTConfig,
    Dinov2DPTForSemanticSegmentation,
    configuration_co2s,
    configuration_dinov2_dpt,
)


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of model and must hold for the folder that it is saved to."""

    config_class: type
    model_class: type
    auto_map: dict
    sub_configs: tuple[str, ...]
    own_code: frozenset[str]

    @property
    def code(self):
        return self.own_code | {"image_processing_co2s.py", "pretrained_backbones.py", "segmentation.py"}

    @property
    def files(self):
        return self.code | {"config.json", "model.safetensors", "preprocessor_config.json"}


KINDS = {
    "co2s": Kind(
        Co2SConfig,
        Co2SForSemanticSegmentation,
        configuration_co2s.AUTO_MAP,
        ("clip_config", "dinov3_config"),
        frozenset({"class_texts_co2s.py", "configuration_co2s.py", "guidance_head_co2s.py", "modeling_co2s.py"}),
    ),
    "dinov2_dpt": Kind(
        Dinov2DPTConfig,
        Dinov2DPTForSemanticSegmentation,
        configuration_dinov2_dpt.AUTO_MAP,
        ("backbone_config",),
        frozenset({"configuration_dinov2_dpt.py", "modeling_dinov2_dpt.py"}),
    ),
}


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


@pytest.fixture
def kind(name):
    return KINDS[name]


@pytest.fixture
def saved(name, saved_folders):
    return saved_folders[name]


@pytest.fixture
def model(name, tiny_models):
    return tiny_models[name]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def masks_partition_the_image(masks):
    masks = np.stack(masks)
    return masks.shape[1:] == (300, 470) and set(np.unique(masks)) <= {0, 255} and ((masks == 255).sum(0) == 1).all()


def test_the_folder_holds_exactly_these_files(saved, kind):
    assert {path.name for path in saved.iterdir()} == kind.files
    assert read_json(saved / "config.json")["auto_map"] == kind.auto_map
    processor = {"AutoImageProcessor": kind.auto_map["AutoImageProcessor"]}
    assert read_json(saved / "preprocessor_config.json")["auto_map"] == processor


def test_auto_map_names_code_that_is_in_the_folder(saved, kind):
    for reference in kind.auto_map.values():
        module, class_name = reference.split(".")
        assert f"class {class_name}(" in (saved / f"{module}.py").read_text(encoding="utf-8")


def test_nothing_stale_survives_a_save(saved, kind, tmp_path):
    stale = {"AutoModel": "old.Model", "AutoModelForCTC": "old.Model"}
    kind.config_class.from_pretrained(saved, auto_map=stale).save_pretrained(tmp_path)
    assert read_json(tmp_path / "config.json")["auto_map"] == kind.auto_map


def test_loads_without_the_package_and_without_optional_libraries(isolated, name, kind):
    classes = [kind.config_class, Co2SImageProcessor, kind.model_class, kind.model_class]
    expected = {"classes": [one.__name__ for one in classes], "loaded": []}
    assert isolated[1]["without_package"][name] == expected


def test_logits_agree_in_every_bit(isolated, saved, pixels, name, kind, model):
    # Loaded here too: tensors of a file are aligned otherwise than fresh ones, and convolutions round accordingly.
    loaded = kind.model_class.from_pretrained(saved)
    with torch.no_grad():
        here, fresh = loaded(pixels).logits, model(pixels).logits
    found = torch.load(isolated[0] / name / "logits.pt")
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


def test_other_classes_load_and_change_without_the_package(isolated, saved_retargeted, pixels):
    out, facts = isolated
    with torch.no_grad():
        here = Co2SForSemanticSegmentation.from_pretrained(saved_retargeted)(pixels)
    assert torch.equal(torch.load(out / "retargeted.pt"), here.logits) and here.dinov3_logits is None
    assert facts["other_classes"] == {"classes": ["x", "b", "y", "d"], "shape": [2, 4, 64, 80], "votes": False}


def test_the_pipeline_segments_without_the_package(isolated, name, model):
    assert model.config.window_px < 300, "or the window does not slide"
    with np.load(isolated[0] / name / "masks.npz") as found:
        assert set(found) <= set(model.config.label2id)
        assert masks_partition_the_image(list(found.values()))


def test_what_was_loaded_that_way_saves_the_same_folder(isolated, saved, name, kind):
    again = isolated[0] / name / "again"
    assert {path.name for path in again.iterdir()} == kind.files
    for file in kind.files - {"config.json"}:
        assert (again / file).read_bytes() == (saved / file).read_bytes(), file
    config, first = read_json(again / "config.json"), read_json(saved / "config.json")
    for student in kind.sub_configs:
        assert config[student]["dtype"] == "float32"  # loading notes the dtype in the sub-configurations, too
        first[student].pop("dtype", None)
        # and transformers 5.17 then writes their defaults out
        config[student] = {field: config[student][field] for field in first[student]}
    assert config == first


def test_the_imported_package_needs_no_trust(saved, pixels, kind):
    assert type(AutoConfig.from_pretrained(saved)) is kind.config_class
    assert type(AutoImageProcessor.from_pretrained(saved)) is Co2SImageProcessor
    models = [auto.from_pretrained(saved) for auto in (AutoModel, AutoModelForSemanticSegmentation)]
    assert [type(model) for model in models] == [kind.model_class] * 2
    with torch.no_grad():
        first, second = (model(pixels).logits for model in models)
    assert torch.equal(first, second)
    assert type(AutoModel.from_config(models[0].config)) is kind.model_class


def test_the_pipeline_segments_with_the_imported_package(saved, model):
    picture = np.random.default_rng(0).integers(0, 256, (300, 470, 3), dtype=np.uint8)
    found = pipeline("image-segmentation", model=str(saved))(Image.fromarray(picture))
    assert {segment["label"] for segment in found} <= set(model.config.label2id)
    assert masks_partition_the_image([np.asarray(segment["mask"]) for segment in found])
