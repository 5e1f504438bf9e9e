"""The folder of an unfinished map: what is being predicted, and the bands that are done.

It lies beside the output as `.STEM.predict`. A band is done when its file has its name: it is written under another
one, flushed to the disk and renamed, so that a process that is killed leaves whole bands and nothing else that counts.
Several processes, on several machines with one file system, may fill the same folder.
"""

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

from .scenes import Part, SceneError
from .windows import Band, Sums

TASK = "task.json"


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

    def begin(self, *, resume: bool, force: bool = False) -> None:
        """Make the folder, or join the one that is there.

        Args:
            resume: go on with an unfinished run of the same task.
            force: start over instead, whatever is there.

        Raises:
            SceneError: there is an unfinished run, and it is of another task or `resume` is not set.
        """
        if force and not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        path = self.folder / TASK
        if not resume and path.exists():
            raise SceneError(
                f"{self.folder} is an unfinished run. Go on with --resume, or start over with --force, which deletes "
                "it."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.folder, encoding="utf-8") as file:
            file.write(json.dumps(self.task, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, path)  # unlike a rename this never replaces another process's task
            except FileExistsError:
                self._check(json.loads(path.read_text(encoding="utf-8")))

    def _check(self, other: dict[str, Any]) -> None:
        differing = [key for key in {**other, **self.task} if other.get(key) != self.task.get(key)]
        if differing:
            found = "; ".join(f"{key} {other.get(key)}, not {self.task.get(key)}" for key in differing[:4])
            raise SceneError(
                f"{self.folder} is an unfinished run of another task ({found}). Finish it with the command that began "
                "it, name another output, or start over with --force, which deletes it."
            )

    def begun(self) -> dict[str, Any] | None:
        """The task of the run that is there, if any."""
        path = self.folder / TASK
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def part(self, band: Band) -> Part:
        """The file of a band, there or not."""
        return Part(self.folder / f"band_{band.index:06d}.raw", band.top, band.bottom - band.top)

    def missing(self, bands: Sequence[Band]) -> list[Band]:
        """Those that are not done."""
        return [band for band in bands if not self._is_whole(self.part(band))]

    def _is_whole(self, part: Part) -> bool:
        return part.path.is_file() and part.path.stat().st_size == self.layers * part.rows * self.width

    @contextmanager
    def writing(self, band: Band) -> Iterator["BandWriter"]:
        """Write a band; it is done when this is left without an error."""
        part = self.part(band)
        # Another process may write the same band: the last one to finish wins, with equal bytes.
        unfinished = part.path.with_name(f"{part.path.name}.{os.uname().nodename}.{os.getpid()}")
        try:
            with open(unfinished, "wb") as file:
                yield BandWriter(file, band, self.layers, self.width)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, part.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder)


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


__all__ = ["BandWriter", "FileCarry", "WorkFolder"]
