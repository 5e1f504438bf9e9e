"""Trainings small enough for tests, shared by several test files and by the processes that they start."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import torch
import yaml
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, DINOv3ViTConfig, DINOv3ViTModel

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.configuration_co2s import TINY_HEAD
from co2s_hf.data.folders import find_split
from training import train_semi
from training.arguments import parse_arguments
from training.batches import Batch, SemiDataset, train_loader
from training.pools import FilePool, LabelledPool
from training.views import ViewNeeds

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "training" / "train_semi.py"
STAND_INS = "ignore:.*carry no meaning"  # the students below come without a text tower
SIZE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, patch_size=8)
CLIP, DINOV3 = dict(image_size=32, projection_dim=16, **SIZE), dict(image_size=32, num_register_tokens=1, **SIZE)
RECIPE = dict(
    scenes=dict(num_labelled=3, num_unlabelled=4, num_validation=2, size_px=64),
    config={name: list(value) if isinstance(value, tuple) else value for name, value in TINY_HEAD.items()},
    trainable="all",
    lr=1e-3,
    backbone_factor=1.0,
    head_factor=1.0,
    threshold=0.168,  # a fresh head is hardly surer than one in six
    batch_size=2,
    crop_px=32,
    scale_range=[0.4, 1.5],  # the smallest crops need padding
    max_steps=4,
    eval_every=2,
    save_every=2,
    log_every=1,
    num_workers=0,
    cpu_threads=1,  # models this small are slower on two, above all next to other processes
)


def save_students(folder):
    """Write random backbones to `folder/clip` and `folder/dinov3`; returns the values that name them in a recipe."""
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP)).save_pretrained(folder / "clip")
    DINOv3ViTModel(DINOv3ViTConfig(**DINOV3)).save_pretrained(folder / "dinov3")
    return {"clip": str(folder / "clip"), "dinov3": str(folder / "dinov3")}


def write_recipe(folder, **changes):
    """Write `RECIPE` with changes to a file in `folder`; a change to None removes the value."""
    values = {name: value for name, value in {**RECIPE, **changes}.items() if value is not None}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def tiny_arguments(folder, *argv, **changes):
    """Arguments of a run that leaves its results in `folder/run`."""
    recipe = write_recipe(folder, **{"output_dir": str(folder / "run"), **changes})
    arguments = parse_arguments(["--recipe", str(recipe), *argv])
    arguments.command = "train --tiny"
    return arguments


def draw_blanks(patch=setattr):
    """Let trainings write blank pictures to the places of theirs: drawing takes half the time of a tiny one."""

    def blank(*arguments, **options):
        (path,) = (one for one in arguments if isinstance(one, Path))
        Image.new("RGB", (8, 8)).save(path)

    patch(train_semi, "draw_curves", blank)
    patch(train_semi, "draw_examples", blank)


def write_shards(folder, pictures, shards=2):
    """Write (H, W, 3) uint8 pictures in turn to WebDataset shards in a new folder; returns its name."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"pool-{shard:03d}.tar", "w") as tar:
            for i in range(shard, len(pictures), shards):
                member = tarfile.TarInfo(f"tile{i:05d}.png")
                data = encode(pictures[i])
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(folder)


def encode(picture):
    """Give the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def build_tiny_model():
    """Two students of random weights with three classes, in float64 to tell an error from rounding."""
    names = ("road", "water", "tree")
    config = Co2SConfig(
        clip_config=CLIPVisionConfig(**CLIP),
        dinov3_config=DINOv3ViTConfig(pos_embed_rescale=None, **DINOV3),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        window_px=96,
        **TINY_HEAD,
    )
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation(config).double().train()


def start(*command):
    """Start a Python process of one thread in a process group of its own, as `start(script, argument, …)`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, timeout_s=300):
    """Wait for a process to end well and return what it printed."""
    printed, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, printed
    return printed


def tensors_of(batch):
    """The parts of a batch that are there, by name."""
    return {name: part for name, part in vars(batch).items() if part is not None}


def load_batch(folder, *, batch_size, rank, world_size):
    """The first batch of one process from a folder of images and masks of three classes, as Co2S wants it."""
    return next(load_batches(folder, batch_size=batch_size, rank=rank, world_size=world_size, steps=1))


def load_batches(folder, *, batch_size, rank, world_size, steps):
    """The batches of some steps, in float64."""
    split = find_split(folder, classes=("road", "water", "tree"), labelled=["i[0-3].png"], validation=["i0.png"])
    dataset = SemiDataset(
        LabelledPool(split.labelled, seed=0),
        FilePool(split.unlabelled, seed=0),
        crop_px=32,
        seed=0,
        views=ViewNeeds(unlabelled=True, partner="other"),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        scale_range=(0.5, 1.5),
    )
    share = dict(batch_size=batch_size, rank=rank, world_size=world_size)
    for batch in train_loader(dataset, start_step=0, total_steps=steps, **share):
        pairs = tensors_of(batch).items()
        yield Batch(**{name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in pairs})
