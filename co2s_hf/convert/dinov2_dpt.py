"""Released checkpoints of DINOv2 + DPT (FixMatch, UniMatch V2, SemiEarth, RS-MTDF) to a Hub-loadable model."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from transformers import Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer

from co2s_hf.configuration_dinov2_dpt import Dinov2DPTConfig
from co2s_hf.convert.released import (
    Names,
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
from co2s_hf.modeling_dinov2_dpt import Dinov2DPTForSemanticSegmentation

# released name -> ours. Fused projections are cut into their parts.
BACKBONE_NAMES = (
    (r"backbone\.cls_token", r"backbone.embeddings.cls_token"),
    (r"backbone\.mask_token", r"backbone.embeddings.mask_token"),
    (r"backbone\.pos_embed", r"backbone.embeddings.position_embeddings"),
    (r"backbone\.patch_embed\.proj\.(\w+)", r"backbone.embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.norm\.(\w+)", r"backbone.layernorm.\1"),
    (r"backbone\.blocks\.(\d+)\.norm([12])\.(\w+)", r"backbone.encoder.layer.\1.norm\2.\3"),
    (r"backbone\.blocks\.(\d+)\.ls([12])\.gamma", r"backbone.encoder.layer.\1.layer_scale\2.lambda1"),
    (r"backbone\.blocks\.(\d+)\.mlp\.fc([12])\.(\w+)", r"backbone.encoder.layer.\1.mlp.fc\2.\3"),
)
# Parts of a block that transformers renamed between 5.17 and 5.23; which names it has, `_has_older_names` tells.
BLOCK_NAMES = (
    (r"backbone\.blocks\.(\d+)\.attn\.qkv\.(\w+)", r"backbone.encoder.layer.\1.attention.{q,k,v}_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"backbone.encoder.layer.\1.attention.o_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w12\.(\w+)", r"backbone.encoder.layer.\1.mlp.{gate,up}_proj.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.(\w+)", r"backbone.encoder.layer.\1.mlp.down_proj.\2"),
)
OLDER_BLOCK_NAMES = (
    (
        r"backbone\.blocks\.(\d+)\.attn\.qkv\.(\w+)",
        r"backbone.encoder.layer.\1.attention.attention.{query,key,value}.\2",
    ),
    (r"backbone\.blocks\.(\d+)\.attn\.proj\.(\w+)", r"backbone.encoder.layer.\1.attention.output.dense.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w12\.(\w+)", r"backbone.encoder.layer.\1.mlp.weights_in.\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.w3\.(\w+)", r"backbone.encoder.layer.\1.mlp.weights_out.\2"),
)
HEAD_NAMES = (
    (r"head\.projects\.([0-3])\.(\w+)", r"head.projections.\1.\2"),
    (r"head\.resize_layers\.([013])\.(\w+)", r"head.resizes.\1.\2"),
    (r"head\.scratch\.refinenet([1-4])\.resConfUnit1\.conv([12])\.(\w+)", r"head.fusions.\1.skip_unit.conv\2.\3"),
    (r"head\.scratch\.refinenet([1-4])\.resConfUnit2\.conv([12])\.(\w+)", r"head.fusions.\1.unit.conv\2.\3"),
    (r"head\.scratch\.refinenet([1-4])\.out_conv\.(\w+)", r"head.fusions.\1.project.\2"),
    (r"head\.scratch\.layer([1-4])_rn\.(\w+)", r"head.reductions.\1.\2"),
    (r"head\.scratch\.output_conv\.0\.(\w+)", r"head.conv.\1"),
    (r"head\.scratch\.output_conv\.2\.(\w+)", r"head.classifier.\1"),
)
# RS-MTDF's two teachers, in the order of our translators.
TRANSLATORS = ("dino", "clip")
TRANSLATOR_NAMES = (
    (r"feature_translator_for_(dino|clip)\.layer\.0\.(\w+)", r"translators.\1.fc1.\2"),
    (r"feature_translator_for_(dino|clip)\.layer\.2\.(\w+)", r"translators.\1.fc2.\2"),
    (r"project_(dino|clip)\.(\w+)", r"translators.\1.project_back.\2"),
)
CLIP_TEACHER_PX = 224  # what the released student is squeezed to for the CLIP teacher

# What is dropped on purpose, and why.
DROPPED_BECAUSE = (
    (r"(Dino_teacher_model|clip_model)\..*", "a frozen teacher, which only the loss of the training needs"),
    (r"head\.scratch\.refinenet4\.resConfUnit1\..*", "the unit of the coarsest level has nothing to add there"),
)
DROPPED = re.compile("|".join(pattern for pattern, _ in DROPPED_BECAUSE))


def convert_official(
    state_dict: StateDict,
    *,
    class_names: Sequence[str] | None = None,
    num_attention_heads: int | None = None,
    **overrides: Any,
) -> Dinov2DPTForSemanticSegmentation:
    """A model from the state dict of a released FixMatch, UniMatch V2, SemiEarth or RS-MTDF.

    Widths, depth, position grid, class count, the decoder's shape and translators are read from the tensors. Teachers
    are left behind: of the 542 million parameters of an RS-MTDF checkpoint 28 million are the student.

    Args:
        state_dict: tensors of the student or of its moving average, with or without the prefix `module.`.
        class_names: in the order of the ids; default `LABEL_0`, ...
        num_attention_heads: default width / 64, which no tensor tells.
        overrides: fields of `Dinov2DPTConfig`.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: a tensor has no place in the model, the model lacks one, or a number of heads is needed.
    """
    released = {name: value for name, value in without_prefix(state_dict).items() if not DROPPED.fullmatch(name)}
    config = _read_config(released, num_attention_heads, class_names, overrides)
    tensors = convert_tensors(released)
    return load_all(Dinov2DPTForSemanticSegmentation(config), tensors)


def convert_tensors(state_dict: StateDict) -> StateDict:
    """Tensors, gradients or averages of a released student under our names; ValueError where one has no place.

    Args:
        state_dict: released names without `module.`; teachers and what never trains are left out.
    """
    kept = {name: value for name, value in state_dict.items() if not DROPPED.fullmatch(name)}
    renamed = rename(kept, (*backbone_names(), *HEAD_NAMES, *TRANSLATOR_NAMES))
    return {_counted_from_zero(name): value for name, value in renamed.items()}


def backbone_names() -> Names:
    """The name table of a DINOv2 for the installed transformers; both sides begin with `backbone.`."""
    return (*BACKBONE_NAMES, *(OLDER_BLOCK_NAMES if _has_older_names() else BLOCK_NAMES))


@cache
def _has_older_names() -> bool:
    with torch.device("meta"):
        layer = Dinov2Layer(Dinov2Config(hidden_size=2, num_attention_heads=1))
    return any(name.startswith("attention.attention.query.") for name in layer.state_dict())


def _counted_from_zero(name: str) -> str:
    """Our lists start at 0: released levels of the decoder count from 1 and released translators have names."""
    name = re.sub(r"^(head\.(?:fusions|reductions)\.)(\d)", lambda match: f"{match[1]}{int(match[2]) - 1}", name)
    return re.sub(r"^(translators\.)([a-z]+)", lambda match: f"{match[1]}{TRANSLATORS.index(match[2])}", name)


def _read_config(
    state_dict: StateDict,
    num_heads: int | None,
    class_names: Sequence[str] | None,
    overrides: Mapping[str, Any],
) -> Dinov2DPTConfig:
    classifier = find_tensor(state_dict, "head.scratch.output_conv.2.weight")
    return Dinov2DPTConfig(
        backbone_config=Dinov2Config(**read_backbone_fields(state_dict, num_heads)),
        **label_fields(class_names, classifier.shape[0]),
        **{
            "dpt_channels": classifier.shape[1],
            "dpt_out_channels": [find_tensor(state_dict, f"head.projects.{i}.weight").shape[0] for i in range(4)],
            "translators": _read_translators(state_dict),
            "window_average": "logits",
            **overrides,
        },
    )


def read_backbone_fields(state_dict: StateDict, num_heads: int | None) -> dict[str, Any]:
    """Fields of a `Dinov2Config` that the shapes of the tensors `backbone.*` tell.

    Raises:
        ValueError: a tensor is missing, the positions are no square grid, or a number of heads is needed.
    """
    width, channels, patch_size, _ = find_tensor(state_dict, "backbone.patch_embed.proj.weight").shape
    is_giant = "backbone.blocks.0.mlp.w3.weight" in state_dict  # two thirds of the usual width, and gated
    inner = find_tensor(state_dict, f"backbone.blocks.0.mlp.{'w3' if is_giant else 'fc2'}.weight").shape[1]
    return dict(
        hidden_size=width,
        use_swiglu_ffn=is_giant,
        mlp_ratio=round(inner * 3 / 2 / width) if is_giant else inner // width,
        num_hidden_layers=count_up(state_dict, r"backbone\.blocks\.(\d+)\."),
        num_attention_heads=count_heads(width, num_heads, "num_attention_heads"),
        num_channels=channels,
        patch_size=patch_size,
        image_size=grid_side(state_dict, "backbone.pos_embed") * patch_size,
    )


def _read_translators(state_dict: StateDict) -> list[dict[str, Any]] | None:
    if not any(name.startswith("feature_translator_for_") for name in state_dict):
        return None
    layers = [find_tensor(state_dict, f"feature_translator_for_{name}.layer.2.weight") for name in TRANSLATORS]
    sides = (None, CLIP_TEACHER_PX)
    return [
        {"teacher_width": layer.shape[0], "hidden_width": layer.shape[1], "input_px": side}
        for layer, side in zip(layers, sides, strict=True)
    ]


__all__ = ["backbone_names", "convert_official", "convert_tensors", "read_backbone_fields"]
