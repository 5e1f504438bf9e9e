"""The models that a training starts from, built as its arguments say."""

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation, Dinov2DPTConfig, Dinov2DPTForSemanticSegmentation
from co2s_hf.class_texts_co2s import has_text_tower
from co2s_hf.convert.co2s import discard_dinov3_prior
from co2s_hf.segmentation import SegmentationPreTrainedModel
from co2s_hf.text import class_embeddings, concepts_for
from training.parts.teachers import teacher_facts

MODELS = {"co2s": Co2SForSemanticSegmentation, "dinov2_dpt": Dinov2DPTForSemanticSegmentation}


def model_config(arguments: Namespace, classes: Sequence[str]) -> PreTrainedConfig:
    """Configuration of the model of the arguments; reads no weights.

    Raises:
        ValueError: an argument contradicts a backbone, or names a field that the configuration does not have.
    """
    if arguments.model == "co2s":
        return Co2SConfig.from_backbones(arguments.clip, arguments.dinov3, classes, **_fields(arguments))
    return Dinov2DPTConfig.from_backbones(
        arguments.dino, classes, translators=translators(arguments), **_fields(arguments)
    )


def build_model(arguments: Namespace, classes: Sequence[str]) -> SegmentationPreTrainedModel:
    """The model to train, its backbones pretrained where the arguments name weights."""
    model = _build(arguments, classes)
    if arguments.activation_checkpointing:
        checkpoint_activations(model)
    return model


def checkpoint_activations(model: SegmentationPreTrainedModel) -> None:
    """Let the layers of the backbones compute their activations again in the backward pass, in train mode."""
    # transformers 5.2x has a new name for it, and warns of the old one
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def _build(arguments: Namespace, classes: Sequence[str]) -> SegmentationPreTrainedModel:
    if arguments.model == "dinov2_dpt":
        return Dinov2DPTForSemanticSegmentation.from_backbones(
            arguments.dino, classes, translators=translators(arguments), **_fields(arguments)
        )
    width = model_config(arguments, classes).clip_config.projection_dim
    named = {"dataset": arguments.concepts} if isinstance(arguments.concepts, str) else {"concepts": arguments.concepts}
    text_embeddings = class_embeddings(
        concepts_for(classes, **named), text_source(arguments), dim=width, open_clip_model=arguments.open_clip_model
    )
    model = Co2SForSemanticSegmentation.from_backbones(
        arguments.clip, arguments.dinov3, classes, text_embeddings=text_embeddings, **_fields(arguments)
    )
    if arguments.discard_dinov3_prior:
        discard_dinov3_prior(model)
    return model


def translators(arguments: Namespace) -> list[dict[str, Any]] | None:
    """One for each teacher, as wide as its features; None without teachers."""
    if not arguments.teachers:
        return None
    facts = [teacher_facts(name, arguments.open_clip_model) for name in arguments.teachers]
    return [{"teacher_width": teacher.width, "input_px": teacher.input_px} for teacher in facts]


def backbones(arguments: Namespace) -> list[str]:
    """Folders or Hub ids of the weights that the model starts from."""
    named = (arguments.clip, arguments.dinov3) if arguments.model == "co2s" else (arguments.dino,)
    return [name for name in named if name is not None]


def text_source(arguments: Namespace) -> str | None:
    """Where class texts are embedded: the named model, else the text tower next to the CLIP student."""
    if arguments.model != "co2s":
        return None
    if arguments.text_model is None and arguments.clip is not None and has_text_tower(arguments.clip):
        return arguments.clip
    return arguments.text_model


def _fields(arguments: Namespace) -> dict[str, Any]:
    """What the arguments say about fields of the configuration."""
    kind = MODELS[arguments.model].config_class
    fields = {"window_px": arguments.crop_px, **(arguments.config or {})}
    unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(kind)})
    if unknown:  # transformers would keep them without a word
        raise ValueError(
            f"--config names {', '.join(unknown)}, but {kind.__name__} has no such field: check the spelling."
        )
    named = {name: getattr(arguments, name) for name in ("bands", "image_mean", "image_std")}
    fields |= {name: value for name, value in named.items() if value is not None}
    if arguments.model == "co2s":
        fields.setdefault("text_model", text_source(arguments))
        fields.setdefault("numerics", "official" if arguments.official else "native")
    elif arguments.official:
        fields.setdefault("window_average", "logits")
    return fields
