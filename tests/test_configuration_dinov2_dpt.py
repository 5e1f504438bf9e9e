"""Tests of `co2s_hf.configuration_dinov2_dpt`."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, ViTConfig

from co2s_hf import Dinov2DPTConfig
from co2s_hf.pretrained_backbones import read_dino_config

NAMES = ["road", "water"]
RS_MTDF = [{"teacher_width": 768}, {"teacher_width": 1024, "input_px": 224}]


# ---- defaults and round trip -----------------------------------------------------------------------------------------


def test_the_default_is_the_papers_student():
    config = Dinov2DPTConfig()
    dinov2 = config.backbone_config
    assert (dinov2.hidden_size, dinov2.num_hidden_layers, dinov2.num_attention_heads) == (384, 12, 6)
    assert (dinov2.patch_size, dinov2.image_size, dinov2.layer_norm_eps) == (14, 518, 1e-6)
    assert (config.dpt_channels, list(config.dpt_out_channels)) == (64, [48, 96, 192, 384])
    assert (config.position_interpolation, config.translators) == ("scale_factor", None)
    assert (config.window_px, config.window_stride_px, config.num_channels) == (518, 431, 3)


def test_translators_of_rs_mtdf():
    config = Dinov2DPTConfig(translators=RS_MTDF)
    assert config.translators == [
        {"teacher_width": 768, "hidden_width": 1024, "input_px": None, "fusion_weight": 0.1},
        {"teacher_width": 1024, "hidden_width": 1024, "input_px": 224, "fusion_weight": 0.1},
    ]
    assert RS_MTDF[0] == {"teacher_width": 768}, "what was given is not changed"


@pytest.mark.parametrize(
    ("depth", "layers"),
    [
        (12, [2, 5, 8, 11]),
        (24, [4, 11, 17, 23]),
        (40, [9, 19, 29, 39]),
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 3, 4]),
        (8, [1, 3, 5, 7]),
    ],
)
def test_feature_layers_by_depth(depth, layers):
    config = Dinov2DPTConfig(backbone_config={"num_hidden_layers": depth})
    assert list(config.feature_layers) == layers
    assert list(config.backbone_config.out_indices) == [layer + 1 for layer in layers]  # stage 0 is the stem
    assert config.backbone_config.apply_layernorm and config.backbone_config.reshape_hidden_states


@pytest.mark.parametrize(
    ("width", "channels", "out_channels"),
    [
        (768, 128, [96, 192, 384, 768]),
        (1024, 256, [256, 512, 1024, 1024]),
        (1536, 384, [1536] * 4),
        (64, 64, [48, 96, 192, 384]),
    ],
)
def test_decoder_by_width(width, channels, out_channels):
    config = Dinov2DPTConfig(backbone_config={"hidden_size": width, "num_attention_heads": 4})
    assert (config.dpt_channels, list(config.dpt_out_channels)) == (channels, out_channels)
    given = Dinov2DPTConfig(backbone_config=config.backbone_config, dpt_channels=8, dpt_out_channels=[1, 2, 3, 4])
    assert (given.dpt_channels, given.dpt_out_channels) == (8, [1, 2, 3, 4])


def test_round_trip_through_json(tmp_path):
    config = Dinov2DPTConfig.from_backbones(
        None, NAMES, translators=[{"teacher_width": 20, "input_px": 56}], position_interpolation="size", window_px=64
    )
    config.save_pretrained(tmp_path)
    loaded = Dinov2DPTConfig.from_pretrained(tmp_path)
    assert loaded.to_json_string() == config.to_json_string()
    assert loaded.id2label == {0: "road", 1: "water"} and loaded.label2id == {"road": 0, "water": 1}
    assert type(loaded.backbone_config) is Dinov2Config
    assert (loaded.position_interpolation, loaded.translators[0]["input_px"]) == ("size", 56)


def test_auto_map_is_written_whole(tmp_path):
    Dinov2DPTConfig().save_pretrained(tmp_path)
    assert sorted(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == [
        "AutoConfig",
        "AutoImageProcessor",
        "AutoModel",
        "AutoModelForSemanticSegmentation",
    ]


def test_registers_survive_the_round_trip(tmp_path):
    Dinov2DPTConfig(backbone_config=Dinov2WithRegistersConfig(num_register_tokens=2)).save_pretrained(tmp_path)
    loaded = Dinov2DPTConfig.from_pretrained(tmp_path).backbone_config
    assert type(loaded) is Dinov2WithRegistersConfig and loaded.num_register_tokens == 2


# ---- from_backbones --------------------------------------------------------------------------------------------------


def test_how_a_folder_stores_its_numbers_is_not_kept(tmp_path):
    size = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=28)
    Dinov2Model(Dinov2Config(**size)).to(torch.float16).save_pretrained(tmp_path)
    config = Dinov2DPTConfig.from_backbones(tmp_path, NAMES)
    assert config.backbone_config.dtype is None and config.backbone_config.hidden_size == 32
    assert config.dpt_channels == 64, "only a random backbone gets the tiny decoder"


def test_other_bands_bring_their_own_statistics():
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    config = Dinov2DPTConfig.from_backbones(
        None, NAMES, bands=["Red", "green", "blue", "nir"], image_mean=mean, image_std=std
    )
    assert config.num_channels == config.backbone_config.num_channels == 4
    assert config.bands == ["red", "green", "blue", "nir"]
    assert config.image_mean == config.backbone_image_mean == mean
    assert config.image_std == config.backbone_image_std == std
    assert config.band_adaptation is None, "nothing was pretrained"


@pytest.mark.parametrize("bands", [None, ["red", "green", "blue"]])
def test_rgb_with_statistics_of_its_own_is_shown_to_the_backbone_as_it_comes(bands):
    mean, std = [0.02, 0.03, 0.04], [0.005, 0.006, 0.007]
    plain = Dinov2DPTConfig.from_backbones(None, NAMES, bands=bands)
    own = Dinov2DPTConfig.from_backbones(None, NAMES, bands=bands, image_mean=mean, image_std=std)
    assert (own.backbone_image_mean, own.backbone_image_std) == (mean, std)
    assert tuple(plain.backbone_image_mean) == (0.485, 0.456, 0.406)
    # Saved ones keep what their fields say.
    saved = {**plain.to_dict(), "image_mean": mean, "image_std": std}
    assert list(Dinov2DPTConfig.from_dict(saved).backbone_image_mean) == [0.485, 0.456, 0.406]


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(feature_layers=[2, 5, 8, 10]),
            r"feature_layers is \[2, 5, 8, 10\] but backbone_config.num_hidden_layers is 12.*above would never train",
        ),
        (dict(feature_layers=[5, 2, 8, 11]), r"feature_layers is \[5, 2, 8, 11\].*four increasing 0-based blocks"),
        (dict(feature_layers=[-1, 2, 8, 11]), r"feature_layers is \[-1, 2, 8, 11\]"),
        (dict(feature_layers=[5, 8, 11]), r"feature_layers is \[5, 8, 11\]"),
        (dict(backbone_config={"num_hidden_layers": 3}), "num_hidden_layers is 3: expected four"),
        (dict(dpt_out_channels=[8, 8, 8]), r"dpt_channels is 64 and dpt_out_channels is \[8, 8, 8\], expected one"),
        (dict(dpt_channels=0), "dpt_channels is 0 and"),
        (dict(image_mean=[0.5] * 4), "image_mean has 4 values but backbone_config.num_channels is 3"),
        (dict(backbone_image_std=[0.5]), "backbone_image_std has 1 values but backbone_config.num_channels is 3"),
        (dict(bands=["red", "red", "nir"]), r"bands is \['red', 'red', 'nir'\] but .* is 3: give each band one name"),
        (dict(window_px=64, window_stride_px=65), "window_stride_px is 65 but window_px is 64"),
        (dict(backbone_config={"model_type": "vit"}), "backbone_config is a 'vit', expected one of dinov3_vit, dinov2"),
        (dict(translators=[{"hidden_width": 8}]), r"translators\[0\] is .*expected the keys .* teacher_width is requi"),
        (dict(translators=[{"teacher_width": 8, "width": 8}]), r"translators\[0\] is .*expected the keys"),
        (dict(translators=[{"teacher_width": 0}]), r"translators\[0\] is .*expected positive widths"),
        (
            dict(translators=[{"teacher_width": 8}, {"teacher_width": 8, "input_px": 225}]),
            r"translators\[1\] is .*225.* but backbone_config.patch_size is 14: expected an input_px that is a mul",
        ),
        (
            dict(translators=[{"teacher_width": 8, "fusion_weight": 0.5}] * 2),
            r"fusion_weight of the translators are \[0.5, 0.5\], expected numbers from 0 whose sum is below 1",
        ),
        (dict(translators=[{"teacher_width": 8, "fusion_weight": -0.1}]), r"are \[-0.1\], expected numbers from 0"),
    ],
)
def test_refuses_contradictions(fields, message):
    with pytest.raises(ValueError, match=message):
        Dinov2DPTConfig(**fields)


def test_refuses_fields_of_another_type():
    with pytest.raises(StrictDataclassFieldValidationError, match="position_interpolation"):
        Dinov2DPTConfig(position_interpolation="bicubic")


@pytest.mark.parametrize("names", [["road"], ["road", "road"], []])
def test_refuses_unusable_class_names(names):
    with pytest.raises(ValueError, match="expected at least two different class names, found"):
        Dinov2DPTConfig.from_backbones(None, names)


def test_refuses_bands_without_statistics():
    with pytest.raises(ValueError, match="The images have 6 bands; expected image_mean and image_std"):
        Dinov2DPTConfig.from_backbones(None, NAMES, num_channels=6)


def test_refuses_folders_of_other_models(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'vit' model, expected one of dinov3_vit, dinov2, dinov2_with_regis"):
        read_dino_config(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_labels": 10**12}, r"num_labels is 1e\+12, expected at most 10000"),
        (
            {"backbone_config": {"hidden_size": 10**12}},
            r"backbone_config.hidden_size is 1e\+12, expected at most 1048576",
        ),
        (
            {"backbone_config": {"num_hidden_layers": 10**12}},
            r"backbone_config.num_hidden_layers is 1e\+12, expected at most 1000",
        ),
        (
            {"backbone_config": {"hidden_size": 60_000, "num_attention_heads": 6}},
            "has about .* weights, expected at most",
        ),
        ({"window_px": "wide"}, "window_px"),
        ({"id2label": {"x": "road"}}, "id2label is .* expected the class names by their ids"),
        ({"dtype": []}, "is not one of a"),
    ],
)
def test_a_file_from_a_stranger_is_refused_in_one_sentence(changes, message):
    fields = Dinov2DPTConfig.from_backbones(None, NAMES).to_dict() | changes
    if "num_labels" in changes:
        del fields["id2label"], fields["label2id"]
    with pytest.raises(ValueError, match=message):
        Dinov2DPTConfig.from_dict(fields)
