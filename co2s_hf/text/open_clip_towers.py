"""Both towers of an open_clip checkpoint, such as RemoteCLIP or GeoRSCLIP."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .embeddings import load_open_clip


class OpenClipTowers:
    """Image and text tower with one joint space.

    Args:
        path: checkpoint file (.pt, .pth, .bin, .safetensors).
        model_name: its architecture by its open_clip name, see `class_embeddings`.
        device: where they compute.
        dtype: in which precision.

    Attributes:
        size_px: side of the square pictures that the image tower takes.
        scale: factor on a cosine that the two were trained with.
        identity: which model it is.

    Raises:
        ValueError: the file is none, its architecture is missing or unknown, or the two do not belong together.
    """

    def __init__(
        self,
        path: str | Path,
        model_name: str | None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Load the two."""
        self.model: Any = load_open_clip(Path(path), model_name).to(device, dtype).eval().requires_grad_(False)
        self.device, self.dtype = torch.device(device), dtype
        import open_clip  # seconds to import, and only this path needs it

        self.tokenizer: Any = open_clip.get_tokenizer(str(model_name))
        size: Any = self.model.visual.image_size
        self.size_px = int(size[0] if isinstance(size, tuple) else size)
        self.scale = float(self.model.logit_scale.float().exp())
        self.identity: dict[str, Any] = {"model": str(path), "open_clip_model": model_name}
        trained_with = open_clip.get_model_preprocess_cfg(self.model)
        self.mean, self.std = (
            torch.tensor(trained_with[name], device=self.device)[:, None, None] for name in ("mean", "std")
        )

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """Embed (N, 3, size_px, size_px) in [0, 1] -> (N, E) float32 of length 1."""
        normalised = ((images.to(self.device) - self.mean) / self.std).to(self.dtype)
        return F.normalize(self.model.encode_image(normalised).float(), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed P texts -> (P, E) float32 of length 1."""
        return F.normalize(self.model.encode_text(self.tokenizer(texts).to(self.device)).float(), dim=1)

    @torch.no_grad()
    def patch_features(self, images: Tensor) -> Tensor:
        """Give what the last block makes of each patch, ahead of any norm and projection.

        Args:
            images: (N, 3, size_px, size_px), normalised.

        Returns:
            (N, D, h, w) in the precision of the model.
        """
        found = self.model.visual.forward_intermediates(images.to(self.dtype), indices=1, intermediates_only=True)
        return found["image_intermediates"][0]
