"""The first dataset.yaml of a folder: what its files show is written, what they cannot show is a TODO."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..pretrained_backbones import RGB
from ..raster.errors import RasterError
from ..raster.ids import read_ids
from ..raster.image import NoData, Raster, Reading
from ..raster.read import IMAGE_SUFFIXES, RasterFile, connected_to_border, open_image
from .band_statistics import BandStatistics
from .description import ALPHA, IGNORED, TODO, parse_colour, written_nodata
from .globs import Names
from .hub import RECORD as FETCHED
from .label_map import IGNORE, LabelMapError, Value, show_counts, show_value, value_counts
from .pairs import Affix, common_affixes
from .prepare import RECORD
from .samples import DataError

_IMAGES = ("images", "image", "imgs", "img", "JPEGImages", "img_dir", "tiles")
_MASKS = ("labels", "label", "masks", "mask", "SegmentationClass", "ann_dir", "annotations", "gt")
_UNLABELLED = ("unlabelled", "unlabeled", "unlabelled_images", "unlabeled_images", "images_unlabelled")
_MASK_WORDS = ("mask", "masks", "label", "labels", "lab", "gt", "seg", "color", "colour", "annotation", "groundtruth")
_LISTS = {
    "labelled": ("labelled.txt", "labeled.txt"),
    "unlabelled": ("unlabelled.txt", "unlabeled.txt"),
    "validation": ("validation.txt", "val.txt"),
}
_MOST_VALUES = 255  # masks with more different values are no class maps: photographs, or colours that JPEG has smeared
_VALIDATION_FRACTION = 0.2
_PROPOSED_PATTERN = "([^/_.-]+)[_-]"
_BORDER = 12  # how far from black or white JPEG smears a border
_BORDER_SHARE = 0.01
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


@dataclass(frozen=True)
class Answers:
    """What a person has said already, as arguments of `co2s data init`; None or empty for what is still open.

    Attributes:
        images, masks: Folders, or globs, below the folder.
        classes: Names in the order of the ids, 255 is ignored; or all of them as `NAME=VALUE`, with an id or a colour,
            `ignore=VALUE` among them.
        bands: Names of the bands, in the order of the files.
        alpha: "band" or "transparency": what a band is that the files call alpha.
        nodata: Value without data.
        scene_pattern: Regular expression; empty for images that are scenes of their own.
        accept: Take the scene pattern that is proposed.
    """

    images: str | None = None
    masks: str | None = None
    classes: Sequence[str] = ()
    bands: Sequence[str] = ()
    alpha: str | None = None
    nodata: NoData | None = None
    scene_pattern: str | None = None
    accept: bool = False


def discover(folder: str | Path, answers: Answers = Answers()) -> Found:  # noqa: B008  # frozen
    """Look at a folder of images and masks; decodes every image and every mask once, under a progress bar.

    Folders are found by their usual names, splits by lists (`labelled.txt`, `unlabelled.txt`, `val.txt`), class names
    by a `classes.json` with `{"classes": [{"id", "name", "source_color"}], "ignore_index"}` or what `prepare` recorded.
    Masks whose names are those of the images with something before or behind become globs. Where `fetch` has made the
    folder of several splits of the Hub, its lists are those of the splits.

    Raises:
        DataError: There is no such folder, or no folder of images in it, or no image that can be read; or the classes
            that were given do not fit the values in the masks.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"There is no folder {root}; expected one with images and masks. Check the path.")
    notes: list[str] = []
    subfolders = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    images = answers.images or _images_folder(root, subfolders)
    masks = answers.masks or _masks_folder(subfolders)
    images, masks, own_files, mask_files = _pairs(root, images, masks, notes)
    pool = [subfolders[name.lower()] for name in _UNLABELLED if name.lower() in subfolders]
    image_files = sorted({*own_files, *_files([root / name for name in pool])} - set(mask_files))
    bands = _bands(image_files, answers, notes)
    counts = _mask_values(mask_files, notes)
    record = _record(root / RECORD)
    if answers.classes:
        classes, label_map = _given_labels(counts, answers.classes)
    else:
        classes, label_map = _labels(counts, _prepared_classes(record) if record else _known_classes(root, notes))
    below = Names(root, images).folder
    names = [path.relative_to(below).as_posix() for path in image_files if path.is_relative_to(below)]
    pattern = answers.scene_pattern
    if pattern is None:
        pattern = record["name_pattern"] if record else _scene_pattern(names, accept=answers.accept)
    document = {
        "version": 1,
        "root": str(root),
        "images": images,
        "masks": masks,
        "classes": classes,
        "label_map": label_map,
        "bands": bands,
        "nodata": written_nodata(answers.nodata),
        "scene_pattern": pattern or None,
        "splits": _splits(root, pool, names),
    }
    notes.insert(0, f"{len(image_files)} images in {', '.join([images, *pool])}; {len(mask_files)} masks in {masks}.")
    return Found(document, notes)


def _pairs(root: Path, images: str, masks: str, notes: list[str]) -> tuple[str, str, list[Path], list[Path]]:
    """Folders or globs of images and masks, and their files: as they are where names fit, else by what differs."""
    of_images = Names(root, images)
    image_files = _named(of_images)
    together = masks.startswith(TODO)
    mask_files = _files_called_masks(image_files) if together else _named(Names(root, masks))
    image_files = [path for path in image_files if path not in set(mask_files)]
    if of_images.glob or not image_files or not mask_files or (not together and Names(root, masks).glob):
        return images, masks, image_files, [] if together else mask_files
    mask_folder = images if together else masks
    stems = [_stem(path, root / images) for path in image_files]
    mask_stems = [_stem(path, root / mask_folder) for path in mask_files]
    found = common_affixes(stems, mask_stems)
    if not found:
        notes.append(f"No mask in {mask_folder} is named as an image: {mask_files[0].name} and {image_files[0].name}.")
        return images, masks, image_files, [] if together else mask_files
    if found[0] == (Affix(), Affix()):
        return images, masks, image_files, mask_files
    nested = any("/" in stem for stem in (*stems, *mask_stems))
    globs = [_glob(mask_folder, affix, mask_files, nested=nested) for _, affix in found]
    image_glob = _glob(images, found[0][0], image_files, nested=nested)
    if len(globs) > 1 or None in (image_glob, *globs):
        listed = ", ".join(glob or "files of several formats" for glob in globs)
        return images, f"{TODO}: a glob of the masks, such as {listed}", image_files, []
    assert image_glob is not None and globs[0] is not None
    notes.append(f"Masks have other names than images: images: {image_glob}, masks: {globs[0]}.")
    return image_glob, globs[0], _named(Names(root, image_glob)), _named(Names(root, globs[0]))


def _named(names: Names) -> list[Path]:
    return [path for path in _files([names.folder]) if names.key(path) is not None]


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _files_called_masks(files: Sequence[Path]) -> list[Path]:
    """Of images and masks in one folder, the files whose names begin or end with a word for masks."""
    words = {path: re.split(r"[_.\- ]", path.stem.lower()) for path in files}
    return [path for path in files if len(words[path]) > 1 and {words[path][0], words[path][-1]} & set(_MASK_WORDS)]


def _glob(folder: str, affix: Affix, files: Sequence[Path], *, nested: bool) -> str | None:
    """The glob of files with an affix; None where they have several suffixes."""
    suffixes = {path.suffix for path in files if affix.strip(path.stem) is not None}
    return affix.glob(folder, suffixes.pop(), nested=nested) if len(suffixes) == 1 else None


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


class _Kind:
    """What was seen of the images of one kind: so many bands of a type, with or without alpha."""

    def __init__(self, file: RasterFile, count: int, total: int) -> None:
        self.file_bands, self.suffixes = file.every_band, set[str]()
        self.images, self.graded, self.hidden, self.pixels = 0, 0, 0, 0
        self.colours, self.all_bands = BandStatistics(count), BandStatistics(total)

    def add(self, path: Path, raster: Raster, has_alpha: bool, nodata: NoData | None) -> None:
        """Count one image, which was read with its alpha."""
        image = np.moveaxis(raster.colours, 0, 2)
        self.images += 1
        self.suffixes.add(path.suffix.lower())
        self.all_bands.update(image, raster.valid)
        valid = raster.valid
        if has_alpha:
            alpha = raster.pixels[-1]
            full = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
            self.graded += bool(((alpha != 0) & (alpha != full)).any())
            self.hidden += int((alpha == 0).sum())
            valid = valid & (alpha != 0)
            if nodata is not None and nodata.within == 0:
                valid &= ~nodata.holds(raster.pixels[:-1])
        self.pixels += valid.size
        self.colours.update(image[..., : len(self.colours.mean)], valid)


def _bands(files: list[Path], answers: Answers, notes: list[str]) -> dict[str, Any]:
    kinds: dict[tuple[int, str, bool], _Kind] = {}
    borders: Counter[int] = Counter()
    reading = Reading(nodata=answers.nodata)
    for path in tqdm(files, desc="Images", unit="image", disable=None):
        try:
            with open_image(path, reading) as file:
                has_alpha, count, total = file.alpha is not None, file.num_bands, len(file.every_band)
                key = (count, str(file.dtype), has_alpha)
                kind = kinds.get(key) or _Kind(file, count, total if has_alpha else count)
                is_jpeg = file.dataset.driver == "JPEG"
            whole = replace(reading, numbers=_alpha_last(file)) if has_alpha else reading
            with open_image(path, whole) as file:
                raster = file.read()
        except RasterError as error:
            notes.append(f"Left out: {error}")
            continue
        kinds[key] = kind
        kind.add(path, raster, has_alpha, answers.nodata)
        if is_jpeg and answers.nodata is None:
            borders.update(value for value in (0, 255) if _border_share(raster.pixels, value) > _BORDER_SHARE)
    if not kinds:
        raise DataError("None of the images can be read; expected at least one. " + " ".join(notes[:3]))
    for value, number in borders.items():
        if number > 1:
            notes.append(
                f"{number} JPEG images have {'dark' if value == 0 else 'bright'} borders, within {_BORDER} of {value}, "
                f"on more than {100 * _BORDER_SHARE:g} % of their pixels. If they show nothing, start again with "
                f"--nodata {value} --nodata_within {_BORDER}."
            )
    if len(kinds) > 1:
        found = ", ".join(
            f"{kind.images} with {count} bands{' and alpha' * has_alpha} of {dtype}"
            for (count, dtype, has_alpha), kind in sorted(kinds.items(), key=lambda item: -item[1].images)
        )
        text = f"{TODO}: images differ ({found}); move all but one kind away and start again"
        keys = ("count", "names", "dtype", "rgb", "mean", "std")
        return {**dict.fromkeys(keys, text), "scale": None, "offset": None}
    (((_, dtype, has_alpha), kind),) = kinds.items()
    return _described_bands(kind, dtype, has_alpha, answers, notes)


def _described_bands(kind: _Kind, dtype: str, has_alpha: bool, answers: Answers, notes: list[str]) -> dict[str, Any]:
    is_open = has_alpha and kind.graded > 0 and answers.alpha is None
    as_band = has_alpha and (answers.alpha == "band" or is_open)
    measured = kind.all_bands if as_band else kind.colours
    total = len(measured.mean)
    count: int | str = total
    if has_alpha:
        share = 100 * kind.hidden / kind.pixels
        about = (
            f"the files call band {total if as_band else total + 1} alpha; it is 0 in {share:.2f} % of the pixels, and "
            f"holds more than 0 and the full value in {kind.graded} of {kind.images} images"
        )
        if is_open:
            count = (
                f"{TODO}: {total - 1} if the last band is transparency, {total} if it is a band such as near infrared "
                f"({about})"
            )
        elif not as_band:
            about += f": taken for transparency, which hides {share:.2f} %; --alpha band keeps it as a band"
        else:
            about += ": taken for a band"
        notes.append(about[0].upper() + about[1:] + ".")
    low, high = measured.minimum.min(), measured.maximum.max()
    notes.append(f"{total} bands of {dtype}, values from {low:g} to {high:g}.")
    names = _band_names(kind, measured, has_alpha, is_open, as_band, answers, notes)
    known = [name.lower() for name in names]
    rgb: Any = [known.index(colour) for colour in RGB] if set(RGB) <= set(known) else None
    if rgb is None and total >= 3 and any(name.startswith(TODO) for name in names):
        rgb = f"{TODO}: places of red, green, blue, from 0; or null"
    mean, std = measured.rounded()
    return {
        "count": count,
        "names": names,
        "dtype": dtype,
        "rgb": rgb,
        "mean": mean,
        "std": std,
        "scale": None,
        "offset": None,
    }


def _band_names(
    kind: _Kind,
    measured: BandStatistics,
    has_alpha: bool,
    is_open: bool,
    as_band: bool,
    answers: Answers,
    notes: list[str],
) -> list[str]:
    total = len(measured.mean)
    last = [ALPHA] if is_open else ["band4" if total == 4 else f"band{total}"] if as_band else []
    if answers.bands:
        names = list(answers.bands)
        if len(names) + len(last) == total:
            return [*names, *last]
        if len(names) != total:
            raise DataError(
                f"--bands names {len(names)} bands ({', '.join(names)}); the images have {total}. Name all of them."
            )
        return names
    colours = total - len(last)
    described = [band.description for band in kind.file_bands if not band.is_alpha]
    if len(described) == colours and all(described) and len(set(described)) == colours:
        return [*described, *last]
    is_natural = kind.suffixes <= set(_RGB_SUFFIXES) or kind.file_bands[0].colour == "palette"
    if colours == 3 and is_natural:
        return [*RGB, *last]
    if colours == 1:
        return ["grey", *last]
    coloured = [band.colour for band in kind.file_bands if not band.is_alpha]
    if set(coloured[:colours]) == set(RGB) and len(coloured) >= colours == 3:
        notes.append(
            f"The bands are called {', '.join(coloured[:3])}, as the files colour them; many programs colour any three "
            "bands so: where they show something else, say it with --bands NAME …."
        )
        return [*coloured[:3], *last]
    ranges = zip(measured.minimum[:colours], measured.maximum[:colours], strict=True)
    return [*(f"{TODO}: name of band {i}, values {low:g} to {high:g}" for i, (low, high) in enumerate(ranges)), *last]


def _alpha_last(file: RasterFile) -> tuple[int, ...]:
    assert file.alpha is not None
    return (*(band.number for band in file.bands), file.alpha.number)


def _border_share(pixels: NDArray[Any], value: int) -> float:
    """Share of the pixels near a value that are connected to the border."""
    held = NoData(value, _BORDER).holds(pixels)
    if not (held[0].any() or held[-1].any() or held[:, 0].any() or held[:, -1].any()):
        return 0.0
    return float(connected_to_border(held).mean())


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


def _given_labels(counts: Counter[Value], texts: Sequence[str]) -> tuple[list[dict[str, Any]], dict[int | str, str]]:
    """Classes and label map of names in the order of the ids, or of `NAME=VALUE`; refuses what the masks do not fit."""
    pairs = [_class_and_value(text) for text in texts]
    with_value = [(name, value) for name, value in pairs if value is not None]
    if with_value and len(with_value) < len(pairs):
        raise DataError(
            f"--classes gives values for {', '.join(name for name, _ in with_value)} alone; expected one for every "
            "class, as NAME=VALUE, or for none."
        )
    meanings = {value: name for name, value in with_value} or {i: name for i, name in enumerate(texts)}
    if len(meanings) < len(pairs):
        raise DataError(f"--classes gives one value twice: {' '.join(texts)}; expected a class for every value.")
    names = list(dict.fromkeys(name for name in meanings.values() if name != IGNORED))
    if not with_value and len(names) < len(texts):
        raise DataError(f"--classes names a class twice, or {IGNORED}: {' '.join(texts)}; expected different names.")
    if any(isinstance(value, int) for value in (*counts, *meanings)):
        meanings.setdefault(IGNORE, IGNORED)
    strange = {value: pixels for value, pixels in counts.items() if value not in meanings}
    is_binary = set(counts) == {0, IGNORE} and meanings[IGNORE] == IGNORED
    if strange or is_binary:
        listed = ", ".join(f"{show_value(value)} {name}" for value, name in meanings.items())
        order = sorted(counts, key=lambda one: (isinstance(one, tuple), one))
        of_each = zip(["background", *names] if is_binary and len(names) == 1 else names, order, strict=False)
        example = " ".join(
            f"'{name}={show_value(value)}'" if isinstance(value, tuple) else f"{name}={value}"
            for name, value in of_each
        )
        without = show_counts(strange) if strange else f"255 is ignored, and nothing but {meanings[0]} is left"
        raise DataError(
            f"The masks hold {show_counts(counts)}; --classes says {listed}. {without}"
            f"{' would have no meaning' if strange else ''}. Give the value of each class, for example --classes "
            f"{example}; {IGNORED}=VALUE has no label."
        )
    colours = {name: value for value, name in meanings.items() if isinstance(value, tuple)}
    classes = [
        {"name": name, "colour": show_value(colours[name]) if name in colours else None, "concepts": None}
        for name in names
    ]
    return classes, {v if isinstance(v, int) else show_value(v): name for v, name in meanings.items()}


def _class_and_value(text: str) -> tuple[str, Value | None]:
    name, _, value = text.rpartition("=")
    if name and re.fullmatch(r"-?\d+", value):
        return name, int(value)
    colour = parse_colour(value) if name else None
    return (text, None) if colour is None else (name, colour)


# ---------------------------------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------------------------------


def _scene_pattern(names: list[str], *, accept: bool) -> str | None:
    r"""Propose a pattern where several images share what stands before the first separator; else there is none."""
    heads = Counter(match[1] for name in names if (match := re.match(r"(?:.*/)?([^/_.-]+)[_-]", name)))
    if heads.total() < len(names) or not 1 < len(heads) < len(names):
        return None
    if accept:
        return _PROPOSED_PATTERN
    return (
        f"{TODO}: a regular expression whose first group is the scene; {_PROPOSED_PATTERN} would give "
        f"{len(heads)} scenes of {len(names)} images, such as {heads.most_common(1)[0][0]}; null if neighbours "
        "never share a scene"
    )


def _splits(root: Path, pool: list[str], names: list[str]) -> dict[str, Any]:
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
