"""Scenes and maps as files: the only module here that knows rasterio.

Everything is read and written by blocks; no function holds a whole scene. `GDAL_CACHE_BYTES` bounds what GDAL keeps.
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from .windows import LAYER_STEPS, NODATA

GDAL_CACHE_BYTES = 32 << 20
COG_BLOCK_PX = 512
# The Earth at 2 m per pixel; a number is kept for each row. A few bytes of a file can say that it is larger.
MAX_SIDE_PX = 20_000_000

Colour = tuple[int, int, int]
Rings = list[list[tuple[float, float]]]


class SceneError(ValueError):
    """A scene or a map that cannot be used; the message names the file and the way out."""


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie.

    Attributes:
        height, width: in px.
        transform: a, b, c, d, e, f of x = a * column + b * row + c and y = d * column + e * row + f.
        crs: as WKT; None for a raster that does not say.
    """

    height: int
    width: int
    transform: tuple[float, float, float, float, float, float]
    crs: str | None

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """The grid of an open dataset.

        Raises:
            SceneError: it has no band, a side beyond `MAX_SIDE_PX`, or pixels without an area.
        """
        if not dataset.count or max(dataset.shape) > MAX_SIDE_PX:
            raise SceneError(
                f"{dataset.name} is {dataset.height} x {dataset.width} px of {dataset.count} bands; expected at least "
                f"one band and at most {MAX_SIDE_PX} px on a side."
            )
        transform = tuple(dataset.transform)[:6]
        a, b, _, d, e, _ = transform
        if not (np.isfinite(transform).all() and np.isfinite(area := a * e - b * d) and area):
            raise SceneError(
                f"{dataset.name} lies at {', '.join(f'{value:g}' for value in transform)}, where its pixels have no "
                "area; expected six numbers of a place. Give it one, for example with `rio edit-info --transform`."
            )
        crs = dataset.crs.to_wkt() if dataset.crs else None
        return cls(dataset.height, dataset.width, transform, crs)


@contextmanager
def opened(path: str | os.PathLike[str], *, gsd_m: float | None = None, own_m: float | None = None) -> Iterator[Any]:
    """Open a raster of any format that GDAL reads.

    Args:
        path: a file, or what GDAL takes for one, such as `/vsizip/…` or `s3://…`.
        gsd_m: resample to so many metres per pixel while reading: the mean of finer pixels, bilinear for coarser ones.
        own_m: metres per pixel of the file, see `co2s_hf.geo.areas`.

    Raises:
        SceneError: it cannot be opened or, later, not be read.
    """
    rasterio = _rasterio()
    with quiet(), refusals(path), bounded():
        with rasterio.open(path) as dataset:
            if gsd_m is None or own_m is None:
                yield dataset
            else:
                with _resampled(dataset, gsd_m / own_m) as resampled:
                    yield resampled


def _resampled(dataset: Any, factor: float) -> Any:
    from rasterio.enums import Resampling
    from rasterio.transform import Affine
    from rasterio.vrt import WarpedVRT

    if (side := max(dataset.shape) / factor) > MAX_SIDE_PX:
        raise SceneError(
            f"{dataset.name} would have {side:.3g} px on a side; expected at most {MAX_SIDE_PX}. Give a larger --gsd."
        )
    height, width = (max(1, round(size / factor)) for size in dataset.shape)
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    across, down = dataset.width / width, dataset.height / height
    transform = Affine(a * across, b * down, c, d * across, e * down, f)
    resampling = Resampling.average if factor > 1 else Resampling.bilinear
    return WarpedVRT(dataset, crs=dataset.crs, transform=transform, height=height, width=width, resampling=resampling)


def bounded() -> Any:
    """A rasterio environment in which GDAL keeps little. GDAL looks at it once, when it reads its first block."""
    return _rasterio().Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES, GDAL_PAM_ENABLED="NO")


@contextmanager
def quiet() -> Iterator[None]:
    """Where a raster without a place is allowed, rasterio need not warn of it."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def refusals(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what GDAL says of a file into one `SceneError`."""
    try:
        yield
    except rasterio_errors() as error:
        cause = error.__cause__ or error
        raise SceneError(
            f"{path} cannot be read ({cause}); expected a whole raster that GDAL opens. Fetch or export it again."
        ) from error


def rasterio_errors() -> tuple[type[Exception], ...]:
    """What rasterio raises for a file that GDAL cannot use.

    Its own errors; in many places GDAL's, which are no RasterioError; and what text is that says UTF-8 and is not.
    """
    from rasterio._err import CPLE_BaseError  # it stands nowhere else
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError, UnicodeDecodeError


def named_classes(dataset: Any) -> list[str] | None:
    """The names of the classes that a map of this package holds in its metadata; None where there are none.

    Raises:
        SceneError: what stands there is no list of names.
    """
    text = dataset.tags().get("classes")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SceneError(
            f"{dataset.name} has the metadata classes={text[:60]!r}; expected a JSON list of names, as `co2s predict` "
            "writes. Remove or mend it, for example with `rio edit-info --tag`."
        )
    return names


def choose_bands(dataset: Any, wanted: Sequence[int] | None, count: int, names: Sequence[str] | None) -> list[int]:
    """Which bands, counted from 1, a model of `count` bands gets.

    Those that `wanted` names; else those whose descriptions are the model's `names`; else all of them, without alpha
    unless it takes alpha to make up the number: many programs call any fourth band alpha.

    Raises:
        SceneError: another number of bands, or one that is not there.
    """
    alpha = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind.name == "alpha"]
    described = {str(text).lower(): i for i, text in zip(dataset.indexes, dataset.descriptions, strict=True) if text}
    if wanted is not None:
        if len(wanted) != count or not set(wanted) <= set(dataset.indexes):
            raise SceneError(
                f"{dataset.name} has bands 1 to {dataset.count} and the model takes {count}; --bands names "
                f"{', '.join(map(str, wanted))}. Name {count} of them, in the order of the model's."
            )
        return list(wanted)
    if names is not None and all(name.lower() in described for name in names):
        return [described[name.lower()] for name in names]
    if dataset.count == count:
        return list(dataset.indexes)
    bands = [i for i in dataset.indexes if i not in alpha]
    if len(bands) != count:
        listed = "" if names is None else f" ({', '.join(names)})"
        raise SceneError(
            f"{dataset.name} has {len(bands)} bands{' and alpha' if alpha else ''}, the model takes {count}{listed}. "
            "Choose with --bands, in the order of the model's, or take a model trained on these bands."
        )
    return bands


class SceneReader:
    """Reads bands of an open dataset, and where they hold data.

    A pixel holds no data where every band has its nodata value, where alpha or the mask band says so, or where any
    band is not finite.

    Args:
        dataset: an open rasterio dataset.
        bands: counted from 1.
        nodata: value of bands without data, besides what the file says itself.
        scale: factor to [0, 1], for values that are neither of full 8 or 16 bits nor in [0, 1] already.
    """

    def __init__(
        self, dataset: Any, bands: Sequence[int], *, nodata: float | None = None, scale: float | None = None
    ) -> None:
        """Look at what the dataset says of its data."""
        self.dataset, self.bands, self.scale = dataset, list(bands), scale
        self.grid = Grid.of(dataset)
        kinds = {dataset.dtypes[i - 1] for i in bands}
        self.dtype = np.result_type(*kinds)
        if self.dtype.kind not in "iuf":
            raise SceneError(f"{dataset.name} holds {self.dtype} values; expected integers or floats.")
        if scale is not None and not 0 < scale < math.inf:
            raise SceneError(f"--scale is {scale}; expected a factor above 0, such as 1e-4.")
        self.nodata = [(nodata, dataset.nodatavals[i - 1]) for i in bands]
        flags = [flag.name for i in bands for flag in dataset.mask_flag_enums[i - 1]]
        alpha_is_band = any(dataset.colorinterp[i - 1].name == "alpha" for i in bands)
        self.has_mask = "per_dataset" in flags and not alpha_is_band

    def read(
        self, rows: slice, columns: slice, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Pixels of a rectangle.

        Args:
            rows, columns: of the scene, in px.
            shape: (height, width) to thin them out to; None for all of them.

        Returns:
            (bands, height, width) in the dtype of the file, or float32 if scaled, 0 where there is no data; and
            (height, width) bool, True where there is.

        Raises:
            SceneError: the file is damaged.
        """
        from rasterio.windows import Window

        window = Window.from_slices(rows, columns)
        thin = {} if shape is None else {"out_shape": (len(self.bands), *shape)}
        with refusals(self.dataset.name):
            pixels = self.dataset.read(self.bands, window=window, **thin)
            mask = None
            if self.has_mask:
                mask = self.dataset.dataset_mask(window=window, **({} if shape is None else {"out_shape": shape}))
        valid = np.ones(pixels.shape[1:], np.bool_) if mask is None else mask != 0
        for which in range(2):  # what the caller names, what the file names
            values = [pair[which] for pair in self.nodata]
            if None not in values:
                valid &= np.any([band != value for band, value in zip(pixels, values, strict=True)], axis=0)
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(pixels).all(axis=0)
        if self.scale is not None:
            pixels = pixels.astype(np.float32) * np.float32(self.scale)
        return np.where(valid, pixels, pixels.dtype.type(0)), valid


# ---------------------------------------------------------------------------------------------------------------------
# Layers: parts of raw bytes, put together as cloud-optimised GeoTIFFs
# ---------------------------------------------------------------------------------------------------------------------


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
        SceneError: it could not be written whole.
    """
    rasterio = _rasterio()
    from rasterio.shutil import copy

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
        with quiet(), bounded():
            copy(str(mosaic), str(path), driver="COG", **options)
            with rasterio.open(mosaic) as source, rasterio.open(path) as written:
                whole = all(source.checksum(i) == written.checksum(i) for i in source.indexes)
    except rasterio_errors() as error:
        raise SceneError(f"{path} could not be written ({error.__cause__ or error}): make room on the disk.") from error
    if not whole:
        raise SceneError(f"{path} does not read back as it was written: make room on the disk, and resume.")
    mosaic.unlink()
    for part in parts:
        part.path.with_suffix(".hdr").unlink()


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


def blocks(path: Path, block_px: int) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """(top, left, pixels) of the first band, block by block, from the left to the right and the top to the bottom."""
    rasterio = _rasterio()
    from rasterio.windows import Window

    with quiet(), refusals(path), bounded(), rasterio.open(path) as dataset:
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
    _rasterio()
    from rasterio.features import shapes

    for shape, value in shapes(classes, mask=classes != NODATA, connectivity=4):
        yield int(value), shape["coordinates"]


def _rasterio() -> Any:
    try:
        import rasterio
    except ImportError:
        raise SceneError(
            'Scenes need rasterio, which is not installed. Run `pip install "co2s_hf[geo]"`, or `pip install rasterio`.'
        ) from None
    return rasterio


__all__ = [
    "COG_BLOCK_PX",
    "Colour",
    "GDAL_CACHE_BYTES",
    "Grid",
    "Part",
    "Rings",
    "SceneError",
    "SceneReader",
    "blocks",
    "bounded",
    "choose_bands",
    "named_classes",
    "opened",
    "quiet",
    "rasterio_errors",
    "refusals",
    "thinned",
    "traced",
    "write_cog",
]
