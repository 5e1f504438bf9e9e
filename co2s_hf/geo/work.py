"""The folder of an unfinished map: what is being predicted, and the bands that are done.

It lies beside the output as `.STEM.predict`. A band is done when its file has its name and the sum that stands beside
it: both are written under another name, flushed to the disk and renamed, the sum first, so that a process that is
killed leaves whole bands and nothing else that counts. A band that no longer has its sum is predicted again. Several
processes, on several machines with one file system, may fill the same folder.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..raster.cog import Part
from ..raster.errors import RasterError
from .windows import Band, Sums

TASK = "task.json"


class OtherTaskError(RasterError):
    """An unfinished run that is there is of another task."""


class WorkFolder:
    """Bands of a map in the making.

    Args:
        output: folder of the finished map; it is made where it is missing.
        stem: first part of the names of its files.
        task: what is predicted from what, as JSON values; equal tasks give equal bytes.
        layers: (rows, width) layers in a band.
        width: of the scene, in px.

    Attributes:
        folder: where the bands lie.
        stem: as given.
    """

    def __init__(self, output: Path, stem: str, task: Mapping[str, Any], *, layers: int, width: int) -> None:
        """Change nothing on the disk yet."""
        self.stem, self.folder = stem, output / f".{stem}.predict"
        self.task = json.loads(json.dumps(task))
        self.layers, self.width = layers, width

    def check_room(self, bands: Sequence[Band]) -> None:
        """Refuse to begin with bands that the disk has no room for: a file of some bytes may say that it is large.

        Raises:
            RasterError: less is free than the bands take that are not there yet.
        """
        parts = [self.part(band) for band in bands]
        needed = sum(self.layers * part.rows * self.width for part in parts if not part.path.exists())
        there = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.exists())
        if needed > (free := shutil.disk_usage(there).free):
            raise RasterError(
                f"The map of {self.stem} takes more than {needed / 1e9:.1f} GB while it is made, and {there} has "
                f"{free / 1e9:.1f} GB left; make room, name another output, or resample the scene, with --gsd."
            )

    def begin(self, *, resume: bool, force: bool = False) -> None:
        """Make the folder, or join the one that is there.

        Args:
            resume: go on with an unfinished run of the same task.
            force: start over instead, whatever is there.

        Raises:
            RasterError: there is an unfinished run, and it is of another task or `resume` is not set.
        """
        if force and not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        path = self.folder / TASK
        if not resume and path.exists():
            raise RasterError(
                f"{self.folder} is an unfinished run. Go on with --resume, or start over with --force, which deletes "
                "it."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, encoding="utf-8") as file:
            file.write(json.dumps({**self.task, "sha256": _sum_of_task(self.task)}, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, path)  # unlike a rename this never replaces another process's task
            except FileExistsError:
                self._check(self.begun())

    def _check(self, other: dict[str, Any] | None) -> None:
        if other is None:
            raise RasterError(
                f"{self.folder / TASK} is damaged, so nobody knows what is unfinished there; start over with --force."
            )
        # As text: NaN, which a nodata value may be, is not equal to itself.
        differing = [key for key in {**other, **self.task} if repr(other.get(key)) != repr(self.task.get(key))]
        if differing:
            found = "; ".join(f"{key} {other.get(key)}, not {self.task.get(key)}" for key in differing[:4])
            raise OtherTaskError(
                f"{self.folder} is an unfinished run of another task ({found}). Finish it with the command that began "
                "it, name another output, or start over with --force, which deletes it."
            )

    def begun(self) -> dict[str, Any] | None:
        """The task of the run that is there; None where there is none, or its file is damaged."""
        try:
            task = json.loads((self.folder / TASK).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        is_whole = isinstance(task, dict) and task.pop("sha256", None) == _sum_of_task(task)
        return task if is_whole else None

    def part(self, band: Band) -> Part:
        """The file of a band, there or not."""
        return Part(self.folder / f"band_{band.index:06d}.raw", band.top, band.bottom - band.top)

    def missing(self, bands: Sequence[Band]) -> list[Band]:
        """Those that are not done."""
        return [band for band in bands if not self._is_whole(self.part(band))]

    def _is_whole(self, part: Part) -> bool:
        if not part.path.is_file() or part.path.stat().st_size != self.layers * part.rows * self.width:
            return False
        try:
            return _sum_path(part).read_text(encoding="ascii") == _sum(part.path)
        except (FileNotFoundError, UnicodeDecodeError):
            return False

    @contextmanager
    def writing(self, band: Band) -> Iterator["BandWriter"]:
        """Write a band; it is done when this is left without an error."""
        part = self.part(band)
        # Another process may write the same band: the last one to finish wins, with equal bytes.
        ending = f".{os.uname().nodename}.{os.getpid()}"
        unfinished, noted = part.path.with_name(part.path.name + ending), part.path.with_suffix(f".sum{ending}")
        try:
            with open(unfinished, "wb") as file:
                yield BandWriter(file, band, self.layers, self.width)
                file.flush()
                os.fsync(file.fileno())
            with open(noted, "w", encoding="ascii") as file_of_sum:
                file_of_sum.write(_sum(unfinished))
                file_of_sum.flush()
                os.fsync(file_of_sum.fileno())
            os.replace(noted, _sum_path(part))
            os.replace(unfinished, part.path)
        finally:
            unfinished.unlink(missing_ok=True)
            noted.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)


def _sum_path(part: Part) -> Path:
    return part.path.with_suffix(".sha256")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum_of_task(task: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()


class BandWriter:
    """Writes rectangles of all layers of a band to their places."""

    def __init__(self, file: IO[bytes], band: Band, layers: int, width: int) -> None:
        """Give the file its size."""
        self._file, self._band, self._width = file, band, width
        self._rows = band.bottom - band.top
        file.truncate(layers * self._rows * width)

    def write(self, rows: slice, columns: slice, layers: Sequence[NDArray[np.uint8]]) -> None:
        """Write (rows, columns) of every layer; rows and columns are those of the scene."""
        for index, layer in enumerate(layers):
            for row, line in zip(range(rows.start, rows.stop), np.ascontiguousarray(layer), strict=True):
                place = (index * self._rows + row - self._band.top) * self._width + columns.start
                self._file.seek(place)
                self._file.write(line.tobytes())


class FileCarry:
    """Keeps sums of a row of windows for the next one in a file that vanishes with the process.

    In memory they would grow with the width of the scene.

    Args:
        folder: where the file lies.
        chunk_bytes: the most that a chunk leaves.
    """

    def __init__(self, folder: Path, chunk_bytes: int) -> None:
        """Open the file."""
        self._file = tempfile.TemporaryFile(dir=folder)
        self._chunk_bytes = chunk_bytes
        self._shapes: dict[int, tuple[int, ...]] = {}

    def load(self, index: int) -> Sums | None:
        """Give what was last stored for this chunk, or None."""
        shape = self._shapes.get(index)
        if shape is None:
            return None
        sums = np.empty(shape, np.int32)
        self._file.seek(index * self._chunk_bytes)
        self._file.readinto(sums.data.cast("B"))
        return sums

    def store(self, index: int, sums: Sums | None) -> None:
        """Replace it; None forgets it."""
        self._shapes.pop(index, None)
        if sums is not None and sums.size:
            self._file.seek(index * self._chunk_bytes)
            self._file.write(sums.data.cast("B"))
            self._shapes[index] = sums.shape

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


__all__ = ["BandWriter", "FileCarry", "OtherTaskError", "WorkFolder"]
