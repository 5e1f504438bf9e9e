"""`co2s data show`: what is read of a file, why pixels hold no data, and whether training and mapping take it.

Files are read in stripes, so that memory does not grow with them; only `arrays` holds every pixel.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..raster.areas import ground_areas
from ..raster.colours import class_colours, natural_picture
from ..raster.errors import RasterError
from ..raster.grid import Grid
from ..raster.ids import read_ids
from ..raster.image import COLOURS, Band, FileWindow, NoData, Reading, is_grey
from ..raster.read import RasterFile, check_pixels, image_driver, open_raster
from ..raster.write import write_image
from .description import DatasetDescription, refuse_existing, replaced_when_whole
from .label_map import IGNORE, LabelMap, Value, show_counts, show_value, value_counts

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_STRIPE_PX = 1 << 22
_PREVIEW_PX = 1024
_MOST_VALUES = 65_536  # a mask with more different values holds no classes, and counting them takes memory
_LISTED = 20
_NO_DATA, _NO_LABEL = (255, 0, 255), (40, 40, 40)

_TURNED = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along its main diagonal",
    6: "turned by 90 degrees clockwise",
    7: "mirrored along its other diagonal",
    8: "turned by 90 degrees counterclockwise",
}


@dataclass(frozen=True)
class Shown:
    """A file, and how it is read.

    Attributes:
        path: The file, or what GDAL takes for one.
        reading: Its bands and values; three bands of which nobody says anything are wanted as red, green and blue.
        is_mask: Whether it is one.
        description: Of the data set that it belongs to.
        driver: The only format to consider, of files of data sets; None for all that GDAL reads.
        training, mapping: Why either would refuse it, as an image.
    """

    path: str
    reading: Reading
    is_mask: bool
    description: DatasetDescription | None
    driver: str | None
    training: list[str] = field(default_factory=list)
    mapping: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        path: str | Path,
        reading: Reading = Reading(),  # noqa: B008  # frozen
        *,
        is_mask: bool = False,
        description: DatasetDescription | None = None,
    ) -> "Shown":
        """Look at the header of a file.

        Args:
            path: The file.
            reading: What is known besides it: overrides what the description says.
            is_mask: It holds ids or colours of classes.
            description: Of its data set.

        Raises:
            RasterError: It is no raster, or holds nothing that can be shown.
        """
        path, training, mapping = str(path), list[str](), list[str]()
        if description is not None and not is_mask:
            reading = _completed(reading, description.reading)
        driver = None
        try:
            driver = image_driver(path)
        except RasterError as error:
            if not (Path(path).is_file() or path.startswith("/vsi") or "://" in path):
                raise
            training.append(str(error))
        whole = replace(reading, names=None, count=None, numbers=None)
        shown = cls(path, whole, is_mask, description, driver, training, mapping)
        with shown.opened() as file:
            training += _refusals(lambda: check_pixels(file.name, file.height, file.width))
            mapping += _refusals(file.require_place)
            bands = len(file.bands)
        if reading != whole:
            wanted = replace(shown, reading=reading)
        else:
            wanted = replace(shown, reading=replace(whole, names=COLOURS, count=3)) if bands == 3 else shown
        refusals = _refusals(wanted.require_bands)
        if refusals and reading == whole:  # three bands that are described as others
            wanted, refusals = shown, []
        if not refusals:
            shown, refusals = wanted, _refusals(wanted.require_meaning)
        training += refusals
        mapping += refusals
        return shown

    def opened(self, reading: Reading | None = None) -> AbstractContextManager[RasterFile]:
        """Open it as it is read."""
        return open_raster(self.path, reading or self.reading, driver=self.driver)

    def require_bands(self) -> None:
        """Raise RasterError where the wanted bands are not there."""
        with self.opened():
            pass

    def require_meaning(self) -> None:
        """Raise RasterError where nobody knows what the values mean."""
        with self.opened() as file:
            file.require_meaning()

    # -----------------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Everything that is known of the file, for `json`: without NaN, pixels counted stripe by stripe.

        Raises:
            RasterError: It is damaged.
        """
        with self.opened() as file:
            statistics, hidden, reasons = _measured(file)
            pixels = file.height * file.width
            facts = {
                "file": self.path,
                "driver": file.dataset.driver,
                "height": file.height,
                "width": file.width,
                "dtype": str(file.dtype),
                "orientation": file.orientation,
                "bands_found_by": file.bands_found_by,
                "bands": [_band_facts(file, band, statistics) for band in file.every_band],
                "palette": None
                if file.palette is None
                else {"colours": len(file.palette), "grey": is_grey(file.palette)},
                "nodata": {"pixels": hidden, "share": hidden / pixels, "reasons": reasons},
                "grid": _grid_facts(file),
            }
        if self.is_mask:
            facts["mask"], refusals = self._mask_facts()
            facts["training"] = _verdict(refusals)
        else:
            facts["training"], facts["mapping"] = _verdict(self.training), _verdict(self.mapping)
        return facts

    def _mask_facts(self) -> tuple[dict[str, Any] | None, list[str]]:
        """What its values become, and why training would refuse it."""
        try:
            counts, unknown = self._counted()
        except RasterError as error:
            return None, [str(error)]
        label_map, refusals = self._label_map, list[str]()
        unnamed = label_map.unmapped(counts)
        if unnamed:
            refusals.append(
                f"{self.path} holds {show_counts(unnamed)}, which "
                + (
                    "the label map does not name."
                    if self.description
                    else "are no ids of classes; say in a dataset.yaml what they mean, and give it with --dataset."
                )
            )
        elif all(label_map.targets[value] == IGNORE for value in counts):
            refusals.append(f"{self.path} holds no label at all; expected a mask of some class.")
        values = [
            {
                "value": show_value(value) if isinstance(value, tuple) else value,
                "pixels": n,
                "becomes": self._becomes(value),
            }
            for value, n in sorted(counts.items(), key=lambda item: (-item[1], show_value(item[0])))
        ]
        return {"values": values, "no_label_by_the_file": unknown}, refusals

    def _counted(self) -> tuple[dict[Value, int], int]:
        """Pixels of each value that the file knows, and how many it says hold none."""
        counts, unknown = Counter[Value](), 0
        with self.opened() as file:
            height, width = file.height, file.width
            stripes = list(_stripes(file))
        for rows in stripes:
            ids = read_ids(FileWindow(Path(self.path), rows.start, 0, rows.stop - rows.start, width))
            counts.update(value_counts(ids.values, ids.known))
            unknown += int((~ids.known).sum())
            if len(counts) > _MOST_VALUES:
                raise RasterError(
                    f"{self.path} holds more than {_MOST_VALUES} different values in {rows.stop} of {height} rows; "
                    "expected ids or colours of classes. Is it an image? Leave out --mask."
                )
        return counts, unknown

    @property
    def _label_map(self) -> LabelMap:
        return LabelMap.identity(IGNORE) if self.description is None else self.description.label_map

    def _becomes(self, value: Value) -> str | None:
        """The name of a class, "no label", or None if nothing names the value."""
        target = self._label_map.targets.get(value)
        if target is None:
            return None
        if target == IGNORE:
            return "no label"
        return f"class {target}" if self.description is None else self.description.class_names[target]

    # -----------------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Any]:
        """Every pixel, for `numpy.savez`.

        Returns:
            `pixels` (bands, H, W) as stored, in the file's order, upright, without alpha, of a palette the indices;
            `valid` (H, W) bool; `unit` (bands, H, W) float32 as an image processor gets it, unless nobody knows what
            the values mean. Of masks `ids` (H, W) int64, or (H, W, 3) uint8 colours; and, with a description that
            names all of them, `labels` (H, W) uint8, 255 without a label.

        Raises:
            RasterError: It is damaged, has more pixels than may be read at once, or is a mask that cannot be one.
        """
        with self.opened() as file:
            raster = file.read()
            wanted = [band.number for band in file.bands]
            stored = sorted({*wanted, *(band.number for band in file.every_band if not band.is_alpha)})
        if set(stored) == set(wanted):
            pixels = raster.pixels[[wanted.index(number) for number in stored]]
        else:
            whole = replace(self.reading, names=None, count=None, numbers=tuple(stored))
            with self.opened(whole) as file:
                pixels = file.read().pixels
        arrays: dict[str, Any] = {"pixels": pixels, "valid": raster.valid}
        _refusals(lambda: arrays.update(unit=raster.unit))  # `facts` says why there is none
        if self.is_mask:
            ids = read_ids(Path(self.path))
            arrays["ids"] = ids.values
            if self.description and not self._label_map.unmapped(value_counts(ids.values, ids.known)):
                arrays["labels"] = self._label_map.apply(ids.values, ids.known)
        return arrays

    def preview(self) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of at most 1,024 px a side: natural colours, beside them where there is no data, in
        magenta; of a mask its values in colours, beside them where there is no label, in dark grey."""
        with self.opened() as file:
            factor = max(1.0, max(file.height, file.width) / _PREVIEW_PX)
            shape = max(1, round(file.height / factor)), max(1, round(file.width / factor))
            raster = file.read(shape=shape)
        if self.is_mask:
            left, right = self._painted(raster.pixels, raster.valid)
        else:
            left = natural_picture(raster)
            right = left // 2 + 64
            right[~raster.valid] = _NO_DATA
        gap = np.full((len(left), max(2, shape[1] // 50), 3), 255, np.uint8)
        return np.concatenate([left, gap, right], axis=1)

    def _painted(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Colours of the values, those of classes by their names; and the same, dark where there is no label."""
        if len(pixels) not in (1, 3):
            raise RasterError(f"{self.path} has {len(pixels)} bands; expected a mask of one band, or of colours.")
        values = pixels[0].astype(np.int64) if len(pixels) == 1 else pixels.astype(np.int64)
        codes = values if len(pixels) == 1 else values[0] << 16 | values[1] << 8 | values[2]
        different, places = np.unique(codes, return_inverse=True)
        names = [self._becomes(int(code) if len(pixels) == 1 else _colour(int(code))) for code in different]
        by_name = dict(zip(sorted({*map(str, names)}), class_colours(sorted({*map(str, names)})), strict=True))
        colours = np.array([by_name[str(name)] for name in names], np.uint8)
        if len(pixels) == 3:
            colours = np.array([_colour(int(code)) for code in different], np.uint8)
        is_label = np.array([name not in (None, "no label") for name in names])
        places = places.reshape(codes.shape)
        left = colours[places]
        right = left.copy()
        right[~(is_label[places] & valid)] = _NO_LABEL
        return left, right


def _completed(reading: Reading, described: Reading) -> Reading:
    """What is given, and what the description says where nothing is."""
    names = described.names if reading.names is None and reading.numbers is None else reading.names
    return replace(
        reading,
        names=names,
        count=described.count,
        **{
            name: getattr(described if getattr(reading, name) is None else reading, name)
            for name in ("nodata", "scale", "offset")
        },
    )


def _refusals(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except RasterError as error:
        return [str(error)]
    return []


def _verdict(refusals: Sequence[str]) -> dict[str, Any]:
    return {"accepted": not refusals, "why_not": list(refusals)}


def _stripes(file: RasterFile) -> Iterator[slice]:
    step = max(1, _STRIPE_PX // file.width)
    for top in range(0, file.height, step):
        yield slice(top, min(top + step, file.height))


def _measured(file: RasterFile) -> tuple[dict[int, dict[str, float]], int, dict[str, int]]:
    """Statistics of pixels with data by the number of the band; how many have none; and for how many a reason holds."""
    hidden, reasons = 0, Counter[str]()
    count, mean, squares = 0, np.zeros(len(file.bands)), np.zeros(len(file.bands))
    least, largest = [math.inf] * len(file.bands), [-math.inf] * len(file.bands)
    for rows in _stripes(file):
        raster = file.read(rows)
        hidden += int((~raster.valid).sum())
        reasons.update({reason: int(holds.sum()) for reason, holds in file.reasons(raster, rows).items()})
        values = raster.pixels[:, raster.valid]
        if not (added := values.shape[1]):
            continue
        # Chan, Golub and LeVeque 1983: means and squares of two parts, without the loss of a sum of squares.
        own = values.mean(axis=1, dtype=np.float64)
        apart = own - mean
        squares += values.var(axis=1, dtype=np.float64) * added + apart**2 * (count * added / (count + added))
        mean, count = mean + apart * (added / (count + added)), count + added
        least = [min(one, low.item()) for one, low in zip(least, values.min(axis=1), strict=True)]
        largest = [max(one, high.item()) for one, high in zip(largest, values.max(axis=1), strict=True)]
    deviations = np.sqrt(squares / max(count, 1))
    statistics = {
        band.number: {"min": least[i], "max": largest[i], "mean": mean[i].item(), "std": deviations[i].item()}
        for i, band in enumerate(file.bands)
    }
    return (statistics if count else {}), hidden, {reason: n for reason, n in reasons.items() if n}


def _band_facts(file: RasterFile, band: Band, statistics: Mapping[int, Any]) -> dict[str, Any]:
    numbers = [one.number for one in file.bands]
    place = numbers.index(band.number) if band.number in numbers else None
    names = file.reading.names
    wanted = names[place].lower() if names and place is not None and len(names) == len(numbers) else ""
    if wanted:
        found_by = next((way for way in ("description", "colour") if getattr(band, way) == wanted), "order")
        meaning = wanted
    else:
        found_by = "description" if band.description else "colour" if band.colour else "order"
        meaning = band.name
    return {
        "number": band.number,
        "meaning": meaning,
        "found_by": found_by,
        "place": place,
        "is_alpha": band.is_alpha and place is None,
        "description": band.description,
        "colour": band.colour,
        "dtype": band.dtype,
        "nodata": _finite(band.nodata),
        "scale": _finite(band.scale),
        "offset": _finite(band.offset),
        "factors": None if (factors := band.factors(file.reading)) is None else [_finite(one) for one in factors],
        "statistics": statistics.get(band.number),
    }


def _metres_per_pixel(grid: Grid) -> float | None:
    try:
        return ground_areas(grid).gsd_m
    except RasterError:  # beyond a pole
        return None


def _grid_facts(file: RasterFile) -> dict[str, Any]:
    grid: Grid = file.grid
    return {
        "is_placed": grid.is_placed,
        "crs": grid.crs_name,
        "transform": list(grid.transform) if grid.is_placed else None,
        "metres_per_pixel": _metres_per_pixel(grid),
        "problem": None if file.misplaced is None else str(file.misplaced),
    }


def _finite(value: float | None) -> float | str | None:
    """What JSON can hold: NaN and infinity as words."""
    return value if value is None or math.isfinite(value) else str(value)


def _colour(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def to_text(facts: Mapping[str, Any]) -> str:
    """Write facts as a person reads them."""
    size = f"{facts['width']} x {facts['height']} px (width x height)"
    lines = [
        f"{facts['file']}: {facts['driver']}, {size}, {facts['dtype']}",
        *("  " + line for line in _band_lines(facts)),
        _nodata_line(facts["nodata"]),
    ]
    if facts["orientation"] != 1:
        turned = _TURNED.get(facts["orientation"], "unknown to EXIF")
        placed = " in the file, which its place overrides" if facts["grid"]["is_placed"] else ", as the file says"
        lines.append(f"Orientation {facts['orientation']}: {turned}{placed}.")
    lines += [_grid_line(facts["grid"]), *(_mask_lines(facts["mask"]) if facts.get("mask") else ())]
    for who in ("training", "mapping"):
        if who in facts:
            verdict = facts[who]
            lines += [f"{who.capitalize()} would refuse it: {why}" for why in verdict["why_not"]]
            lines += [f"{who.capitalize()} takes it."] * verdict["accepted"]
    return "\n".join(lines) + "\n"


def _band_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for band in facts["bands"]:
        line = f"band {band['number']}: {band['meaning']} (by its {band['found_by']})"
        if band["found_by"] == "order":
            line = f"band {band['number']}: {band['meaning']} (by order alone)"
        if facts["bands_found_by"] == "number" and band["place"] is not None:
            line += f", chosen as number {band['place'] + 1}"
        if band["is_alpha"]:
            line += ", where there is data"
        elif band["place"] is None:
            line += ", not used"
        elif band["place"] != band["number"] - 1:
            line += f", read as number {band['place'] + 1}"
        if (found := band["statistics"]) is not None:
            line += "; {min:g} to {max:g}, mean {mean:.6g}, deviation {std:.6g}".format(**found)
        if band["nodata"] is not None:
            line += f"; nodata {band['nodata']}"
        if (band["scale"], band["offset"]) != (1.0, 0.0):
            line += f"; scale {band['scale']} and offset {band['offset']} in the file"
        yield line
    factors = [band["factors"] for band in facts["bands"] if band["place"] is not None]
    if facts["palette"]:
        yield f"A palette of {facts['palette']['colours']} {'greys' if facts['palette']['grey'] else 'colours'}."
    elif all(factors) and all(one == factors[0] for one in factors):
        scale, offset = factors[0]
        scaled = f"times {scale:g}" + (f" {'+' if offset > 0 else '-'} {abs(offset):g}" if offset else "")
        yield f"Networks get the values {'as they are' if [scale, offset] == [1, 0] else scaled}."


def _nodata_line(nodata: Mapping[str, Any]) -> str:
    if not nodata["pixels"]:
        return "Every pixel holds data."
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in nodata["reasons"].items())
    return f"No data: {nodata['pixels']:,} pixels, {nodata['share']:.2%}. Why: {reasons}."


def _grid_line(grid: Mapping[str, Any]) -> str:
    if grid["problem"]:
        return f"Place: {grid['problem']}"
    if not grid["is_placed"]:
        return "Place: none." if grid["crs"] is None else f"Place: {grid['crs']}, but no transform."
    size = "" if grid["metres_per_pixel"] is None else f"; {grid['metres_per_pixel']:.4g} m per pixel"
    transform = ", ".join(f"{value:.10g}" for value in grid["transform"])
    return f"Place: {grid['crs'] or 'without a CRS'}{size}; transform {transform}."


def _mask_lines(mask: Mapping[str, Any]) -> Iterator[str]:
    yield f"Mask of {len(mask['values'])} values:"
    for one in mask["values"][:_LISTED]:
        yield f"  {one['value']}: {one['becomes'] or 'not named by the label map'}, {one['pixels']:,} px"
    if len(mask["values"]) > _LISTED:
        yield f"  and {len(mask['values']) - _LISTED} more"
    if mask["no_label_by_the_file"]:
        yield f"  no label, as the file itself says: {mask['no_label_by_the_file']:,} px"


def add_show(actions: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `show` to `co2s data`."""
    show = actions.add_parser("show", help="say what is read of a file, and why pixels of it hold no data")
    show.add_argument("file", help="an image, a scene, or a mask")
    show.add_argument("--mask", action="store_true", help="the file holds ids or colours of classes")
    show.add_argument("--dataset", type=Path, help="dataset.yaml that says what bands and values mean")
    show.add_argument("--bands", type=int, nargs="+", help="numbers of the bands to read, counted from 1, in order")
    show.add_argument("--nodata", type=_number, help="value without data, besides what the file says")
    show.add_argument("--nodata_within", type=float, default=0.0, help="how far values may lie from it; default: 0")
    show.add_argument("--scale", type=float, help="from stored to physical values; default: as the file says")
    show.add_argument("--offset", type=float, help="added to scaled values; default: as the file says")
    show.add_argument("--json", action="store_true", help="print the same for programs")
    show.add_argument("--npz", type=Path, help="write pixels, valid, unit; of masks ids and labels, too")
    show.add_argument("--output", type=Path, help="write a preview as PNG: what is there, and where there is no data")
    show.add_argument("--force", action="store_true", help="replace existing files")
    show.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    for path in (arguments.npz, arguments.output):
        if path is not None:
            refuse_existing(path, force=arguments.force)
    if arguments.nodata is None and arguments.nodata_within:
        raise ValueError("--nodata_within needs --nodata, the value that it lies around.")
    reading = Reading(
        numbers=None if arguments.bands is None else tuple(arguments.bands),
        nodata=None if arguments.nodata is None else NoData(arguments.nodata, arguments.nodata_within),
        scale=arguments.scale,
        offset=arguments.offset,
    )
    description = None if arguments.dataset is None else DatasetDescription.load(arguments.dataset)
    shown = Shown.of(arguments.file, reading, is_mask=arguments.mask, description=description)
    facts = shown.facts()
    print(json.dumps(facts, allow_nan=False, indent=2) if arguments.json else to_text(facts), end="\n" * arguments.json)
    if arguments.npz is not None:
        arrays = shown.arrays()
        if "unit" not in arrays and not arguments.json:
            print(f"{arguments.npz} holds no `unit`: nobody knows what the values mean.")
        with replaced_when_whole(arguments.npz) as unfinished, open(unfinished, "wb") as file:
            np.savez_compressed(file, **arrays)
    if arguments.output is not None:
        picture = shown.preview()
        with replaced_when_whole(arguments.output) as unfinished:
            write_image(unfinished, picture)
    return 0


def _number(text: str) -> float:
    """An int where it is one: as a float it would lose digits beyond 2^53."""
    try:
        return int(text)
    except ValueError:
        return float(text)


__all__ = ["Shown", "add_show", "to_text"]
