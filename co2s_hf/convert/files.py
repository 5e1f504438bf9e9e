"""Checkpoint files in, model folders out: nothing but tensors is ever unpickled, and a folder is written whole."""

import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from co2s_hf.convert.released import StateDict, without_prefix
from co2s_hf.convert.torchscript import is_torchscript, read_torchscript

# Scores that training scripts keep next to the weights are numpy numbers, which are data, too. The function that makes
# one is private, and its module's name changed with numpy 2.
_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]
MOST_UNPACKED = 4  # times the size of the file; torch.save and TorchScript store tensors as they are


@dataclass(frozen=True)
class Checkpoint:
    """The tensors that were taken from a file.

    Attributes:
        path: the file.
        part: the name that they have in it; empty where the file is nothing else.
        tensors: without the `module.` of distributed training.
        left: names of what else the file holds: optimizer, epoch, an average.
        is_torchscript: whether it is an archive with a program, as OpenAI's are.
    """

    path: Path
    part: str
    tensors: StateDict
    left: tuple[str, ...] = ()
    is_torchscript: bool = False

    def __str__(self) -> str:
        """Which file and which part of it, and what was left."""
        taken = f"{self.path.name}: its {self.part!r}" if self.part else f"{self.path.name}: all of it"
        return taken + (f"; left in the file: {', '.join(self.left)}" if self.left else "")


def read_checkpoint(path: Path, parts: Sequence[str]) -> Checkpoint:
    """Tensors of a safetensors file, of a file of `torch.save`, or of a TorchScript archive, whose code is not run.

    Args:
        path: the file.
        parts: where the tensors may be in a file that also holds other things, the preferred name first.

    Raises:
        ValueError: the file is damaged, of another kind, or holds more than data; or it has none of the parts.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected one checkpoint file: name the file in it.")
    if _guarded(is_torchscript, path):
        return Checkpoint(path, "", _sized(_guarded(read_torchscript, path), path), is_torchscript=True)
    content = _guarded(_load, path)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"{path} holds a {type(content).__name__}, expected named tensors: save the model's state_dict() instead."
        )
    if _is_state_dict(content):
        return Checkpoint(path, "", without_prefix(_sized(content, path)))
    part = next((name for name in parts if _is_state_dict(content.get(name))), None)
    if part is None:
        elsewhere = [str(name) for name, value in content.items() if _is_state_dict(value)]
        raise ValueError(
            f"{path} holds {', '.join(map(str, content))[:200]}, expected tensors by name, by themselves or under "
            f"{' or '.join(map(repr, parts))}: "
            + (f"there are some under {', '.join(elsewhere)}; " if elsewhere else "")
            + "save the state_dict() of the model instead."
        )
    left = tuple(str(name) for name in content if name != part)
    return Checkpoint(path, part, without_prefix(_sized(content[part], path)), left)


def _sized(tensors: StateDict, path: Path) -> StateDict:
    """The tensors; ValueError where they are larger than the file, as a single stored number read 10^12 times is."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > MOST_UNPACKED * path.stat().st_size or any(tensor.is_sparse for tensor in tensors.values()):
        raise ValueError(
            f"{path} holds {path.stat().st_size} bytes and tensors of {size}, expected tensors that are stored as they "
            "are: save the model's state_dict() again, with every tensor contiguous."
        )
    return tensors


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())
    )


def _check_unpacked(path: Path) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_UNPACKED * path.stat().st_size:
            raise ValueError(f"{size} bytes when unpacked")


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":  # eight bytes of length, then JSON
        return load_file(path)
    with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of newer pickles, which are read or refused below
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _guarded(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        _check_unpacked(path)
        return read(path)
    except OSError:
        raise
    except Exception as error:  # a damaged or hostile file fails in many ways: zip, pickle, struct, unicode, index
        message = str(error)
        if found := re.search(r"GLOBAL (\S+)", message):
            raise ValueError(
                f"{path} holds more than data: opening it would run {found[1].rstrip('.')}, and nothing was opened. "
                "Where you trust the file, save the state_dict() of its model alone, as .safetensors or with "
                "torch.save."
            ) from error
        raise ValueError(
            f"{path} is no readable checkpoint, expected a whole .safetensors file or one of torch.save: compare its "
            f"{path.stat().st_size} bytes with the original and get it again."
        ) from error


def check_output(folder: Path, *, force: bool) -> None:
    """ValueError where a model folder may not be written.

    Args:
        folder: where to.
        force: an existing folder may be replaced, if it holds a model and nothing else can be lost.
    """
    if not folder.exists():
        return
    if not force:
        raise ValueError(f"{folder} exists already: choose another --output, or replace it with --force.")
    if not (folder / "config.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is no model folder, so --force does not replace it: choose another --output.")


def write_folder(folder: Path, write: Callable[[Path], None], *, force: bool) -> None:
    """Write a model folder whole or not at all.

    Args:
        folder: where to; see `check_output`.
        write: fills the folder that it is given, which gets its name afterwards.
        force: replace an existing one.

    Raises:
        ValueError: the folder may not be written, or whatever `write` raises.
    """
    check_output(folder, force=force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished, former = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "old"))
    for rest in (unfinished, former):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        unfinished.mkdir()
        write(unfinished)
        if folder.exists():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


__all__ = ["Checkpoint", "check_output", "read_checkpoint", "write_folder"]
