"""List files as the field writes them: "image mask" per line, read and written as plain names; opens no image.

The lists of Co2S, RS-MTDF, SemiEarth and UniMatch are all of this kind. They differ in what the names are relative to
(the root folder; with RS-MTDF's LoveDA and DeepGlobe the folder one trains in), in what their second column is worth
(the mask of an unlabelled line must never be opened; Co2S's `pred.txt` has none), and in which lists there are.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .samples import DataError

_SPELLINGS = {
    "labelled": ("labeled.txt", "labelled.txt"),
    "unlabelled": ("unlabeled.txt", "unlabelled.txt"),
    "validation": ("val.txt",),
    "test": ("test.txt",),
    "prediction": ("pred.txt",),
}


@dataclass(frozen=True)
class Line:
    """One line of a list: the names as they are written, with forward slashes; `mask` is None without a column."""

    image: str
    mask: str | None = None

    def __str__(self) -> str:
        """Give the line as it is written."""
        return self.image if self.mask is None else f"{self.image} {self.mask}"


@dataclass(frozen=True)
class Lists:
    """The lists of one split. A part whose file the protocol does not have is empty.

    The masks of `unlabelled` are dropped: they were never to be opened. `prediction` is what Co2S calls `pred.txt`.
    """

    labelled: tuple[Line, ...]
    unlabelled: tuple[Line, ...]
    validation: tuple[Line, ...]
    test: tuple[Line, ...] = ()
    prediction: tuple[Line, ...] = ()


def read_list(path: str | Path) -> tuple[Line, ...]:
    """Read one list: one or two names per line, separated by blanks; empty lines are skipped.

    Raises:
        DataError: The file is missing or not UTF-8 text; a line has more than two names; an image is listed twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no list {path}; expected a text file with one image per line.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error}); expected one image per line. Save it as UTF-8."
        ) from error
    lines: dict[str, Line] = {}
    for number, row in enumerate(text.splitlines(), start=1):
        names = row.split()
        if not names:
            continue
        if len(names) > 2:
            raise DataError(
                f'{path}, line {number}, has {len(names)} names: "{row}"; expected "image" or "image mask". Names '
                "with blanks cannot be listed: rename the files."
            )
        line = Line(*names)
        if line.image in lines:
            raise DataError(f"{path}, line {number}, lists {line.image} again; expected every image once.")
        lines[line.image] = line
    return tuple(lines.values())


def read_lists(folder: str | Path) -> Lists:
    """Read the published lists of one ratio as they are: `<dataset>/1_8`, or `<dataset>/10` with RS-MTDF.

    `labeled.txt` and `unlabeled.txt` (or with two l) lie in `folder`; `val.txt`, `test.txt` and `pred.txt` there or
    one folder up. Co2S's `all` and UniMatch's full sets have no unlabelled list; Co2S has no test list.

    Raises:
        DataError: No labelled or no validation list; both spellings of one; an image in two of the labelled,
            unlabelled, validation and test lists; what `read_list` refuses.
    """
    folder = Path(folder)
    found = {part: _find(folder, part) for part in _SPELLINGS}
    for part in ("labelled", "validation"):
        if found[part] is None:
            raise DataError(
                f"There is no {part} list of {folder}; expected {' or '.join(_SPELLINGS[part])} in it"
                f"{'' if part == 'labelled' else ' or in the folder above'}. Name the folder of one ratio."
            )
    lines = {part: () if path is None else read_list(path) for part, path in found.items()}
    lines["unlabelled"] = tuple(Line(line.image) for line in lines["unlabelled"])
    _check_disjoint(folder, {part: lines[part] for part in ("labelled", "unlabelled", "validation", "test")})
    return Lists(**lines)


def write_list(path: str | Path, lines: Iterable[Line], *, force: bool = False) -> None:
    """Write one list so that it is there whole or not at all; its folder is made.

    Raises:
        DataError: The file exists and `force` is not set; a name holds blanks or is empty.
    """
    write_files({Path(path): lines}, force=force)


def write_files(files: dict[Path, Iterable[Line]], *, force: bool = False) -> None:
    """Write several lists: all are checked before the first appears; errors as of `write_list`."""
    texts = {path: "".join(f"{_checked(path, line)}\n" for line in lines) for path, lines in files.items()}
    existing = [str(path) for path in texts if path.exists()]
    if existing and not force:
        raise DataError(f"{', '.join(existing)} exists; expected a new file. Name another folder, or force it.")
    parts = {path: path.with_name(f".{path.name}.part") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_text(text, encoding="utf-8", newline="\n")
        for path, part in parts.items():
            os.replace(part, path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _find(folder: Path, part: str) -> Path | None:
    places = (folder,) if part in ("labelled", "unlabelled") else (folder, folder.parent)
    for place in places:
        paths = [place / name for name in _SPELLINGS[part] if (place / name).is_file()]
        if len(paths) > 1:
            raise DataError(f"{paths[0]} and {paths[1]} are both the {part} list; expected one. Move one away.")
        if paths:
            return paths[0]
    return None


def _check_disjoint(folder: Path, lists: dict[str, Sequence[Line]]) -> None:
    seen: dict[str, str] = {}
    for part, lines in lists.items():
        for line in lines:
            other = seen.setdefault(line.image, part)
            if other != part:
                raise DataError(
                    f"{line.image} is in the {other} and in the {part} list of {folder}; expected it in one of them."
                )


def _checked(path: Path, line: Line) -> Line:
    for name in (line.image, line.mask):
        if name is not None and name.split() != [name]:
            raise DataError(
                f'{path} cannot list "{name}": the names of a line are separated by blanks, so that no name may hold '
                "one or be empty. Rename the file."
            )
    return line
