"""Class embeddings from a CLIP text tower in transformers format, and stand-ins where there is none.

Needed once, before training; the result is a buffer of the model and the text tower is dropped again. Open_clip
checkpoint files are read by the installed package alone (`co2s_hf.text`).
"""

import hashlib
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, CLIPTextConfig, CLIPTextModelWithProjection

PROMPT = "a photo of a {}"  # the paper's only prompt, for every concept verbatim


def has_text_tower(source: str | PathLike[str]) -> bool:
    """Whether a folder or Hub id in transformers format holds CLIP's text tower, alone or in a whole CLIP."""
    return isinstance(AutoConfig.from_pretrained(source, trust_remote_code=False), (CLIPConfig, CLIPTextConfig))


def encode_class_texts(source: str | PathLike[str], concepts: Sequence[Sequence[str]]) -> Tensor:
    """Embed each class with a CLIP text tower as the mean of its concepts' prompts (`mean_of_concepts`).

    Args:
        source: folder or Hub id of a CLIP with its tokenizer, in transformers format.
        concepts: the concepts of each of N classes.

    Returns:
        (N, E) float32 with rows of length 1.

    Raises:
        ValueError: no concepts for a class, no usable text tower in `source`, or a prompt too long for it.
    """
    prompts = class_prompts(concepts)
    config = _text_config(source)
    tokens = _tokenize(prompts, config, source)
    loaded: Any = _TextTower.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    if info["missing_keys"]:
        raise _no_text_tower(source, f"{len(info['missing_keys'])} of its tensors are missing from the weights")
    with torch.no_grad():
        return mean_of_concepts(model.eval()(**tokens).text_embeds, concepts, source)


def stand_in_embeddings(concepts: Sequence[Sequence[str]], dim: int) -> Tensor:
    """Embeddings without a text tower: each concept's fixed point on a hash, averaged like real ones.

    The same strings give the same rows in every process, in every order of the classes. They keep classes apart and
    know nothing about what the words mean: for tests, trial runs and ablations.

    Args:
        concepts: the concepts of each of N classes.
        dim: width E of the embeddings.

    Returns:
        (N, E) float32 with rows of length 1.

    Raises:
        ValueError: no concepts for a class, or `dim` below 1.
    """
    prompts = class_prompts(concepts)
    if dim < 1:
        raise ValueError(f"dim is the width of the embeddings and at least 1, found {dim}.")
    warnings.warn(
        "class embeddings are stand-ins computed from a hash of the class names: they carry no meaning. "
        "For real ones name a text source: a Hub id or folder of a CLIP with a text tower, or an open_clip checkpoint.",
        UserWarning,
        stacklevel=2,
    )
    return mean_of_concepts(torch.stack([_hash_vector(prompt, dim) for prompt in prompts]), concepts, "the hash")


def class_prompts(concepts: Sequence[Sequence[str]]) -> list[str]:
    """The prompts of all concepts, class after class; ValueError where a class has none, or they are no phrases."""
    if not isinstance(concepts, list | tuple) or not concepts:
        raise ValueError(f"expected a list with the concepts of each class, in their order, found {concepts!r:.100}.")
    for index, of_class in enumerate(concepts):
        is_list = isinstance(of_class, list | tuple) and bool(of_class)
        if not is_list or not all(isinstance(concept, str) for concept in of_class):
            raise ValueError(f"class {index} needs a list of one or more concepts, found {of_class!r:.100}.")
    return [PROMPT.format(concept) for of_class in concepts for concept in of_class]


def mean_of_concepts(raw: Tensor, concepts: Sequence[Sequence[str]], source: str | PathLike[str]) -> Tensor:
    """Average the embeddings of each class's prompts.

    As released (and unlike averaging unit vectors): the raw outputs of the text tower are averaged over the concepts
    of a class and the mean is L2-normalised once.

    Args:
        raw: one row for each of `class_prompts(concepts)`, (P, E), not normalised.
        concepts: the concepts of each of N classes.
        source: where the rows are from, for the message.

    Returns:
        (N, E) float32 with rows of length 1.

    Raises:
        ValueError: NaN or infinite values.
    """
    if not torch.isfinite(raw).all():
        raise ValueError(f"the text tower of {source} gives NaN or infinite values. Its weights are damaged.")
    of_classes = raw.float().split([len(of_class) for of_class in concepts])
    return F.normalize(torch.stack([rows.mean(dim=0) for rows in of_classes]), dim=1)


def _hash_vector(text: str, dim: int) -> Tensor:
    """(E,) float32, uniform in [-1, 1): no random generator, so no dependence on a seed or a library's version."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dim)
    return torch.from_numpy(np.frombuffer(digest, dtype="<u4") / 2.0**31 - 1.0).float()


class _TextTower(CLIPTextModelWithProjection):
    """The text half of a full CLIP, loaded without a report on the other half."""

    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$"]


def _text_config(source: str | PathLike[str]) -> CLIPTextConfig:
    try:
        config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the text source {source} is no checkpoint file, and no model could be read from it as a folder or Hub "
            f"id. transformers says: {error}"
        ) from error
    if isinstance(config, CLIPTextConfig):
        return config
    if not isinstance(config, CLIPConfig):
        raise _no_text_tower(source, f"its model type is {config.model_type!r}")
    text_config: Any = config.text_config
    # A full CLIP projects to the outer projection_dim; the inner one is often left at its default of 512.
    text_config.projection_dim = config.projection_dim
    return text_config


def _no_text_tower(source: str | PathLike[str], found: str) -> ValueError:
    return ValueError(
        f"{source} has no CLIP text tower to embed the class names with: {found}. Name a full CLIP (model type "
        "'clip' or 'clip_text_model') as the text source, or pass no source for stand-in embeddings."
    )


def _tokenize(prompts: list[str], config: CLIPTextConfig, source: str | PathLike[str]) -> Any:
    """Token ids and attention mask (P, L) from the tokenizer next to the model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} has no readable tokenizer. transformers says: {error}") from error
    words = [token for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"] for token in ids]
    # Without tokenizer files transformers hands out a CLIP tokenizer that knows no word at all, and says nothing.
    if tokenizer.unk_token_id in words or max(words) >= config.vocab_size:
        raise ValueError(
            f"the tokenizer of {source} does not fit its text tower: it has {len(tokenizer)} tokens, the tower "
            f"{config.vocab_size}. Put the tokenizer files of this CLIP (tokenizer.json) next to its weights."
        )
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    lengths = tokens["attention_mask"].sum(dim=1)
    longest = int(lengths.argmax())
    if lengths[longest] > config.max_position_embeddings:
        raise ValueError(
            f"the prompt {prompts[longest]!r} has {int(lengths[longest])} tokens, but the text tower of {source} takes "
            f"{config.max_position_embeddings}. Shorten the concept."
        )
    return tokens


__all__ = [
    "PROMPT",
    "class_prompts",
    "encode_class_texts",
    "has_text_tower",
    "mean_of_concepts",
    "stand_in_embeddings",
]
