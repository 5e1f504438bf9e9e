"""Decoded images on disk: a large compressed scene is decoded once, and crops then read their part of it alone."""

import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import co2s_hf
from co2s_hf.data.samples import path_of
from co2s_hf.raster.image import FileWindow
from co2s_hf.raster.read import DECODER

FORMAT = 2
"""Of the entries; another one makes all of them again."""

_SIDECARS = (".msk", ".aux.xml", ".xml")  # files next to an image that GDAL reads with it: these behind its name,
_WORLD_FILES = ("{0}{2}w", "{0}{1}{2}w", "wld")  # and these in the place of its suffix: tfw, tifw
_ABANDONED_S = 3600.0  # age at which an unfinished entry is that of a process which no longer runs


class TileCache:
    """A folder of decoded images and masks that workers, processes and runs share.

    An entry is what a file, or a window of one, was decoded to, with what that depends on: path, size and time of the
    file and its sidecars, of a mask also those of the image whose grid it lies on, options, versions. Entries are
    mapped into memory, not read: what of them is in memory at all, and shared by all processes, is up to the operating
    system. An entry that is damaged, out of date or from another decoder is made again; each process holds an entry
    against its checksum when it first uses it. Several processes may make the same one at once: each puts a whole file
    in its place. Where there is no room, nothing makes way, as every image comes once in a pass and none is worth more
    than another: what does not fit is decoded every time.

    Args:
        folder: Of the entries; is made.
        limit_bytes: Of all entries together; exceeded by a percent or so where several processes write.
    """

    def __init__(self, folder: str | Path, *, limit_bytes: int) -> None:
        """Make the folder and remove what killed processes left in it. Raises OSError where it cannot be a folder."""
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.glob(".*.tmp"):
            if time.time() - unfinished.stat().st_mtime > _ABANDONED_S:
                unfinished.unlink(missing_ok=True)
        self.checked: set[str] = set()
        self.used_bytes: int | None = None  # when last counted, and what was added since
        self.added_bytes = 0
        self.closed = False

    def get(
        self,
        source: Path | FileWindow,
        options: str,
        decode: Callable[[], dict[str, Tensor]],
        *,
        onto: Path | FileWindow | None = None,
    ) -> dict[str, Tensor]:
        """Give the tensors of an entry, made by `decode` where there is none that can be used.

        Args:
            source: What is decoded.
            options: Everything else that the tensors depend on.
            decode: Makes them, contiguous.
            onto: The image on whose grid they lie, of a mask.

        Returns:
            As `decode`; not to be written to.
        """
        sources = [source] if onto is None else [source, onto]
        places = [os.path.abspath(str(one)) for one in sources]
        path = self.folder / f"{sha256(f'{places} {options}'.encode()).hexdigest()[:32]}.safetensors"
        made_of = None if path.name in self.checked else _made_of(sources, options)
        tensors = _read(path, made_of)
        if tensors is not None:
            self.checked.add(path.name)
            return tensors
        made_of = made_of or _made_of(sources, options)  # ahead of decoding: the file may change meanwhile
        tensors = decode()
        self._write(path, tensors, made_of)
        return tensors

    def _write(self, path: Path, tensors: dict[str, Tensor], made_of: str) -> None:
        if self.closed or not self._has_room(sum(tensor.nbytes for tensor in tensors.values())):
            return
        unfinished = path.with_name(f".{path.stem}.{token_hex(4)}.tmp")
        try:
            save_file(tensors, unfinished, {"made_of": made_of, "crc32": _checksum(tensors)})
            os.replace(unfinished, path)
        except (OSError, SafetensorError) as error:
            unfinished.unlink(missing_ok=True)
            self._close(f"cannot be written to ({error})")

    def _has_room(self, size_bytes: int) -> bool:
        """Other processes write, too, so that the folder is counted again with every percent of the limit."""
        if self.used_bytes is None or self.added_bytes > self.limit_bytes // 100:
            with os.scandir(self.folder) as entries:
                self.used_bytes, self.added_bytes = sum(_size(entry) for entry in entries), 0
        self.added_bytes += size_bytes
        if self.used_bytes + self.added_bytes <= self.limit_bytes:
            return True
        self._close(f"is full with {self.used_bytes / 2**30:.3g} GiB of {self.limit_bytes / 2**30:.3g}")
        return False

    def _close(self, reason: str) -> None:
        self.closed = True
        warnings.warn(
            f"The tile cache {self.folder} {reason}: what is not in it is decoded for every crop. Free or allow it "
            "more room (--tile_cache_gb), or remove the folder where it holds other data sets.",
            stacklevel=2,
        )


def _read(path: Path, made_of: str | None) -> dict[str, Tensor] | None:
    """Map an entry into memory; None where there is none, or one that is not whole or not made of this."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            noted = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if made_of is not None and (noted.get("made_of"), noted.get("crc32")) != (made_of, _checksum(tensors)):
        return None
    return tensors


def _made_of(sources: Sequence[Path | FileWindow], options: str) -> str:
    versions = [FORMAT, co2s_hf.__version__, *DECODER]
    return json.dumps([*versions, options, *([_state(path) for path in _files_of(source)] for source in sources)])


def _files_of(source: Path | FileWindow) -> list[Path]:
    """The file, and every other one, there or not, in which GDAL looks for its place, its mask or its nodata value."""
    path = path_of(source)
    letters = path.suffix[1:2], path.suffix[2:-1], path.suffix[-1:]
    suffixes = [f".{pattern.format(*letters)}" for pattern in _WORLD_FILES]
    world_files = [path.with_suffix(one) for suffix in suffixes for one in (suffix.lower(), suffix.upper())]
    return [path, *(Path(f"{path}{sidecar}") for sidecar in _SIDECARS), *world_files]


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:  # whoever decodes the file says why
        return None
    return state.st_size, state.st_mtime_ns


def _checksum(tensors: dict[str, Tensor]) -> str:
    checksum = 0
    for name, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), checksum)
    return f"{checksum:08x}"


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # another process has put it in its place
        return 0


__all__ = ["FORMAT", "TileCache"]
