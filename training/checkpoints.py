"""Checkpoints that are either whole or not there, and that resume a run exactly.

A checkpoint is a folder `step-00000123` with what `accelerator.save_state` writes (model, optimizers, registered
objects, random states of every process), `run.json` (step, state of the loop, configuration of the run) and, written
last, `checksums.json`. It is written under another name, flushed to disk and renamed, so a crash at any moment leaves
the previous one usable; and a file that changed later on is noticed before anything is loaded.
"""

import hashlib
import json
import os
import random
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import load as load_restricted

from training.guards import writing

FORMAT = 2
CHECKSUMS = "checksums.json"
"""SHA-256 of every other file of a checkpoint, by its name."""

_NAME = re.compile(r"step-(\d{8,})")
_PARTS = {"step", "num_processes", "state", "fingerprint"}
_UNFINISHED, _DAMAGED = ".tmp-", "damaged-"


class CheckpointError(ValueError):
    """A checkpoint cannot be written to or read from this place; the message says why and what to do."""


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    *,
    step: int,
    state: dict[str, Any],
    fingerprint: dict[str, Any],
    keep: int = 1,
) -> Path:
    """Save everything needed to continue the run; call it on every process.

    Args:
        accelerator: whose prepared models, optimizers and registered objects are saved.
        folder: where checkpoints live, on a file system that all processes share.
        step: finished optimizer steps.
        state: what the loop itself remembers (best scores, history), made of JSON types; nan survives.
        fingerprint: the arguments that must be equal to continue this run, made of JSON types.
        keep: how many of the newest checkpoints stay; older ones go once the new one is in place.

    Returns:
        The folder of the new checkpoint.

    Raises:
        CheckpointError: `folder` holds a checkpoint of a later step, hence of another run.
        RunError: on every process, where one of them could not write; older checkpoints are as they were.
    """
    folder, final = Path(folder), Path(folder) / f"step-{step:08d}"
    unfinished = folder / f"{_UNFINISHED}{final.name}"
    later = [path for path in _checkpoints(folder) if _step(path) > step]
    if later:
        raise CheckpointError(
            f"{folder} holds {later[-1].name}, a later step than {step}, which is about to be saved: it belongs to "
            "another run. Resume that run, choose a new --output_dir or remove the old checkpoints."
        )
    accelerator.wait_for_everyone()  # everyone has looked before the main process changes the folder
    with writing(accelerator, str(final)):
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder)  # of runs that crashed
            unfinished.mkdir()
    with writing(accelerator, str(final)):
        accelerator.save_state(str(unfinished))
        if accelerator.is_main_process:
            record = {
                "format": FORMAT,
                "step": step,
                "num_processes": accelerator.num_processes,
                "state": state,
                "fingerprint": fingerprint,
            }
            (unfinished / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    with writing(accelerator, str(final)):  # behind the parts of all processes
        if accelerator.is_main_process:
            _seal(unfinished)
            _publish(unfinished, final)
            for old in _checkpoints(folder)[:-keep]:
                _set_aside(old)
            _remove_leftovers(folder)
    return final


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the finished checkpoint of the largest step in `folder`, None if there is none."""
    finished = _checkpoints(Path(folder))
    return finished[-1] if finished else None


def newest_good_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Find the newest checkpoint whose files are as they were written, and move damaged ones that are newer aside.

    Call it where no other run can be saving: it also removes what a killed one left half done.

    Returns:
        The checkpoint, None if there is none; and what is wrong with each damaged one, newest first.

    Raises:
        OSError: a damaged one cannot be moved.
    """
    problems = []
    _remove_leftovers(Path(folder))  # of a run that was killed; its last save may have been its last one
    for path in reversed(_checkpoints(Path(folder))):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            aside = path.with_name(f"{_DAMAGED}{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)  # a run that goes on from an earlier step will save this one again
            problems.append(f"{error} It is now {aside.name}.")
        else:
            return path, problems
    return None, problems


def verify_checkpoint(path: Path) -> None:
    """Hold every file against its checksum.

    Raises:
        CheckpointError: one is missing or has changed, the checksums are, or the folder is named like another step.
    """
    path = Path(path)
    record = _read_record(path)
    try:
        expected = dict(json.loads((path / CHECKSUMS).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {CHECKSUMS} cannot be read ({error}).") from error
    missing = sorted(name for name in expected if not (path / name).is_file())
    if missing or "run.json" not in expected:
        raise CheckpointError(f"{path} is damaged: it lacks {', '.join(missing) or 'the checksum of run.json'}.")
    found = _digests([path / name for name in expected])
    changed = sorted(name for name, digest in zip(expected, found, strict=True) if digest != expected[name])
    if changed:
        raise CheckpointError(f"{path} is damaged: {', '.join(changed)} changed since it was written.")
    if record["step"] != _step(path):
        raise CheckpointError(f"{path} is damaged: it holds step {record['step']}, which its name does not say.")


def load_checkpoint(accelerator: Accelerator, path: Path, *, fingerprint: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Continue from a checkpoint: restore all that `save_checkpoint` saved, including the random states.

    Call it on every process, after `accelerator.prepare` and `register_for_checkpointing` of the same objects. Nothing
    in the folder is executed: weights are safetensors, everything else must pass torch's restricted unpickler.

    Args:
        accelerator: with the objects to restore.
        path: a folder from `latest_checkpoint`.
        fingerprint: of this run; must equal the saved one.

    Returns:
        (finished optimizer steps, state of the loop).

    Raises:
        CheckpointError: another configuration, another number of processes, missing or unreadable parts.
    """
    path = Path(path)
    record = _read_record(path)
    _check_fingerprint(path, record["fingerprint"], json.loads(json.dumps(fingerprint)))
    if record["num_processes"] != accelerator.num_processes:
        raise CheckpointError(
            f"{path} was saved by {record['num_processes']} processes, this run has {accelerator.num_processes}: the "
            "order of the data and the random states would differ. Launch with the old number of processes or choose "
            "a new --output_dir."
        )
    # accelerate reads optimizer, scheduler, scaler and random states with weights_only=True, but registered objects
    # with weights_only=False: what the restricted unpickler accepts is safe for the other one, too.
    for custom in sorted(path.glob("custom_checkpoint_*.pkl")):
        _read_restricted(custom)
    saved = _read_restricted(path / f"random_states_{accelerator.process_index}.pkl")
    accelerator.load_state(str(path))
    _check_random_states(path, saved, accelerator.device)
    return record["step"], record["state"]


def _checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first: temporary and damaged folders do not count."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and (path / "run.json").is_file()]
    return sorted(found, key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _seal(unfinished: Path) -> None:
    """Write the checksums of a folder, and all of it to the disk."""
    files = sorted(path for path in unfinished.rglob("*") if path.is_file())
    names = [path.relative_to(unfinished).as_posix() for path in files]
    sums = dict(zip(names, _digests(files), strict=True))
    (unfinished / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for path in (*unfinished.rglob("*"), unfinished):
        _flush(path)


def _digests(files: list[Path]) -> list[str]:
    """SHA-256 of files, several at a time: hashing lets other threads work."""

    def digest(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(digest, files))


def _publish(unfinished: Path, final: Path) -> None:
    """Make the folder appear under its final name, all of it or nothing, even if the power fails."""
    if final.exists():  # saved twice at one step: a folder that is not empty cannot be renamed over
        _set_aside(final)
    unfinished.rename(final)
    _flush(final.parent)


def _set_aside(path: Path) -> None:
    """Rename a checkpoint before its removal: half removed, it must not look like one."""
    path.rename(path.with_name(f"{_UNFINISHED}discarded-{path.name}"))


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no finished checkpoint: its run.json cannot be read ({error}).") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path / 'run.json'} has format {found}, this version reads format {FORMAT}: resume with "
            "the version that wrote it or choose a new --output_dir."
        )
    if not record.keys() >= _PARTS:
        raise CheckpointError(f"{path} is no finished checkpoint: its run.json lacks parts.")
    return record


def _check_fingerprint(path: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    old, new = _flatten(saved), _flatten(current)

    def shown(flat: dict[str, Any], key: str) -> str:
        return repr(flat[key]) if key in flat else "absent"

    keys = sorted(old.keys() | new.keys())
    different = [key for key in keys if shown(old, key) != shown(new, key)]
    if different:
        lines = [f"  {key}: checkpoint {shown(old, key)}, now {shown(new, key)}" for key in different]
        raise CheckpointError(
            f"{path} belongs to a run with another configuration:\n"
            + "\n".join(lines)
            + "\nStart the new run in a new --output_dir, or resume with the old arguments."
        )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys, so that a message can name the one value that differs."""
    flat = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _read_restricted(path: Path) -> Any:
    try:
        return load_restricted(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: the checkpoint is incomplete. Remove {path.parent} to resume from an earlier one."
        ) from error
    except Exception as error:  # a damaged or foreign file fails in many ways: zip, pickle, struct, runtime
        raise CheckpointError(
            f"{path} cannot be read as plain tensors and numbers ({type(error).__name__}): it is damaged or was not "
            f"written by this program. Remove {path.parent} to resume from an earlier checkpoint."
        ) from error


def _check_random_states(path: Path, saved: dict[str, Any], device: torch.device) -> None:
    """Compare the generators with the file: accelerate logs a failure to restore them and goes on."""
    name, keys, positions, has_gauss, gauss = np.random.get_state()
    saved_name, saved_keys, *saved_rest = saved["numpy_random_seed"]
    wrong = []
    if random.getstate() != saved["random_state"]:
        wrong.append("Python")
    if name != saved_name or [positions, has_gauss, gauss] != saved_rest or not np.array_equal(keys, saved_keys):
        wrong.append("numpy")
    if not torch.equal(torch.get_rng_state(), saved["torch_manual_seed"]):
        wrong.append("torch CPU")
    if device.type == "cuda":
        on_device = saved.get("torch_cuda_manual_seed", [])
        index = torch.cuda.current_device() if device.index is None else device.index
        if index >= len(on_device) or not torch.equal(torch.cuda.get_rng_state(device), on_device[index]):
            wrong.append("CUDA")
    if wrong:
        raise CheckpointError(
            f"The random states of {path} were not restored for: {', '.join(wrong)}. Resume with the same kind and "
            "number of devices as the run that saved it, or choose a new --output_dir."
        )
