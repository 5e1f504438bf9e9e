"""Which bands of a file are meant."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import RasterError
from .image import Band, Reading, is_grey

MAX_BANDS = 16
"""Bands of one image, without its alpha band; a file with more is hardly meant to be one image."""


def choose_bands(
    name: str, every: Sequence[Band], reading: Reading, palette: NDArray[np.uint8] | None = None
) -> tuple[list[int], str]:
    """Numbers of the wanted bands, in their order, and how they were found.

    By number if the reading gives numbers; by description if the file describes all that are wanted; by colour if the
    names are those of colours and each of them is there once; else by order, without alpha unless it takes alpha to
    make up the number: many programs call any fourth band alpha, also near infrared.

    Args:
        name: Of the file, for errors.
        every: All bands of the file.
        reading: What is wanted.
        palette: Of the file; its colours are red, green and blue.

    Raises:
        RasterError: Another number of bands, or some that are not there.
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
    if reading.names is not None and len(reading.names) == count:
        by_name = _by_name(name, every, colours, [wanted.strip().lower() for wanted in reading.names])
        if by_name is not None:
            return by_name
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


def _by_name(
    name: str, every: Sequence[Band], colours: Sequence[int], wanted: Sequence[str]
) -> tuple[list[int], str] | None:
    described = {band.description: band.number for band in every if band.description}
    found = [described.get(one) for one in wanted]
    missing = [one for one, number in zip(wanted, found, strict=True) if number is None]
    if len(missing) < len(wanted):
        others = [band for band in every if band.number in colours and band.number not in found]
        if missing and (len(others) != len(missing) or any(band.description for band in others)):
            raise RasterError(
                f"{name} describes its bands as {', '.join(band.name for band in every)}; expected "
                f"{', '.join(wanted)}, and {', '.join(missing)} is not among them. Choose with --bands."
            )
        rest = iter(band.number for band in others)
        return [next(rest) if number is None else number for number in found], "description"
    named = [band.colour for band in every]
    if all(named.count(one) == 1 for one in wanted):
        return [named.index(one) + 1 for one in wanted], "colour"
    return None


def _refuse_many(name: str, colours: Sequence[int]) -> None:
    if len(colours) > MAX_BANDS:
        raise RasterError(
            f"{name} has {len(colours)} bands; expected 1 to {MAX_BANDS}. Export the bands that you need."
        )


__all__ = ["MAX_BANDS", "choose_bands"]
