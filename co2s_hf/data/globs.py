"""A folder, or a glob below one: where files lie, and what an image and its mask have in common.

A glob may be that of a stranger, in a downloaded `dataset.yaml`. What a name costs grows with its length, not with the
ways to share it out among wildcards: every wildcard takes what it can at first sight, and never gives back.
"""

import os
import re
from itertools import takewhile
from pathlib import Path, PurePosixPath

MOST_DEEP = 2
"""`**` in one glob: each of them tries every folder above a file."""


class GlobError(ValueError):
    """A glob that cannot be used; the message says why."""


class Names:
    """The files of a folder, or those that a glob below one matches.

    Args:
        root: what the text is relative to.
        text: a folder, or a glob of `*`, `?` and `**/`.

    Attributes:
        folder: above the first wildcard.
        glob: below it; empty for every file in the folder and below.

    Raises:
        GlobError: more than `MOST_DEEP` times `**`.
    """

    def __init__(self, root: Path, text: str) -> None:
        """Split the text at its first wildcard."""
        parts = PurePosixPath(text).parts
        fixed = list(takewhile(lambda part: not re.search("[*?]", part), parts))
        self.folder = normal(root.joinpath(*fixed))
        self.glob = plain("/".join(parts[len(fixed) :]))
        self._regex = re.compile("/".join(map(_segment, self.glob.split("/"))).replace(f"{_DEEP}/", _DEEP), re.DOTALL)

    def key(self, path: Path) -> str | None:
        """Give what a file shares with its twin: its place without suffix, or what the wildcards stand for."""
        if not path.is_relative_to(self.folder):
            return None
        place = path.relative_to(self.folder)
        if not self.glob:
            return place.with_suffix("").as_posix()
        match = self._regex.fullmatch(place.as_posix())
        return "|".join(match.groups()) if match else None


def plain(glob: str) -> str:
    """The same glob without `**` behind `**`, which means nothing more and takes much longer, nor at its end.

    Raises:
        GlobError: `**` is left more than `MOST_DEEP` times.
    """
    parts = glob.split("/")
    kept = [part for part, before in zip(parts, [None, *parts[:-1]], strict=True) if part != "**" or before != "**"]
    if kept.count("**") > MOST_DEEP:
        raise GlobError(f"it has ** {kept.count('**')} times, more than {MOST_DEEP}")
    return "/".join([*kept, "*"] if kept[-1] == "**" else kept)  # all files below


_DEEP = "((?:.*/)?)"


def _segment(text: str) -> str:
    """A regular expression of what stands between two slashes."""
    if text == "**":
        return _DEEP
    first, *further = (re.escape(part).replace(r"\?", "([^/])") for part in re.split(r"\*+", text))
    if not further:
        return first
    middle = "".join(f"(?>([^/]*?){part})" for part in further[:-1])
    return f"(?>{first}{middle}([^/]*){further[-1]}(?=/|$))"


def normal(path: Path) -> Path:
    """The path without `..`: "a/../b" and "b" must be one image; links stay as they are named."""
    return Path(os.path.normpath(path))


__all__ = ["GlobError", "MOST_DEEP", "Names", "normal", "plain"]
