"""Attacks that want to run code: pickles in every loader, YAML tags, `auto_map`; and configurations beyond memory.

Every attack gets a folder to work in and the canary, a file that its code would make; it returns where it was resisted
with a result, or raises the error that resisted it. An AssertionError is a success of the attack.
"""

import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation, Co2SImageProcessor, Dinov2DPTConfig
from co2s_hf.__main__ import main as co2s
from co2s_hf.convert.files import read_checkpoint
from co2s_hf.data.description import DatasetDescription
from co2s_hf.publish.export import load as load_model
from co2s_hf.publish.folder import check_folder
from co2s_hf.text.embeddings import load_open_clip
from training.checkpoints import FORMAT, load_checkpoint
from training.pools import ImageStream
from training.purification.cache import RegionCache


class Payload:
    """A pickle of it makes the canary when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def refused(run: Any, *words: str) -> None:
    """Assert that an error names what it should; and only such an error."""
    with pytest.raises((ValueError, OSError)) as caught:
        run()
    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# Pickles
# ---------------------------------------------------------------------------------------------------------------------


def _torch_file(path: Path, canary: Path, *, old: bool = False) -> Path:
    weights = {"state_dict": {"visual.proj": torch.zeros(2)}, "optimizer": Payload(canary)}
    torch.save(weights, path, _use_new_zipfile_serialization=not old)
    return path


def _convert(folder: Path, canary: Path, *, old: bool) -> None:
    path = _torch_file(folder / "weights.pt", canary, old=old)
    assert co2s(["convert", "clip", str(path), "--output", str(folder / "out")]) == 2
    refused(lambda: read_checkpoint(path, ("state_dict",)), "weights.pt", "more than data", "system")


def _convert_archive(folder: Path, canary: Path) -> None:
    """A TorchScript archive whose data.pkl runs code."""
    with zipfile.ZipFile(folder / "archive.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", b"")
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(canary)))
    refused(lambda: read_checkpoint(folder / "archive.pt", ()), "archive.pt", "more than data")


def _disguised(folder: Path, canary: Path) -> None:
    """A pickle under the name of safetensors."""
    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload(canary)))
    refused(lambda: read_checkpoint(folder / "model.safetensors", ()), "model.safetensors")


def _text_tower(folder: Path, canary: Path) -> None:
    path = _torch_file(folder / "tower.pt", canary)
    refused(lambda: load_open_clip(path, "RN50"), "tower.pt", "plain weights")


def _resumed(folder: Path, canary: Path, name: str) -> None:
    from accelerate import Accelerator

    step = folder / "step-00000001"
    step.mkdir()
    record = {"format": FORMAT, "step": 1, "num_processes": 1, "state": {}, "fingerprint": {}}
    (step / "run.json").write_text(json.dumps(record))
    accelerator = Accelerator(cpu=True)
    accelerator.save_state(str(step))
    layer = torch.nn.Linear(1, 1)
    accelerator.prepare(layer, torch.optim.SGD(layer.parameters(), 0.1))
    _torch_file(step / name, canary)
    with pytest.raises(Exception) as caught:  # accelerate's own words for its own files
        load_checkpoint(accelerator, step, fingerprint={})
    assert not isinstance(caught.value, (SystemExit, AssertionError))


def _cache(folder: Path, canary: Path) -> None:
    (folder / "parameters.json").write_text('{"names": ["a"]}')
    image = folder / "a.png"
    Image.new("RGB", (4, 4)).save(image)
    cache = RegionCache(folder)
    cache._file(image).write_bytes(pickle.dumps(Payload(canary)))
    refused(lambda: cache.read(image), "is damaged")
    np.savez(cache._file(image).with_suffix(".npz"), regions=np.array([Payload(canary)], object))
    cache._file(image).with_suffix(".npz").replace(cache._file(image))
    refused(lambda: cache.read(image), "is damaged")


def _shard(folder: Path, canary: Path) -> None:
    """A shard with pickles next to its images, under every ending that a reader could know."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with tarfile.open(folder / "a.tar", "w") as shard:
        for name, data in (
            ("x.png", picture.getvalue()),
            *((f"x.{end}", pickle.dumps(Payload(canary))) for end in ("pyd", "pickle", "pkl")),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    stream = ImageStream([str(folder / "a.tar")], "png", seed=0, batch_size=1)
    assert stream[0].data == picture.getvalue()


def _published(folder: Path, canary: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "README.md").write_text("---\nlibrary_name: a\nlicense: mit\npipeline_tag: b\n---\n")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    _torch_file(folder / "optimizer.pt", canary)
    refused(lambda: check_folder(folder), "optimizer.pt", "runs code")


# ---------------------------------------------------------------------------------------------------------------------
# YAML
# ---------------------------------------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:os.system",
    "!!python/object/new:os.system",
    "!!python/name:os.system",
    "!!python/module:os",
]


def _yaml(folder: Path, canary: Path, tag: str) -> None:
    path = folder / "dataset.yaml"
    path.write_text(f'version: {tag} ["touch {canary}"]\n')
    refused(lambda: DatasetDescription.load(path), "dataset.yaml")


def _yaml_arguments(folder: Path, canary: Path) -> None:
    """The recipe of a training is YAML, too."""
    from training.arguments import parse_arguments

    (folder / "recipe.yaml").write_text(f'seed: !!python/object/apply:os.system ["touch {canary}"]\n')
    with pytest.raises((ValueError, OSError, SystemExit, yaml.YAMLError)):
        parse_arguments(["--recipe", str(folder / "recipe.yaml")])


# ---------------------------------------------------------------------------------------------------------------------
# Code of models, and configurations
# ---------------------------------------------------------------------------------------------------------------------


def _model(folder: Path, **changes: Any) -> Path:
    config = Co2SConfig.from_backbones(None, None, ["a", "b"], window_px=32)
    Co2SForSemanticSegmentation(config).save_pretrained(folder)
    Co2SImageProcessor().save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def warm_up() -> None:
    """Save and load a model once."""
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForSemanticSegmentation.from_pretrained(_model(Path(folder)))


def _own_code(folder: Path, canary: Path, prefix: str) -> None:
    """A model of ours whose files bring other code, here or in another repository."""
    auto_map = {name: f"{prefix}evil.Evil" for name in ("AutoConfig", "AutoModel", "AutoModelForSemanticSegmentation")}
    _model(folder, auto_map=auto_map)
    (folder / "evil.py").write_text(f"import os\nos.system('touch {canary}')\n")
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    assert type(model) is Co2SForSemanticSegmentation
    assert type(load_model(folder)) is Co2SForSemanticSegmentation  # as `co2s export`, evaluation and purification do


def _foreign_code(folder: Path, canary: Path) -> None:
    """A model of a type that nobody knows, for `co2s export` and as a backbone."""
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}})
    )
    (folder / "evil.py").write_text(f"import os\nos.system('touch {canary}')\n")
    refused(lambda: load_model(str(folder)), "trust_remote_code")
    refused(lambda: Co2SConfig.from_backbones(str(folder), None, ["a", "b"]), "trust_remote_code")
    refused(lambda: Dinov2DPTConfig.from_backbones(str(folder), ["a", "b"]), "trust_remote_code")


def _space_code(folder: Path, canary: Path) -> None:
    """The page trusts the code of the model that its owner has named, and not what that points to."""
    from tests.faults.space_modules import segmenter

    _model(folder, auto_map={"AutoConfig": "evil/repo--evil.Evil", "AutoModel": "evil/repo--evil.Evil"})
    refused(lambda: segmenter.Segmenters().get(str(folder)), "evil/repo, another repository")


def _huge(folder: Path, canary: Path, field: str, part: str | None) -> None:
    _model(folder)
    content = json.loads((folder / "config.json").read_text())
    (content if part is None else content[part])[field] = 10**12
    if field == "num_labels":
        del content["id2label"], content["label2id"]
    (folder / "config.json").write_text(json.dumps(content))
    for loader in (AutoConfig, AutoModelForSemanticSegmentation):
        refused(lambda loader=loader: loader.from_pretrained(folder), field, "1e+12", "expected at most")


def _huge_processor(folder: Path, canary: Path) -> None:
    Co2SImageProcessor().save_pretrained(folder)
    content = json.loads((folder / "preprocessor_config.json").read_text())
    content |= {"do_resize": True, "size": {"height": 10**6, "width": 10**6}}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    refused(lambda: AutoImageProcessor.from_pretrained(folder)(np.zeros((4, 4, 3), np.uint8)), "size")


def _huge_tensor(folder: Path, canary: Path) -> None:
    torch.save({"visual.proj": torch.zeros(1).expand(10**13)}, folder / "w.pt")
    refused(lambda: read_checkpoint(folder / "w.pt", ()), "w.pt", "tensors of")
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(lambda: read_checkpoint(folder / "w.safetensors", ()), "w.safetensors")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(200):
                entry.write(bytes(10**6))
    refused(lambda: read_checkpoint(folder / "bomb.pt", ()), "bomb.pt")


ATTACKS = {
    "pickles with code": {
        "convert, torch.save": lambda f, c: _convert(f, c, old=False),
        "convert, old torch.save": lambda f, c: _convert(f, c, old=True),
        "convert, TorchScript": _convert_archive,
        "convert, as safetensors": _disguised,
        "open_clip text tower": _text_tower,
        "resume, registered object": lambda f, c: _resumed(f, c, "custom_checkpoint_0.pkl"),
        "resume, random states": lambda f, c: _resumed(f, c, "random_states_0.pkl"),
        "resume, optimizer": lambda f, c: _resumed(f, c, "optimizer.bin"),
        "scores of purification": _cache,
        "shard of a stream": _shard,
        "push": _published,
    },
    "YAML tags": {
        **{tag: lambda f, c, tag=tag: _yaml(f, c, tag) for tag in TAGS},
        "recipe of a training": _yaml_arguments,
    },
    "code of models": {
        "auto_map, own folder": lambda f, c: _own_code(f, c, ""),
        "auto_map, another repository": lambda f, c: _own_code(f, c, "evil/repo--"),
        "unknown type with auto_map": _foreign_code,
        "the Space, another repository": _space_code,
    },
    "sizes beyond memory": {
        "hidden_size": lambda f, c: _huge(f, c, "hidden_size", "clip_config"),
        "num_hidden_layers": lambda f, c: _huge(f, c, "num_hidden_layers", "dinov3_config"),
        "num_labels": lambda f, c: _huge(f, c, "num_labels", None),
        "head_channels": lambda f, c: _huge(f, c, "head_channels", None),
        "size of the processor": _huge_processor,
        "tensors of checkpoints": _huge_tensor,
    },
}
