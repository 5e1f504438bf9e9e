"""A folder in the making that survives an interruption: hidden until it is complete, with a list of what is done."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .samples import DataError
from .wording import some

JOURNAL = ".journal.jsonl"
"""The list, in the hidden folder: the first line says what is being made, every other one what a step has written."""


class Journal:
    """Makes a folder step by step; the same task, started again, goes on behind its last complete step.

    Until `finish`, the files of the folder `NAME` lie in `.NAME.part` next to it. A step counts as done when its line
    and the files that it names have the checksums that it names: a torn or damaged line is dropped with all behind it,
    and so is every file that no line names. A folder of another task is refused, not deleted: it may be hours of work;
    so is one whose task is damaged. A folder without a list is what a run leaves that was killed before it did
    anything, and is made anew.

    Attributes:
        folder: Where the files belong until then.
        entries: The values of every step that is done, in order.
        resumed: How many of them an earlier run has done.

    Args:
        target: The folder to make.
        task: What is being made from what, as JSON values; equal tasks must write equal files.
        force: Start over where a folder of another task is found; one of the same task is continued.

    Raises:
        DataError: The unfinished folder belongs to another task, and `force` is not set.
    """

    def __init__(self, target: Path, task: Mapping[str, Any], *, force: bool = False) -> None:
        """Open the unfinished folder, or make it."""
        self.target, self.task = target, json.loads(json.dumps(task))
        self.folder = target.with_name(f".{target.name}.part")
        self.entries: list[dict[str, Any]] = []
        lines = _complete_lines(self.folder / JOURNAL)
        if not lines and (self.folder / JOURNAL).is_file() and not force:
            raise DataError(
                f"{self.folder / JOURNAL} is damaged, or of another version: its first line does not say what is being "
                "made. Force this task, which starts over, or name another folder."
            )
        if lines and lines[0].get("task") != self.task and not force:
            raise DataError(self._refusal(lines[0].get("task") or {}))
        if not lines or lines[0].get("task") != self.task:
            shutil.rmtree(self.folder, ignore_errors=True)
            lines = [{"task": self.task}]
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [lines[0]]
        for line in lines[1:]:
            if not self._has(line["files"]):
                break
            kept.append(line)
            self.entries.append(line["step"])
        self.resumed = len(self.entries)
        self._drop_files_but({name for line in kept[1:] for name in line["files"]})
        unfinished = self.folder / f"{JOURNAL}.tmp"
        unfinished.write_text("".join(_signed(line) for line in kept), encoding="utf-8")
        os.replace(unfinished, self.folder / JOURNAL)
        self._file = open(self.folder / JOURNAL, "a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        """Give the journal; leaving it keeps what is done for the next run, if anything is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the list."""
        self._file.close()
        if not self.entries:
            self.discard()

    def add(self, files: Iterable[Path], step: dict[str, Any]) -> None:
        """Note that a step is done: the files below `folder` that it has written, and values for the runs after it."""
        digests = {path.relative_to(self.folder).as_posix(): _digest(path) for path in files}
        self._file.write(_signed({"files": digests, "step": step}))
        self._file.flush()
        self.entries.append(step)

    def finish(self, record: str, content: Mapping[str, Any]) -> None:
        """Write the record, a JSON file that marks a finished folder, and move everything to its place.

        What is there, `refuse_target` has allowed to be replaced.
        """
        (self.folder / record).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        old = self.target.with_name(f".{self.target.name}.old")
        if self.target.exists():
            shutil.rmtree(old, ignore_errors=True)
            self.target.rename(old)
        self._file.close()
        self.folder.rename(self.target)
        (self.target / JOURNAL).unlink()
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """Delete the unfinished folder."""
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _has(self, files: Mapping[str, str]) -> bool:
        paths = [(self.folder / name, digest) for name, digest in files.items()]
        return all(path.is_file() and _digest(path) == digest for path, digest in paths)

    def _drop_files_but(self, kept: set[str]) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in kept:
                path.unlink()

    def _refusal(self, other: Mapping[str, Any]) -> str:
        keys = [key for key in {**other, **self.task} if other.get(key) != self.task.get(key)]
        found = some([f"{key} {other.get(key)}, not {self.task.get(key)}" for key in keys])
        return (
            f"{self.folder} is the unfinished run of another task ({found}); expected one to continue. Finish it with "
            "the command that began it, name another folder, or force this one, which deletes it."
        )


def refuse_target(target: Path, record: str, source: Path | None, *, force: bool) -> None:
    """Raise DataError where the folder to make lies in its source, or exists and may not be replaced.

    `force` allows to replace one with a `record`; a source that is no folder is None.
    """
    if source is not None and target.is_relative_to(source):
        raise DataError(f"{target} lies in the download {source}; expected a folder outside of it. Name another one.")
    if not target.exists():
        return
    if not force:
        raise DataError(f"{target} exists; expected a new folder. Name another one, or force it.")
    if not (target / record).is_file():
        raise DataError(
            f"{target} exists and holds no {record}, so it was not made here; only such folders are replaced. Name "
            "another folder, or move this one away."
        )


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Hash the places below `root`, sizes and times of change of files: another hash means that they have changed."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """Read up to the first line that is torn or damaged; nothing if there is no such file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_bytes().split(b"\n")[:-1]:  # behind the last line end is nothing, or half a line
        try:
            line = dict(json.loads(text))
            line.pop("sha256", None)
            sound = f"{text.decode()}\n" == _signed(line)
        except (ValueError, TypeError):
            break
        if not sound:
            break
        lines.append(line)
    return lines


def _signed(line: Mapping[str, Any]) -> str:
    """A line of the list, which ends in the checksum of the rest."""
    digest = hashlib.sha256(json.dumps(line).encode()).hexdigest()
    return json.dumps({**line, "sha256": digest}) + "\n"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
