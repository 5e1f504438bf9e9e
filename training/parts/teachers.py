"""Frozen foundation models whose patch features a student learns to imitate (RS-MTDF)."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, CLIPVisionModel, PreTrainedConfig, SiglipVisionModel

from co2s_hf.modeling_dinov2_dpt import Dinov2DPTEmbeddings
from co2s_hf.pretrained_backbones import RGB, has_own_statistics
from co2s_hf.text.open_clip_towers import OpenClipTowers

# Vision towers of image-text models: the class that loads the tower alone, and the tokens ahead of its patches.
_TOWERS = {
    "clip": (CLIPVisionModel, 1),
    "clip_vision_model": (CLIPVisionModel, 1),
    "siglip": (SiglipVisionModel, 0),
    "siglip_vision_model": (SiglipVisionModel, 0),
}
OPEN_CLIP_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
_CLIP_STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIGLIP_STATISTICS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class TeacherFacts:
    """What a student must know of a teacher to imitate it.

    Attributes:
        name: folder, Hub id, or checkpoint file of open_clip.
        width: channels of its patch features.
        input_px: side of the square its images are squeezed to; None where it sees them in their own size.
        open_clip_model: architecture of a checkpoint file.
    """

    name: str
    width: int
    input_px: int | None
    open_clip_model: str | None = None


@cache  # a checkpoint file has to be loaded for them
def teacher_facts(name: str, open_clip_model: str | None = None) -> TeacherFacts:
    """Find out about a vision model, or the vision tower of an image-text model, in transformers or open_clip format.

    A model of one image size only, as CLIP is, sees squeezed images.

    Raises:
        OSError: nothing of that name.
        ValueError: a checkpoint file of another architecture, or of none that is known.
    """
    if Path(name).suffix in OPEN_CLIP_SUFFIXES:
        towers = OpenClipTowers(name, open_clip_model)
        blank = torch.zeros(1, 3, towers.size_px, towers.size_px)
        return TeacherFacts(name, towers.patch_features(blank).shape[1], towers.size_px, open_clip_model)
    vision = _vision_config(AutoConfig.from_pretrained(name, trust_remote_code=False))
    return TeacherFacts(name, vision.hidden_size, vision.image_size if vision.model_type in _TOWERS else None)


class Teacher(nn.Module):
    """The last patch features of a frozen vision model, ahead of any pooling and projection.

    Images normalised for ImageNet are normalised anew for the model. Those with statistics of their own stay as they
    are: they already have about mean 0 and deviation 1, as the model's training images had after its normalisation.

    Args:
        facts: of the model.
        mean: by which the images that come in were normalised, one value per band.
        std: likewise.
        rgb: places of red, green and blue among the bands.
        official: as the released code does, show the model images as they come in, and not with the statistics that it
            was trained with; and sample DINOv2's positions by a scale factor.
    """

    def __init__(
        self,
        facts: TeacherFacts,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        rgb: Sequence[int] = (0, 1, 2),
        official: bool = False,
    ) -> None:
        """Load the weights."""
        super().__init__()
        self.facts, self.rgb = facts, list(rgb)
        self.tower = _OpenClipTower(facts) if facts.open_clip_model else _TransformersTower(facts.name, official)
        seen_mean, seen_std = ([values[i] for i in self.rgb] for values in (mean, std))
        as_they_come = official or has_own_statistics(seen_mean, seen_std)
        # x = (image - mean) / std; own = (x * std + mean - own_mean) / own_std
        own_mean, own_std = (seen_mean, seen_std) if as_they_come else (self.tower.mean, self.tower.std)
        scale = [seen / own for seen, own in zip(seen_std, own_std, strict=True)]
        shift = [(seen - own) / spread for seen, own, spread in zip(seen_mean, own_mean, own_std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale)[:, None, None])
        self.register_buffer("shift", torch.tensor(shift)[:, None, None])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Give the patch features (B, width, h, w) of images (B, C, H, W), on the grid of the model's patches."""
        images = images[:, self.rgb] * self.scale + self.shift
        if self.facts.input_px is not None:
            side = self.facts.input_px
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=True)
        return self.tower(images)


class _TransformersTower(nn.Module):
    def __init__(self, name: str, official: bool) -> None:
        super().__init__()
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
        tower, prefix_tokens = _TOWERS.get(kind, (AutoModel, None))
        self.model = tower.from_pretrained(name, dtype=torch.float32).eval().requires_grad_(False)
        if official and kind == "dinov2":
            self.model.embeddings = Dinov2DPTEmbeddings.of(self.model.embeddings)
        config = self.model.config
        self.patch_px = config.patch_size
        self.prefix_tokens = 1 + getattr(config, "num_register_tokens", 0) if prefix_tokens is None else prefix_tokens
        self.mean, self.std = _statistics(kind)

    def forward(self, images: Tensor) -> Tensor:
        height, width = (side // self.patch_px for side in images.shape[-2:])
        tokens = self.model(images).last_hidden_state[:, self.prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(2, (height, width))  # (B, h * w, D) -> (B, D, h, w)


class _OpenClipTower(nn.Module):
    def __init__(self, facts: TeacherFacts) -> None:
        super().__init__()
        self.towers = OpenClipTowers(facts.name, facts.open_clip_model)
        self.model = self.towers.model.visual  # so that it moves with this module
        self.mean, self.std = (values.flatten().tolist() for values in (self.towers.mean, self.towers.std))

    def forward(self, images: Tensor) -> Tensor:
        return self.towers.patch_features(images)


def load_teachers(arguments: Namespace, config: PreTrainedConfig) -> list[Teacher]:
    """Load the models that `--teachers` names, for images as the student of a configuration sees them.

    Raises:
        ValueError: no teacher is named, or the student's bands are without red, green and blue.
    """
    if not arguments.teachers:
        raise ValueError("--method rs_mtdf imitates foundation models: name one or more with --teachers.")
    bands = list(config.bands or (RGB if config.num_channels == len(RGB) else ()))
    if not set(RGB) <= set(bands):
        raise ValueError(
            f"--teachers see red, green and blue, but the bands are {', '.join(bands) or 'unnamed'}: name these three "
            "in --bands."
        )
    return [
        Teacher(
            teacher_facts(name, arguments.open_clip_model),
            mean=config.image_mean,
            std=config.image_std,
            rgb=[bands.index(colour) for colour in RGB],
            official=arguments.official,
        )
        for name in arguments.teachers
    ]


def resize_features(features: Tensor, side: int) -> Tensor:
    """Resize (B, D, h, w) to (B, D, side, side) where it has another size."""
    if features.shape[-2:] == (side, side):
        return features
    return F.interpolate(features, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    return getattr(config, "vision_config", config)


def _statistics(model_type: str) -> tuple[Sequence[float], Sequence[float]]:
    if model_type.startswith("clip"):
        return _CLIP_STATISTICS
    return _SIGLIP_STATISTICS if model_type.startswith("siglip") else _IMAGENET_STATISTICS
