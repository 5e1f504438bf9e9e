"""The first dataset.yaml of a folder: what its files show is written, what they cannot show is a TODO."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..pretrained_backbones import RGB
from ..raster.errors import RasterError
from ..raster.ids import read_ids
from ..raster.read import IMAGE_SUFFIXES, read_raster
from .band_statistics import BandStatistics
from .description import IGNORED, TODO, parse_colour
from .folders import DataError
from .hub import RECORD as FETCHED
from .label_map import LabelMapError, Value, show_value, value_counts
from .prepare import RECORD

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "img_dir", "tiles")
_MASKS = ("labels", "label", "masks", "mask", "SegmentationClass", "ann_dir", "annotations", "gt")
_UNLABELLED = ("unlabelled", "unlabeled", "unlabelled_images", "unlabeled_images", "images_unlabelled")
_LISTS = {
    "labelled": ("labelled.txt", "labeled.txt"),
    "unlabelled": ("unlabelled.txt", "unlabeled.txt"),
    "validation": ("validation.txt", "val.txt"),
}
_MOST_VALUES = 255  # masks with more different values are no class maps: photographs, or colours that JPEG has smeared
_VALIDATION_FRACTION = 0.2
_RGB_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # three bands mean red, green, blue; in a TIFF they may not


@dataclass
class Found:
    """What the files of a folder show.

    Attributes:
        document: The values of dataset.yaml, with TODOs.
        notes: What a person should know, one sentence each: what was chosen, what could not be read.
    """

    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def discover(folder: str | Path) -> Found:
    """Look at a folder of images and masks; decodes every image and every mask once, under a progress bar.

    Folders are found by their usual names, splits by lists (`labelled.txt`, `unlabelled.txt`, `val.txt`), class names
    by a `classes.json` with `{"classes": [{"id", "name", "source_color"}], "ignore_index"}` or what `prepare` recorded.
    Where `fetch` has made the folder of several splits of the Hub, its lists are those of the splits.

    Raises:
        DataError: There is no such folder, or no folder of images in it, or no image that can be read.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"There is no folder {root}; expected one with images and masks. Check the path.")
    notes: list[str] = []
    subfolders = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    images = _images_folder(root, subfolders)
    masks = _masks_folder(subfolders)
    pool = [subfolders[name.lower()] for name in _UNLABELLED if name.lower() in subfolders]
    mask_files = [] if masks.startswith(TODO) else _files([root / masks])
    image_files = sorted(set(_files([root / name for name in (images, *pool)])) - set(mask_files))
    bands = _bands(image_files, notes)
    counts = _mask_values(mask_files, notes)
    record = _record(root / RECORD)
    known = _prepared_classes(record) if record else _known_classes(root, notes)
    classes, label_map = _labels(counts, known)
    names = [path.relative_to(root / images).as_posix() for path in image_files if path.is_relative_to(root / images)]
    document = {
        "version": 1,
        "root": str(root),
        "images": images,
        "masks": masks,
        "classes": classes,
        "label_map": label_map,
        "bands": bands,
        "nodata": None,
        "scene_pattern": record["name_pattern"] if record else _scene_pattern(names),
        "splits": _splits(root, images, pool, names),
    }
    notes.insert(0, f"{len(image_files)} images in {', '.join([images, *pool])}; {len(mask_files)} masks in {masks}.")
    return Found(document, notes)


def _images_folder(root: Path, subfolders: Mapping[str, str]) -> str:
    named = [subfolders[name.lower()] for name in _IMAGES if name.lower() in subfolders]
    if len(named) > 1:
        raise DataError(f"{root} has the folders {', '.join(named)}; expected one of images. Rename the others.")
    if named:
        return named[0]
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
        return "."
    raise DataError(
        f"{root} has no folder of images: expected one named {', '.join(_IMAGES)}, or images in it; found "
        f"{', '.join(subfolders.values()) or 'no folder'}. Rename the folder, or name the right one."
    )


def _masks_folder(subfolders: Mapping[str, str]) -> str:
    named = [subfolders[name.lower()] for name in _MASKS if name.lower() in subfolders]
    if len(named) == 1:
        return named[0]
    return f"{TODO}: the folder of the masks; found {', '.join(named or subfolders.values()) or 'no folder'}"


def _files(folders: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


# ---------------------------------------------------------------------------------------------------------------------
# What the pixels show
# ---------------------------------------------------------------------------------------------------------------------


def _bands(files: list[Path], notes: list[str]) -> dict[str, Any]:
    statistics: dict[int, BandStatistics] = {}
    kinds: Counter[tuple[int, str]] = Counter()
    for path in tqdm(files, desc="Images", unit="image", disable=None):
        try:
            image = np.moveaxis(read_raster(path).colours, 0, 2)
        except RasterError as error:
            notes.append(f"Left out: {error}")
            continue
        count = image.shape[2]
        kinds[count, str(image.dtype)] += 1
        statistics.setdefault(count, BandStatistics(count)).update(image)
    if not kinds:
        raise DataError("None of the images can be read; expected at least one. " + " ".join(notes[:3]))
    if len(kinds) > 1:
        found = ", ".join(f"{number} with {count} bands of {kind}" for (count, kind), number in kinds.most_common())
        text = f"{TODO}: images differ ({found}); move all but one kind away and start again"
        return {name: text for name in ("count", "names", "dtype", "rgb", "mean", "std")}
    ((count, kind),) = kinds
    measured = statistics[count]
    low, high = measured.minimum.min(), measured.maximum.max()
    notes.append(f"{count} bands of {kind}, values from {low:g} to {high:g}.")
    natural = count == 3 and all(path.suffix.lower() in _RGB_SUFFIXES for path in files)
    grey = count == 1
    ranges = zip(measured.minimum, measured.maximum, strict=True)
    unknown = [f"{TODO}: name of band {i}, values {low:g} to {high:g}" for i, (low, high) in enumerate(ranges)]
    return {
        "count": count,
        "names": list(RGB) if natural else ["grey"] if grey else unknown,
        "dtype": kind,
        "rgb": [0, 1, 2] if natural else None if count < 3 else f"{TODO}: places of red, green, blue, from 0; or null",
        "mean": [round(float(value), 4) for value in measured.mean],
        "std": [round(float(value), 4) for value in measured.std],
    }


def _mask_values(files: list[Path], notes: list[str]) -> Counter[Value]:
    counts: Counter[Value] = Counter()
    for path in tqdm(files, desc="Masks", unit="mask", disable=None):
        try:
            ids = read_ids(path)
            counts.update(value_counts(ids.values, ids.known))
        except (RasterError, LabelMapError) as error:
            notes.append(f"Left out: {error}")
            continue
        if len(counts) > _MOST_VALUES:
            raise DataError(
                f"The masks up to {path} hold {len(counts)} different values; expected at most {_MOST_VALUES}, one or "
                "a few per class. Masks saved as JPEG cannot be used: export them as PNG or TIFF."
            )
    return counts


# ---------------------------------------------------------------------------------------------------------------------
# Classes
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A class of classes.json."""

    value: int
    name: str
    colour: tuple[int, int, int] | None


def _record(path: Path) -> dict[str, Any] | None:
    """Read what `prepare` or `fetch` has left in a folder that it made."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _prepared_classes(record: Mapping[str, Any]) -> tuple[list[_Known], int | None]:
    pairs = zip(record["classes"], record["palette"], strict=True)
    known = [_Known(i, name, (red, green, blue)) for i, (name, (red, green, blue)) in enumerate(pairs)]
    return known, int(record["ignore"])


def _known_classes(root: Path, notes: list[str]) -> tuple[list[_Known], int | None]:
    """Read classes.json: the classes, and the id that is ignored."""
    path = root / "classes.json"
    if not path.is_file():
        return [], None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = [
            _Known(int(one["id"]), str(one["name"]), parse_colour(str(one.get("source_color", ""))))
            for one in content["classes"]
        ]
        ignored = content.get("ignore_index")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"{path} is not used: expected classes with id and name, found {type(error).__name__}: {error}.")
        return [], None
    notes.append(f"Class names from {path}.")
    return sorted(known, key=lambda one: one.value), None if ignored is None else int(ignored)


def _labels(
    counts: Counter[Value], known: tuple[list[_Known], int | None]
) -> tuple[list[dict[str, Any]], dict[int | str, str]]:
    """Give the classes and the label map; what the values mean is taken from classes.json or left open."""
    classes, ignored = known
    total = max(counts.total(), 1)
    meanings: dict[Value, str] = {one.value: one.name for one in classes if any(isinstance(v, int) for v in counts)}
    meanings |= {one.colour: one.name for one in classes if one.colour is not None and one.colour in counts}
    if ignored is not None and ignored in counts:
        meanings[ignored] = IGNORED
    label_map: dict[int | str, str] = {}
    for value in sorted({*counts, *meanings}, key=lambda one: (isinstance(one, tuple), one)):
        share = f"{100 * counts[value] / total:.2f} % of the pixels"
        label_map[value if isinstance(value, int) else show_value(value)] = meanings.get(
            value, f"{TODO}: class of {show_value(value)} ({share}), or {IGNORED}"
        )
    if not label_map:
        label_map = {f"{TODO}: a mask value": f"{TODO}: its class, or {IGNORED}"}
    named = [
        {"name": one.name, "colour": None if one.colour is None else show_value(one.colour), "concepts": None}
        for one in classes
    ]
    unnamed = [
        {"name": f"{TODO}: a class", "colour": show_value(v) if isinstance(v, tuple) else None, "concepts": None}
        for v in sorted(counts, key=lambda one: (isinstance(one, tuple), one))
    ]
    return named or unnamed or [{"name": f"{TODO}: a class", "colour": None, "concepts": None}], label_map


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def _scene_pattern(names: list[str]) -> str | None:
    r"""Propose a pattern where several images share what stands before the first separator; else there is none."""
    heads = Counter(match[1] for name in names if (match := re.match(r"(?:.*/)?([^/_.-]+)[_-]", name)))
    if heads.total() < len(names) or not 1 < len(heads) < len(names):
        return None
    return (
        f"{TODO}: a regular expression whose first group is the scene; ([^/_.-]+)[_-] would give {len(heads)} scenes "
        f"of {len(names)} images, such as {heads.most_common(1)[0][0]}; null if neighbours never share a scene"
    )


def _splits(root: Path, images: str, pool: list[str], names: list[str]) -> dict[str, Any]:
    """Take lists by their names, then folders of validation images; what is left out has the meaning of null."""
    fetched = (_record(root / FETCHED) or {"lists": {}})["lists"]
    splits: dict[str, Any] = {
        part: fetched.get(part) or [name for name in candidates if (root / name).is_file()][:1] or None
        for part, candidates in _LISTS.items()
    }
    folders = {name.split("/")[0] for name in names if "/" in name}
    held_out = [name for name in ("val", "validation") if name in folders]
    if splits["validation"] is None and held_out:
        splits["validation"] = [f"{held_out[0]}/**/*"]
    if splits["unlabelled"] is None and pool:
        splits["unlabelled"] = pool
    splits["validation_fraction"] = _VALIDATION_FRACTION if splits["validation"] is None else None
    splits["seed"] = 0
    return splits
