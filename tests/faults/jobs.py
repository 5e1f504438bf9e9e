"""The kinds of work that are interrupted: how each runs and goes on, and what must be equal in the end.

A kind of work is a `Job`; to add one, write its function, its comparison, and a line in `run.py`.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from huggingface_hub import constants

from co2s_hf.__main__ import main as co2s
from co2s_hf.data import synthetic
from co2s_hf.data.journal import Journal
from co2s_hf.data.prepare import prepare_protocol
from co2s_hf.geo.outputs import ENDINGS
from co2s_hf.image_processing_co2s import Co2SImageProcessor
from co2s_hf.publish import push
from co2s_hf.publish.folder import verify_checksums
from co2s_hf.raster.write import write_image, write_mask
from tests.data.test_prepare import _miniature, _write_replica
from tests.faults.children import Moment
from tests.hub_double import TOKEN, HubDouble
from tests.training.test_purify_labels import CLASSES, COLOURS, ColourScorer
from tests.training.tiny_runs import build_tiny_model, draw_blanks, save_students, tiny_arguments
from training import purify_labels, train_semi
from training.batches import EvaluationDataset
from training.checkpoints import latest_checkpoint, verify_checkpoint

STEPS, EVAL_EVERY, SAVE_EVERY = 7, 4, 3
PREPARED = ("gid15", "native", "original")  # 342 tiles


@dataclass
class Job:
    """A kind of work.

    Attributes:
        run: does the work in a folder, or goes on with it.
        differences: what is not equal in two folders after it, nothing if all is well.
        processes: of one run.
        moments: makes the moments of the kills from random numbers; without, the kill comes at a random time.
        folder: part of the paths whose changes are counted for `moments`.
        torn: after each kill, what has the name of something finished and is not what the first folder has there.
    """

    run: Callable[[Path], None]
    differences: Callable[[Path, Path], list[str]]
    processes: int = 1
    moments: Callable[[np.random.Generator, int], Moment | None] | None = None
    folder: str = "/run/"
    torn: Callable[[Path, Path], list[str]] = lambda whole, parts: []


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


class Training:
    """Seven steps of two tiny students, on drawn scenes outside of the output folder."""

    def __init__(self, base: Path) -> None:
        """Write the scenes and the backbones."""
        size = dict(num_labelled=3, num_unlabelled=4, num_validation=2, size_px=64)
        synthetic.write_scenes(base / "scenes", seed=0, **size)
        self.data = dict(data_dir=str(base / "scenes"), classes=list(synthetic.CLASSES), validation=["val_*.png"])
        self.students = save_students(base)

    def arguments(self, folder: Path, *argv: str, resume: bool | None = None, **changes: Any) -> Any:
        """Arguments of a run in `folder/run`, which goes on where there is a checkpoint."""
        if latest_checkpoint(folder / "run" / "checkpoints") is not None if resume is None else resume:
            argv = (*argv, "--resume")
        steps = dict(max_steps=STEPS, eval_every=EVAL_EVERY, save_every=SAVE_EVERY, scenes=None, timeout_minutes=1.0)
        return tiny_arguments(folder, *argv, **{**self.students, **self.data, **steps, **changes})

    def run(self, folder: Path, *argv: str, **changes: Any) -> None:
        """Train, or go on."""
        os.environ["ACCELERATE_USE_CPU"] = "1"
        draw_blanks()
        train_semi.main(self.arguments(folder, *argv, **changes))


def training_differences(whole: Path, parts: Path) -> list[str]:
    """Models, numbers and the last checkpoint, byte by byte; and what should not be there."""
    found = []
    for folder in ("model", "best", f"checkpoints/step-{STEPS:08d}"):
        names = {path.name for path in (whole / "run" / folder).iterdir()}
        here = parts / "run" / folder
        if not here.is_dir() or {path.name for path in here.iterdir()} != names:
            found.append(f"{folder} holds other files")
            continue
        timed = {"README.md", "SHA256SUMS", "run.json", "checksums.json"}  # tell the time that the run took
        found += [
            f"{folder}/{name}"
            for name in sorted(names - timed)
            if (whole / "run" / folder / name).read_bytes() != (here / name).read_bytes()
        ]
    first, second = (json.loads((folder / "run" / "metrics.json").read_text()) for folder in (whole, parts))
    names = ("history", "losses", "best_step", "best_mean_iou", "skipped_steps")
    found += [f"metrics.json: {name}" for name in names if first[name] != second[name]]
    left = [path.name for path in (parts / "run").rglob(".*") if path.name not in (".lock",)]
    return found + [f"left behind: {name}" for name in left]


def training_torn(whole: Path, parts: Path) -> list[str]:
    """Checkpoints and models that are there must be whole."""
    found = []
    checks = [(path, verify_checkpoint) for path in (parts / "run" / "checkpoints").glob("step-*")]
    checks += [(parts / "run" / name, verify_checksums) for name in ("model", "best")]
    for path, check in checks:
        try:
            if path.exists():
                check(path)
        except ValueError as error:
            found.append(str(error))
    return found


def in_checkpoint(random: np.random.Generator, changes: int) -> Moment:
    """At a change of a file of a checkpoint, or a few milliseconds later: torch writes without telling Python."""
    delay_s = float(random.choice([0, random.uniform(0, 0.03)]))
    return Moment(change=int(random.integers(changes)), folder="/checkpoints", delay_s=delay_s)


def in_evaluation(random: np.random.Generator, changes: int) -> Moment:
    """At an image of an evaluation, or a few milliseconds later."""
    images = 2 * (STEPS // EVAL_EVERY + 1)
    delay_s = float(random.uniform(0, 0.1))
    return Moment(call=int(random.integers(images)), function=(EvaluationDataset, "__getitem__"), delay_s=delay_s)


def in_push(random: np.random.Generator, changes: int) -> Moment:
    """Around a push: at its start, or up to half a second later."""
    delay_s = float(random.uniform(0, 0.5))
    return Moment(call=int(random.integers(3)), function=(push, "check_folder"), delay_s=delay_s)


def meet_double(url: str) -> None:
    """Take a double of the Hub for the Hub, in a child."""
    constants.ENDPOINT, constants.HF_HUB_DISABLE_XET = url, True
    os.environ["HF_TOKEN"] = TOKEN


def hub_differences(url: str, repo: str, parts: Path) -> list[str]:
    """Compare the weights on the Hub with those of the run."""
    found = []
    for branch, name in (("main", "best"), ("last", "model")):
        request = urllib.request.Request(f"{url}/{repo}/resolve/{branch}/model.safetensors")
        with urllib.request.urlopen(request, timeout=30) as answer:
            if answer.read() != (parts / "run" / name / "model.safetensors").read_bytes():
                found.append(f"the Hub's {branch} is not {name}")
    return found


def serve_hub(folder: Path, pipe: int) -> None:
    """Be a double of the Hub, and tell its address; for a child."""
    with HubDouble(folder) as hub:
        os.write(pipe, hub.url.encode())
        hub.thread.join()


# ---------------------------------------------------------------------------------------------------------------------
# Maps of scenes
# ---------------------------------------------------------------------------------------------------------------------


class Mapping:
    """The map of a drawn scene of 26 bands of rows, by two tiny students."""

    def __init__(self, base: Path, height_px: int = 832, width_px: int = 320) -> None:
        """Write the scene and the model."""
        self.scene, self.model = base / "scene.tif", base / "model"
        pixels = np.random.default_rng(0).integers(1, 256, (3, height_px // 8, width_px // 8), np.uint8)
        pixels = pixels.repeat(8, 1).repeat(8, 2)  # fields of 8 px, not a polygon for every pixel
        where = dict(crs="EPSG:32633", transform=rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000))
        size = dict(count=3, height=height_px, width=width_px, dtype="uint8")
        with rasterio.open(self.scene, "w", driver="GTiff", **size, **where) as file:
            file.write(pixels)
        build_tiny_model().float().save_pretrained(self.model)
        Co2SImageProcessor().save_pretrained(self.model)

    def run(self, folder: Path) -> None:
        """Map the scene, or go on."""
        torch.set_num_threads(1)
        argv = ["predict", str(self.scene), "--model", str(self.model), "--output", str(folder / "run"), "--resume"]
        argv += ["--window_px", "64", "--band_px", "32", "--probabilities", "--disagreement"]
        sys.exit(co2s(argv))


def map_torn(whole: Path, parts: Path) -> list[str]:
    """Files with the names of a finished map."""
    names = [f"scene{ending}" for ending in ENDINGS if (parts / "run" / f"scene{ending}").exists()]
    return [
        f"half-written {name}"
        for name in names
        if (whole / "run" / name).read_bytes() != (parts / "run" / name).read_bytes()
    ]


def in_map(random: np.random.Generator, changes: int) -> Moment | None:
    """At any time; or, where a map is mostly made of files, at a change of one of them or a little later."""
    if random.random() < 0.5:
        return None
    delay_s = float(random.choice([0, random.uniform(0, 0.03)]))
    return Moment(change=int(random.integers(changes)), folder="/run/", delay_s=delay_s)


# ---------------------------------------------------------------------------------------------------------------------
# Purification, preparation
# ---------------------------------------------------------------------------------------------------------------------


class Purification:
    """Scores of regions of striped images, by a scorer that knows the colours."""

    def __init__(self, base: Path, images: int = 12) -> None:
        """Draw the images, the first three with masks."""
        self.folder = base / "stripes"
        self.images = [self.folder / "images" / f"i{number:02d}.png" for number in range(images)]
        for number, path in enumerate(self.images):
            path.parent.mkdir(parents=True, exist_ok=True), (self.folder / "labels").mkdir(exist_ok=True)
            label = np.roll(np.repeat(np.arange(3), 16)[None].repeat(40, 0), 5 * number, axis=1).astype(np.uint8)
            noise = np.random.default_rng(number).normal(0, 5, (40, 48, 3))
            write_image(path, (255 * COLOURS.numpy()[label] + noise).clip(0, 255).astype(np.uint8))
            if number < 3:
                write_mask(self.folder / "labels" / path.name, label)

    def run(self, folder: Path) -> None:
        """Score the images, or those that are missing."""
        os.environ["ACCELERATE_USE_CPU"] = "1"
        purify_labels.load_scorer = lambda *arguments: ColourScorer()
        argv = ["--data_dir", str(self.folder), "--classes", *CLASSES, "--validation", "i00.png", "--vlm", "stub"]
        argv += ["--min_area_px", "20", "--region_px", "8", "--output", str(folder / "run")]
        purify_labels.main(argv)


class Preparation:
    """A miniature of a public data set, cut into tiles."""

    def __init__(self, base: Path, case: Sequence[str] = PREPARED) -> None:
        """Write the miniature."""
        self.facts, self.protocol, _ = _miniature(tuple(case))
        self.source = base / "download"
        _write_replica(tuple(case), self.source)

    def run(self, folder: Path) -> None:
        """Cut it, or go on."""
        if not (folder / "run").exists():
            prepare_protocol(self.facts, self.protocol, self.source, folder / "run")


def tree_differences(whole: Path, parts: Path) -> list[str]:
    """All files, byte by byte; `audit.json` says how long it took."""
    names = [
        {path.relative_to(folder / "run").as_posix() for path in (folder / "run").rglob("*") if path.is_file()}
        for folder in (whole, parts)
    ]
    # A half-written file of a killed process may stay, named as one: by us, or by safetensors.
    unfinished = {name for name in names[1] - names[0] if name.endswith(".tmp") or Path(name).name.startswith(".tmp")}
    found = sorted(names[0] ^ (names[1] - unfinished))
    same = names[0] & names[1] - {"audit.json"}
    return found + [
        name for name in sorted(same) if (whole / "run" / name).read_bytes() != (parts / "run" / name).read_bytes()
    ]


__all__ = [
    "Job",
    "Journal",
    "Mapping",
    "Preparation",
    "Purification",
    "Training",
    "hub_differences",
    "in_checkpoint",
    "in_evaluation",
    "in_map",
    "in_push",
    "map_torn",
    "meet_double",
    "serve_hub",
    "training_differences",
    "training_torn",
    "tree_differences",
]
