"""Class embeddings: what a CLIP text tower says about the concepts of each class.

Needed once, before training; the result is a buffer of the model and the text tower is dropped again.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from co2s_hf.class_texts_co2s import class_prompts, encode_class_texts, mean_of_concepts, stand_in_embeddings

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def class_embeddings(
    concepts: Sequence[Sequence[str]],
    source: str | Path | None,
    *,
    dim: int | None = None,
    open_clip_model: str | None = None,
) -> Tensor:
    """Embed each class as the mean of its concepts' prompts, as `co2s_hf.class_texts_co2s.mean_of_concepts` says.

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
    prompts = class_prompts(concepts)
    if source is None:
        if dim is None or open_clip_model is not None:
            raise ValueError("without a text source, class_embeddings needs dim and takes no open_clip_model.")
        return stand_in_embeddings(concepts, dim)
    is_checkpoint = Path(source).is_file() or (Path(source).suffix in CHECKPOINT_SUFFIXES and not Path(source).is_dir())
    if is_checkpoint:
        raw = _encode_with_open_clip(prompts, Path(source), open_clip_model)
        embeddings = mean_of_concepts(raw, concepts, source)
    elif open_clip_model is not None:
        raise ValueError(
            f"open_clip_model={open_clip_model!r} needs a checkpoint file, but {source} is none. "
            "Leave it out for a Hub id or a folder in transformers format."
        )
    else:
        embeddings = encode_class_texts(source, concepts)
    if dim is not None and embeddings.shape[1] != dim:
        raise ValueError(
            f"the text tower of {source} gives {embeddings.shape[1]} numbers per class, but the vision tower projects "
            f"to {dim}. Take the text tower of the same CLIP as the vision tower."
        )
    return embeddings


@torch.no_grad()
def _encode_with_open_clip(prompts: list[str], path: Path, model_name: str | None) -> Tensor:
    """(P, E) float32, not normalised, from a checkpoint file of open_clip."""
    model = load_open_clip(path, model_name)
    import open_clip

    return model.float().eval().encode_text(open_clip.get_tokenizer(str(model_name))(prompts))


def load_open_clip(path: Path, model_name: str | None) -> Any:
    """Load a checkpoint file of open_clip into its architecture; ValueError where they do not belong together."""
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
    return model


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
