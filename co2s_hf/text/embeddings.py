"""Class embeddings: what a CLIP text tower says about the concepts of each class.

Needed once, before training; the result is a buffer of the model and the text tower is dropped again.
"""

import hashlib
import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, CLIPTextConfig, CLIPTextModelWithProjection

from .concepts import PROMPT

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def class_embeddings(
    concepts: Sequence[Sequence[str]],
    source: str | Path | None,
    *,
    dim: int | None = None,
    open_clip_model: str | None = None,
) -> Tensor:
    """Embed each class as the mean of its concepts' prompts.

    As released (and unlike averaging unit vectors): the raw outputs of the text tower are averaged over the concepts
    of a class and the mean is L2-normalised once.

    Args:
        concepts: The concepts of each of N classes, see `concepts_for`.
        source: A Hub id or folder of a CLIP with a text tower, in transformers format; or an open_clip checkpoint
            file (.pt, .pth, .bin, .safetensors), such as RemoteCLIP or GeoRSCLIP; or None for `stand_in_embeddings`.
        dim: The width that the vision tower projects to, if known. Must equal the text tower's.
        open_clip_model: Architecture of a checkpoint file by its open_clip name. `ViT-B-32` and `ViT-B-32-quickgelu`
            both load the same file: take the one that the checkpoint was trained with.

    Returns:
        (N, E) float32 with rows of length 1.

    Raises:
        ValueError: No concepts for a class, no usable text tower in `source`, a prompt too long for it, or a width
            other than `dim`.
    """
    _check_concepts(concepts)
    if source is None:
        if dim is None or open_clip_model is not None:
            raise ValueError("without a text source, class_embeddings needs dim and takes no open_clip_model.")
        return stand_in_embeddings(concepts, dim)
    prompts = [PROMPT.format(concept) for of_class in concepts for concept in of_class]
    is_checkpoint = Path(source).is_file() or (Path(source).suffix in CHECKPOINT_SUFFIXES and not Path(source).is_dir())
    if is_checkpoint:
        raw = _encode_with_open_clip(prompts, Path(source), open_clip_model)
    elif open_clip_model is not None:
        raise ValueError(
            f"open_clip_model={open_clip_model!r} needs a checkpoint file, but {source} is none. "
            "Leave it out for a Hub id or a folder in transformers format."
        )
    else:
        raw = _encode_with_transformers(prompts, str(source))
    if dim is not None and raw.shape[1] != dim:
        raise ValueError(
            f"the text tower of {source} gives {raw.shape[1]} numbers per class, but the vision tower projects to "
            f"{dim}. Take the text tower of the same CLIP as the vision tower."
        )
    if not torch.isfinite(raw).all():
        raise ValueError(f"the text tower of {source} gives NaN or infinite values. Its weights are damaged.")
    return _average(raw, [len(of_class) for of_class in concepts])


def stand_in_embeddings(concepts: Sequence[Sequence[str]], dim: int) -> Tensor:
    """Embeddings without a text tower: each concept's fixed point on a hash, averaged like real ones.

    The same strings give the same rows in every process, in every order of the classes. They keep classes apart and
    know nothing about what the words mean: for tests, trial runs and ablations.

    Args:
        concepts: The concepts of each of N classes.
        dim: Width E of the embeddings.

    Returns:
        (N, E) float32 with rows of length 1.

    Raises:
        ValueError: No concepts for a class, or `dim` below 1.
    """
    _check_concepts(concepts)
    if dim < 1:
        raise ValueError(f"dim is the width of the embeddings and at least 1, found {dim}.")
    warnings.warn(
        "class embeddings are stand-ins computed from a hash of the class names: they carry no meaning. "
        "For real ones name a text source: a Hub id or folder of a CLIP with a text tower, or an open_clip checkpoint.",
        UserWarning,
        stacklevel=2,
    )
    raw = [_hash_vector(PROMPT.format(concept), dim) for of_class in concepts for concept in of_class]
    return _average(torch.stack(raw), [len(of_class) for of_class in concepts])


def _hash_vector(text: str, dim: int) -> Tensor:
    """(E,) float32, uniform in [-1, 1): no random generator, so no dependence on a seed or a library's version."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dim)
    return torch.from_numpy(np.frombuffer(digest, dtype="<u4") / 2.0**31 - 1.0).float()


def _average(raw: Tensor, counts: Sequence[int]) -> Tensor:
    """Raw rows (sum of counts, E) -> (N, E): the mean of each class, L2-normalised once."""
    return F.normalize(torch.stack([rows.mean(dim=0) for rows in raw.float().split(list(counts))]), dim=1)


def _check_concepts(concepts: Sequence[Sequence[str]]) -> None:
    if not concepts:
        raise ValueError("expected the concepts of at least one class, found none.")
    for index, of_class in enumerate(concepts):
        if isinstance(of_class, str) or not of_class:
            raise ValueError(f"class {index} needs a list of one or more concepts, found {of_class!r}.")


class _TextTower(CLIPTextModelWithProjection):
    """The text half of a full CLIP, loaded without a report on the other half."""

    _keys_to_ignore_on_load_unexpected = [r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$"]


@torch.no_grad()
def _encode_with_transformers(prompts: list[str], source: str) -> Tensor:
    """(P, E) float32, not normalised, from the text tower of a CLIP in transformers format."""
    config = _text_config(source)
    tokens = _tokenize(prompts, config, source)
    loaded: Any = _TextTower.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    if info["missing_keys"]:
        raise _no_text_tower(source, f"{len(info['missing_keys'])} of its tensors are missing from the weights")
    return model.eval()(**tokens).text_embeds


def _text_config(source: str) -> CLIPTextConfig:
    try:
        config: Any = AutoConfig.from_pretrained(source)
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


def _no_text_tower(source: str, found: str) -> ValueError:
    return ValueError(
        f"{source} has no CLIP text tower to embed the class names with: {found}. Name a full CLIP (model type "
        "'clip' or 'clip_text_model') as the text source, or pass no source for stand-in embeddings."
    )


def _tokenize(prompts: list[str], config: CLIPTextConfig, source: str) -> Any:
    """Token ids and attention mask (P, L) from the tokenizer next to the model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
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


@torch.no_grad()
def _encode_with_open_clip(prompts: list[str], path: Path, model_name: str | None) -> Tensor:
    """(P, E) float32, not normalised, from a checkpoint file of open_clip."""
    if not path.is_file():
        raise ValueError(f"the text source {path} does not exist; expected an open_clip checkpoint file.")
    import open_clip  # seconds to import, and only this path needs it

    if model_name not in open_clip.list_models():
        raise ValueError(
            f"{path} is a checkpoint file, which needs the name of its architecture as open_clip_model, such as "
            f"'ViT-B-32'; found {model_name!r}. open_clip.list_models() lists the names."
        )
    weights = _read_weights(path)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave the caller's generator alone
        model = open_clip.create_model(model_name, pretrained=None)
    own = model.state_dict()
    shared = own.keys() & weights.keys()
    misfits = sorted(
        (own.keys() ^ weights.keys()) | {name for name in shared if own[name].shape != weights[name].shape}
    )
    if misfits:
        raise ValueError(
            f"the weights in {path} do not fit open_clip_model={model_name!r}: {len(misfits)} tensors are missing, "
            f"unexpected or of another shape, such as {misfits[0]}. Name the architecture that they were trained with."
        )
    model.load_state_dict(weights)
    return model.float().eval().encode_text(open_clip.get_tokenizer(model_name)(prompts))


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file, without executing anything from it."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} could not be read as plain weights (pickled code and TorchScript are refused). Load it where you "
            f"trust it and save the bare state dict. torch says: {error}"
        ) from error
    if isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: expected a state dict (name -> tensor), bare or under 'state_dict'.")
    return {name.removeprefix("module."): value for name, value in content.items()}
