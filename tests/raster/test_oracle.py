"""What GDAL says is in a file is what `co2s data show`, training and mapping read of it: in every layout it writes."""

import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio

from co2s_hf.data.show import Shown
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.ids import read_ids
from co2s_hf.raster.image import COLOURS, Reading
from co2s_hf.raster.read import open_image, open_raster, read_raster

from .layouts import REFUSALS, Layout, drawn, write

LAYOUTS = 2400
"""How many are drawn; GDAL writes more than nine in ten of them."""
SAMPLE = 300


@dataclass
class Expected:
    """What GDAL, asked by rasterio and numpy alone, says of a file."""

    pixels: np.ndarray
    valid: np.ndarray
    unit: np.ndarray | None
    is_palette: bool
    is_blue_first: bool


def expected(path, layout: Layout) -> Expected:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, driver=layout.driver) as file:
            colours = [band.name for band in file.colorinterp]
            colours = [name if not text else "" for name, text in zip(colours, file.descriptions, strict=True)]
            numbers = [i for i in file.indexes if colours[i - 1] != "alpha"]
            pixels = np.stack([file.read(i) for i in numbers])
            valid = np.ones(pixels.shape[1:], bool)
            flags = {flag.name for flag in file.mask_flag_enums[numbers[0] - 1]}
            if "alpha" in colours:
                valid &= file.read(colours.index("alpha") + 1) != 0
            if "per_dataset" in flags and "alpha" not in flags:
                valid &= file.read_masks(1) != 0
            elif "nodata" in flags:
                valid &= np.any([file.read_masks(i) != 0 for i in numbers], axis=0)
            if file.nodata is not None or layout.nodata == "exact":
                # As it was written: GDAL does not ask for it where there is a mask or alpha, and rasterio rounds it.
                value = np.array(layout.nodata_value).astype(pixels.dtype)
                valid &= ~(np.isnan(pixels) if layout.nodata == "nan" else pixels == value).all(axis=0)
            factors = [(file.scales[i - 1], file.offsets[i - 1]) for i in numbers]
            said = [file.descriptions[i - 1] or colours[i - 1] for i in numbers]
            table = (
                file.colormap(1)
                if colours[numbers[0] - 1] == "palette" and len(numbers) == 1 and pixels.dtype.kind == "u"
                else None
            )
    if layout.dtype.startswith("float"):
        with np.errstate(over="ignore"):
            valid &= np.isfinite(pixels.astype(np.float32)).all(axis=0)
    unit = _unit(pixels, layout.bits, factors)
    if table is not None:
        palette = np.array([table[i] for i in range(len(table))])
        valid &= palette[:, 3][pixels[0]] != 0
        unit = np.moveaxis(palette[pixels[0]][..., :3] / 255, 2, 0)
        unit = unit[:1] if (palette[:, :1] == palette[:, :3]).all() else unit
    if unit is not None:
        unit = np.where(valid, unit, 0)
        if said == ["blue", "green", "red"]:
            unit = unit[::-1]
    pixels, valid, unit = (None if one is None else turned(one, layout.orientation) for one in (pixels, valid, unit))
    return Expected(pixels, valid, unit, table is not None, said == ["blue", "green", "red"])


def _unit(pixels, bits, factors):
    bits = bits or {"uint8": 8, "uint16": 16}.get(pixels.dtype.name)
    bands = []
    for band, (scale, offset) in zip(pixels, factors, strict=True):
        if (scale, offset) != (1, 0):
            with np.errstate(over="ignore", invalid="ignore"):
                bands.append(band.astype(float) * scale + offset)
        elif pixels.dtype.kind == "f":
            bands.append(band)
        elif bits is None:
            return None
        else:
            bands.append(band / (2**bits - 1))
    return np.stack(bands)


def turned(pixels, orientation):
    """As EXIF says, by numpy's own turns; the last two axes are rows and columns."""
    axes = (-2, -1)
    return {
        1: lambda: pixels,
        2: lambda: np.flip(pixels, -1),
        3: lambda: np.rot90(pixels, 2, axes),
        4: lambda: np.flip(pixels, -2),
        5: lambda: np.swapaxes(pixels, *axes),
        6: lambda: np.rot90(pixels, -1, axes),
        7: lambda: np.swapaxes(np.rot90(pixels, 2, axes), *axes),
        8: lambda: np.rot90(pixels, 1, axes),
    }[orientation]()


def by_windows(path, reading):
    """Pixels, validity, and unit or None: mapped window by window, each from the open file."""
    parts = []
    with open_raster(path, reading) as file:
        for top in range(0, file.height, 10):
            row = []
            for left in range(0, file.width, 16):
                rows, columns = slice(top, min(top + 10, file.height)), slice(left, min(left + 16, file.width))
                row.append(file.read(rows, columns))
            parts.append(row)

    def joined(of):
        return np.block([[of(raster) for raster in row] for row in parts])

    try:
        unit = joined(lambda raster: raster.unit)
    except RasterError:
        unit = None
    return joined(lambda raster: raster.pixels), joined(lambda raster: raster.valid), unit


def differences(path, layout: Layout, right: Expected) -> list[str]:
    """Where what is read differs from what GDAL says; empty where it agrees, or is refused in a sentence."""
    found = []

    def compare(who, pixels, valid, unit):
        order = slice(None, None, -1) if who != "show" and right.is_blue_first else slice(None)
        if pixels.dtype != right.pixels.dtype or not np.array_equal(
            pixels, right.pixels[order], equal_nan=pixels.dtype.kind == "f"
        ):
            found.append(f"{who}: pixels")
        if not np.array_equal(valid, right.valid):
            found.append(f"{who}: valid, {int((valid != right.valid).sum())} px")
        if (unit is None) != (right.unit is None):
            found.append(f"{who}: unit is {'missing' if unit is None else 'there'}")
        elif unit is not None and not (
            unit.dtype == np.float32 and np.allclose(unit, right.unit, rtol=1e-5, atol=1e-6)
        ):
            found.append(f"{who}: unit")

    def refused(raster):
        with pytest.raises(RasterError, match="does not say what they mean") as error:
            _ = raster.unit
        assert path.name in str(error.value) and "\n" not in str(error.value)
        return None

    shown = Shown.of(path).arrays()
    compare("show", shown["pixels"], shown["valid"], shown.get("unit"))
    reading = Reading(names=COLOURS) if len(right.pixels) == 3 else Reading()
    raster = read_raster(path, reading)
    compare("training", raster.pixels, raster.valid, refused(raster) if right.unit is None else raster.unit)
    compare("mapping", *by_windows(path, reading))
    with open_image(path, reading) as file:
        if file.hides_nothing and not right.valid.all():
            found.append("hides something")
    if len(right.pixels) == 1 and not layout.dtype.startswith("float") and layout.dtype != "uint64":
        found += _mask_differences(path, right, layout)
    return found


def _mask_differences(path, right: Expected, layout: Layout) -> list[str]:
    try:
        ids = read_ids(path)
    except RasterError as error:
        transparent = layout.alpha or (layout.driver == "PNG" and right.is_palette)
        return [] if transparent and "is partly transparent" in str(error) else [f"mask: {error}"]
    same = (
        ids.values.dtype == np.int64
        and np.array_equal(ids.values, right.pixels[0])
        and (ids.known == right.valid).all()
    )
    return [] if same else ["mask"]


def compared(folder, layouts, enough=None):
    """How many files GDAL wrote, and what differs in them."""
    written, wrong, kinds = 0, [], Counter()
    for number, layout in enumerate(layouts):
        path = folder / f"{number}{layout.suffix}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write(layout, path, np.random.default_rng(number))
                right = expected(path, layout)
        except REFUSALS:
            continue
        written += 1
        kinds[layout.driver, layout.dtype] += 1
        wrong += [f"{found} of {layout}" for found in differences(path, layout, right)]
        for beside in folder.glob(f"{number}.*"):
            beside.unlink()
        if written == enough:
            break
    return written, wrong, kinds


def test_a_sample_of_layouts_reads_as_gdal_reads_it(tmp_path):
    layouts = drawn(LAYOUTS)
    order = np.random.default_rng(5).permutation(len(layouts))
    written, wrong, kinds = compared(tmp_path, [layouts[i] for i in order], SAMPLE)
    assert written == SAMPLE and len(kinds) >= 14
    assert not wrong, f"{len(wrong)} differences: {wrong[:3]}"


@pytest.mark.slow
def test_every_layout_reads_as_gdal_reads_it(tmp_path):
    written, wrong, kinds = compared(tmp_path, drawn(LAYOUTS))
    print(f"{written} layouts, {len(wrong)} differences: {dict(kinds)}")
    assert written >= 2000
    assert not wrong, f"{len(wrong)} differences: {wrong[:3]}"
