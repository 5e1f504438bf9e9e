"""A model that looks at one pixel at a time, so that every way to cut a scene must give the same map."""

import torch
from torch import nn

from co2s_hf import Co2SConfig
from co2s_hf.image_processing_co2s import Co2SImageProcessor
from co2s_hf.modeling_co2s import Co2SOutput

NAMES = ("water", "road", "tree")


class PixelModel(nn.Module):
    """Logits are the bands themselves, after the processor: the class of a pixel is its brightest band.

    The second student sees the bands in another order.
    """

    students = {"clip": "clip_logits", "dinov3": "dinov3_logits"}
    predictions = {**students, "fused": "logits"}

    def __init__(self, num_bands=3, window_px=32, names=NAMES, **fields):
        super().__init__()
        sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=1, patch_size=8)
        self.config = Co2SConfig(
            clip_config=dict(num_channels=num_bands, image_size=16, **sizes),
            dinov3_config=dict(model_type="dinov3_vit", num_channels=num_bands, image_size=16, **sizes),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            image_mean=[0.5] * num_bands,
            image_std=[0.25] * num_bands,
            clip_image_mean=[0.5] * num_bands,
            clip_image_std=[0.25] * num_bands,
            dinov3_image_mean=[0.5] * num_bands,
            dinov3_image_std=[0.25] * num_bands,
            window_px=window_px,
            **fields,
        )
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.seen = 0  # windows

    @property
    def device(self):
        return self.gain.device

    def forward(self, pixel_values):
        self.seen += len(pixel_values)
        logits = pixel_values[:, : self.config.num_labels] * self.gain
        return Co2SOutput(logits=logits, clip_logits=logits, dinov3_logits=logits.roll(1, dims=1))


def pixel_processor(num_bands=3):
    return Co2SImageProcessor(image_mean=[0.5] * num_bands, image_std=[0.25] * num_bands)
