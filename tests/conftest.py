"""What several test files share: models of random weights, small enough to build in a second."""

import string
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig, DINOv3ViTConfig

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.configuration_co2s import TINY_HEAD
from tests.hub_double import TOKEN, HubDouble

torch.set_num_threads(1)  # models this small are slower on two, above all next to other processes


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """CLIP's tokenizer with single letters as its only words."""
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    vocab = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[])


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory, tiny_tokenizer):
    """A whole CLIP that projects to 12 numbers, in transformers format, with its tokenizer. Read only."""
    folder = tmp_path_factory.mktemp("clip")
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tiny_tokenizer),
            max_position_embeddings=48,
            bos_token_id=tiny_tokenizer.bos_token_id,
            eos_token_id=tiny_tokenizer.eos_token_id,
            pad_token_id=tiny_tokenizer.pad_token_id,
            **size,
        ),
        vision_config=dict(image_size=32, patch_size=16, **size),
        projection_dim=12,  # the towers' own projection_dim stays at 512, as in many real checkpoints
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model():
    """Co2S with three classes and windows of 96 px, in eval mode. Shared: never train or change it."""
    size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, patch_size=8)
    names = ("road", "water", "tree")
    config = Co2SConfig(
        clip_config=CLIPVisionConfig(image_size=32, projection_dim=16, **size),
        dinov3_config=DINOv3ViTConfig(image_size=32, num_register_tokens=1, **size),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        window_px=96,
        **TINY_HEAD,
    )
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation(config).eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A double of the Hub that this process takes for the Hub, and where nobody waits before trying again."""
    impatient = SimpleNamespace(sleep=lambda seconds: None)
    with HubDouble(tmp_path / "hub") as double:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", double.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)
        monkeypatch.setattr("co2s_hf.publish.push.time", impatient)
        huggingface_hub.utils.disable_progress_bars()
        yield double
        huggingface_hub.utils.enable_progress_bars()
        huggingface_hub.close_session()
