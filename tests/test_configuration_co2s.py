"""Tests of `co2s_hf.configuration_co2s`."""

import json
from functools import partial

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
)

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.class_texts_co2s import encode_class_texts
from co2s_hf.configuration_co2s import read_clip_config
from co2s_hf.pretrained_backbones import read_dino_config

NAMES = ["road", "water"]


def stages(config):
    return list(config.dinov3_config.out_indices)


# ---- defaults and round trip -----------------------------------------------------------------------------------------


def test_the_default_is_the_papers_model():
    config = Co2SConfig()
    clip, dinov3 = config.clip_config, config.dinov3_config
    assert (clip.hidden_size, clip.num_hidden_layers, clip.patch_size, clip.projection_dim) == (768, 12, 16, 512)
    assert (dinov3.hidden_size, dinov3.num_hidden_layers, dinov3.patch_size) == (768, 12, 16)
    assert dinov3.num_register_tokens == 4
    assert (list(config.clip_skip_layers), list(config.dinov3_skip_layers)) == ([0, 4], [2, 7])
    assert stages(config) == [3, 8, 12]  # stage 0 is the stem
    assert (config.window_px, config.window_stride_px, config.num_channels) == (512, 426, 3)


def test_round_trip_through_json(tmp_path):
    config = Co2SConfig.from_backbones(None, None, NAMES, fusion="mean", window_px=64, numerics="official")
    config.save_pretrained(tmp_path)
    loaded = Co2SConfig.from_pretrained(tmp_path)
    assert loaded.to_json_string() == config.to_json_string()
    assert loaded.id2label == {0: "road", 1: "water"} and loaded.label2id == {"road": 0, "water": 1}
    assert type(loaded.clip_config) is CLIPVisionConfig and type(loaded.dinov3_config) is DINOv3ViTConfig
    assert (loaded.fusion, loaded.window_px, loaded.clip_logits_size) == ("mean", 64, 224)


def test_auto_map_is_written_whole_and_kept_as_read(tmp_path):
    config = Co2SConfig()
    config.save_pretrained(tmp_path)
    assert sorted(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == [
        "AutoConfig",
        "AutoImageProcessor",
        "AutoModel",
        "AutoModelForSemanticSegmentation",
    ]
    elsewhere = {"AutoConfig": "someone/code--configuration_co2s.Co2SConfig"}  # code in another repository
    assert Co2SConfig.from_dict({**config.to_dict(), "auto_map": elsewhere}).auto_map == elsewhere


def test_another_member_of_the_family_survives_the_round_trip(tmp_path):
    dinov2 = Dinov2Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, patch_size=14)
    Co2SConfig(dinov3_config=dinov2).save_pretrained(tmp_path)
    loaded = Co2SConfig.from_pretrained(tmp_path).dinov3_config
    assert type(loaded) is Dinov2Config and (loaded.patch_size, loaded.hidden_size) == (14, 32)


@pytest.mark.parametrize(
    ("depth", "clip", "dinov3"), [(24, [0, 8], [5, 15]), (12, [0, 4], [2, 7]), (4, [0, 1], [0, 2])]
)
def test_skips_lie_at_the_papers_relative_depth(depth, clip, dinov3):
    # The paper's 0-based blocks 0 and 4 begin 0/12 and 4/12 into CLIP; blocks 2 and 7 end 3/12 and 8/12 into DINOv3.
    config = Co2SConfig(
        clip_config={"num_hidden_layers": depth, "patch_size": 16}, dinov3_config={"num_hidden_layers": depth}
    )
    assert (list(config.clip_skip_layers), list(config.dinov3_skip_layers)) == (clip, dinov3)
    assert stages(config) == [dinov3[0] + 1, dinov3[1] + 1, depth]


def test_official_numerics():
    official, native = (Co2SConfig.from_backbones(None, None, NAMES, numerics=n) for n in ("official", "native"))
    assert (official.clip_config.hidden_act, native.clip_config.hidden_act) == ("gelu", "quick_gelu")
    assert official.clip_config.layer_norm_eps == official.dinov3_config.layer_norm_eps == 1e-6
    assert native.clip_config.layer_norm_eps == 1e-5
    assert tuple(official.clip_image_mean) == tuple(official.image_mean) == (0.485, 0.456, 0.406)
    assert tuple(native.clip_image_mean) == (0.48145466, 0.4578275, 0.40821073)
    assert (official.clip_logits_size, official.dinov3_logits_size) == (224, 256)
    assert (native.clip_logits_size, native.dinov3_logits_size) == (None, None)
    assert (official.clip_skip_value_path, native.clip_skip_value_path) == (True, False)
    assert (official.dinov3_pads_input, native.dinov3_pads_input) == (False, True)
    assert (official.window_average, native.window_average) == ("logits", "probabilities")


@pytest.mark.parametrize("numerics", ["official", "native"])
def test_files_from_before_the_average_was_recorded_mean_what_they_meant(numerics):
    config = Co2SConfig.from_backbones(None, None, NAMES, numerics=numerics)
    fields = config.to_dict()
    expected = fields.pop("window_average")
    assert Co2SConfig.from_dict(fields).window_average == expected
    assert Co2SConfig.from_dict({**fields, "window_average": "logits"}).window_average == "logits"


def test_overrides_win_over_numerics():
    assert (
        Co2SConfig.from_backbones(None, None, NAMES, numerics="official", clip_logits_size=112).clip_logits_size == 112
    )


# ---- from_backbones --------------------------------------------------------------------------------------------------


def test_a_whole_clip_states_its_projection_at_the_top(clip_folder):
    assert CLIPConfig.from_pretrained(clip_folder).vision_config.projection_dim == 512  # stale
    config = Co2SConfig.from_backbones(clip_folder, None, NAMES)
    assert (config.clip_config.projection_dim, config.clip_config.hidden_size) == (12, 16)
    assert config.head_channels == 128, "only two random students get the tiny head"


def test_a_model_from_a_whole_clip_takes_its_weights_and_its_text_tower(clip_folder):
    model = Co2SForSemanticSegmentation.from_backbones(clip_folder, None, NAMES)
    assert torch.equal(model.clip.text_embeddings, encode_class_texts(clip_folder, [["road"], ["water"]]))
    whole = CLIPModel.from_pretrained(clip_folder)
    assert torch.equal(model.clip.backbone.visual_projection.weight, whole.visual_projection.weight)


def test_rope_augmentation_is_off(tmp_path):
    stored = DINOv3ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2)
    assert stored.pos_embed_rescale == 2.0
    DINOv3ViTModel(stored).save_pretrained(tmp_path)
    found = [
        Co2SConfig().dinov3_config,
        Co2SConfig.from_backbones(None, None, NAMES).dinov3_config,
        Co2SConfig.from_backbones(None, tmp_path, NAMES).dinov3_config,
    ]
    for config in found:
        assert (config.pos_embed_rescale, config.pos_embed_shift, config.pos_embed_jitter) == (None, None, None)


def test_how_a_folder_stores_its_numbers_is_not_kept(clip_folder, tmp_path):
    CLIPModel.from_pretrained(clip_folder, dtype=torch.float16).save_pretrained(tmp_path)
    assert CLIPConfig.from_pretrained(tmp_path).dtype == torch.float16
    assert read_clip_config(tmp_path).dtype is None


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(clip_skip_layers=[4, 0]), r"clip_skip_layers is \[4, 0\] but clip_config.num_hidden_layers is 12"),
        (dict(clip_skip_layers=[4, 12]), r"clip_skip_layers is \[4, 12\] but clip_config.num_hidden_layers is 12"),
        (
            dict(dinov3_skip_layers=[2, 12]),
            r"dinov3_skip_layers is \[2, 12\] but dinov3_config.num_hidden_layers is 12",
        ),
        (dict(clip_skip_layers=[3]), r"clip_skip_layers is \[3\].*two increasing 0-based blocks"),
        (dict(image_mean=[0.5] * 4), "image_mean has 4 values but clip_config.num_channels is 3"),
        (dict(dinov3_image_std=[0.5]), "dinov3_image_std has 1 values but clip_config.num_channels is 3"),
        (
            dict(clip_config={"num_channels": 4}),
            "clip_config.num_channels is 4 but dinov3_config.num_channels is 3: both students see the same image",
        ),
        (
            dict(window_px=64, window_stride_px=65),
            "window_stride_px is 65 but window_px is 64.*pixels would be left out",
        ),
        (dict(window_px=64, window_stride_px=0), "window_stride_px is 0 but window_px is 64"),
        (dict(head_channels=100), "head width 100 is not a multiple of 16"),
        (dict(dinov3_config={"model_type": "vit"}), "dinov3_config is a 'vit', expected one of dinov3_vit, dinov2"),
    ],
)
def test_refuses_contradictions(fields, message):
    with pytest.raises(ValueError, match=message):
        Co2SConfig(**fields)


def test_refuses_fields_of_another_type():
    with pytest.raises(StrictDataclassFieldValidationError, match="fusion"):
        Co2SConfig(fusion="median")


@pytest.mark.parametrize("names", [["road"], ["road", "road"], []])
def test_refuses_unusable_class_names(names):
    with pytest.raises(ValueError, match="expected at least two different class names, found"):
        Co2SConfig.from_backbones(None, None, names)


@pytest.mark.parametrize("numerics", ["native", "official"])
def test_other_bands_bring_their_own_statistics(numerics):
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]
    config = Co2SConfig.from_backbones(
        None, None, NAMES, bands=["Red", "green", "blue", "nir"], image_mean=mean, image_std=std, numerics=numerics
    )
    assert config.num_channels == config.dinov3_config.num_channels == 4
    assert config.bands == ["red", "green", "blue", "nir"]
    assert config.image_mean == config.clip_image_mean == config.dinov3_image_mean == mean
    assert config.image_std == config.clip_image_std == config.dinov3_image_std == std
    assert config.band_adaptation is None, "nothing was pretrained"


@pytest.mark.parametrize("numerics", ["native", "official"])
@pytest.mark.parametrize("bands", [None, ["red", "green", "blue"]])
def test_rgb_with_statistics_of_its_own_is_shown_to_both_students_as_it_comes(bands, numerics):
    mean, std = (0.02, 0.03, 0.04), (0.005, 0.006, 0.007)
    build = partial(Co2SConfig.from_backbones, None, None, NAMES, bands=bands, numerics=numerics)
    plain, own = build(), build(image_mean=mean, image_std=std)
    assert own.image_mean == own.clip_image_mean == own.dinov3_image_mean == mean
    assert own.image_std == own.clip_image_std == own.dinov3_image_std == std
    halved = build(image_std=[value / 2 for value in plain.image_std])  # one of the two is enough
    assert halved.clip_image_std == halved.image_std and tuple(halved.clip_image_mean) == tuple(plain.image_mean)
    # ImageNet's own numbers are no statistics of these images: each student keeps what it was pretrained with.
    named = build(image_mean=list(plain.image_mean), image_std=list(plain.image_std))
    for student in ("clip", "dinov3"):
        for name in ("mean", "std"):
            field = f"{student}_image_{name}"
            assert tuple(getattr(named, field)) == tuple(getattr(plain, field))
    kept = build(image_mean=mean, image_std=std, clip_image_mean=[0.5] * 3)
    assert kept.clip_image_mean == [0.5] * 3, "what is named wins"
    assert Co2SConfig.from_dict(own.to_dict()).clip_image_mean == list(mean)


def test_named_rgb_changes_nothing_else():
    named, plain = (
        Co2SConfig.from_backbones(None, None, NAMES, bands=b).to_dict() for b in (["red", "green", "blue"], None)
    )
    assert named.pop("bands") == ["red", "green", "blue"] and plain.pop("bands") is None
    assert named == plain


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_channels=6), "The images have 6 bands; expected image_mean and image_std, one number for each band"),
        (
            dict(bands=["nir", "red", "green"]),
            "The images have 3 bands: nir, red, green; expected image_mean and image_",
        ),
        (dict(num_channels=4, image_mean=[0.5] * 4), "The images have 4 bands; expected image_std, one number"),
        (
            dict(num_channels=4, image_mean=[0.5] * 3, image_std=[0.5] * 4),
            "image_mean has 3 values but clip_config.num_",
        ),
        (dict(num_channels=2, bands=["a"], image_mean=[0.5] * 2, image_std=[0.5] * 2), r"bands is \['a'\] but .* is 2"),
        (dict(bands=["a", "A"], image_mean=[0.5] * 2, image_std=[0.5] * 2), r"bands is \['a', 'a'\] .* each band one"),
    ],
)
def test_refuses_bands_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        Co2SConfig.from_backbones(None, None, NAMES, **fields)


def test_refuses_unknown_numerics():
    with pytest.raises(ValueError, match="numerics is 'exact', expected 'native' or 'official'"):
        Co2SConfig.from_backbones(None, None, NAMES, numerics="exact")


def test_refuses_folders_of_other_models(clip_folder, tmp_path):
    SiglipConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 'siglip' model, expected one of clip in transformers format"):
        read_clip_config(tmp_path)
    with pytest.raises(ValueError, match="holds a 'clip' model, expected one of dinov3_vit, dinov2"):
        read_dino_config(clip_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_labels": 10**12}, r"num_labels is 1e\+12, expected at most 10000"),
        ({"dinov3_config": {"hidden_size": 10**12}}, r"dinov3_config.hidden_size is 1e\+12, expected at most 1048576"),
        (
            {"dinov3_config": {"num_hidden_layers": 10**12}},
            r"dinov3_config.num_hidden_layers is 1e\+12, expected at most 1000",
        ),
        (
            {"dinov3_config": {"hidden_size": 60_000, "num_attention_heads": 6}},
            "has about .* weights, expected at most",
        ),
        ({"window_px": "wide"}, "window_px"),
        ({"id2label": {"x": "road"}}, "id2label is .* expected the class names by their ids"),
        ({"dtype": []}, "is not one of a"),
    ],
)
def test_a_file_from_a_stranger_is_refused_in_one_sentence(changes, message):
    fields = Co2SConfig.from_backbones(None, None, NAMES).to_dict() | changes
    if "num_labels" in changes:
        del fields["id2label"], fields["label2id"]
    with pytest.raises(ValueError, match=message):
        Co2SConfig.from_dict(fields)
