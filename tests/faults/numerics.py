"""Numbers that go wrong in a training: what is no number is left out, what cannot be left out ends the run by name.

Functions that give the outcomes of a row of the table, empty where all was as it must be: see `ROWS`. As a command,
`python tests/faults/numerics.py [--tries 20] [--only ROW]`, the table of these rows alone.
"""

import argparse
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # threads do not survive a fork
sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from co2s_hf.data.label_map import IGNORE  # noqa: E402
from co2s_hf.raster.ids import read_ids  # noqa: E402
from co2s_hf.raster.write import write_mask  # noqa: E402
from tests.faults import jobs, ranks, spoil  # noqa: E402
from tests.faults.children import fresh, start, wait  # noqa: E402
from tests.faults.spoil import TERMS, Spoiled  # noqa: E402
from training.checkpoints import CHECKSUMS, CheckpointError, _seal, latest_checkpoint, verify_checkpoint  # noqa: E402

Outcome = str
"""Empty where nothing was lost, else what."""

RUN = dict(eval_every=jobs.STEPS, save_every=5)
LIMIT = 3
"""Steps in a row without numbers that end a run here."""


# ---------------------------------------------------------------------------------------------------------------------
# One step
# ---------------------------------------------------------------------------------------------------------------------


def left_out(places: Sequence[str], base: Path, tries: int) -> Iterator[Outcome]:
    """A value of no number in one step: not a bit of the model changes in it, and all else is as without that step."""
    train = jobs.Training(base)
    for seed in range(tries):
        random = np.random.default_rng(seed)
        place = places[seed % len(places)]
        accumulated, share = int(random.integers(1, 3)), float(random.choice([0, 0.5]))
        values = {"logits": ["nan", "inf"], "gradient": ["nan", "inf", "-inf", "large"]}
        step = int(random.choice([0, 4, jobs.STEPS - 1]))
        value = str(random.choice(values.get(place, ["nan", "inf", "-inf"])))
        fault = Spoiled(place, value, step, step, micro=int(random.integers(accumulated)), seed=seed)
        options = dict(gradient_accumulation_steps=accumulated, class_share=share)
        twin, parts = base / f"twin-{step}-{accumulated}-{share}", fresh(base / "parts")
        if not twin.exists():
            _require(_train(train, fresh(twin), partial(spoil.leave_out, step), **options), twin)
        status = _train(train, parts, partial(spoil.spoil, fault), **options)
        if status != 0:
            yield f"seed {seed}, {fault}: ended with {status}: {_tail(parts)}"
            continue
        skipped = json.loads((parts / "run" / "metrics.json").read_text())["skipped_steps"]
        found = [] if skipped == 1 else [f"{skipped} steps were counted"]
        # Thresholds of classes count what a step sees, and these steps see something else.
        if not (share and place in ("images", "logits")):
            names = jobs.training_differences(twin, parts)
            found += [one for one in names if one not in ("metrics.json: losses", "metrics.json: skipped_steps")]
        yield f"seed {seed}, {fault}: {', '.join(found)}" if found else ""


# ---------------------------------------------------------------------------------------------------------------------
# All steps from one on, and weights
# ---------------------------------------------------------------------------------------------------------------------


def for_good(base: Path, tries: int) -> Iterator[Outcome]:
    """No step has a number from one on: the run ends, and names a checkpoint from which it goes on to the same end."""
    train, whole = _reference(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        place = ("loss", "images", "logits", "gradient", *TERMS)[seed % 9]
        step = int(random.integers(jobs.STEPS - LIMIT))
        fault = Spoiled(place, "nan", step, jobs.STEPS, seed=seed)
        status = _train(train, parts, partial(spoil.spoil, fault), max_skipped_steps=LIMIT, save_every=2)
        log = (parts / "log").read_text()
        if status != 1 or f"not finite in {LIMIT} steps in a row, up to step {step + LIMIT}" not in log:
            yield f"seed {seed}, {fault}: ended with {status}: {_tail(parts)}"
            continue
        yield _goes_on(train, whole, parts, seed, newest=2 * (step // 2))


def weights(base: Path, tries: int) -> Iterator[Outcome]:
    """Weights of no number: behind a step, in a checkpoint, or where the run starts."""
    train, whole = _reference(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        value = float(random.choice([math.nan, math.inf, -math.inf]))
        kind = (_exploded, _in_checkpoint, _at_start)[seed % 3]
        yield kind(train, whole, parts, seed, value, random)


def _exploded(
    train: jobs.Training, whole: Path, parts: Path, seed: int, value: float, random: np.random.Generator
) -> Outcome:
    step = int(random.integers(jobs.STEPS))
    target = str(random.choice(["weight", "exp_avg", "exp_avg_sq"]))
    status = _train(train, parts, partial(spoil.explode, step, target, value, seed), save_every=1)
    if status != 1 or "is not finite after step" not in (parts / "log").read_text():
        return f"seed {seed}: {target} {value} in step {step} ended with {status}: {_tail(parts)}"
    return _goes_on(train, whole, parts, seed, newest=step)


def _in_checkpoint(
    train: jobs.Training, whole: Path, parts: Path, seed: int, value: float, random: np.random.Generator
) -> Outcome:
    """As an older version may have left it, or another program: its checksums are right."""
    shutil.copytree(whole / "run", parts / "run")
    newest = latest_checkpoint(parts / "run" / "checkpoints")
    _spoil_checkpoint(newest, value, random)
    status = _train(train, parts)
    if status != 2 or f"{newest} cannot be resumed: " not in (parts / "log").read_text():
        return f"seed {seed}: a checkpoint of {value} ended with {status}: {_tail(parts)}"
    shutil.rmtree(newest)
    return _goes_on(train, whole, parts, seed, newest=5, named=False)


def _at_start(
    train: jobs.Training, whole: Path, parts: Path, seed: int, value: float, random: np.random.Generator
) -> Outcome:
    students = {name: str(shutil.copytree(folder, parts / name)) for name, folder in train.students.items()}
    file = parts / sorted(students)[seed % 2] / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[random.integers(len(tensors))]
    tensors[name].view(-1)[0] = value
    save_file(tensors, file, metadata={"format": "pt"})
    status = _train(train, parts, **students)
    if status == 0 and not jobs.training_differences(whole, parts):
        return ""  # a weight that no student takes
    if status != 2 or "is not finite ahead of the first step" not in (parts / "log").read_text():
        return f"seed {seed}: {name} of {value} ended with {status}: {_tail(parts)}"
    return ""


def _spoil_checkpoint(folder: Path, value: float, random: np.random.Generator) -> None:
    if random.random() < 0.5:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        tensors[sorted(tensors)[random.integers(len(tensors))]].view(-1)[0] = value
        save_file(tensors, file, metadata={"format": "pt"})
    else:
        file = folder / "optimizer.bin"
        state = torch.load(file, weights_only=True)
        numbers = sorted(state["state"])
        state["state"][numbers[random.integers(len(numbers))]]["exp_avg_sq"].view(-1)[0] = value
        torch.save(state, file)
    (folder / CHECKSUMS).unlink()
    _seal(folder)


def _goes_on(train: jobs.Training, whole: Path, parts: Path, seed: int, *, newest: int, named: bool = True) -> Outcome:
    """The checkpoint that was named is the newest one and sound, and the run ends from there as one without a fault."""
    folder = parts / "run" / "checkpoints"
    found = latest_checkpoint(folder)
    wanted = f"The last good checkpoint is {found}." if found else "There is no checkpoint yet."
    if (found is None) != (newest == 0) or found is not None and found.name != f"step-{newest:08d}":
        return f"seed {seed}: the last checkpoint is {found}, expected step {newest}: {_tail(parts)}"
    if named and wanted not in " ".join((parts / "log").read_text().split()):
        return f"seed {seed}: not said: {wanted} {_tail(parts)}"
    try:
        if found is not None:
            verify_checkpoint(found)
    except CheckpointError as error:
        return f"seed {seed}: {error}"
    if found is None:
        shutil.rmtree(parts / "run")
    status = _train(train, parts)
    if status != 0:
        return f"seed {seed}: going on ended with {status}: {_tail(parts)}"
    differences = jobs.training_differences(whole, parts)
    return f"seed {seed}: {', '.join(differences)}" if differences else ""


# ---------------------------------------------------------------------------------------------------------------------
# fp16
# ---------------------------------------------------------------------------------------------------------------------


def overflow(base: Path, tries: int) -> Iterator[Outcome]:
    """A scale too large for the first steps: they are left out and counted, and all else is as without a scale."""
    train = jobs.Training(base)
    for seed in range(tries):
        random, parts = np.random.default_rng(seed), fresh(base / "parts")
        scale = 2.0 ** int(random.integers(60, 128))
        status = _train(train, parts, partial(spoil.scale_losses, scale))
        if status != 0:
            yield f"seed {seed}, scale {scale}: ended with {status}: {_tail(parts)}"
            continue
        skipped = json.loads((parts / "run" / "metrics.json").read_text())["skipped_steps"]
        saved = torch.load(parts / f"run/checkpoints/step-{jobs.STEPS:08d}/scaler.pt", weights_only=True)["scale"]
        optimizer = torch.load(parts / f"run/checkpoints/step-{jobs.STEPS:08d}/optimizer.bin", weights_only=True)
        made = {int(state["step"]) for state in optimizer["state"].values()}
        found = [] if made == {jobs.STEPS - skipped} else [f"{made} steps were made and {skipped} left out"]
        if saved != scale / 2**skipped:
            found.append(f"the scale is {saved} after {skipped} steps left out")
        steps = [int(one) - 1 for one in re.findall(r"steps up to (\d+) left out", (parts / "log").read_text())]
        if len(steps) != skipped:
            found.append(f"{steps} were said to be left out")
        twin = base / f"twin-{steps}"
        if not twin.exists():
            _require(_train(train, fresh(twin), partial(spoil.leave_out, *steps)), twin)
        names = ("model/model.safetensors", "best/model.safetensors")
        apart = max(_largest_difference(twin / "run" / name, parts / "run" / name) for name in names)
        if apart > 0:  # powers of two are exact
            found.append(f"the weights differ by {apart:g} from those of a run without scale")
        yield f"seed {seed}, scale {scale}: {', '.join(found)}" if found else ""


def _largest_difference(first: Path, second: Path) -> float:
    one, other = load_file(first), load_file(second)
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


# ---------------------------------------------------------------------------------------------------------------------
# Classes and pixels that are not there
# ---------------------------------------------------------------------------------------------------------------------


def vanished(base: Path, tries: int) -> Iterator[Outcome]:
    """A class without a labelled pixel, a validation without one, and one without any label at all."""
    for seed in range(tries):
        random, here = np.random.default_rng(seed), fresh(base / "here")
        train = jobs.Training(here)
        count = len(train.data["classes"])
        gone = set(random.choice(count, int(random.integers(1, count)), replace=False).tolist())
        parts = [("train_*",), ("val_*",), ("train_*", "val_*")][seed % 3]
        everything = seed % 6 == 4  # of the validation
        for pattern in parts:
            _remove_classes(here / "scenes" / "labels", pattern, set(range(count)) if everything else gone)
        means = dict(class_weights=["balanced"], rare_class_temperature=0.1, class_share=0.5)
        options = {name: means[name] for name in means if random.random() < 0.7}
        status = _train(train, here, log_every=1, **options)
        if status != 0 or everything:
            named = re.search("No pixel of the (labelled|validation) images has a class", (here / "log").read_text())
            refused = status == 2 and named is not None
            yield "" if refused else f"seed {seed}, {gone} of {parts}: ended with {status}: {_tail(here)}"
            continue
        found = _wrong_scores(here, train.data["classes"])
        yield f"seed {seed}, {gone} of {parts}, {options}: {', '.join(found)}" if found else ""


def _remove_classes(folder: Path, pattern: str, gone: set[int]) -> None:
    for path in sorted(folder.glob(pattern)):
        mask = read_ids(path).values
        mask[np.isin(mask, list(gone))] = IGNORE
        write_mask(path, mask.astype(np.uint8))


def _wrong_scores(folder: Path, classes: Sequence[str]) -> list[str]:
    """What the report says of classes of which there is no pixel, against what follows from the masks."""
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    found = [] if metrics["skipped_steps"] == 0 else [f"{metrics['skipped_steps']} steps left out"]
    found += ["a loss is no number"] if any(row["loss"] is None for row in metrics["losses"]) else []
    masks = [read_ids(path).values for path in (folder / "scenes" / "labels").glob("val_*")]
    present = {int(one) for mask in masks for one in np.unique(mask)} - {IGNORE}
    for entry in metrics["history"]:
        for name, scores in ((name, scores) for name, scores in entry.items() if name != "step"):
            ious = scores["per_category_iou"]
            known = [iou for iou in ious if iou is not None]
            mean = sum(known) / len(known) if known else None
            if not (scores["mean_iou"] == mean or abs(scores["mean_iou"] - mean) < 1e-9):
                found.append(f"{name}: the mean {scores['mean_iou']} is not that of {ious}")
            found += [f"{name}: {classes[one]} has no IoU" for one in present if ious[one] is None]
            recalled = {one for one, recall in enumerate(scores["per_category_recall"]) if recall is not None}
            if recalled != present:
                found.append(f"{name}: recall of {recalled}, in the masks are {present}")
            if any(ious[one] for one in set(range(len(classes))) - present):
                found.append(f"{name}: an absent class has an IoU above 0")
    return found + [
        name
        for name in ("model/README.md", "metrics.json")
        if "nan" in (folder / "run" / name).read_text().lower().split()
    ]


def float_images(base: Path, tries: int) -> Iterator[Outcome]:
    """An image of fractions, with pixels of no number: of whatever part it is, these hold no data, and nothing more."""
    for seed in range(tries):
        random, here = np.random.default_rng(seed), fresh(base / "here")
        train = jobs.Training(here)
        image = sorted((here / "scenes" / "images").iterdir())[random.integers(9)]
        pixels = random.random((3, 64, 64), np.float32)
        pixels[:, random.random((64, 64)) < 0.1] = random.choice([math.nan, math.inf, -math.inf])
        profile = dict(driver="GTiff", height=64, width=64, count=3, dtype="float32")
        with rasterio.open(image, "w", transform=rasterio.Affine(1, 0, 0, 0, -1, 64), **profile) as file:
            file.write(pixels)
        status = _train(train, here)
        metrics = json.loads((here / "run" / "metrics.json").read_text()) if status == 0 else {"skipped_steps": -1}
        trained = metrics["skipped_steps"] == 0 and all(row["loss"] is not None for row in metrics["losses"])
        yield "" if trained else f"seed {seed}: {image.name} of fractions ended with {status}: {_tail(here)}"


# ---------------------------------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------------------------------


def _train(train: jobs.Training, folder: Path, fault: Callable[[], None] | None = None, **changes: Any) -> int | None:
    def run() -> None:
        spoil.lean()
        if fault is not None:
            fault()
        train.run(folder, **{**RUN, **changes})

    return wait([start(run, folder / "log")])[0]


def _reference(base: Path) -> tuple[jobs.Training, Path]:
    train, whole = jobs.Training(base), fresh(base / "whole")
    _require(_train(train, whole), whole)
    return train, whole


def _require(status: int | None, folder: Path) -> None:
    if status != 0:
        raise SystemExit(f"{folder} ended with {status}, though nothing happens to it: {_tail(folder)}")


def _tail(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").replace("\r", "\n").strip().splitlines()
    return " | ".join(line.strip() for line in lines if line.strip() and "it/s" not in line)[-400:]


ROWS: dict[str, Callable[[Path, int], Iterator[Outcome]]] = {
    "no number: a loss": partial(left_out, ("loss", *TERMS)),
    "no number: a gradient": partial(left_out, ("gradient",)),
    "no number: an image": partial(left_out, ("images",)),
    "no number: a logit": partial(left_out, ("logits",)),
    "no number: for good": for_good,
    "no number: weights": weights,
    "no number: float images": float_images,
    "overflow of a scaled loss": overflow,
    "classes that vanish": vanished,
    "ignored on one rank": ranks.ignored,
    "one rank ends": ranks.ended,
}
"""Rows of the table: folder to work in, tries -> outcomes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=20, help="of each row")
    parser.add_argument("--only", nargs="+", choices=sorted(ROWS), help="rows")
    arguments = parser.parse_args(argv)
    table = []
    for name in arguments.only or ROWS:
        base, began, outcomes = Path(tempfile.mkdtemp(prefix="numbers-")), time.monotonic(), Counter()
        try:
            for outcome in ROWS[name](base, arguments.tries):
                outcomes[not outcome] += 1
                if outcome:
                    print(f"LOST  {name}: {outcome}", flush=True)
        finally:
            shutil.rmtree(base, ignore_errors=True)
        print(f"{name}: {outcomes.total()} tries in {time.monotonic() - began:.0f} s", flush=True)
        table.append((name, outcomes.total(), outcomes[True], outcomes[False]))
    print(f"\n{'fault class':<28}{'tries':>8}{'survived':>10}{'lost data':>11}")
    for name, tries, survived, lost in table:
        print(f"{name:<28}{tries:>8}{survived:>10}{lost:>11}")
    return int(any(row[3] for row in table))


if __name__ == "__main__":
    sys.exit(main())
