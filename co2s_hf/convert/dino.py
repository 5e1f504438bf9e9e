"""DINOv2 and DINOv3 files of Meta to transformers' DINO."""

import re
from typing import Any

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
)

from co2s_hf.convert.co2s import DINOV3_NAMES, check_bias_masks, heads_of_dinov3
from co2s_hf.convert.dinov2_dpt import backbone_names, read_backbone_fields
from co2s_hf.convert.released import StateDict, count_heads, count_up, find_tensor, load_all, rename

# Names of DINOv3 that a student of Co2S, which is a ViT-B, does not have: the gated MLP of S+, H+ and 7B.
GATED_NAMES = (
    (r"backbone\.blocks\.(\d+)\.mlp\.w1\.(\w+)", r"backbone.model.layer.\1.mlp.gate_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w2\.(\w+)", r"backbone.model.layer.\1.mlp.up_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.(\w+)", r"backbone.model.layer.\1.mlp.down_proj.\2"),
)
REGISTERS = ((r"backbone\.register_tokens", r"backbone.embeddings.register_tokens"),)
ROPE_THETA = 100.0
MASKED_KEYS = "the third of the keys, which its mask multiplies by 0"
DROPPED = (
    (r"(backbone\.)?rope_embed\.periods", "computed by transformers itself"),
    (r"(backbone\.)?blocks\.(\d+\.)+attn\.qkv\.bias_mask", "folded into the biases"),
    (r"(backbone\.)?blocks\.(\d+\.)+attn\.qkv\.bias", MASKED_KEYS),
    (r"(backbone\.)?local_cls_norm\..*", "a norm of pretraining's small crops, which no one uses afterwards"),
    (HEADS := r"(dino_head|ibot_head)\..*", "a head of pretraining"),
)
_LEFT = re.compile("|".join(pattern for pattern, why in DROPPED if why != MASKED_KEYS))


def is_dinov3(state_dict: StateDict) -> bool:
    """Whether a file is a DINOv3, which has no table of positions, and not a DINOv2."""
    return not any(name.endswith("pos_embed") for name in state_dict)


def convert_official(state_dict: StateDict, *, num_attention_heads: int | None = None) -> PreTrainedModel:
    """transformers' DINO from the state dict of Meta's, float32.

    Args:
        state_dict: tensors of a ViT, with or without `backbone.` before their names; heads of pretraining are left
            behind.
        num_attention_heads: default as DINOv3's rotary periods tell, or width / 64.

    Returns:
        A `DINOv3ViTModel`, `Dinov2Model` or, with registers, `Dinov2WithRegistersModel` in eval mode.

    Raises:
        ValueError: a tensor has no place in the model, the model lacks one, or a number of heads is needed.
    """
    released, tensors = _prefixed(state_dict), convert_tensors(state_dict)
    if is_dinov3(state_dict):
        check_bias_masks(released)
        return load_all(DINOv3ViTModel(_dinov3_config(released, num_attention_heads)), tensors)
    fields = read_backbone_fields(released, num_attention_heads)
    if "backbone.register_tokens" not in released:
        return load_all(Dinov2Model(Dinov2Config(**fields)), tensors)
    registers = released["backbone.register_tokens"].shape[1]
    config = Dinov2WithRegistersConfig(**fields, num_register_tokens=registers)
    return load_all(Dinov2WithRegistersModel(config), tensors)


def convert_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Tensors of a released DINO under transformers' names; ValueError where one has no place."""
    released = {name: value for name, value in _prefixed(state_dict).items() if not _LEFT.fullmatch(name)}
    if is_dinov3(state_dict):
        tensors = rename(released, (*DINOV3_NAMES, *GATED_NAMES))
        if (mask := "backbone.embeddings.mask_token") in tensors:
            tensors[mask] = tensors[mask].view(1, 1, -1)
        if _masks_keys(state_dict):
            tensors = {name: value for name, value in tensors.items() if not name.endswith("k_proj.bias")}
    else:
        tensors = rename(released, (*backbone_names(), *REGISTERS))
    return {name.removeprefix("backbone."): value for name, value in tensors.items()}


def _masks_keys(state_dict: StateDict) -> bool:
    return any(name.endswith("qkv.bias_mask") for name in state_dict)


def _prefixed(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Names as in a student: below `backbone.`, the blocks of training's chunks (`blocks.0.3.`) counted once."""
    ours = {
        name if name.startswith("backbone.") or re.fullmatch(HEADS, name) else f"backbone.{name}": value
        for name, value in state_dict.items()
    }
    return {re.sub(r"^(backbone\.blocks\.)\d+\.(?=\d+\.)", r"\1", name): value for name, value in ours.items()}


def _dinov3_config(state_dict: StateDict, num_heads: int | None) -> DINOv3ViTConfig:
    width, channels, patch_size, _ = find_tensor(state_dict, "backbone.patch_embed.proj.weight").shape
    gated = "backbone.blocks.0.mlp.w1.weight" in state_dict
    biased = "backbone.blocks.0.attn.qkv.bias" in state_dict
    heads = count_heads(width, num_heads or heads_of_dinov3(state_dict), "num_attention_heads")
    _check_periods(state_dict, width // heads)
    fields: dict[str, Any] = {"use_gated_mlp": True, "hidden_act": "silu"} if gated else {}
    registers = state_dict.get("backbone.storage_tokens")
    return DINOv3ViTConfig(
        hidden_size=width,
        intermediate_size=find_tensor(state_dict, f"backbone.blocks.0.mlp.{'w1' if gated else 'fc1'}.weight").shape[0],
        num_hidden_layers=count_up(state_dict, r"backbone\.blocks\.(\d+)\."),
        num_attention_heads=heads,
        num_channels=channels,
        patch_size=patch_size,
        num_register_tokens=0 if registers is None else registers.shape[1],
        query_bias=biased,
        value_bias=biased,
        key_bias=biased and not _masks_keys(state_dict),
        rope_theta=ROPE_THETA,
        **fields,
    )


def _check_periods(state_dict: StateDict, head_width: int) -> None:
    """ValueError unless the rotary periods of a file are those that transformers will compute."""
    name = "backbone.rope_embed.periods"
    if name not in state_dict:
        return
    count = head_width // 4
    expected = ROPE_THETA ** (torch.arange(count) / count)
    found = state_dict[name].float()
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-2):  # some are bfloat16
        raise ValueError(
            f"{name} has {len(found)} numbers from {found[0]:.3g} to {found[-1]:.3g}, expected {count} from 1 to "
            f"{expected[-1]:.3g}: give another number of heads, or this DINOv3 has positions that are not known here."
        )


__all__ = ["convert_official", "convert_tensors", "is_dinov3"]
