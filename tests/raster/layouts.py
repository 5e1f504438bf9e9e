"""Layouts of image files that GDAL writes, drawn from all that its options allow together, and files that have them."""

import random
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.transform import Affine

HEIGHT, WIDTH = 19, 37  # three tiles of 16 px across and two down, none of them whole at the end
REFUSALS = (RasterioError, CPLE_BaseError, ValueError, OSError)

BITS = {"uint8": range(1, 8), "uint16": range(9, 16), "uint32": range(17, 32), "float32": (16,)}
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
LOSSLESS = ("NONE", "LZW", "DEFLATE", "PACKBITS", "ZSTD", "LZMA", "LERC", "LERC_DEFLATE", "LERC_ZSTD")
FAX = ("CCITTRLE", "CCITTFAX3", "CCITTFAX4")


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        driver: GDAL's name of the format.
        dtype, bits: Of the values; `bits` None for all that the type has.
        count: Bands without alpha.
        alpha: Whether there is an alpha band.
        nodata: "none", "low", "high", "nan", "exact" (beyond what a float holds), or "sidecar" (in .aux.xml).
        mask: "none", "internal" or "beside".
        scaled: "none", "same" or "each" band by factors of its own.
        palette: "none", "grey", or "colours".
        naming: "none", "described" or "coloured" as blue, green, red.
        place: "none", "tags", "control points", "world file" or "sidecar".
        orientation: EXIF's number.
        options: Of the driver.
    """

    driver: str
    dtype: str
    bits: int | None
    count: int
    alpha: bool
    nodata: str
    mask: str
    scaled: str
    palette: str
    naming: str
    place: str
    orientation: int
    options: tuple[tuple[str, str], ...]

    @property
    def suffix(self) -> str:
        return {"GTiff": ".tif", "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp"}[self.driver]

    @property
    def nodata_value(self) -> float | int | None:
        if self.nodata == "none":
            return None
        if self.nodata == "nan":
            return float("nan")
        if self.dtype.startswith("float"):
            info = np.finfo(self.dtype)
            return {"low": float(info.min), "high": 1e6 + 0.1}.get(self.nodata, -9999.0)
        low, high = self.range
        exact = {"int64": -(2**63) + 1, "uint64": 2**64 - 1}.get(self.dtype, high)
        return {"low": low, "high": min(high, 2**53 - 1), "exact": exact, "sidecar": min(low + 1, high)}[self.nodata]

    @property
    def range(self) -> tuple[int, int]:
        """Least and largest value of integers."""
        if self.bits is not None:
            return 0, 2**self.bits - 1
        info = np.iinfo(self.dtype)
        return int(max(info.min, -(2**53) + 1)), int(info.max)

    def factors(self) -> list[tuple[float, float]] | None:
        """Scale and offset of each band."""
        if self.scaled == "none":
            return None
        return [(1e-4 * (1 + i * (self.scaled == "each")), -0.1 * (i + 1)) for i in range(self.count)]


def drawn(number: int, seed: int = 17) -> list[Layout]:
    """So many different layouts; GDAL does not write all of them."""
    draw, found = random.Random(seed), dict[Layout, None]()
    while len(found) < number:
        found[_geotiff(draw) if draw.random() < 0.88 else _picture(draw)] = None
    return list(found)


def _geotiff(draw: random.Random) -> Layout:
    dtype = draw.choice((*TYPES, "uint8", "uint16", "float32"))
    bits = draw.choice(BITS[dtype]) if dtype in BITS and draw.random() < 0.3 else None
    count = draw.choice((1, 1, 2, 3, 3, 4, 5))
    palette = (
        draw.choice(("grey", "colours"))
        if count == 1 and dtype in ("uint8", "uint16") and draw.random() < 0.3
        else "none"
    )
    compression = draw.choice(LOSSLESS)
    if dtype == "uint8" and bits is None and draw.random() < 0.2:
        compression = draw.choice(("JPEG", "WEBP"))
    if bits == 1 and count == 1 and draw.random() < 0.5:
        compression = draw.choice(FAX)
    options = {"COMPRESS": compression, "INTERLEAVE": draw.choice(("PIXEL", "BAND"))}
    if compression in ("LZW", "DEFLATE", "ZSTD"):
        options["PREDICTOR"] = draw.choice(("1", "2", "3") if dtype.startswith("float") else ("1", "2"))
    if compression == "WEBP":
        options["WEBP_LOSSLESS"] = draw.choice(("YES", "NO"))
    options |= draw.choice(
        ({"TILED": "YES", "BLOCKXSIZE": "16", "BLOCKYSIZE": "16"}, {"BLOCKYSIZE": draw.choice("158")})
    )
    options["ENDIANNESS"] = draw.choice(("LITTLE", "BIG"))
    options["BIGTIFF"] = draw.choice(("YES", "NO"))
    photometric = ["MINISBLACK", "MINISWHITE"] if count == 1 else ["MINISBLACK"]
    photometric += (
        ["RGB", "RGB"] * (count >= 3) + ["CMYK"] * (count == 4) + ["YCBCR", "YCBCR"] * (compression == "JPEG")
    )
    options["PHOTOMETRIC"] = "PALETTE" if palette != "none" else draw.choice((*photometric, ""))
    nodata = ["none", "none", "low", "high", "sidecar"] + ["nan"] * 2 * dtype.startswith("float")
    nodata += ["exact"] * 3 * (dtype in ("int64", "uint64"))
    place = draw.choice(("none", "none", "tags", "control points", "world file", "sidecar"))
    if place in ("world file", "sidecar"):
        options["PROFILE"] = "BASELINE"
    if place == "world file":
        options["TFW"] = "YES"
    return Layout(
        driver="GTiff",
        dtype=dtype,
        bits=bits,
        count=count,
        alpha=draw.random() < 0.2 and options["PHOTOMETRIC"] not in ("CMYK", "YCBCR", "MINISWHITE"),
        nodata=draw.choice(nodata),
        mask=draw.choice(("none", "none", "internal", "beside")),
        scaled=draw.choice(("none", "none", "same", "each")),
        palette=palette,
        naming=draw.choice(("none", "described", "coloured")) if count == 3 else "none",
        place=place,
        orientation=draw.choice((1, 1, *range(2, 9))) if place == "none" else 1,
        options=tuple((key, value) for key, value in options.items() if value),
    )


def _picture(draw: random.Random) -> Layout:
    driver = draw.choice(("PNG", "PNG", "JPEG", "WEBP", "BMP"))
    count = draw.choice({"PNG": (1, 3), "JPEG": (1, 3, 4), "WEBP": (3,), "BMP": (1, 3)}[driver])
    options: dict[str, str] = {}
    if driver == "JPEG":
        options = {"QUALITY": draw.choice(("50", "90")), "PROGRESSIVE": draw.choice(("ON", "OFF"))}
    if driver == "WEBP":
        options = {"LOSSLESS": draw.choice(("YES", "NO"))}
    if driver in ("JPEG", "PNG"):
        options["WORLDFILE"] = draw.choice(("YES", "NO"))
    dtype = draw.choice(("uint8", "uint16")) if driver == "PNG" else "uint8"
    palette = (
        draw.choice(("none", "grey", "colours"))
        if count == 1 and driver in ("PNG", "BMP") and dtype == "uint8"
        else "none"
    )
    return Layout(
        driver=driver,
        dtype=dtype,
        bits=None,
        count=count,
        alpha=driver in ("PNG", "WEBP") and palette == "none" and draw.random() < 0.3,
        nodata=draw.choice(("none", "low", "high", "sidecar")),
        mask=draw.choice(("none", "none", "beside"))
        if driver != "JPEG"
        else draw.choice(("none", "internal", "beside")),
        scaled=draw.choice(("none", "none", "same", "each")),
        palette=palette,
        naming=draw.choice(("none", "described")) if count == 3 else "none",
        place=draw.choice(("none", "tags")),
        orientation=1,
        options=tuple(options.items()),
    )


def values(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """(bands, H, W) with alpha last; the nodata value in all bands of some pixels, and in one band of others."""
    shape = (layout.count, HEIGHT, WIDTH)
    if layout.dtype.startswith("float"):
        pixels = (rng.random(shape) * 1000).astype("float16" if layout.bits else "float32").astype(layout.dtype)
        pixels[:, rng.random(shape[1:]) < 0.05] = np.nan
        pixels[0, rng.random(shape[1:]) < 0.05] = np.inf
    else:
        low, high = layout.range
        pixels = rng.integers(low, high, shape, layout.dtype, endpoint=True)
        pixels[:, rng.random(shape[1:]) < 0.2] = low
        if layout.dtype.endswith("64"):
            pixels[:, rng.random(shape[1:]) < 0.2] += 1  # no float tells these from their neighbours
    if layout.nodata != "none" and (layout.bits is None or layout.nodata != "nan"):
        with np.errstate(over="ignore"):
            value = np.array(layout.nodata_value).astype(layout.dtype)
        pixels[:, rng.random(shape[1:]) < 0.2] = value
        pixels[-1, rng.random(shape[1:]) < 0.1] = value
    if layout.alpha:
        alpha = rng.integers(0, 3, (1, *shape[1:])).astype(layout.dtype)
        pixels = np.concatenate([pixels, alpha])
    return pixels


def write(layout: Layout, path: Path, rng: np.random.Generator) -> None:
    """Write a file of this layout; raises one of `REFUSALS` where GDAL does not."""
    pixels = values(layout, rng)
    options = dict(layout.options) if layout.driver == "GTiff" else {}
    tif = path if layout.driver == "GTiff" else path.with_suffix(".source.tif")
    if layout.bits is not None:
        options["NBITS"] = str(layout.bits)
    if layout.alpha:
        options["ALPHA"] = "YES"
    if layout.place == "control points":
        corners = ((0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH))
        options["gcps"] = [GroundControlPoint(r, c, 500_000 + 10 * c, 5_000_000 - 10 * r) for r, c in corners]
        options["crs"] = "EPSG:32633"
    elif layout.place != "none":
        options |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    in_tags = layout.nodata not in ("none", "sidecar", "exact")
    shape = {"count": len(pixels), "height": HEIGHT, "width": WIDTH, "dtype": layout.dtype}
    # A mask of a picture is written by its own driver, from the mask of what is copied.
    inside = layout.mask == "internal" or layout.driver != "GTiff"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        nodata = layout.nodata_value if in_tags else None
        with rasterio.open(tif, "w", driver="GTiff", nodata=nodata, **shape, **options) as file:
            _describe(file, layout)
            file.write(pixels)
            if layout.mask != "none":
                file.write_mask(rng.random((HEIGHT, WIDTH)) > 0.3)
    if tif != path:
        internal = {"INTERNAL_MASK": "YES" if layout.mask == "internal" else "NO"} if layout.driver == "JPEG" else {}
        rasterio.shutil.copy(tif, path, driver=layout.driver, **dict(layout.options), **internal)
    if layout.nodata in ("sidecar", "exact"):
        _add_nodata_beside(path, len(pixels), layout.nodata_value)
    if layout.orientation != 1:
        turn(path, layout.orientation)


def _describe(file, layout: Layout) -> None:
    if layout.naming == "described":
        file.descriptions = ("blue", "green", "red", *([None] * layout.alpha))
    if layout.naming == "coloured":
        names = ("blue", "green", "red", *(["alpha"] * layout.alpha))
        file.colorinterp = [ColorInterp[name] for name in names]
    if (factors := layout.factors()) is not None:
        file.scales = [scale for scale, _ in factors] + [1.0] * layout.alpha
        file.offsets = [offset for _, offset in factors] + [0.0] * layout.alpha
    if layout.palette != "none":
        ids = range(2 ** (layout.bits or 8))
        grey = layout.palette == "grey"
        file.write_colormap(1, {i: (i, i, i, 255) if grey else (i, 255 - i, i * 7 % 256, 255) for i in ids if i < 256})


def _add_nodata_beside(path: Path, bands: int, value: float | int | None) -> None:
    sidecar = path.with_name(path.name + ".aux.xml")
    text = sidecar.read_text() if sidecar.exists() else "<PAMDataset></PAMDataset>"
    for band in range(1, bands + 1):
        line = f"<NoDataValue>{value!r}</NoDataValue>"
        start = f'<PAMRasterBand band="{band}">'
        if start in text:
            text = text.replace(start, start + line)
        else:
            text = text.replace("</PAMDataset>", f"{start}{line}</PAMRasterBand></PAMDataset>")
    sidecar.write_text(text)


def turn(path: Path, orientation: int) -> None:
    """Add the tag Orientation to a TIFF file: append a copy of its first directory that has it, and point there."""
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", data, 2)[0] == 43
    pointer_at, pointer, counter, size = (8, "Q", "Q", 20) if is_big else (4, "I", "H", 12)
    start = struct.unpack_from(order + pointer, data, pointer_at)[0]
    count = struct.unpack_from(order + counter, data, start)[0]
    first = start + struct.calcsize(counter)
    entries = [bytes(data[first + i * size : first + (i + 1) * size]) for i in range(count)]
    tail = bytes(data[first + count * size :][: struct.calcsize(pointer)])
    mine = struct.pack(order + ("HHQHHI" if is_big else "HHIHH"), 274, 3, 1, orientation, 0, *([0] * is_big))
    tagged = sorted([*entries, mine], key=lambda entry: struct.unpack_from(order + "H", entry)[0])
    data += b"\0" * (len(data) % 2)
    struct.pack_into(order + pointer, data, pointer_at, len(data))
    data += struct.pack(order + counter, count + 1) + b"".join(tagged) + tail
    path.write_bytes(data)
