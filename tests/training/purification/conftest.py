"""A picture with regions, and tiny models of random weights."""

import pytest
import torch

from tests.training.purification.tiny_models import save_qwen, save_sam
from training.purification.answering import AnsweringModel
from training.purification.class_bank import ClassBank
from training.purification.grounding import BoxSegmenter
from training.purification.towers import TransformersTowers

SIDE = 40


@pytest.fixture(scope="session")
def bank():
    return ClassBank(("water", "road", "low_vegetation"), (("water", "lake"), ("road",), ("grass", "low_vegetation")))


@pytest.fixture(scope="session")
def picture():
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def regions():
    """Regions 0, 2 and 3; nothing has the id 1."""
    ids = torch.full((SIDE, SIDE), -1)
    ids[:10, :10], ids[12:30, 5:35], ids[35:, 35:] = 0, 2, 3
    return ids


@pytest.fixture(scope="session")
def towers(clip_folder):
    return TransformersTowers(str(clip_folder))


@pytest.fixture(scope="session")
def answering(tmp_path_factory):
    return AnsweringModel(save_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    return BoxSegmenter(save_sam(tmp_path_factory.mktemp("sam")))
