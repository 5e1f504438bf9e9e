"""Released Co2S checkpoints (one state dict per student) to one `Co2SForSemanticSegmentation`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import CLIPVisionConfig, DINOv3ViTConfig

from co2s_hf.configuration_co2s import OFFICIAL_NUMERICS, Co2SConfig
from co2s_hf.convert.released import (
    StateDict,
    count_heads,
    count_up,
    find_tensor,
    grid_side,
    label_fields,
    load_all,
    rename,
    without_prefix,
)
from co2s_hf.modeling_co2s import Co2SForSemanticSegmentation

# released name -> ours. Fused projections keep their name here and are cut into three afterwards.
CLIP_NAMES = (
    (r"_cached_text", r"text_embeddings"),
    (r"backbone\.cls_token", r"backbone.vision_model.embeddings.class_embedding"),
    (r"backbone\.pos_embed", r"backbone.vision_model.embeddings.position_embedding.weight"),
    (r"backbone\.patch_embed\.projection\.weight", r"backbone.vision_model.embeddings.patch_embedding.weight"),
    (r"backbone\.ln0\.(\w+)", r"backbone.vision_model.pre_layrnorm.\1"),
    (r"backbone\.ln1\.(\w+)", r"backbone.vision_model.post_layernorm.\1"),
    (r"backbone\.proj\.weight", r"backbone.visual_projection.weight"),
    (r"backbone\.layers\.(\d+)\.ln([12])\.(\w+)", r"backbone.vision_model.encoder.layers.\1.layer_norm\2.\3"),
    (
        r"backbone\.layers\.(\d+)\.attn\.attn\.in_proj_(\w+)",
        r"backbone.vision_model.encoder.layers.\1.self_attn.{q,k,v}_proj.\2",
    ),
    (
        r"backbone\.layers\.(\d+)\.attn\.attn\.out_proj\.(\w+)",
        r"backbone.vision_model.encoder.layers.\1.self_attn.out_proj.\2",
    ),
    (r"backbone\.layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)", r"backbone.vision_model.encoder.layers.\1.mlp.fc1.\2"),
    (r"backbone\.layers\.(\d+)\.ffn\.layers\.1\.(\w+)", r"backbone.vision_model.encoder.layers.\1.mlp.fc2.\2"),
)
DINOV3_NAMES = (
    (r"text_provider\.emb\.weight", r"queries"),
    (r"backbone\.cls_token", r"backbone.embeddings.cls_token"),
    (r"backbone\.storage_tokens", r"backbone.embeddings.register_tokens"),
    (r"backbone\.mask_token", r"backbone.embeddings.mask_token"),
    (r"backbone\.patch_embed\.proj\.(\w+)", r"backbone.embeddings.patch_embeddings.\1"),
    (r"backbone\.norm\.(\w+)", r"backbone.norm.\1"),
    (r"backbone\.blocks\.(\d+)\.norm([12])\.(\w+)", r"backbone.model.layer.\1.norm\2.\3"),
    (r"backbone\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)", r"backbone.model.layer.\1.attention.{q,k,v}_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"backbone.model.layer.\1.attention.o_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.ls([12])\.gamma", r"backbone.model.layer.\1.layer_scale\2.lambda1"),
    (r"backbone\.blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"backbone.model.layer.\1.mlp.up_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"backbone.model.layer.\1.mlp.down_proj.\2"),
)
HEAD_NAMES = (
    (r"conv1\.(\w+)", r"similarity_conv.\1"),
    (r"aspp\.aspp_convs\.([0-3])\.([01])\.(\w+)", r"aspp.branches.\1.\2.\3"),
    (r"aspp\.aspp_convs\.4\.gap\.1\.(\w+)", r"aspp.image_pooling.0.\1"),
    (r"aspp\.aspp_convs\.4\.gap\.2\.(\w+)", r"aspp.image_pooling.1.\1"),
    (r"aspp\.project\.([01])\.(\w+)", r"aspp.project.\1.\2"),
    (r"text_proj\.0\.(\w+)", r"guidance_proj.\1"),
    (r"layers\.(\d+)\.transformer\.ln([12])\.(\w+)", r"layers.\1.layer_norm\2.\3"),
    (r"layers\.(\d+)\.transformer\.attn\.attn\.in_proj_(\w+)", r"layers.\1.attention.qkv_proj.\2"),
    (r"layers\.(\d+)\.transformer\.attn\.attn\.out_proj\.(\w+)", r"layers.\1.attention.out_proj.\2"),
    (r"layers\.(\d+)\.transformer\.ffn\.layers\.0\.0\.(\w+)", r"layers.\1.fc1.\2"),
    (r"layers\.(\d+)\.transformer\.ffn\.layers\.1\.(\w+)", r"layers.\1.fc2.\2"),
    (r"skip_proj\.0\.0\.(\w+)", r"skip_proj1.\1"),
    (r"skip_proj\.1\.0\.(\w+)", r"skip_proj2.\1"),
    (r"up([12])\.up\.(\w+)", r"up\1.upsample.\2"),
    (r"up([12])\.conv\.0\.(\w+)", r"up\1.conv1.0.\2"),
    (r"up([12])\.conv\.1\.(\w+)", r"up\1.conv1.1.\2"),
    (r"up([12])\.conv\.3\.(\w+)", r"up\1.conv2.0.\2"),
    (r"up([12])\.conv\.4\.(\w+)", r"up\1.conv2.1.\2"),
    (r"head\.(\w+)", r"classifier.\1"),
)
DINOV3_LEFT = re.compile(r"backbone\.(blocks\.\d+\.attn\.qkv\.bias_mask|rope_embed\.periods)")
# What is dropped on purpose, and why.
DINOV3_DROPPED = (
    (r"backbone\.rope_embed\.periods", "computed by transformers itself, in float32"),
    (r"backbone\.blocks\.\d+\.attn\.qkv\.bias_mask", "folded into the biases"),
    (r"backbone\.blocks\.\d+\.attn\.qkv\.bias", "the third of the keys, which its mask multiplies by 0"),
)


def convert_official(
    clip_state_dict: StateDict,
    dinov3_state_dict: StateDict,
    *,
    class_names: Sequence[str] | None = None,
    clip_num_attention_heads: int | None = None,
    dinov3_num_attention_heads: int | None = None,
    **overrides: Any,
) -> Co2SForSemanticSegmentation:
    """A model with official numerics from the two state dicts of a released Co2S.

    Widths, depths, position grid, class count and the head's shape are read from the tensors.

    Args:
        clip_state_dict: tensors of the CLIP student, with or without the prefix `module.`.
        dinov3_state_dict: tensors of the DINOv3 student, likewise.
        class_names: in the order of the ids; default `LABEL_0`, ...
        clip_num_attention_heads: default width / 64, which no tensor tells.
        dinov3_num_attention_heads: default what its rotary periods tell.
        overrides: fields of `Co2SConfig`, for example `clip_logits_size` (released: 224) and
            `dinov3_logits_size` (released: 256).

    Returns:
        The model in eval mode.

    Raises:
        ValueError: a tensor has no place in the model, the model lacks one, the students do not fit together, or a
            number of heads is needed.
    """
    clip, dinov3 = without_prefix(clip_state_dict), without_prefix(dinov3_state_dict)
    check_bias_masks(dinov3)
    heads = (clip_num_attention_heads, dinov3_num_attention_heads)
    config = read_config(clip, dinov3, heads=heads, class_names=class_names, overrides=overrides)
    tensors = convert_clip_tensors(clip) | convert_dinov3_tensors(dinov3)
    return load_all(Co2SForSemanticSegmentation(config), tensors)


def convert_clip_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Tensors of a released CLIP student under our names; ValueError where one has no place.

    Args:
        state_dict: released names without `module.`.
    """
    return {f"clip.{name}": value for name, value in _clip_tensors(state_dict).items()}


def convert_dinov3_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Tensors of a released DINOv3 student under our names, likewise."""
    return {f"dinov3.{name}": value for name, value in _dinov3_tensors(state_dict).items()}


def check_bias_masks(state_dict: StateDict) -> None:
    """ValueError unless the masks of the biases in a DINOv3 mask keys, which have no bias here, and nothing else."""
    for name, value in state_dict.items():
        if not name.endswith("bias_mask"):
            continue
        if [part.unique().tolist() for part in value.float().chunk(3)] != [[1], [0], [1]]:
            raise ValueError(f"{name} is expected to be 1 for queries and values and 0 for keys, found other values.")


def heads_of_dinov3(state_dict: StateDict) -> int | None:
    """Number of heads that the rotary periods of a DINOv3 tell, a quarter of a head's width; None without them.

    Args:
        state_dict: released names, with `backbone.` before them.
    """
    periods = state_dict.get("backbone.rope_embed.periods")
    width = find_tensor(state_dict, "backbone.patch_embed.proj.weight").shape[0]
    if periods is None or width % (4 * len(periods)):
        return None
    return width // (4 * len(periods))


def convert_head(state_dict: StateDict) -> dict[str, torch.Tensor]:
    """Tensors of a released decode head under the names of `Co2SGuidanceHead`."""
    return rename(state_dict, HEAD_NAMES)


def pretraining_overwritten(dinov3_state_dict: StateDict) -> bool:
    """Whether a released DINOv3 student was trained from the random backbone of `discard_dinov3_prior`.

    The released builder resets every LayerScale to 1e-5 and freezes it; pretrained ones are never all of that value.

    Args:
        dinov3_state_dict: tensors of the DINOv3 student, with or without the prefix `module.`.
    """
    scales = [value for name, value in dinov3_state_dict.items() if re.search(r"\.ls[12]\.gamma$", name)]
    return bool(scales) and all(torch.equal(scale, torch.full_like(scale, 1e-5)) for scale in scales)


@torch.no_grad()
def discard_dinov3_prior(model: Co2SForSemanticSegmentation) -> None:
    """Overwrite the DINOv3 backbone with random weights in place, as the released builder does after loading it.

    Its LayerScale becomes 1e-5 and is frozen in the released training, so that the student sees little more than a
    random projection of its patches. For ablations.

    Raises:
        ValueError: the second student is not a DINOv3.
    """
    if model.config.dinov3_config.model_type != "dinov3_vit":
        raise ValueError(f"only a DINOv3 student has this fault, found {model.config.dinov3_config.model_type!r}.")
    backbone = model.dinov3.backbone
    for module in backbone.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.LayerNorm)):
            module.reset_parameters()
    for name, parameter in backbone.named_parameters():
        if name.endswith("lambda1"):
            parameter.fill_(1e-5)
        elif name.endswith(("cls_token", "register_tokens")):
            torch.nn.init.normal_(parameter, std=0.02)
        elif name.endswith("mask_token"):
            parameter.zero_()


def _split_head(state_dict: StateDict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    prefix = "decode_head."
    head = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    rest = {name: value for name, value in state_dict.items() if not name.startswith(prefix)}
    return rest, {f"head.{name}": value for name, value in convert_head(head).items()}


def _clip_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    rest, head = _split_head(state_dict)
    tensors = rename(rest, CLIP_NAMES) | head
    for name, value in tensors.items():
        if name.endswith("class_embedding"):
            tensors[name] = value.flatten()
        elif name.endswith("position_embedding.weight"):
            tensors[name] = value.squeeze(0)
        elif name.endswith("visual_projection.weight"):
            tensors[name] = value.flatten(1)
    return tensors


def _dinov3_tensors(state_dict: StateDict) -> dict[str, torch.Tensor]:
    rest, head = _split_head(state_dict)
    rest = {name: value for name, value in rest.items() if not DINOV3_LEFT.fullmatch(name)}
    tensors = rename(rest, DINOV3_NAMES) | head
    if (mask := "backbone.embeddings.mask_token") in tensors:
        tensors[mask] = tensors[mask].view(1, 1, -1)
    return {name: value for name, value in tensors.items() if not name.endswith("k_proj.bias")}


def read_config(
    clip: StateDict,
    dinov3: StateDict,
    *,
    heads: tuple[int | None, int | None] = (None, None),
    class_names: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Co2SConfig:
    """The configuration that the shapes of two released students tell, and what is given; see `convert_official`.

    Args:
        clip: released names without `module.`.
        dinov3: likewise.
        heads: of CLIP's and of DINOv3's attention.
        class_names: in the order of the ids.
        overrides: fields of the configuration.
    """
    num_labels = find_tensor(clip, "_cached_text").shape[0]
    num_queries = find_tensor(dinov3, "text_provider.emb.weight").shape[0]
    if num_labels != num_queries:
        raise ValueError(
            f"the CLIP student has {num_labels} classes but the DINOv3 student has {num_queries}: take both of one "
            "training."
        )
    return Co2SConfig(
        clip_config=_read_clip_config(clip, heads[0]),
        dinov3_config=_read_dinov3_config(dinov3, heads[1]),
        **label_fields(class_names, num_labels),
        **{**OFFICIAL_NUMERICS, **_read_head_shape(clip), **(overrides or {})},
    )


def _read_clip_config(state_dict: StateDict, num_heads: int | None) -> CLIPVisionConfig:
    width, channels, patch_size, _ = find_tensor(state_dict, "backbone.patch_embed.projection.weight").shape
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=find_tensor(state_dict, "backbone.layers.0.ffn.layers.0.0.weight").shape[0],
        projection_dim=find_tensor(state_dict, "backbone.proj.weight").shape[0],
        num_hidden_layers=count_up(state_dict, r"backbone\.layers\.(\d+)\."),
        num_attention_heads=count_heads(width, num_heads, "clip_num_attention_heads"),
        num_channels=channels,
        patch_size=patch_size,
        image_size=grid_side(state_dict, "backbone.pos_embed") * patch_size,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )


def _read_dinov3_config(state_dict: StateDict, num_heads: int | None) -> DINOv3ViTConfig:
    width, channels, patch_size, _ = find_tensor(state_dict, "backbone.patch_embed.proj.weight").shape
    return DINOv3ViTConfig(
        hidden_size=width,
        intermediate_size=find_tensor(state_dict, "backbone.blocks.0.mlp.fc1.weight").shape[0],
        num_hidden_layers=count_up(state_dict, r"backbone\.blocks\.(\d+)\."),
        num_attention_heads=count_heads(width, num_heads or heads_of_dinov3(state_dict), "dinov3_num_attention_heads"),
        num_channels=channels,
        patch_size=patch_size,
        num_register_tokens=find_tensor(state_dict, "backbone.storage_tokens").shape[1],
        layer_norm_eps=1e-6,
        pos_embed_rescale=None,  # the released training leaves every augmentation of the positions unset
    )


def _read_head_shape(state_dict: StateDict) -> dict[str, Any]:
    channels, _, kernel_size, _ = find_tensor(state_dict, "decode_head.conv1.weight").shape
    return {
        "head_channels": channels,
        "head_kernel_size": kernel_size,
        "head_text_channels": find_tensor(state_dict, "decode_head.text_proj.0.weight").shape[0],
        "head_up_channels": [find_tensor(state_dict, f"decode_head.up{i}.conv.0.weight").shape[0] for i in (1, 2)],
        "head_skip_channels": [find_tensor(state_dict, f"decode_head.skip_proj.{i}.0.weight").shape[0] for i in (0, 1)],
        "head_num_layers": count_up(state_dict, r"decode_head\.layers\.(\d+)\."),
    }


__all__ = [
    "check_bias_masks",
    "convert_clip_tensors",
    "convert_dinov3_tensors",
    "convert_head",
    "convert_official",
    "discard_dinov3_prior",
    "heads_of_dinov3",
    "pretraining_overwritten",
    "read_config",
]
