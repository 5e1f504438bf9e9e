"""An image tower and a text tower with one joint space: CLIP, SigLIP and their kin, from transformers or open_clip."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from co2s_hf.text import CHECKPOINT_SUFFIXES, OpenClipTowers
from training.purification.scorers import model_identity, precision_on

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Towers(Protocol):
    """Both towers on one device.

    Attributes:
        size_px: side of the square pictures that the image tower takes.
        scale: factor on a cosine that the two were trained with.
        identity: which model it is, see `model_identity`.
    """

    size_px: int
    scale: float
    identity: dict[str, Any]

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (N, 3, size_px, size_px) in [0, 1] -> (N, E) float32 of length 1."""
        ...

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed P texts -> (P, E) float32 of length 1."""
        ...


class TransformersTowers:
    """Towers by `AutoModel`: any model with `get_image_features` and `get_text_features`.

    Args:
        source: folder or Hub id in transformers format, with its tokenizer.
        revision: of the Hub id.
        device: where they compute.

    Raises:
        ValueError: there is no such model, or it has no towers with a joint space.
    """

    def __init__(self, source: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        """Load the two."""
        self.device = torch.device(device)
        self.dtype = precision_on(self.device)
        try:
            model: Any = AutoModel.from_pretrained(source, revision=revision, dtype=self.dtype, trust_remote_code=False)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
            self.features = model.get_image_features, model.get_text_features
            self.size_px = int(model.config.vision_config.image_size)
        except (AttributeError, TypeError, OSError, ValueError) as error:
            raise ValueError(
                f"{source} has no image and text towers with a joint space and a tokenizer; expected a CLIP, a SigLIP "
                f"or the like in transformers format. transformers says: {error}"
            ) from error
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.scale = float(self.model.logit_scale.float().exp())
        self.identity = model_identity(source, revision, getattr(self.model.config, "_commit_hash", None))
        self.mean, self.std = (
            torch.tensor(values, device=self.device)[:, None, None] for values in _statistics(source, revision)
        )

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (N, 3, size_px, size_px) in [0, 1] -> (N, E) float32 of length 1."""
        output = self.features[0](pixel_values=self.normalised(images))
        return normalize(output.pooler_output.float(), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed P texts -> (P, E) float32 of length 1. Raises ValueError for a tokenizer that does not know them."""
        text_config = self.model.config.text_config
        words = {token for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids}
        # Without tokenizer files transformers hands out a tokenizer that knows no word at all, and says nothing.
        if self.tokenizer.unk_token_id in words or max(words) >= text_config.vocab_size:
            raise ValueError(
                f"the tokenizer of {self.identity['model']} does not know the words of {texts[0]!r}; expected the one "
                "that the model was trained with. Put its files (tokenizer.json) next to the weights."
            )
        tokens = self.tokenizer(
            texts,
            padding="max_length" if "siglip" in self.model.config.model_type else True,  # as it was trained
            max_length=text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        return normalize(self.features[1](**tokens).pooler_output.float(), dim=1)

    def normalised(self, images: Tensor) -> Tensor:
        """Give (N, 3, H, W) in [0, 1] the statistics and the precision that the image tower expects."""
        return ((images.to(self.device) - self.mean) / self.std).to(self.dtype)


def load_towers(
    source: str, revision: str | None = None, *, open_clip_model: str | None = None, device: torch.device | str = "cpu"
) -> Towers:
    """Load a folder or Hub id in transformers format, or a checkpoint file of open_clip.

    Args:
        source: the folder, Hub id or file.
        revision: of the Hub id.
        open_clip_model: architecture of the file, e.g. ViT-B-32.
        device: where they compute.

    Raises:
        ValueError: there is no such model, or a file without its architecture.
    """
    if Path(source).suffix not in CHECKPOINT_SUFFIXES or Path(source).is_dir():
        return TransformersTowers(source, revision, device)
    towers = OpenClipTowers(source, open_clip_model, device=device, dtype=precision_on(torch.device(device)))
    towers.identity = {**model_identity(source), "open_clip_model": open_clip_model}
    return towers


def _statistics(source: str, revision: str | None) -> tuple[Any, Any]:
    """Mean and deviation that the pictures of a model had; CLIP's where it does not say."""
    try:
        processor: Any = AutoImageProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):
        return CLIP_MEAN, CLIP_STD
    return processor.image_mean, processor.image_std
