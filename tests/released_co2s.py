"""Reads the recordings of the released Co2S that tests/test_parity_co2s.py compares with, and counts what it compared.

`CO2S_GOLDEN` names a directory of recordings; the default is the subset in `tests/goldens`, small enough for a clone.
Sizes, seeds and thresholds are read from the directory.
"""

import json
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, DINOv3ViTConfig

from co2s_hf.configuration_co2s import Co2SConfig
from co2s_hf.convert.co2s import CLIP_NAMES, DINOV3_NAMES, convert_head
from co2s_hf.convert.released import rename
from co2s_hf.modeling_co2s import Co2SForSemanticSegmentation
from tests.comparison import Comparison

SUBSET = Path(__file__).parent / "goldens"
DIRECTORY = Path(os.environ.get("CO2S_GOLDEN", SUBSET))


@cache
def tensors(file):
    path = DIRECTORY / f"{file}.safetensors"
    return load_file(path) if path.exists() else {}


@cache
def settings(file):
    path = DIRECTORY / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else {}


CONFIG = settings("config")


class Golden(Comparison):
    """Recordings for one test, and the count of what it compared."""

    counts = Counter()
    worst = {}

    def has(self, file, *names):
        return all(name in tensors(file) for name in names)

    def need(self, file, *names):
        """Tensors of a file, images as float32; skips the test where the directory lacks one."""
        for name in names:
            if name not in tensors(file):
                pytest.skip(f"{DIRECTORY} has no {name!r} in {file}.safetensors")
        found = [tensors(file)[name] for name in names]
        return [value.float() if value.dtype == torch.float16 else value for value in found]

    def need_settings(self, file, *keys):
        value = settings(file)
        for key in keys:
            if key not in value:
                pytest.skip(f"{DIRECTORY} has no {key!r} in {file}.json")
            value = value[key]
        return value

    def need_weights(self, student, names):
        missing = sorted(set(names) - set(tensors(f"{student}_state_dict")))
        if missing:
            pytest.skip(f"{DIRECTORY} has {len(missing)} weights too few for this, the first is {missing[0]!r}")


# ---------------------------------------------------------------------------------------------------------------------
# Names and weights
# ---------------------------------------------------------------------------------------------------------------------


def official_names(student):
    recorded = settings("train_step").get("param_groups", {}).get(student, {})
    return set(recorded) | set(tensors(f"{student}_state_dict"))


def our_names(student, name):
    """Our parameters that hold a released tensor: one, or three where the released one is fused."""
    prefix = "decode_head."
    if name.startswith(prefix):
        return [f"{student}.head.{ours}" for ours in convert_head({name.removeprefix(prefix): torch.empty(3)})]
    table = CLIP_NAMES if student == "clip" else DINOV3_NAMES
    return [f"{student}.{ours}" for ours in rename({name: torch.empty(3)}, table)]


def head_fields(head):
    assert head["pool_size"][0] == head["pool_size"][1]
    return dict(
        head_channels=head["channels"],
        head_text_channels=head["text_channels"],
        head_up_channels=head["up_channels"],
        head_skip_channels=head["skip_channels"],
        head_num_layers=head["num_layers"],
        head_num_attention_heads=head["num_heads"],
        head_pool_size=head["pool_size"][0],
        head_kernel_size=head["conv1_ksize"],
    )


def empty_model():
    """A model of the recorded shape, for the shapes of its tensors."""

    def width(student):
        embed_dim = CONFIG[student]["embed_dim"]
        return dict(
            hidden_size=embed_dim,
            intermediate_size=int(embed_dim * CONFIG[student]["mlp_ratio"]),
            num_hidden_layers=CONFIG[student]["depth"],
            num_attention_heads=CONFIG[student]["num_heads"],
            patch_size=CONFIG["patch_size"],
        )

    clip, dinov3 = CONFIG["clip"], CONFIG["dinov3"]
    image_size = clip["pos_embed_grid"] * CONFIG["patch_size"]
    config = Co2SConfig(
        clip_config=CLIPVisionConfig(projection_dim=clip["proj_dim"], image_size=image_size, **width("clip")),
        dinov3_config=DINOv3ViTConfig(num_register_tokens=dinov3["n_storage_tokens"], **width("dinov3")),
        num_labels=CONFIG["num_classes"],
        **head_fields(CONFIG["head"]),
    )
    with torch.device("meta"):
        return Co2SForSemanticSegmentation(config)


def completed(student):
    """The recorded weights of a student, zeros in the place of those that the directory lacks."""
    weights = dict(tensors(f"{student}_state_dict"))
    missing = official_names(student) - set(weights)
    shapes = {name: value.shape for name, value in empty_model().state_dict().items()} if missing else {}
    for name in missing:
        ours = [shapes[part] for part in our_names(student, name) if part in shapes]
        fused = 3 if "qkv" in name else len(ours)  # DINOv3's keys have no bias with us
        weights[name] = torch.zeros(fused * ours[0][0], *ours[0][1:])
    return weights


# ---------------------------------------------------------------------------------------------------------------------
# Forward passes
# ---------------------------------------------------------------------------------------------------------------------


def weights_below(student, level):
    """Released names of the weights that a feature level depends on."""
    clip = CONFIG["clip"]
    blocks = {
        "clip": [*clip["out_block_indices_value_path"], clip["depth"] - 1],
        "dinov3": CONFIG["dinov3"]["out_block_indices"],
    }
    final_of_clip = ("backbone.ln1.weight", "backbone.ln1.bias", "backbone.proj.weight")

    def used(name):
        if block := re.match(r"backbone\.(?:layers|blocks)\.(\d+)\.", name):
            return int(block[1]) <= blocks[student][level]
        return name.startswith("backbone.") and (name not in final_of_clip or level == 2)

    return filter(used, official_names(student))


def recorded_case(golden, student, case, *names):
    """Image and recorded tensors of a forward pass; the second student's with float32 rotary positions."""
    (image,) = golden.need(f"{student}_io", f"{case}.image")
    if student == "clip":
        return [image, *golden.need("clip_io", *(f"{case}.{name}" for name in names))]
    own = [f"{case}_ropefp32.{name}" for name in names]
    if golden.has("dinov3_io", *own):
        return [image, *golden.need("dinov3_io", *own)]
    return [image, *golden.need("dinov3_io_ropefp32", *(f"{case}.{name}" for name in names))]
