"""The one reader of image files: whole files and windows, upright, with every source of no-data, by GDAL alone.

One decoder on purpose: what training sees is what maps are made of, to the last bit.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what GDAL raises itself; it stands nowhere else
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning
from rasterio.shutil import copy
from rasterio.windows import Window
from scipy.ndimage import label

from .bands import choose_bands
from .errors import PlaceError, RasterError, gdal_refusals
from .grid import Grid
from .image import Band, EncodedImage, FileWindow, ImageFile, NoData, Raster, Reading, is_grey, unit_factors
from .orientation import orientation

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""File name endings taken for images of a data set, compared in lower case."""

# GDAL's formats of a data set, by how their files begin. Left to choose, GDAL would also find formats in a file that
# name further files, here or on the net.
_DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",  # BigTIFF
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
}
_SUFFIXES = {"GTiff": ".tif", "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}

_LOSSY = ("JPEG", "YCBCR JPEG", "JPEG2000", "JP2000", "WEBP", "JXL")
"""Compressions that lose something, as GDAL names them, where it does not say so itself."""

DECODER = (rasterio.__version__, rasterio.__gdal_version__)
"""What decoded pixels depend on, besides the file."""

MAX_PIXELS_VARIABLE = "CO2S_MAX_PIXELS"
"""Environment variable with the most pixels that are read at once (default 178 956 970, as Pillow's limit).

A file of a few hundred bytes may claim 10^10 pixels, and whoever decodes it runs out of memory.
"""

GDAL_CACHE_BYTES = 32 << 20

_STRIPE_PX = 1 << 22

# From how a file stores pixels to how they are seen (EXIF): (transpose, then flip rows, flip columns).
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_UPRIGHT = (False, False, False)


def read_raster(source: ImageFile, reading: Reading = Reading()) -> Raster:  # noqa: B008  # frozen
    """Read a whole image of a data set, or the window that `source` names.

    Raises:
        RasterError: The file is missing, truncated, no image, too large, or has no such bands.
    """
    with open_image(source, reading) as file:
        return file.read()


@contextmanager
def open_image(source: ImageFile, reading: Reading = Reading()) -> Iterator["RasterFile"]:  # noqa: B008  # frozen
    """Open an image of a data set: a self-contained format, whatever its name, as strangers may have chosen it.

    Raises:
        RasterError: See `read_raster`.
    """
    with open_raster(source, reading, driver=image_driver(source)) as file:
        yield file


def image_driver(source: ImageFile) -> str:
    """GDAL's name of the format of an image of a data set, by how the file begins, whatever its name.

    Raises:
        RasterError: The file is missing, or of none of these formats.
    """
    path = source.path if isinstance(source, FileWindow) else source
    try:
        if isinstance(path, EncodedImage):
            start = path.data[:8]
        else:
            with open(path, "rb") as file:
                start = file.read(8)
    except FileNotFoundError:
        raise RasterError(f"{path} does not exist; check the folder and the list that name it.") from None
    except OSError as error:
        raise RasterError(f"{path} cannot be read ({error}); expected an image file.") from None
    for known, driver in _DRIVERS.items():
        if start.startswith(known):
            return driver
    raise RasterError(
        f"{path} cannot be read as an image; expected one of {', '.join(_SUFFIXES)}, and its first bytes are those of "
        "none. Fetch or export it again, or take it out of the data set."
    )


def file_suffix(source: ImageFile) -> str:
    """Give the one of `IMAGE_SUFFIXES` that the format has, whatever the name; other formats raise a `RasterError`."""
    return _SUFFIXES[image_driver(source)]


def is_lossy(source: ImageFile) -> bool:
    """Whether the compression may have changed pixels: JPEG, WebP, JPEG 2000 and so on, by themselves or in a TIFF."""
    with open_image(source) as file:
        structure = file.dataset.tags(ns="IMAGE_STRUCTURE")
        if file.dataset.driver == "JPEG":
            return True
    if "COMPRESSION_REVERSIBILITY" in structure:
        return not structure["COMPRESSION_REVERSIBILITY"].upper().startswith("LOSSLESS")
    return structure.get("COMPRESSION", "").upper() in _LOSSY or "MAX_Z_ERROR" in structure


@contextmanager
def open_raster(
    source: ImageFile | os.PathLike[str],
    reading: Reading = Reading(),  # noqa: B008  # frozen
    *,
    driver: str | None = None,
) -> Iterator["RasterFile"]:
    """Open a raster of any format that GDAL reads.

    Args:
        source: A file, what GDAL takes for one, such as `/vsizip/…` or `s3://…`, the bytes of one, or a window of one.
        reading: What is known besides the file.
        driver: GDAL's name of the only format to consider; None for all of them.

    Raises:
        RasterError: It cannot be opened or, later, not be read; or the window does not lie in it.
    """
    window = source if isinstance(source, FileWindow) else None
    path: Any = window.path if window else source
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(gdal_environment())
        if not isinstance(path, EncodedImage) and not os.path.isfile(path):
            # Decoded at once, in half the time, a PNG may end in the middle without a word; see `orientation`.
            stack.enter_context(rasterio.Env(GDAL_PNG_WHOLE_IMAGE_OPTIM="NO"))
        with gdal_refusals(path):
            if isinstance(path, EncodedImage):
                path = stack.enter_context(rasterio.MemoryFile(path.data)).name
            dataset = stack.enter_context(rasterio.open(path, driver=driver))
            file = RasterFile(dataset, source, reading)
        yield file


def gdal_environment() -> Any:
    """A rasterio environment in which GDAL keeps little. GDAL looks at it once, when it reads its first block."""
    return rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES)


@contextmanager
def quiet() -> Iterator[None]:
    """Where a raster without a place is allowed, or with both nodata and alpha, rasterio need not warn of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NodataShadowWarning)
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


class RasterFile:
    """An open file: what it says of itself, and its pixels, window by window.

    Args:
        dataset: An open rasterio dataset.
        source: Where it comes from; of a `FileWindow` nothing else of the file is seen.
        reading: What is known besides the file.

    Raises:
        RasterError: The bands that are wanted are not there, there is nothing in it, or it holds complex numbers.

    Attributes:
        name: Of the file, for messages.
        grid: Where its pixels lie, upright; without a place where `misplaced` says why.
        misplaced: Why its place cannot be used; None if it can, or if the file has none.
        alpha: The alpha band, if there is one and it is not among the wanted bands.
        bands: The wanted bands, in their order.
        bands_found_by: How: "number", "description", "colour", or "order" alone.
        palette: See `Raster`.
    """

    def __init__(self, dataset: Any, source: Any, reading: Reading = Reading()) -> None:  # noqa: B008  # frozen
        """Look at what the dataset says of itself."""
        self.dataset, self.reading = dataset, reading
        self.source, self.name = source, str(source)
        self.misplaced: PlaceError | None = None
        try:
            stored = Grid.of(dataset)
        except PlaceError as error:
            self.misplaced, stored = error, Grid(dataset.height, dataset.width)
        turn = _TURNS.get(self.orientation, _UPRIGHT)
        self._turn = _UPRIGHT if stored.is_placed else turn  # who says where the pixels lie says how they are turned
        self._whole = Grid(stored.width, stored.height) if self._turn[0] else stored
        self.grid, self._corner = self._whole, (0, 0)
        if isinstance(source, FileWindow):
            self._require_inside(source)
            self._corner = source.top, source.left
            rows = slice(source.top, source.top + source.height)
            self.grid = self._whole.window(rows, slice(source.left, source.left + source.width))
        self._mask_flags = dataset.mask_flag_enums
        _refuse_lost_blocks(dataset)
        every = [_band(dataset, *each) for each in zip(dataset.indexes, _nodata_values(dataset), strict=True)]
        self.every_band = tuple(every)
        numbers, self.bands_found_by = choose_bands(self.name, every, reading, self._palette_of(every))
        self.bands = tuple(every[number - 1] for number in numbers)
        if not {np.dtype(band.dtype).kind for band in self.bands} <= set("iuf"):
            raise RasterError(f"{self.name} holds {self.dtype} values; expected integers or floats.")
        alpha = [band for band in every if band.is_alpha]
        self.alpha = alpha[0] if alpha and alpha[0].number not in numbers else None
        self.palette = self._palette_of(self.bands)

    @cached_property
    def orientation(self) -> int:
        """EXIF's number of how the picture is turned in the file; 1 for upright."""
        if self.dataset.driver == "JPEG":
            text = self.dataset.tags().get("EXIF_Orientation", "1")
            return int(text) if text.isdecimal() else 1
        path = self.source.path if isinstance(self.source, FileWindow) else self.source
        return orientation(path, self.dataset.driver)

    @property
    def native(self) -> "RasterFile":
        """The file whose pixels these are; see `co2s_hf.raster.resample.Resampled`."""
        return self

    @property
    def height(self) -> int:
        """In px, upright."""
        return self.grid.height

    @property
    def width(self) -> int:
        """In px, upright."""
        return self.grid.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the stored values of all wanted bands."""
        return np.result_type(*{band.dtype for band in self.bands})

    @property
    def num_bands(self) -> int:
        """How many bands an image processor gets: of a palette its colours."""
        if self.palette is None:
            return len(self.bands)
        return 1 if is_grey(self.palette) else 3

    @property
    def hides_nothing(self) -> bool:
        """Whether every pixel holds data, as far as can be told without decoding one."""
        return (
            self.alpha is None
            and self.reading.nodata is None
            and all(band.nodata is None for band in self.bands)
            and all(not band.dtype.startswith("float") for band in self.bands)
            and not self._has_mask
            and (self.palette is None or bool((self.palette[:, 3] > 0).all()))
        )

    @property
    def _has_mask(self) -> bool:
        """Whether a mask, in the file or beside it, says where it holds data; or one value for each band does."""
        flags = {flag.name for flag in self._mask_flags[self.bands[0].number - 1]}
        return "per_dataset" in flags and "alpha" not in flags

    def require_meaning(self) -> None:
        """Raise RasterError, ahead of any work, where nobody knows what the stored values mean."""
        if self.palette is None:
            unit_factors(self.name, self.bands, self.reading)

    def require_place(self) -> None:
        """Raise PlaceError where the file says where it lies, but not in a way that can be used."""
        if self.misplaced is not None:
            raise self.misplaced

    def read(
        self, rows: slice | None = None, columns: slice | None = None, shape: tuple[int, int] | None = None
    ) -> Raster:
        """Pixels of a rectangle; nothing else is decoded, apart from the blocks of the file that it touches.

        Args:
            rows, columns: In px, upright; None for all of them.
            shape: (height, width) to thin them out to, by leaving pixels out; None for all of them.

        Raises:
            RasterError: The file is damaged, or the rectangle has more pixels than may be read at once.
        """
        down, across = self._in_file(rows, columns)
        pixels = self._stored(down, across, shape)
        valid = np.ones(pixels.shape[1:], np.bool_)
        for _, holds in self._sources(pixels, down, across, shape):
            valid &= holds
        grid = self._whole.window(down, across)
        if shape is not None:
            grid = grid.resized(*shape)
        return Raster(self.name, pixels, valid, self.bands, self.reading, grid, self.palette)

    def reasons(
        self, raster: Raster, rows: slice | None = None, columns: slice | None = None
    ) -> dict[str, NDArray[np.bool_]]:
        """Why pixels of a raster of this file hold no data: each reason with its (H, W) bool, True where it applies."""
        found = self._sources(raster.pixels, *self._in_file(rows, columns), None)
        return {reason: ~holds for reason, holds in found}

    def _in_file(self, rows: slice | None, columns: slice | None) -> tuple[slice, slice]:
        """A rectangle of what is seen of the file, as one of the whole file, upright."""
        rows, columns = rows or slice(0, self.height), columns or slice(0, self.width)
        top, left = self._corner
        return slice(rows.start + top, rows.stop + top), slice(columns.start + left, columns.stop + left)

    def alpha_values(self) -> NDArray[Any]:
        """The different values of the alpha band, in their order."""
        assert self.alpha is not None, f"{self.name} has no alpha band"
        window, _ = self._window(slice(0, self.height), slice(0, self.width), None)
        with gdal_refusals(self.name):
            return np.unique(self.dataset.read(self.alpha.number, window=window))

    def _stored(self, rows: slice, columns: slice, shape: tuple[int, int] | None) -> NDArray[Any]:
        """(bands, H, W) of a rectangle of the whole file, upright; laid out as (H, W, bands), as crops are cut."""
        size = (rows.stop - rows.start, columns.stop - columns.start) if shape is None else shape
        check_pixels(self.name, *size)
        window, out_shape = self._window(rows, columns, shape)
        numbers = [band.number for band in self.bands]
        # Bands of one type at once, which decodes pixels side by side once; rasterio reads no others together.
        groups = [numbers] if len({band.dtype for band in self.bands}) == 1 else [[number] for number in numbers]
        with gdal_refusals(self.name):
            read = [self.dataset.read(some, window=window, out_shape=(len(some), *out_shape)) for some in groups]
        pixels = self._upright(read[0] if len(read) == 1 else np.concatenate(read).astype(self.dtype, copy=False))
        laid = np.empty((*pixels.shape[1:], len(pixels)), pixels.dtype)
        for place, band in enumerate(pixels):  # an eighth of the time of `ascontiguousarray`
            laid[..., place] = band
        return np.moveaxis(laid, 2, 0)

    def _sources(
        self, pixels: NDArray[Any], rows: slice, columns: slice, shape: tuple[int, int] | None
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Every source of no-data, and (H, W) where it says that there is data. One of them is enough."""
        if self.alpha is not None:
            yield "alpha", self._layer(self.dataset.read, self.alpha, rows, columns, shape)
        if self._has_mask:
            yield "mask", self._layer(self.dataset.read_masks, self.bands[0], rows, columns, shape)
        if all(band.nodata is not None for band in self.bands):
            held = np.ones(pixels.shape[1:], np.bool_)
            for stored, band in zip(pixels, self.bands, strict=True):
                held &= NoData(band.nodata or 0).holds(stored[None].astype(band.dtype, copy=False))
            yield "nodata value", ~held
        if self.reading.nodata is not None:
            yield "declared nodata", ~self._declared(self.reading.nodata, pixels, rows, columns, shape)
        if pixels.dtype.kind == "f":
            with np.errstate(over="ignore"):
                narrow = pixels.astype(np.float32, copy=False)  # as networks take them
            yield "not finite", np.logical_and.reduce(np.isfinite(narrow))
        if self.palette is not None and not (self.palette[:, 3] > 0).all():
            yield "transparent colour", self.palette[np.minimum(pixels[0], len(self.palette) - 1), 3] > 0

    def _layer(
        self, read: Callable[..., Any], band: Band, rows: slice, columns: slice, shape: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        """(H, W), upright, where alpha or a mask is not 0."""
        window, out_shape = self._window(rows, columns, shape)
        with gdal_refusals(self.name):
            layer = read(band.number, window=window, out_shape=out_shape)
        return np.ascontiguousarray(self._upright(layer[None])[0] != 0)

    def _declared(
        self, nodata: NoData, pixels: NDArray[Any], rows: slice, columns: slice, shape: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        if nodata.within == 0:
            return nodata.holds(pixels)
        if pixels.shape[1:] == (self._whole.height, self._whole.width):
            return connected_to_border(nodata.holds(pixels))
        down, across = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
        if shape is not None:  # the middle of what a pixel stands for, as GDAL thins out
            down = down[(np.arange(shape[0]) * len(down) + len(down) // 2) // shape[0]]
            across = across[(np.arange(shape[1]) * len(across) + len(across) // 2) // shape[1]]
        return self._border[down][:, across]

    @cached_property
    def _border(self) -> NDArray[np.bool_]:
        """(H, W) of the whole file, where a value within a tolerance is connected to the border: one byte a pixel."""
        nodata = self.reading.nodata
        assert nodata is not None
        height, width = self._whole.height, self._whole.width
        check_pixels(self.name, height, width)
        held = np.empty((height, width), np.bool_)
        step = max(1, _STRIPE_PX // width)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            held[rows] = nodata.holds(self._stored(rows, slice(0, width), None))
        return connected_to_border(held)

    def _window(self, rows: slice, columns: slice, shape: tuple[int, int] | None) -> tuple[Window, tuple[int, int]]:
        """A rectangle of the whole file as it is stored, and the shape to read it in."""
        transpose, flip_rows, flip_columns = self._turn
        top, bottom, left, right = rows.start, rows.stop, columns.start, columns.stop
        if flip_rows:
            top, bottom = self._whole.height - bottom, self._whole.height - top
        if flip_columns:
            left, right = self._whole.width - right, self._whole.width - left
        out = (bottom - top, right - left) if shape is None else shape
        if transpose:
            return Window(top, left, bottom - top, right - left), (out[1], out[0])
        return Window(left, top, right - left, bottom - top), out

    def _upright(self, pixels: NDArray[Any]) -> NDArray[Any]:
        transpose, flip_rows, flip_columns = self._turn
        pixels = pixels.transpose(0, 2, 1) if transpose else pixels
        pixels = pixels[:, ::-1] if flip_rows else pixels
        return pixels[:, :, ::-1] if flip_columns else pixels

    def _require_inside(self, window: FileWindow) -> None:
        inside = window.top >= 0 and window.left >= 0 and window.height > 0 and window.width > 0
        inside &= window.top + window.height <= self._whole.height and window.left + window.width <= self._whole.width
        if not inside:
            raise RasterError(
                f"{window} is no window of the file; expected one inside of its {self._whole.height} rows and "
                f"{self._whole.width} columns."
            )

    def _palette_of(self, bands: Sequence[Band]) -> NDArray[np.uint8] | None:
        """The palette of a single band of indices; None for other bands."""
        indices = [band for band in bands if not band.is_alpha]
        if len(indices) != 1 or indices[0].colour != "palette" or not indices[0].dtype.startswith("uint"):
            return None
        with gdal_refusals(self.name):
            colours = self.dataset.colormap(indices[0].number)
        table = np.zeros((max(colours) + 1, 4), np.uint8)
        table[list(colours)] = list(colours.values())
        return table


def _refuse_lost_blocks(dataset: Any) -> None:
    """Raise RasterError where a GeoTIFF's table of blocks is damaged: GDAL would read zeros.

    GDAL looks at the table when it is asked for masks, and rasterio raises what was said then at the next question.
    """
    with gdal_refusals(dataset.name):
        try:
            tuple(dataset.colorinterp)
        except CPLE_BaseError as error:
            if "TIFFFetchStripThing" in str(error):  # libtiff's name of it; other complaints harm no pixel
                raise


def check_pixels(name: str, height: int, width: int) -> None:
    """Raise RasterError where a rectangle has more pixels than may be read at once."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, "178956970")
    if not text.isdecimal() or int(text) < 1:
        raise RasterError(f"The environment variable {MAX_PIXELS_VARIABLE} is {text!r}; expected a number of pixels.")
    if height * width > int(text):
        raise RasterError(
            f"{name} says that it has {width}x{height} pixels; expected at most {text} at once. Where you trust the "
            f"file and have the memory, set the environment variable {MAX_PIXELS_VARIABLE}; or cut it into tiles."
        )


def connected_to_border(held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool: of the pixels that are True, those that touch the border through others, side by side."""
    regions, count = label(held)
    touching = np.zeros(count + 1, np.bool_)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        touching[edge] = True
    touching[0] = False
    connected: NDArray[np.bool_] = touching[regions]
    return connected


def image_size(source: ImageFile) -> tuple[int, int]:
    """Read (height, width) in px, upright, from the header of an image file, without decoding.

    Raises:
        RasterError: The file is missing, or its header is not that of an image.
    """
    if isinstance(source, FileWindow):
        return source.height, source.width
    with open_image(source) as file:
        return file.height, file.width


def _band(dataset: Any, number: int, nodata: float | None) -> Band:
    place = number - 1
    dtype, description = dataset.dtypes[place], (dataset.descriptions[place] or "").strip().lower()
    colour = dataset.colorinterp[place].name
    bits = dataset.tags(number, ns="IMAGE_STRUCTURE").get("NBITS", "")
    white = {"uint8": 255, "uint16": 65535}.get(dtype)
    if bits.isdecimal() and 0 < int(bits) < 32 and dtype in ("uint8", "uint16", "uint32"):
        white = 2 ** int(bits) - 1
    return Band(
        number=number,
        description=description,
        colour={"gray": "grey", "undefined": ""}.get(colour, colour),
        dtype=dtype,
        nodata=nodata,
        white=white,
        scale=dataset.scales[place],
        offset=dataset.offsets[place],
    )


def _nodata_values(dataset: Any) -> list[float | None]:
    """Each band's value without data; an int in bands of integers, exact beyond 2^53 where rasterio gives a float."""
    values: list[float | None] = list(dataset.nodatavals)
    wide = [place for place, dtype in enumerate(dataset.dtypes) if dtype in ("int64", "uint64")]
    if wide:
        with rasterio.MemoryFile(ext=".vrt") as file:  # GDAL writes into it, in memory, what it knows of the dataset
            copy(dataset, file.name, driver="VRT")
            bands = ElementTree.fromstring(file.read()).findall("VRTRasterBand")
        for place in wide:
            text = bands[place].findtext("NoDataValue")
            values[place] = None if text is None else int(text)
    return [
        int(value) if value is not None and "int" in dtype and math.isfinite(value) and value % 1 == 0 else value
        for value, dtype in zip(values, dataset.dtypes, strict=True)
    ]


__all__ = [
    "DECODER",
    "GDAL_CACHE_BYTES",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS_VARIABLE",
    "RasterFile",
    "check_pixels",
    "connected_to_border",
    "file_suffix",
    "gdal_environment",
    "image_driver",
    "image_size",
    "is_lossy",
    "open_image",
    "open_raster",
    "quiet",
    "read_raster",
]
