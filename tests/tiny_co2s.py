"""Tiny seeded models of Co2S, and inputs for them."""

import copy

import torch
from transformers import (
    CLIPVisionConfig,
    DINOv3ViTConfig,
)

from co2s_hf.configuration_co2s import Co2SConfig
from co2s_hf.modeling_co2s import (
    Co2SForSemanticSegmentation,
)

NAMES = ("road", "water", "tree")
SIZE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
HEAD = dict(
    head_channels=16, head_text_channels=16, head_up_channels=(16, 16), head_skip_channels=(8, 8), head_pool_size=2
)


def clip_config(**fields):
    return CLIPVisionConfig(**{**SIZE, "patch_size": 8, "image_size": 32, "projection_dim": 12, **fields})


def dinov3_config(**fields):
    return DINOv3ViTConfig(
        **{**SIZE, "patch_size": 8, "image_size": 32, "num_register_tokens": 1, "pos_embed_rescale": None, **fields}
    )


def build(clip=None, dinov3=None, **fields):
    """A seeded model; text embeddings and queries are random."""
    config = Co2SConfig(
        clip_config=clip or clip_config(),
        dinov3_config=dinov3 or dinov3_config(),
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
        **{**HEAD, "window_px": 96, **fields},
    )
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation(config).eval()


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labels(*shape):
    return torch.randint(len(NAMES), shape, generator=torch.Generator().manual_seed(2))


def load_aligned(path, **options):
    """Load a model into memory of its own: in a mapped file tensors lie unaligned, and kernels then round otherwise."""
    return copy.deepcopy(Co2SForSemanticSegmentation.from_pretrained(path, **options))
