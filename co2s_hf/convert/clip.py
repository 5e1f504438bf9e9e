"""CLIP files of OpenAI and open_clip to transformers' CLIP."""

import re
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection, PreTrainedModel

from co2s_hf.convert.released import StateDict, count_heads, count_up, find_tensor, grid_side, load_all, rename

BLOCK = r"transformer\.resblocks\.(\d+)\."
BLOCK_NAMES = (
    (r"ln_([12])\.(\w+)", r"layer_norm\2.\3"),
    (r"attn\.in_proj_(\w+)", r"self_attn.{q,k,v}_proj.\2"),
    (r"attn\.out_proj\.(\w+)", r"self_attn.out_proj.\2"),
    (r"mlp\.c_fc\.(\w+)", r"mlp.fc1.\2"),
    (r"mlp\.c_proj\.(\w+)", r"mlp.fc2.\2"),
)
# released name -> ours; the text tower's `text.` of some open_clip models is dropped beforehand.
NAMES = (
    (r"visual\.class_embedding", r"vision_model.embeddings.class_embedding"),
    (r"visual\.positional_embedding", r"vision_model.embeddings.position_embedding.weight"),
    (r"visual\.conv1\.weight", r"vision_model.embeddings.patch_embedding.weight"),
    (r"visual\.ln_pre\.(\w+)", r"vision_model.pre_layrnorm.\1"),
    (r"visual\.ln_post\.(\w+)", r"vision_model.post_layernorm.\1"),
    (r"visual\.proj", r"visual_projection.weight"),
    (r"token_embedding\.weight", r"text_model.embeddings.token_embedding.weight"),
    (r"positional_embedding", r"text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.(\w+)", r"text_model.final_layer_norm.\1"),
    (r"text_projection", r"text_projection.weight"),
    (r"logit_scale", r"logit_scale"),
    *((rf"visual\.{BLOCK}{name}", rf"vision_model.encoder.layers.\1.{ours}") for name, ours in BLOCK_NAMES),
    *((rf"{BLOCK}{name}", rf"text_model.encoder.layers.\1.{ours}") for name, ours in BLOCK_NAMES),
)
OPENAI_COUNTERS = ("input_resolution", "context_length", "vocab_size")
DROPPED = (
    (f"({'|'.join(OPENAI_COUNTERS)})", "a number that the shapes of the weights tell, too"),
    (r"(.*\.)?attn_mask", "the mask of causal attention, which transformers makes itself"),
    (r"logit_scale", "the temperature between two towers, of which the file has one"),
)
# Vision towers of open_clip whose heads are not 64 wide, by their width: ViT-H, ViT-g, ViT-bigG, ViT-e.
WIDE_HEADS = {1280: 16, 1408: 16, 1664: 16, 1792: 16}


def has_text_tower(state_dict: StateDict) -> bool:
    """Whether a released file holds a text tower, too."""
    return any(re.fullmatch(r"(text\.)?token_embedding\.weight", name) for name in state_dict)


def convert_official(
    state_dict: StateDict,
    *,
    activation: str,
    vision_num_attention_heads: int | None = None,
    text_num_attention_heads: int | None = None,
) -> PreTrainedModel:
    """transformers' CLIP from the state dict of OpenAI's or open_clip's, float32.

    Args:
        state_dict: tensors with a ViT under `visual.`, with or without a text tower.
        activation: "quick_gelu" for OpenAI and open_clip models whose name ends in -quickgelu, "gelu" for all others of
            open_clip. No tensor tells it, and the wrong one computes something else without an error.
        vision_num_attention_heads: default width / 64, but 16 for ViT-H, ViT-g, ViT-bigG and ViT-e.
        text_num_attention_heads: default width / 64.

    Returns:
        A `CLIPModel` in eval mode, or a `CLIPVisionModelWithProjection` where there is no text tower.

    Raises:
        ValueError: a tensor has no place in the model, the model lacks one, or a number of heads is needed.
    """
    tensors = convert_tensors(state_dict)
    width, channels, patch_size, _ = find_tensor(state_dict, "visual.conv1.weight").shape
    vision: dict[str, Any] = dict(
        hidden_size=width,
        intermediate_size=find_tensor(state_dict, "visual.transformer.resblocks.0.mlp.c_fc.weight").shape[0],
        num_hidden_layers=count_up(state_dict, rf"visual\.{BLOCK}"),
        num_attention_heads=count_heads(
            width, vision_num_attention_heads or WIDE_HEADS.get(width), "vision_num_attention_heads"
        ),
        num_channels=channels,
        patch_size=patch_size,
        image_size=grid_side({"p": find_tensor(state_dict, "visual.positional_embedding")[None]}, "p") * patch_size,
        projection_dim=find_tensor(state_dict, "visual.proj").shape[1],
        hidden_act=activation,
    )
    if not has_text_tower(state_dict):
        return load_all(CLIPVisionModelWithProjection(CLIPVisionConfig(**vision)), tensors)
    text = _text_fields(without_text_prefix(state_dict), text_num_attention_heads)
    config = CLIPConfig(
        text_config={**text, "hidden_act": activation, "projection_dim": vision["projection_dim"]},
        vision_config=vision,
        projection_dim=vision["projection_dim"],
    )
    return load_all(CLIPModel(config), tensors)


def convert_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Tensors of a released CLIP under transformers' names; ValueError where one has no place."""
    released = without_text_prefix(state_dict)
    left = [pattern for pattern, _ in DROPPED if pattern != "logit_scale" or not has_text_tower(state_dict)]
    tensors = rename({n: value for n, value in released.items() if not re.fullmatch("|".join(left), n)}, NAMES)
    for name in ("visual_projection.weight", "text_projection.weight"):
        if name in tensors:
            tensors[name] = tensors[name].T.contiguous()
    return tensors


def without_text_prefix(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Names as OpenAI has them: some models of open_clip keep their text tower under `text.`."""
    return {name.removeprefix("text."): value for name, value in state_dict.items()}


def is_openai(state_dict: StateDict) -> bool:
    """Whether a file still has the counters that OpenAI's archives have and open_clip's files lack."""
    return all(name in state_dict for name in OPENAI_COUNTERS)


def _text_fields(state_dict: StateDict, num_heads: int | None) -> dict[str, Any]:
    words, width = find_tensor(state_dict, "token_embedding.weight").shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": find_tensor(state_dict, "transformer.resblocks.0.mlp.c_fc.weight").shape[0],
        "num_hidden_layers": count_up(state_dict, BLOCK),
        "num_attention_heads": count_heads(width, num_heads, "text_num_attention_heads"),
        "max_position_embeddings": find_tensor(state_dict, "positional_embedding").shape[0],
        # The last two words of CLIP's vocabulary begin and end a text.
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }


__all__ = ["convert_official", "convert_tensors", "has_text_tower", "is_openai"]
