"""The files of the page: uploads are looked at before they are decoded, masks are written where the image lies.

Only the pixels of PNG, JPEG and TIFF are read, and TIFF by GDAL's TIFF driver alone: other formats of GDAL name further
files, and an upload must not reach those.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from rasterio._err import CPLE_BaseError  # what GDAL says, where rasterio does not put it into its own words
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from segmentation_view import NO_DATA, ClassMap, Colour, PixelAreas

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EQUAL_AREA = "EPSG:6933"  # on the WGS 84 ellipsoid: areas in it are areas on the ground
BLOCKS = 16  # blocks of an image along a side, inside of which all pixels count as equally large
TOLERANCE = 0.01  # a map projection that keeps areas to 1 % gives its own areas, those of every GIS
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class UploadError(ValueError):
    """A file cannot be used; the message says why and what to do."""


class BandsError(UploadError):
    """The bands of a file are not those of the model."""


@dataclass(frozen=True)
class Scene:
    """What the header of a file says.

    Attributes:
        path: where it lies.
        height, width: in pixels.
        bands: names of the bands without alpha; "" where the file has none.
        dtype: of the bands.
        is_tiff: read by rasterio.
        alpha: number of the alpha band of a TIFF, from 1.
        crs, transform: where a GeoTIFF lies; None.
        gcps: its ground control points.
    """

    path: Path
    height: int
    width: int
    bands: tuple[str, ...]
    dtype: str
    is_tiff: bool = False
    alpha: int | None = None
    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels."""
        return self.height * self.width / 1e6

    @property
    def band_numbers(self) -> list[int]:
        """Numbers of the bands without alpha, from 1."""
        total = len(self.bands) + (self.alpha is not None)
        return [number for number in range(1, total + 1) if number != self.alpha]

    @property
    def photo_bands(self) -> list[int]:
        """Numbers of the bands to show as red, green and blue: those of these names, else the first ones."""
        names, numbers = [name.lower() for name in self.bands], self.band_numbers
        if all(colour in names for colour in ("red", "green", "blue")):
            return [numbers[names.index(colour)] for colour in ("red", "green", "blue")]
        return numbers[:3] if len(numbers) >= 3 else numbers[:1] * 3

    @property
    def stem(self) -> str:
        """A name for files made of this one, without any sign that could harm."""
        return re.sub("[^A-Za-z0-9_-]+", "_", self.path.stem).strip("_")[:60] or "image"


def read_header(path: str | Path, *, max_megabytes: float, max_megapixels: float) -> Scene:
    """What a file holds, without its pixels.

    Raises:
        UploadError: it is too large, or not a PNG, JPEG or TIFF.
    """
    path = Path(path)
    megabytes = path.stat().st_size / 1e6
    if megabytes > max_megabytes:
        raise UploadError(
            f"{path.name} has {megabytes:.1f} MB; this page takes files up to {max_megabytes:g} MB. "
            "Cut out the part that you need."
        )
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_STARTS
    scene = _tiff_header(path) if is_tiff else _picture_header(path)
    if scene.megapixels > max_megapixels:
        raise UploadError(
            f"{path.name} has {scene.width} × {scene.height} pixels ({scene.megapixels:.1f} megapixels); this page "
            f"takes up to {max_megapixels:g} megapixels. Cut out a part of it, or make a coarser copy."
        )
    return scene


def _picture_header(path: Path) -> Scene:
    with _picture(path) as image:
        bands = ("grey",) if image.mode in ("1", "L", "LA", "I", "I;16", "I;16B") else ("red", "green", "blue")
        dtype = "uint16" if image.mode.startswith("I") else "uint8"
        return Scene(path, image.height, image.width, bands, dtype)


def _tiff_header(path: Path) -> Scene:
    with _tiff(path) as file:
        kinds = [kind.name for kind in file.colorinterp]
        alpha = kinds.index("alpha") + 1 if "alpha" in kinds else None
        colours = {"red", "green", "blue"}
        bands = [
            file.descriptions[i] or (kinds[i] if kinds[i] in colours else "")
            for i in range(file.count)
            if i + 1 != alpha
        ]
        located = file.crs is not None and file.transform != Affine.identity()
        gcps, gcps_crs = file.gcps
        return Scene(
            path,
            file.height,
            file.width,
            tuple(bands),
            " and ".join(sorted({file.dtypes[i] for i in range(file.count) if i + 1 != alpha})),
            is_tiff=True,
            alpha=alpha,
            crs=file.crs if located else gcps_crs if gcps else None,
            transform=file.transform if located else None,
            gcps=() if located else tuple(gcps),
        )


def read_pixels(
    scene: Scene, bands: Sequence[int] | None = None
) -> tuple[NDArray[np.uint8 | np.uint16], NDArray[np.bool_]]:
    """Decode a file.

    Args:
        scene: its header.
        bands: numbers of the bands to read, from 1 and in the wanted order; None for all but alpha.

    Returns:
        (H, W, N) uint8 or uint16, and (H, W) False where the file says that there is no data.

    Raises:
        UploadError: it is broken, or its bands are of another type.
    """
    if scene.dtype not in ("uint8", "uint16"):
        raise UploadError(
            f"{scene.name} has bands of {scene.dtype}; the models read uint8 or uint16. Save it as one of the two."
        )
    if scene.is_tiff:
        with _tiff(scene.path) as file:
            wanted = list(bands) if bands else [i for i in file.indexes if i != scene.alpha]
            pixels = file.read(wanted).transpose(1, 2, 0)  # (N, H, W) -> (H, W, N)
            alpha_is_band = scene.alpha in wanted
            valid = np.ones(pixels.shape[:2], np.bool_) if alpha_is_band else file.dataset_mask() != 0
        return np.ascontiguousarray(pixels), valid
    with _picture(scene.path) as image:
        has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
        valid = np.ones((scene.height, scene.width), np.bool_)
        if scene.dtype == "uint16":
            return np.array(image).astype(np.uint16)[:, :, None], valid
        if has_alpha:
            valid = np.array(image.convert("RGBA").getchannel("A")) > 0
        pixels = np.array(image.convert("RGB" if len(scene.bands) == 3 else "L"))
    pixels = pixels.reshape(scene.height, scene.width, -1)
    return (pixels[:, :, [i - 1 for i in bands]] if bands else pixels), valid


def choose_bands(scene: Scene, num_bands: int, wanted: str = "", model_bands: Sequence[str] | None = None) -> list[int]:
    """Numbers of the bands that the model gets, from 1 and in its order.

    Args:
        scene: header of the file.
        num_bands: how many the model takes.
        wanted: what a user asks for, "4, 3, 2"; empty where the file should know.
        model_bands: names of the bands of the model.

    Raises:
        BandsError: the file does not tell which bands are meant, or has too few.
    """
    total = len(scene.bands) + (scene.alpha is not None)
    if wanted.strip():
        numbers = [int(number) for number in re.findall(r"\d+", wanted)]
        if len(numbers) != num_bands or not all(1 <= number <= total for number in numbers):
            raise BandsError(
                f"The model takes {num_bands} bands and {scene.name} has {total}, but the bands asked for are "
                f"“{wanted.strip()}”. Enter {num_bands} numbers from 1 to {total}, in the model's order."
            )
        return numbers
    colours = scene.band_numbers
    if len(colours) == num_bands:
        return colours
    if len(colours) == 1 and num_bands == 3 and not scene.is_tiff:
        return [1, 1, 1]  # a grey picture is shown in three equal colours, as every image library does
    names = [name.lower() for name in scene.bands]
    needed = [name.lower() for name in model_bands or (("red", "green", "blue") if num_bands == 3 else ())]
    if needed and all(names.count(name) == 1 for name in needed):
        return [colours[names.index(name)] for name in needed]
    if total == num_bands:
        return list(range(1, total + 1))  # many programs call any fourth band alpha
    order = f" ({', '.join(needed)})" if needed else ""
    if total < num_bands:
        raise BandsError(f"{scene.name} has {total} bands, but the model takes {num_bands}{order}. Use another image.")
    raise BandsError(
        f"{scene.name} has {total} bands and the model takes {num_bands}{order}. "
        f"Enter under “Bands” which ones, for example {', '.join(map(str, range(1, num_bands + 1)))}."
    )


def pixel_areas(scene: Scene) -> PixelAreas | None:
    """Area of the pixels on the ground; None where the file does not say where it lies.

    A projection that keeps areas within 1 % gives its own, the numbers of every GIS. Degrees, and projections that
    stretch (Web Mercator), are measured in an equal-area projection instead, block by block.
    """
    if scene.crs is None or scene.transform is None:
        return None
    rows, columns = (
        [round(edge) for edge in np.linspace(0, side, min(BLOCKS, side) + 1)] for side in (scene.height, scene.width)
    )
    column, row = np.meshgrid(columns, rows)
    a, b, c, d, e, f = scene.transform[:6]
    x, y = a * column + b * row + c, d * column + e * row + f
    try:
        ground = warp(scene.crs, EQUAL_AREA, x.ravel().tolist(), y.ravel().tolist())
    except (RasterioError, CPLE_BaseError):  # the CRS of a drawing or of a plant, which lies nowhere on Earth
        return None
    east, north = (np.asarray(values).reshape(x.shape) for values in ground)
    if not np.isfinite([east, north]).all() or np.abs(np.diff(east, axis=1)).max() > 1e7:
        return None  # outside of the projection, or across the date line
    diagonals = [(east[1:, 1:] - east[:-1, :-1], north[1:, 1:] - north[:-1, :-1])]
    diagonals.append((east[1:, :-1] - east[:-1, 1:], north[1:, :-1] - north[:-1, 1:]))
    (a_east, a_north), (b_east, b_north) = diagonals
    square_metres = np.abs(a_east * b_north - a_north * b_east) / 2 / np.outer(np.diff(rows), np.diff(columns))
    name = scene.crs.to_string() if len(scene.crs.to_string()) < 40 else "its projection"
    if scene.crs.is_projected:
        on_map = abs(a * e - b * d) * scene.crs.linear_units_factor[1] ** 2
        if np.abs(square_metres / on_map - 1).max() < TOLERANCE:
            note = f"Areas in {name}, {on_map:,.4g} m² each pixel."
            return PixelAreas(rows, columns, np.full_like(square_metres, on_map), note)
    note = f"Ground areas, measured on the ellipsoid: pixels of {name} are not equally large."
    return PixelAreas(rows, columns, square_metres, note)


def write_png(path: str | Path, class_map: ClassMap, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Write a class map as PNG whose pixel values are the class ids, 255 without data, shown in the colours."""
    image = Image.fromarray(class_map)
    image.putpalette(_palette(colours))
    text = PngImagePlugin.PngInfo()
    for index, name in enumerate(names):
        text.add_itxt(f"class_{index}", name)
    image.save(path, format="PNG", transparency=NO_DATA, pnginfo=text)


def write_geotiff(
    path: str | Path,
    class_map: ClassMap,
    names: Sequence[str],
    colours: Sequence[Colour],
    scene: Scene,
    **tags: str,
) -> None:
    """Write a class map as GeoTIFF that lies where the scene lies: colour table, class names in tags, nodata 255."""
    height, width = class_map.shape
    profile = dict(driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=NO_DATA)
    layout = dict(compress="deflate", tiled=True, blockxsize=256, blockysize=256)
    place = {} if scene.transform is None else dict(crs=scene.crs, transform=scene.transform)
    table = {index: (*colour, 255) for index, colour in enumerate(colours)} | {NO_DATA: (0, 0, 0, 0)}
    with _quiet(), rasterio.open(path, "w", **profile, **layout, **place) as file:
        file.write(class_map, 1)
        file.write_colormap(1, table)
        file.set_band_description(1, "land cover")
        file.update_tags(**{f"CLASS_{index}": name for index, name in enumerate(names)}, **tags)
        if scene.gcps:
            file.gcps = (list(scene.gcps), scene.crs)


def _palette(colours: Sequence[Colour]) -> list[int]:
    flat = [value for colour in colours for value in colour]
    return flat + [0] * (3 * 255 - len(flat)) + [255, 255, 255]


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pictures without a place are welcome
        yield


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF; what fails here or while reading becomes an `UploadError`."""
    try:
        with _quiet(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            with rasterio.open(path, driver="GTiff") as file:
                yield file
    except (RasterioError, CPLE_BaseError) as error:
        raise UploadError(f"{path.name} cannot be read; it may be cut off or damaged. Upload it again.") from error


@contextmanager
def _picture(path: Path) -> Iterator[Image.Image]:
    """Open a PNG or JPEG; what fails here or while decoding becomes an `UploadError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the header is checked against the limit
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                yield image
    except Image.UnidentifiedImageError as error:
        raise UploadError(
            f"{path.name} is neither PNG, JPEG nor TIFF. Convert it to one of them, whatever its name ends in."
        ) from error
    except _DECODE_ERRORS as error:
        raise UploadError(f"{path.name} cannot be read; it may be cut off or damaged. Upload it again.") from error


__all__ = [
    "BandsError",
    "Scene",
    "UploadError",
    "choose_bands",
    "pixel_areas",
    "read_header",
    "read_pixels",
    "write_geotiff",
    "write_png",
]
