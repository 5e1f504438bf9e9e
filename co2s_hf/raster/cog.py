"""Class maps as files: written as cloud-optimised GeoTIFFs from parts of raw bytes, read again by blocks.

No function holds a whole map.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.shutil import copy
from rasterio.windows import Window

from .colours import Colour
from .errors import GDAL_ERRORS, RasterError, gdal_refusals
from .grid import Grid
from .read import GDAL_CACHE_BYTES, gdal_environment, quiet

COG_BLOCK_PX = 512

LAYER_STEPS = 250
"""A share of 1 in the layers that are written: confidence, probabilities, disagreement."""

NODATA = 255
"""Where a scene holds no data, in every layer that is written."""

Rings = list[list[tuple[float, float]]]


@dataclass(frozen=True)
class Part:
    """A file of raw bytes, layer by layer, that holds some rows of every layer.

    Attributes:
        path: the file.
        top: its first row in the scene.
        rows: how many.
    """

    path: Path
    top: int
    rows: int


def write_cog(
    path: Path,
    grid: Grid,
    parts: Sequence[Part],
    layers: Sequence[int],
    *,
    names: Sequence[str],
    colours: Sequence[Colour] | None = None,
    tags: Mapping[str, str],
) -> None:
    """Write layers as a cloud-optimised GeoTIFF with overviews, by blocks, and read it again to compare.

    Args:
        path: the file; the parts lie in the same folder.
        grid: of the scene.
        parts: from the top to the bottom.
        layers: their places in the parts, counted from 0.
        names: description of each.
        colours: of classes; None for shares in steps of 1/250.
        tags: metadata of the file.

    Raises:
        RasterError: it could not be written whole.
    """
    total = 1 + max(layers)
    for part in parts:
        total = part.path.stat().st_size // (part.rows * grid.width)
        part.path.with_suffix(".hdr").write_text(_envi_header(grid.width, part.rows, total), encoding="ascii")
    mosaic = path.with_suffix(".vrt")
    mosaic.write_text(_vrt(grid, parts, layers, names, colours, tags), encoding="utf-8")
    options = {
        "COMPRESS": "DEFLATE",
        "BLOCKSIZE": str(COG_BLOCK_PX),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "1",
        # Classes have no mean; of shares it is what a coarser look wants.
        "OVERVIEW_RESAMPLING": "AVERAGE" if colours is None else "MODE",
    }
    try:
        with quiet(), _without_sidecars():
            copy(str(mosaic), str(path), driver="COG", **options)
            with rasterio.open(mosaic) as source, rasterio.open(path) as written:
                whole = all(source.checksum(i) == written.checksum(i) for i in source.indexes)
    except GDAL_ERRORS as error:
        raise RasterError(
            f"{path} could not be written ({error.__cause__ or error}): make room on the disk."
        ) from error
    if not whole:
        raise RasterError(f"{path} does not read back as it was written: make room on the disk, and resume.")
    mosaic.unlink()
    for part in parts:
        part.path.with_suffix(".hdr").unlink()


def write_class_map(
    path: Path, classes: NDArray[np.uint8], grid: Grid, *, colours: Sequence[Colour], tags: Mapping[str, str]
) -> None:
    """Write a whole class map (H, W) that is in memory as a GeoTIFF with a colour table; 255 holds no data.

    Raises:
        RasterError: it could not be written.
    """
    profile: dict[str, Any] = {
        "height": grid.height,
        "width": grid.width,
        "count": 1,
        "dtype": "uint8",
        "nodata": NODATA,
    }
    layout = {"compress": "deflate", "tiled": True, "blockxsize": COG_BLOCK_PX, "blockysize": COG_BLOCK_PX}
    place = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)} if grid.is_placed else {}
    table = {index: (*colour, 255) for index, colour in enumerate(colours)} | {NODATA: (0, 0, 0, 0)}
    try:
        with (
            quiet(),
            _without_sidecars(),
            rasterio.open(path, "w", driver="GTiff", **profile, **layout, **place) as file,
        ):
            file.write(classes, 1)
            file.write_colormap(1, table)
            file.set_band_description(1, "land cover")
            file.update_tags(**tags)
    except GDAL_ERRORS as error:
        raise RasterError(f"{path} could not be written ({error}): make room on the disk.") from error


def _envi_header(width: int, rows: int, layers: int) -> str:
    return (
        f"ENVI\nsamples = {width}\nlines = {rows}\nbands = {layers}\nheader offset = 0\nfile type = ENVI Standard\n"
        "data type = 1\ninterleave = bsq\nbyte order = 0\n"
    )


def _vrt(
    grid: Grid,
    parts: Sequence[Part],
    layers: Sequence[int],
    names: Sequence[str],
    colours: Sequence[Colour] | None,
    tags: Mapping[str, str],
) -> str:
    """One raster that reads the parts."""
    a, b, c, d, e, f = grid.transform
    lines = [f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">']
    if grid.crs is not None:
        lines.append(f"<SRS>{escape(grid.crs)}</SRS>")
    if grid.transform != (1, 0, 0, 0, 1, 0):  # no place at all
        lines.append(f"<GeoTransform>{', '.join(repr(float(value)) for value in (c, a, b, f, d, e))}</GeoTransform>")
    items = "".join(f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in tags.items())
    lines.append(f"<Metadata>{items}</Metadata>")
    for place, (layer, name) in enumerate(zip(layers, names, strict=True), 1):
        lines.append(f'<VRTRasterBand dataType="Byte" band="{place}"><Description>{escape(name)}</Description>')
        lines.append(f"<NoDataValue>{NODATA}</NoDataValue>")
        if colours is None:
            lines.append(f"<ColorInterp>Gray</ColorInterp><Offset>0</Offset><Scale>{1 / LAYER_STEPS!r}</Scale>")
        else:
            table = [(*colour, 255) for colour in colours] + [(0, 0, 0, 0)] * (256 - len(colours))
            entries = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="{o}"/>' for r, g, b, o in table)
            lines.append(f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable>")
        for part in parts:
            size = f'xSize="{grid.width}" ySize="{part.rows}"'
            lines.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{escape(part.path.name)}</SourceFilename>'
                f'<SourceBand>{layer + 1}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="0" yOff="{part.top}" {size}/></SimpleSource>'
            )
        lines.append("</VRTRasterBand>")
    return "\n".join([*lines, "</VRTDataset>"])


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a raster of classes as a rasterio dataset.

    Raises:
        RasterError: it cannot be opened or, later, not be read.
    """
    with quiet(), gdal_refusals(path), gdal_environment(), rasterio.open(path) as dataset:
        yield dataset


def blocks(path: Path, block_px: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """(top, left, pixels) of the first band, block by block, from the left to the right and the top to the bottom."""
    with opened(path) as dataset:
        for top in range(0, dataset.height, block_px):
            for left in range(0, dataset.width, block_px):
                height, width = min(block_px, dataset.height - top), min(block_px, dataset.width - left)
                yield top, left, dataset.read(1, window=Window(left, top, width, height))


def thinned(path: Path, side_px: int) -> NDArray[np.uint8]:
    """The first band, thinned out to at most `side_px` on its longer side; from an overview where there is one."""
    with opened(path) as dataset:
        factor = max(1.0, max(dataset.shape) / side_px)
        shape = tuple(max(1, math.floor(size / factor)) for size in dataset.shape)
        pixels: NDArray[np.uint8] = dataset.read(1, out_shape=shape)
        return pixels


def traced(classes: NDArray[np.uint8]) -> Iterator[tuple[int, Rings]]:
    """(class, rings in pixel coordinates) of each region of equal classes, pixels joined by their sides."""
    for shape, value in shapes(classes, mask=classes != NODATA, connectivity=4):
        yield int(value), shape["coordinates"]


def named_classes(dataset: Any) -> list[str] | None:
    """The names of the classes that a map of this package holds in its metadata; None where there are none.

    Raises:
        RasterError: what stands there is no list of names.
    """
    text = dataset.tags().get("classes")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RasterError(
            f"{dataset.name} has the metadata classes={text[:60]!r}; expected a JSON list of names, as `co2s predict` "
            "writes. Remove or mend it, for example with `rio edit-info --tag`."
        )
    return names


def _without_sidecars() -> Any:
    """As `gdal_environment`, but what a GeoTIFF cannot hold goes into no file beside it."""
    return rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES, GDAL_PAM_ENABLED="NO")


__all__ = [
    "COG_BLOCK_PX",
    "LAYER_STEPS",
    "NODATA",
    "Part",
    "Rings",
    "blocks",
    "named_classes",
    "opened",
    "thinned",
    "traced",
    "write_class_map",
    "write_cog",
]
