"""Which bands of a file are meant."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import RasterError
from .image import COLOURS, Band, Reading, is_grey

MAX_BANDS = 16
"""Bands of one image, without its alpha band; a file with more is hardly meant to be one image."""


def choose_bands(
    name: str, every: Sequence[Band], reading: Reading, palette: NDArray[np.uint8] | None = None
) -> tuple[list[int], str]:
    """Numbers of the wanted bands, in their order, and how they were found.

    By number if the reading gives numbers; by description, else by colour, where bands of which the file says nothing
    stand for the names that none has; else by order. Without alpha unless it takes alpha to make up the number: many
    programs call any fourth band alpha, also near infrared.

    Args:
        name: Of the file, for errors.
        every: All bands of the file.
        reading: What is wanted.
        palette: Of the file; its colours are red, green and blue.

    Raises:
        RasterError: Another number of bands, or some that are not there or there twice.
    """
    numbers = [band.number for band in every]
    colours = [band.number for band in every if not band.is_alpha]
    count = reading.count
    if reading.numbers is not None:
        wanted = list(reading.numbers)
        if (count is not None and len(wanted) != count) or not set(wanted) <= set(numbers):
            raise RasterError(
                f"{name} has bands 1 to {len(every)}{'' if count is None else f' and the model takes {count}'}; "
                f"--bands names {', '.join(map(str, wanted))}. Name {count or 'some'} of them, in the model's order."
            )
        return wanted, "number"
    if palette is not None and len(colours) == 1:
        meaning = "grey" if is_grey(palette) else "red, green and blue"
        if count in (None, 1 if is_grey(palette) else 3):
            return colours, "colour"
        raise RasterError(
            f"{name} has a palette of {len(palette)} colours, which are read as {meaning}; expected {count} bands. "
            f"Take an image of {count} bands."
        )
    known = [_plain(band.description) for band in every]
    if reading.described is not None and all(known.count(_plain(one)) == 1 for one in reading.described):
        return [every[known.index(_plain(one))].number for one in reading.described], "description"
    if reading.names is not None and len(reading.names) == count:
        named = _by_name(name, every, [_plain(one) for one in reading.names])
        if named is not None:
            return named
    if count is None or len(colours) == count:
        _refuse_many(name, colours)
        return colours, "order"
    if len(numbers) == count:
        return numbers, "order"
    listed = "" if reading.names is None else f" ({', '.join(reading.names)})"
    found = f"{len(colours)} band{'s' * (len(colours) != 1)}{' and alpha' * (len(colours) < len(numbers))}"
    raise RasterError(
        f"{name} has {found}; expected {count}{listed}, as the model or the description says. Choose with --bands, in "
        "the order of the model's, or convert the image."
    )


def _by_name(name: str, every: Sequence[Band], wanted: Sequence[str]) -> tuple[list[int], str] | None:
    """Numbers of the bands that have the wanted names, and whether description or colour says so; None if neither."""
    described, coloured = [_plain(band.description) for band in every], [_plain(band.colour) for band in every]
    if set(wanted) & set(described):
        said = [one if one in wanted else other for one, other in zip(described, coloured, strict=True)]
        found = _completed(every, wanted, said, [not one for one in described])
        if found is None:
            raise RasterError(
                f"{name} describes its bands as {', '.join(one or 'nothing' for one in described)}; expected "
                f"{', '.join(wanted)}, each of them once. Choose with --bands."
            )
        return found, "description"
    # Red, green and blue is also what programs call any three bands: it tells nothing of those that have other names.
    if tuple(coloured[:3]) != COLOURS or set(wanted) <= set(coloured):
        found = _completed(every, wanted, coloured, [one in ("", "alpha") for one in coloured])
        if found is not None and set(wanted) & set(coloured):
            return found, "colour"
    return None


def _completed(
    every: Sequence[Band], wanted: Sequence[str], said: Sequence[str], silent: Sequence[bool]
) -> list[int] | None:
    """Numbers of the bands with the wanted names, and of silent ones, in their order, for names that no band has; None
    where a name is there twice, or other than just as many bands are left."""
    missing = [one for one in wanted if one not in said]
    left = [band for band, one, is_silent in zip(every, said, silent, strict=True) if is_silent and one not in wanted]
    rest = [band.number for band in left if not band.is_alpha]
    if len(rest) < len(missing):
        rest = [band.number for band in left]  # it takes what is called alpha to make up the number
    if any(said.count(one) > 1 for one in wanted) or (missing and len(rest) != len(missing)):
        return None
    others = iter(rest)
    return [every[said.index(one)].number if one in said else next(others) for one in wanted]


def _plain(name: str) -> str:
    return name.strip().lower().replace("gray", "grey")


def _refuse_many(name: str, colours: Sequence[int]) -> None:
    if len(colours) > MAX_BANDS:
        raise RasterError(
            f"{name} has {len(colours)} bands; expected 1 to {MAX_BANDS}. Export the bands that you need."
        )


__all__ = ["MAX_BANDS", "choose_bands"]
