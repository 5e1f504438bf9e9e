"""Tensors of a TorchScript archive, such as OpenAI's CLIP files, without running the program in it.

`torch.jit.load` compiles the archive's code and may run parts of it. The tensors lie beside that code: here only they
are read, and every object of the program becomes an empty stand-in.
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in (
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Bool", torch.bool),
        ("Byte", torch.uint8),
        ("Char", torch.int8),
        ("Short", torch.int16),
        ("Int", torch.int32),
        ("Long", torch.int64),
    )
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with a program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the program's modules under its dotted name, as the state dict of the module would have it.

    Raises:
        pickle.UnpicklingError: the archive asks for something that is neither a tensor nor an object of the program.
        zipfile.BadZipFile, KeyError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        (data,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = data.removesuffix("data.pkl")
        with archive.open(data) as file:
            return _named_tensors(_Reader(file, archive, folder).load())


class _StandIn:
    """An object of the program; only its attributes are looked at."""


class _Reader(pickle.Unpickler):
    """Builds tensors and stand-ins, and nothing else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _StandIn
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> torch.Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"Unsupported persistent id {kind!r}")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype, count=count)
        return self.storages[key]


def _tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _named_tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    found: dict[str, torch.Tensor] = {}
    for key, attribute in vars(value).items() if isinstance(value, _StandIn) else ():
        found |= _named_tensors(attribute, f"{name}.{key}" if name else key)
    return found


__all__ = ["is_torchscript", "read_torchscript"]
