"""The files of the page: uploads are looked at before they are decoded, masks are written where the image lies.

All of it goes through the one reader of the package: what the page shows of an image is what training and maps see.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from co2s_hf.raster.areas import GroundAreas, ground_areas
from co2s_hf.raster.bands import choose_bands as find_bands
from co2s_hf.raster.cog import write_class_map
from co2s_hf.raster.colours import natural_picture
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.image import COLOURS, Band, Raster, Reading
from co2s_hf.raster.read import RasterFile, open_image
from segmentation_view import NO_DATA, ClassMap, Colour


class UploadError(ValueError):
    """A file cannot be used; the message says why and what to do."""


class BandsError(UploadError):
    """The bands of a file are not those of the model."""


@dataclass(frozen=True)
class Scene:
    """What the header of a file says.

    Attributes:
        path: where it lies.
        grid: of its pixels; without a place where it has none that can be used.
        every_band: all of its bands, alpha among them.
        num_bands: how many there are to look at: of a palette its colours, alpha left out.
    """

    path: Path
    grid: Grid
    every_band: tuple[Band, ...]
    num_bands: int

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def height(self) -> int:
        """In pixels, upright."""
        return self.grid.height

    @property
    def width(self) -> int:
        """In pixels, upright."""
        return self.grid.width

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels."""
        return self.height * self.width / 1e6

    @property
    def dtype(self) -> str:
        """Of the bands."""
        return " and ".join(sorted({band.dtype for band in self.every_band if not band.is_alpha}))

    @property
    def has_alpha(self) -> bool:
        """Whether it has an alpha band."""
        return any(band.is_alpha for band in self.every_band)

    @property
    def stem(self) -> str:
        """A name for files made of this one, without any sign that could harm."""
        return re.sub("[^A-Za-z0-9_-]+", "_", self.path.stem).strip("_")[:60] or "image"


def read_header(path: str | Path, *, max_megabytes: float, max_megapixels: float) -> Scene:
    """What a file holds, without its pixels.

    Raises:
        UploadError: it is too large, or no image.
    """
    path = Path(path)
    megabytes = path.stat().st_size / 1e6
    if megabytes > max_megabytes:
        raise UploadError(
            f"{path.name} has {megabytes:.1f} MB; this page takes files up to {max_megabytes:g} MB. "
            "Cut out the part that you need."
        )
    with _opened(path) as file:
        scene = Scene(path, file.grid, file.every_band, file.num_bands)
    if scene.megapixels > max_megapixels:
        raise UploadError(
            f"{path.name} has {scene.width} × {scene.height} pixels ({scene.megapixels:.1f} megapixels); this page "
            f"takes up to {max_megapixels:g} megapixels. Cut out a part of it, or make a coarser copy."
        )
    return scene


def read_scene(scene: Scene, numbers: Sequence[int] | None = None) -> Raster:
    """Decode a file.

    Args:
        scene: its header.
        numbers: of the bands to read, from 1 and in the wanted order; None for all but alpha.

    Raises:
        UploadError: it is broken, or nobody knows what its values mean.
    """
    with _opened(scene.path, Reading(numbers=None if numbers is None else tuple(numbers))) as file:
        file.require_meaning()
        return file.read()


def pixel_areas(scene: Scene) -> GroundAreas:
    """Area of the pixels on the ground; where that cannot be told, its `method` says why."""
    try:
        return ground_areas(scene.grid)
    except RasterError as error:
        return replace(ground_areas(Grid(scene.height, scene.width)), method=f"pixels only, for {error}")


def choose_bands(scene: Scene, num_bands: int, wanted: str = "", model_bands: Sequence[str] | None = None) -> list[int]:
    """Numbers of the bands that the model gets, from 1 and in its order.

    Args:
        scene: header of the file.
        num_bands: how many the model takes.
        wanted: what a user asks for, "4, 3, 2"; empty where the file should know.
        model_bands: names of the bands of the model; None for red, green and blue if it takes three.

    Raises:
        BandsError: the file does not tell which bands are meant, or has too few.
    """
    total = len(scene.every_band)
    if wanted.strip():
        numbers = [int(number) for number in re.findall(r"\d+", wanted)]
        if len(numbers) != num_bands or not all(1 <= number <= total for number in numbers):
            raise BandsError(
                f"The model takes {num_bands} bands and {scene.name} has {total}, but the bands asked for are "
                f"“{wanted.strip()}”. Enter {num_bands} numbers from 1 to {total}, in the model's order."
            )
        return numbers
    colours = [band.number for band in scene.every_band if not band.is_alpha]
    if len(colours) == 1 and scene.num_bands == num_bands:  # a palette
        return colours
    if len(colours) == scene.num_bands == 1 and num_bands == 3:
        return colours * 3  # a grey picture is shown in three equal colours, as every image library does
    names = model_bands or (COLOURS if num_bands == 3 else None)
    try:
        reading = Reading(names=None if names is None else tuple(names), count=num_bands)
        return find_bands(scene.name, scene.every_band, reading)[0]
    except RasterError:
        order = f" ({', '.join(names)})" if names else ""
    if total < num_bands:
        raise BandsError(f"{scene.name} has {total} bands, but the model takes {num_bands}{order}. Use another image.")
    raise BandsError(
        f"{scene.name} has {total} bands and the model takes {num_bands}{order}. "
        f"Enter under “Bands” which ones, for example {', '.join(map(str, range(1, num_bands + 1)))}."
    )


def photo(scene: Scene) -> NDArray[np.uint8]:
    """A picture (H, W, 3) of a scene for the eye, white where there is no data. Raises as `read_scene`."""
    return natural_picture(read_scene(scene))


def write_png(path: str | Path, class_map: ClassMap, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Write a class map as PNG whose pixel values are the class ids, 255 without data, shown in the colours."""
    image = Image.fromarray(class_map)
    image.putpalette(_palette(colours))
    text = PngImagePlugin.PngInfo()
    for index, name in enumerate(names):
        text.add_itxt(f"class_{index}", name)
    image.save(path, format="PNG", transparency=NO_DATA, pnginfo=text)


def write_geotiff(
    path: str | Path, class_map: ClassMap, names: Sequence[str], colours: Sequence[Colour], grid: Grid, **tags: str
) -> None:
    """Write a class map as GeoTIFF on a grid: colour table, class names in tags, nodata 255."""
    named = {f"CLASS_{index}": name for index, name in enumerate(names)}
    write_class_map(Path(path), class_map, grid, colours=colours, tags={**named, **tags})


def _palette(colours: Sequence[Colour]) -> list[int]:
    flat = [value for colour in colours for value in colour]
    return flat + [0] * (3 * 255 - len(flat)) + [255, 255, 255]


@contextmanager
def _opened(path: Path, reading: Reading = Reading()) -> Iterator[RasterFile]:  # noqa: B008  # frozen
    """Open an upload; what fails here or while reading becomes an `UploadError` that names no folder."""
    try:
        with open_image(path, reading) as file:
            yield file
    except RasterError as error:
        raise UploadError(str(error).replace(str(path), path.name)) from error


__all__ = [
    "BandsError",
    "Scene",
    "UploadError",
    "choose_bands",
    "photo",
    "pixel_areas",
    "read_header",
    "read_scene",
    "write_geotiff",
    "write_png",
]
