"""A saved model, and what a fresh process makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from co2s_hf import Co2SForSemanticSegmentation, Co2SImageProcessor, Dinov2DPTForSemanticSegmentation
from co2s_hf.configuration_co2s import TINY_HEAD


@pytest.fixture(scope="session")
def tiny_models(tiny_model):
    """One model of each kind, windows of 96 px, in eval mode. Shared: never train or change them."""
    torch.manual_seed(0)
    dinov2_dpt = Dinov2DPTForSemanticSegmentation.from_backbones(
        None,
        ["road", "water", "tree"],
        translators=[
            {"teacher_width": 12, "hidden_width": 16},
            {"teacher_width": 20, "hidden_width": 8, "input_px": 56},
        ],
        window_px=96,
    )
    return {"co2s": tiny_model, "dinov2_dpt": dinov2_dpt.eval()}


@pytest.fixture(scope="session")
def saved_folders(tiny_models, tmp_path_factory):
    """The folders that a user finds on the Hub. Read only."""
    folders = {}
    for kind, model in tiny_models.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folders[kind])
        Co2SImageProcessor().save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="session")
def pixels():
    return torch.randn(2, 3, 64, 80, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def saved_six_bands(tmp_path_factory):
    """A model of six named bands, saved. Read only."""
    folder = tmp_path_factory.mktemp("six_bands")
    statistics = {"image_mean": [0.1] * 6, "image_std": [0.05] * 6}
    torch.manual_seed(0)
    Co2SForSemanticSegmentation.from_backbones(
        None,
        None,
        ["road", "water"],
        bands=["blue", "green", "red", "nir", "swir1", "swir2"],
        text_embeddings=torch.eye(2, 64),
        **statistics,
    ).save_pretrained(folder)
    Co2SImageProcessor(**statistics).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_retargeted(clip_folder, tmp_path_factory):
    """A model that was trained for three classes and segments two others and one of them, saved. Read only."""
    folder = tmp_path_factory.mktemp("retargeted")
    torch.manual_seed(0)
    model = Co2SForSemanticSegmentation.from_backbones(clip_folder, None, ["a", "b", "c"], **TINY_HEAD)
    model.set_classes(["x", "b", "y"])
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def isolated(saved_folders, saved_six_bands, saved_retargeted, clip_folder, pixels, tmp_path_factory):
    """Runs `isolated.py` once, with an empty Hub cache: the folder it wrote to, and its facts."""
    out = tmp_path_factory.mktemp("isolated")
    for kind in saved_folders:
        (out / kind).mkdir()
    torch.save(pixels, out / "pixels.pt")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))},
        "HF_HOME": str(out / "hf"),
        "HF_MODULES_CACHE": str(out / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # sums in the same order, so that logits agree in every bit
    }
    script = Path(__file__).with_name("isolated.py")
    command = [sys.executable, "-I", *map(str, (script, out, saved_six_bands, saved_retargeted, clip_folder))]
    command += map(str, saved_folders.values())
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out, json.loads((out / "facts.json").read_text())
