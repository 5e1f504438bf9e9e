"""`Raster`: pixels that know where they hold data, what each band is, what stored values mean, and where they lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RasterError
from .grid import Grid

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file that lies in a shard or comes over the net, and what messages call it."""

    name: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        """Name it as a path would name itself."""
        return self.name


@dataclass(frozen=True)
class FileWindow:
    """A rectangle of the pixels of a file, turned as the file says: it can stand wherever an image file can.

    Attributes:
        path: The file.
        top, left, height, width: In px; the rectangle lies inside of the file.
    """

    path: Path
    top: int
    left: int
    height: int
    width: int

    def __str__(self) -> str:
        """Name the file, and the rectangle as numpy would."""
        return f"{self.path}[{self.top}:{self.top + self.height}, {self.left}:{self.left + self.width}]"

    @property
    def name(self) -> str:
        """Name without folders."""
        return f"{self.path.name}{str(self).removeprefix(str(self.path))}"

    @property
    def stem(self) -> str:
        """Name without folders and suffix, different for every window of a file."""
        return f"{self.path.stem}_{self.top}_{self.left}"


ImageFile = str | Path | EncodedImage | FileWindow


@dataclass(frozen=True)
class NoData:
    """A value that means no data.

    Attributes:
        value: As it stands in the file, in every band; integers of any size stay exact.
        within: How far values may lie from it, as JPEG smears them. Where this is not 0, only what is connected to the
            border of the file holds no data: a dark roof is none of a black border.
    """

    value: float
    within: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no tolerance."""
        if not 0 <= self.within < math.inf:
            raise RasterError(f"nodata within {self.within} of {self.value}; expected a tolerance of 0 or more.")

    def holds(self, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """(H, W) where all bands of (bands, H, W) have the value, or lie within the tolerance of it."""
        held: Any
        if math.isnan(self.value):
            held = np.isnan(pixels)
        elif self.within > 0:
            held = np.abs(pixels.astype(np.float64) - self.value) <= self.within
        else:
            # Whole numbers as such: next to a float, numpy would turn every pixel into one of 64 bits.
            is_whole = pixels.dtype.kind in "iu" and math.isfinite(self.value) and self.value == int(self.value)
            with np.errstate(over="ignore"):  # what no float of 32 bits holds is equal to none
                held = pixels == (int(self.value) if is_whole else self.value)
        return np.asarray(held.all(axis=0), np.bool_)


@dataclass(frozen=True)
class Reading:
    """What a file cannot say of itself: said by a dataset.yaml, by the command line, or by the model that it is for.

    Attributes:
        names: Names of the bands that are wanted, in their order; found by description, else by colour, else by order.
        described: How files of training describe these bands, where that differs from the names; looked for first.
        count: How many bands are wanted; None for the number of `names`, or all but alpha.
        numbers: The wanted bands by their numbers, counted from 1: overrides the names.
        nodata: Value without data, besides what the file says.
        scale, offset: From stored to physical values, `stored * scale + offset`; each overrides what the file says.
    """

    names: tuple[str, ...] | None = None
    described: tuple[str, ...] | None = None
    count: int | None = None
    numbers: tuple[int, ...] | None = None
    nodata: NoData | None = None
    scale: float | None = None
    offset: float | None = None

    def __post_init__(self) -> None:
        """Refuse factors that make nothing of the values, and complete the number of bands."""
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise RasterError(f"--scale is {self.scale}; expected a factor above 0, such as 1e-4.")
        if self.offset is not None and not math.isfinite(self.offset):
            raise RasterError(f"--offset is {self.offset}; expected a finite number, such as -0.1.")
        if self.names is not None and self.count is None:
            object.__setattr__(self, "count", len(self.names))

    @classmethod
    def for_model(cls, config: Any, **given: Any) -> "Reading":
        """The bands that a model takes: those that its configuration names; three bands without names are RGB."""
        names = config.bands or (COLOURS if config.num_channels == 3 else None)
        described = (config.training_images or {}).get("band_names")
        return cls(
            names=None if names is None else tuple(names),
            described=None if described is None else tuple(described),
            count=config.num_channels,
            **given,
        )


@dataclass(frozen=True)
class Band:
    """One band of a file.

    Attributes:
        number: Counted from 1.
        description: In lower case, as the file describes it; "" where it does not.
        colour: Colour interpretation in lower case ("red", "grey", "alpha", "palette"); "" where it is undefined.
        dtype: Of the stored values.
        nodata: The file's own value without data, an int in bands of integers; None if there is none.
        white: Largest value of an integer band whose file says, or whose type implies, how many bits a value has:
            255, 65535, or 2^bits - 1; None for other types.
        scale, offset: From stored to physical values as the file says; 1 and 0 where it says nothing.
    """

    number: int
    description: str
    colour: str
    dtype: str
    nodata: float | None
    white: int | None
    scale: float = 1.0
    offset: float = 0.0

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.description or self.colour or f"band {self.number}"

    @property
    def is_alpha(self) -> bool:
        """Whether the file calls it alpha, and does not describe it as something else, such as near infrared."""
        return self.colour == "alpha" and self.description in ("", "alpha")

    @property
    def is_scaled(self) -> bool:
        """Whether the file says how stored values become physical ones."""
        return (self.scale, self.offset) != (1.0, 0.0)

    def factors(self, reading: Reading) -> tuple[float, float] | None:
        """Scale and offset to [0, 1] or to physical values; None where nobody knows what the values mean."""
        if reading.scale is not None or reading.offset is not None or self.is_scaled:
            return (
                self.scale if reading.scale is None else reading.scale,
                self.offset if reading.offset is None else reading.offset,
            )
        if self.dtype.startswith("float"):
            return 1.0, 0.0
        return None if self.white is None else (1.0 / self.white, 0.0)


@dataclass(frozen=True)
class Raster:
    """Pixels of a file, or of a window of it.

    Attributes:
        name: Of the file, for messages.
        pixels: (bands, H, W) as stored, turned upright if the file says so: of a palette the indices.
        valid: (H, W) bool, False where there is no data.
        bands: What each band is.
        reading: What was known besides the file.
        grid: Where the pixels lie.
        palette: (entries, 4) uint8 red, green, blue and alpha of a single band of indices; None for other files.
    """

    name: str
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    bands: tuple[Band, ...]
    reading: Reading
    grid: Grid
    palette: NDArray[np.uint8] | None = None

    @property
    def colours(self) -> NDArray[Any]:
        """(bands, H, W) stored values, with the colours of a palette in the place of its indices; one grey band where
        all of its colours are grey."""
        if self.palette is None:
            return self.pixels
        table = self.palette[:, :1] if is_grey(self.palette) else self.palette[:, :3]
        return np.moveaxis(table[np.minimum(self.pixels[0], len(table) - 1)], 2, 0)

    @property
    def unit(self) -> NDArray[np.float32]:
        """(bands, H, W) float32 as an image processor gets it: 0 to 1 by the bits of the type, or physical values where
        the file or the reading scales them; 0 where there is no data.

        Raises:
            RasterError: Integers of another type than uint8 and uint16, and nobody says what they mean.
        """
        values = self.input
        return values if values.dtype == np.float32 else values.astype(np.float32) / np.float32(255)

    @property
    def input(self) -> NDArray[Any]:
        """As `unit`, but uint8 where that says the same (white is 255): a quarter of the memory.

        Raises:
            RasterError: As `unit`.
        """
        if self.palette is not None:
            return self._without_nodata(self.colours)
        factors = unit_factors(self.name, self.bands, self.reading)
        if self.pixels.dtype == np.uint8 and set(factors) == {(1 / 255, 0.0)}:
            return self._without_nodata(self.pixels)
        if len(set(factors)) == 1:
            return self._without_nodata(_scaled(self.pixels, *factors[0]))
        scaled = [_scaled(band, *each) for band, each in zip(self.pixels, factors, strict=True)]
        return self._without_nodata(np.stack(scaled))

    def _without_nodata(self, values: NDArray[Any]) -> NDArray[Any]:
        # Whatever the file has there, also 65535 or NaN, must not reach the statistics of a network.
        return values if self.valid.all() else np.where(self.valid, values, values.dtype.type(0))


def unit_factors(name: str, bands: Sequence[Band], reading: Reading) -> list[tuple[float, float]]:
    """Scale and offset of each band to what an image processor gets.

    Raises:
        RasterError: Nobody knows them, or the file says what cannot be.
    """
    factors = [each for band in bands if (each := band.factors(reading)) is not None]
    if len(factors) < len(bands):
        unknown = sorted({band.dtype for band in bands if band.factors(reading) is None})
        raise RasterError(
            f"{name} holds {' and '.join(unknown)} values, and does not say what they mean; expected uint8, uint16, "
            "floats, or a scale in the file. Give --scale, and --offset if there is one: 1e-4 for reflectances times "
            "10,000."
        )
    for scale, offset in factors:
        if not (math.isfinite(offset) and math.isfinite(scale) and scale and math.isfinite(1 / scale)):
            raise RasterError(
                f"{name} says that its values have the scale {scale:g} and the offset {offset:g}; expected finite "
                "numbers, and a scale other than 0. Give --scale and --offset."
            )
    return factors


def is_grey(palette: NDArray[np.uint8]) -> bool:
    """Whether all colours of a palette are grey."""
    return bool((palette[:, :1] == palette[:, 1:3]).all())


def _scaled(values: NDArray[Any], scale: float, offset: float) -> NDArray[np.float32]:
    # float32 holds every value of up to 16 bits; what is wider is scaled before it is rounded.
    is_narrow = values.dtype.itemsize <= 2 or values.dtype == np.float32
    wide: NDArray[Any] = values.astype(np.float32 if is_narrow else np.float64)
    inverse = round(1 / scale)
    with np.errstate(over="ignore", invalid="ignore"):  # only where there is no data, which is set to 0
        # Dividing by 65535 rounds once, multiplying by its inverse twice.
        wide = wide / inverse if inverse and 1 / scale == inverse else wide * scale
        return (wide + offset if offset else wide).astype(np.float32, copy=False)


__all__ = [
    "Band",
    "COLOURS",
    "EncodedImage",
    "FileWindow",
    "ImageFile",
    "NoData",
    "Raster",
    "Reading",
    "is_grey",
    "unit_factors",
]
