"""Reads the recordings of RS-MTDF, SemiEarth and UniMatch V2 that tests/test_parity_family.py compares with.

`FAMILY_GOLDEN` names a directory of recordings; the default is the subset in `tests/goldens/family`, small enough for a
clone: the first image of RS-MTDF's forward pass with its student's weights, and its distillation loss.
"""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from co2s_hf.convert.dinov2_dpt import convert_official
from tests.comparison import Comparison

SUBSET = Path(__file__).parent / "goldens" / "family"
DIRECTORY = Path(os.environ.get("FAMILY_GOLDEN", SUBSET))


@cache
def tensors(file):
    """Tensors of a file as float64, in which everything here is computed; whole numbers stay."""
    path = DIRECTORY / f"{file}.safetensors"
    found = load_file(path) if path.exists() else {}
    return {name: value.double() if value.is_floating_point() else value for name, value in found.items()}


@cache
def settings(file):
    path = DIRECTORY / f"{file}.json"
    return json.loads(path.read_text()) if path.exists() else {}


class Golden(Comparison):
    """Recordings for one test, and the count of what it compared."""

    counts = Counter()
    worst = {}

    def has(self, file, *names):
        return all(name in tensors(file) for name in names)

    def need(self, file, *names):
        """Tensors of a file; skips the test where the directory lacks one."""
        for name in names:
            if name not in tensors(file):
                pytest.skip(f"{DIRECTORY} has no {name!r} in {file}.safetensors")
        return [tensors(file)[name] for name in names]

    def need_all(self, file, prefix):
        """Tensors whose name begins with `prefix`, without it; skips the test where there is none."""
        found = {name.removeprefix(prefix): v for name, v in tensors(file).items() if name.startswith(prefix)}
        if not found:
            pytest.skip(f"{DIRECTORY} has no {prefix}* in {file}.safetensors")
        return found

    def need_settings(self, file):
        if not settings(file):
            pytest.skip(f"{DIRECTORY} has no {file}.json")
        return settings(file)


def student_of(weights, dino, layers, **fields):
    """A float64 model from the released student's weights, of the recorded shape."""
    return convert_official(
        {name: value.float() for name, value in weights.items()},  # initial weights are exact in float32
        num_attention_heads=dino["heads"],
        feature_layers=layers,
        **fields,
    ).to(torch.float64)
