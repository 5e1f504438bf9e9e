"""A picture with regions, and a tiny CLIP."""

import pytest
import torch

from training.purification.class_bank import ClassBank
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
