"""Pushed here, loaded elsewhere: the examples of the card run in a process that knows the Hub and not this package."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from co2s_hf import Co2SForSemanticSegmentation, Co2SImageProcessor
from co2s_hf.publish.push import push_folder

REPO = "me/model"


@pytest.fixture
def seen(hub, model_folder, tmp_path):
    """What the other process saw; its download of the weights breaks off in the middle once."""
    push_folder(model_folder, REPO)
    picture = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "scene.png")
    hub.fail(r"^GET /me/model/resolve/.*safetensors")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))},
        **hub.environment,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # sums in the same order, so that logits agree in every bit
    }
    script = Path(__file__).with_name("from_the_hub.py")
    command = [sys.executable, "-I", str(script), REPO, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "facts.json").read_text())
    return SimpleNamespace(hub=hub, picture=picture, **facts, tensors=torch.load(tmp_path / "seen.pt"))


def test_the_examples_of_the_card_run_without_the_package(seen, model_folder):
    assert (seen.loaded, vars(seen)["class"], seen.folder) == ([], "Co2SForSemanticSegmentation", REPO)
    model = Co2SForSemanticSegmentation.from_pretrained(model_folder).eval()
    processor = Co2SImageProcessor.from_pretrained(model_folder)
    with torch.no_grad():
        outputs = model(**processor(Image.fromarray(seen.picture), return_tensors="pt"))
    logits, classes = seen.tensors
    assert torch.equal(logits, outputs.logits)
    here = processor.post_process_semantic_segmentation(outputs, target_sizes=[(120, 150)])[0]
    assert torch.equal(classes, here)
    counts = {name: int((here == index).sum()) for index, name in model.config.id2label.items()}
    assert seen.masks == {name: count for name, count in counts.items() if count}
    # The fault happened, and the download went on.
    assert all(fault.times == 0 for fault in seen.hub.faults)
    assert len(seen.hub.asked(r"^GET /me/model/resolve/.*safetensors")) == 2
    assert seen.hub.asked("^POST /api/validate-yaml")
