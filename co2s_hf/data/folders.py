"""From a folder of images and masks to a split that is fit for training, or to one clear error."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..raster.image import Reading
from ..raster.read import IMAGE_SUFFIXES
from .globs import GlobError, Names, normal, plain
from .inspect import Inspection
from .label_map import LabelMap
from .pairs import common_affixes
from .patterns import PatternError, first_groups
from .samples import DataError, DataSplit, Sample, count_class_pixels, path_of, read_labels, read_sample
from .wording import some

_SIDECARS = (
    *(".xml", ".msk", ".ovr", ".prj", ".wld", ".tfw", ".pgw", ".pngw", ".jgw", ".jpgw", ".jpegw", ".tifw", ".bpw"),
    *(".wpw", ".gfw", ".aux", ".rrd", ".cpg", ".qpj", ".qml", ".tab", ".rpb", ".imd"),
)
_DOCUMENTS = (".txt", ".yaml", ".yml", ".json", ".md", ".html", ".csv", ".pdf", ".ini", ".db", ".log", ".py", ".sh")


# ---------------------------------------------------------------------------------------------------------------------
# Find
# ---------------------------------------------------------------------------------------------------------------------


def find_split(
    root: str | Path,
    *,
    classes: Sequence[str],
    images: str = "images",
    masks: str = "labels",
    labelled: Sequence[str] | None = None,
    unlabelled: Sequence[str] | None = None,
    validation: Sequence[str] | None = None,
    scene_pattern: str | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
    label_map: LabelMap | None = None,
) -> DataSplit:
    r"""Find the images and masks of a data set under `root`; opens no image.

    An entry of `labelled`, `unlabelled` and `validation` is one of:
      - a glob under the images folder: `tile[1-6]_*.jpg`, `**/*.png`, or just a file name;
      - a folder, absolute or under `root`: every image in it and below;
      - a `.txt` list, absolute or under `root`: "image" or "image mask" per line, under `root` or its images (masks)
        folder. The mask column of an unlabelled list is never looked at.

    The mask of an image has its name, with any image suffix, at the same place below the masks folder. Where names
    differ, give globs: with `data/*_sat.jpg` and `data/*_mask.png`, what `*` stands for is the same in both names.

    Args:
        root: Folder of the data set.
        classes: Class names; a mask pixel is an index into them, or 255 without a label.
        images: Images folder, or glob of the images, under `root`.
        masks: Masks folder, or glob of the masks, under `root`.
        labelled: Entries; None takes every image with a mask that validation leaves.
        unlabelled: Entries; None takes every image that is neither labelled nor of a validation scene.
        validation: Entries; None holds out whole scenes of the labelled images (see `validation_fraction`); those
            scenes are then also taken out of `labelled` and `unlabelled`.
        scene_pattern: Regular expression, searched for in the path below the images folder; its first group is the
            scene, for example `(tile\d+)_part`. None: every image is a scene.
        validation_fraction: Share of the labelled images, in (0, 1), to hold out when `validation` is None.
        seed: Draws the scenes that are held out.
        label_map: What the values in the masks mean; None where they are class ids, and 255 without a label.

    Raises:
        DataError: No images; an entry that matches nothing; a listed file that does not exist; a name that the scene
            pattern does not match; no way to choose validation images.
    """
    folder = _Folder(Path(root), images, masks, scene_pattern, label_map)
    measured = [] if validation is None else folder.collect(validation, "validation")
    held_out = {sample.scene for sample in measured}
    if labelled is None:
        with_mask = [s for s in folder.everything() if s.has_mask]
        folder.require_pairs(with_mask)
        taught = [s for s in with_mask if s.scene not in held_out]
    else:
        taught = folder.collect(labelled, "labelled")
    pool = None if unlabelled is None else folder.collect(unlabelled, "unlabelled")
    if validation is None:
        held_out = _draw_scenes(taught, validation_fraction, seed)
        measured = [s for s in taught if s.scene in held_out]
        taught = [s for s in taught if s.scene not in held_out]
        pool = None if pool is None else [s for s in pool if s.scene not in held_out]
    if pool is None:
        known = {sample.image for sample in taught}
        pool = [s for s in folder.everything() if s.image not in known and s.scene not in held_out]
    without_masks = tuple(Sample(s.image, None, s.scene) for s in pool)
    unused, lone_masks = folder.unused([*taught, *pool, *measured])
    return DataSplit(tuple(classes), tuple(taught), without_masks, tuple(measured), unused, lone_masks)


class _Folder:
    """The files of one data set folder, listed once."""

    def __init__(
        self, root: Path, images: str, masks: str, scene_pattern: str | None, label_map: LabelMap | None
    ) -> None:
        self.root = normal(root.expanduser().absolute())
        self.image_names, self.mask_names = _names(self.root, images), _names(self.root, masks)
        self.images_dir, self.masks_dir = self.image_names.folder, self.mask_names.folder
        self.scene_pattern, self.label_map = scene_pattern, label_map
        self._found_scenes: dict[Path, str | None] = {}
        if not self.images_dir.is_dir():
            raise DataError(
                f"There is no images folder {self.images_dir}; expected the images of the data set in it. Check the "
                "root folder and the name of its images folder."
            )
        self.masks = self._list_masks()
        self.images = [path for path in _files_of(self.image_names) if not self._is_mask(path)]
        if not self.images:
            glob = self.image_names.glob
            raise DataError(
                f"{self.images_dir} holds no image{f' that {glob} matches' if glob else ''}; expected files ending in "
                f"{', '.join(IMAGE_SUFFIXES)}."
            )

    def _list_masks(self) -> dict[str, Path]:
        """Map what a mask shares with its image to the path of the mask."""
        masks: dict[str, Path] = {}
        for path in _files_of(self.mask_names):
            twin = masks.setdefault(self.mask_names.key(path) or "", path)
            if twin != path:
                raise DataError(f"{twin} and {path} are both masks of the same image; expected one. Move one away.")
        return masks

    def unused(self, samples: Sequence[Sample]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Files that belong to none of the samples, and those of them that are masks without an image."""
        images = {path_of(sample.image) for sample in samples}
        keys = {self.image_names.key(path) for path in (*self.images, *images)}
        masks = {path_of(sample.mask) for sample in samples if sample.mask is not None}
        lone = tuple(path for key, path in self.masks.items() if key not in keys and path not in masks)
        others = {
            path
            for folder in {self.images_dir, self.masks_dir}
            # The root of a data set holds much else.
            for path in (folder.glob("*") if folder == self.root else folder.rglob("*"))
            if _may_be_data(path)
        }
        idle = set(self.images) - images
        return tuple(sorted({*lone, *idle, *others})), tuple(sorted(lone))

    def require_pairs(self, with_mask: Sequence[Sample]) -> None:
        """Raise DataError where there are masks, and none of them belongs to an image."""
        if with_mask or not self.masks:
            return
        masks = list(self.masks.values())
        stems = [path.relative_to(self.images_dir).with_suffix("").as_posix() for path in self.images]
        lone = [path.relative_to(self.masks_dir).with_suffix("").as_posix() for path in masks]
        nested = any("/" in stem for stem in (*stems, *lone))
        globs = [
            f"images: {of_images.glob(self._below(self.images_dir), self.images[0].suffix, nested=nested)} and "
            f"masks: {of_masks.glob(self._below(self.masks_dir), masks[0].suffix, nested=nested)}"
            for of_images, of_masks in common_affixes(stems, lone)
        ]
        raise DataError(
            f"None of the {_count(self.images, 'image')}, such as {self.images[0].name}, has one of the "
            f"{_count(masks, 'mask')}, such as {masks[0].name}; expected masks named as their images. "
            + (f"Give globs: {' or '.join(globs)}." if globs else "Rename them, or give globs of both.")
        )

    def _below(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix() if folder.is_relative_to(self.root) else str(folder)

    def everything(self) -> list[Sample]:
        return self._samples((image, None) for image in self.images)

    def collect(self, entries: Sequence[str], part: str) -> list[Sample]:
        """Resolve the entries of one part of the split, in their order, every image once."""
        if isinstance(entries, str):
            raise DataError(f'{part} is the text "{entries}"; expected a list of entries, such as ["{entries}"].')
        found: dict[Path, Path | None] = {}
        for entry in entries:
            pairs = self._resolve(entry)
            if not pairs:
                raise DataError(
                    f'The {part} entry "{entry}" matches no image; expected a glob under {self.images_dir} (it holds '
                    f"{some([p.relative_to(self.images_dir) for p in self.images])}), a folder, or a .txt list."
                )
            for image, mask in pairs:
                found.setdefault(image, mask)
        return self._samples(found.items())

    def _resolve(self, entry: str) -> list[tuple[Path, Path | None]]:
        path = normal(self.root / entry)
        if path.suffix == ".txt":
            return self._read_list(path)
        if path.is_dir():
            return [(image, None) for image in _images_in(path) if not self._is_mask(image)]
        if Path(entry).is_absolute():
            return [(path, None)] if path.is_file() else []
        try:
            matches = sorted(self.images_dir.glob(plain(entry)))
        except (ValueError, NotImplementedError) as error:
            raise DataError(f'The entry "{entry}" is no glob ({error}); expected one such as tile1_*.png.') from error
        return [(image, None) for image in matches if _is_image(image) and not self._is_mask(image)]

    def _read_list(self, path: Path) -> list[tuple[Path, Path | None]]:
        if not path.is_file():
            raise DataError(f"There is no list {path}; expected a text file with one image per line.")
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8 text ({error}); expected one image per line. Save it as UTF-8."
            ) from error
        pairs, missing = [], []
        for line in filter(None, lines):
            words = line.split()
            whole = self._locate(line, self.images_dir)  # a single name may hold spaces
            image = whole or self._locate(words[0], self.images_dir)
            if image is None:
                missing.append(words[0])
                continue
            has_mask_column = whole is None and len(words) == 2
            pairs.append((image, self._listed_mask(words[1]) if has_mask_column else None))
        if missing:
            raise DataError(
                f"{path} names {_count(missing, 'image')} that exist neither under {self.root} nor under "
                f"{self.images_dir}: {some(missing)}. Check the root folder, or correct the list."
            )
        return pairs

    def _locate(self, name: str, folder: Path) -> Path | None:
        candidates = (normal(base / name) for base in (self.root, folder))
        return next((path for path in candidates if _is_file(path)), None)

    def _listed_mask(self, name: str) -> Path:
        return self._locate(name, self.masks_dir) or self.root / name

    def _samples(self, pairs: Iterable[tuple[Path, Path | None]]) -> list[Sample]:
        samples, unmatched = [], []
        found = [(image, listed_mask, self._place(image)) for image, listed_mask in pairs]
        scenes = self._scenes([place for _, _, place in found])
        for image, listed_mask, place in found:
            scene = scenes[place]
            key = self.image_names.key(image) or place.with_suffix("").as_posix()
            mask = listed_mask or self.masks.get(key) or self.masks_dir / f"{place.with_suffix('')}.*"
            if scene is None:
                unmatched.append(place)
            else:
                samples.append(Sample(image, mask, scene, self.label_map))
        if unmatched:
            raise DataError(
                f"The scene pattern {self.scene_pattern!r} finds no scene in {_count(unmatched, 'image name')}: "
                f"{some(unmatched)}. Give a regular expression whose first group is the scene."
            )
        return samples

    def _place(self, image: Path) -> Path:
        """Where an image lies below the images folder, or else below the root folder, or else in the file system."""
        base = next(base for base in (self.images_dir, self.root, Path(image.anchor)) if image.is_relative_to(base))
        return image.relative_to(base)

    def _scenes(self, places: Sequence[Path]) -> dict[Path, str | None]:
        """Find the scenes of images, and of all that are known at once: a search starts a process."""
        if self.scene_pattern is None:
            return {place: place.with_suffix("").as_posix() for place in places}
        if not self._found_scenes.keys() >= set(places):
            unknown = sorted({*places, *map(self._place, self.images)} - self._found_scenes.keys())
            try:
                found = first_groups(self.scene_pattern, [place.as_posix() for place in unknown])
            except PatternError as error:
                raise DataError(
                    f"The scene pattern {self.scene_pattern[:80]!r} cannot be used: {error}. Give a regular "
                    r"expression whose first group is the scene, such as (tile\d+)_."
                ) from None
            self._found_scenes.update(zip(unknown, found, strict=True))
        return self._found_scenes

    def _is_mask(self, path: Path) -> bool:
        if not self.mask_names.glob and self.masks_dir == self.images_dir:
            return False
        return self.mask_names.key(path) is not None


def _draw_scenes(samples: Sequence[Sample], fraction: float | None, seed: int) -> set[str]:
    """Draw whole scenes until they hold `fraction` of the images; at least one, never all."""
    if fraction is None or not 0 < fraction < 1:
        raise DataError(
            f"No validation images are named and validation_fraction is {fraction}; name the validation images, or "
            "give the share of the labelled images to hold out, between 0 and 1."
        )
    if not samples:
        raise DataError(
            "No image has a mask, so that none can be held out for validation; expected masks named as their images. "
            "Check the masks folder, or describe another one in dataset.yaml."
        )
    counts = {scene: 0 for scene in sorted({sample.scene for sample in samples})}
    for sample in samples:
        counts[sample.scene] += 1
    if len(counts) < 2:
        raise DataError(
            f"The {_count(samples, 'labelled image')} belong to {_count(counts, 'scene')}; expected at least two, to "
            "hold one out for validation. Check scene_pattern, or name the validation images."
        )
    drawn: set[str] = set()
    for scene in np.random.default_rng(seed).permutation(list(counts))[:-1]:
        drawn.add(str(scene))
        if sum(counts[s] for s in drawn) >= fraction * len(samples):
            break
    return drawn


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _may_be_data(path: Path) -> bool:
    """Whether a file that is not read may have been meant as an image or a mask."""
    is_other = path.suffix.lower() not in (*IMAGE_SUFFIXES, *_SIDECARS, *_DOCUMENTS) and path.suffix != ""
    return is_other and not path.name.startswith(".") and path.is_file()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is longer than any file's
        return False


def _names(root: Path, text: str) -> Names:
    try:
        return Names(root, text)
    except GlobError as error:
        raise DataError(f'"{text}" cannot be used ({error}); expected a folder or a glob such as *_sat.jpg.') from error


def _files_of(names: Names) -> list[Path]:
    return [path for path in _images_in(names.folder) if names.key(path) is not None]


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_image(path))


# ---------------------------------------------------------------------------------------------------------------------
# Check
# ---------------------------------------------------------------------------------------------------------------------


def check_split(split: DataSplit, reading: Reading, *, decode_unlabelled: bool = True) -> list[str]:
    """Decode every file of a split, and refuse before training what would break or spoil it.

    Args:
        split: The split to check.
        reading: Bands that the model takes, and what is known of the values.
        decode_unlabelled: Decode the unlabelled images too, under a progress bar; False trusts them.

    Returns:
        Warnings, one text for each kind: classes never labelled or never measured, labels where the image holds no
        data, scenes on both sides, files that are not used, dark 16-bit images and so on.

    Raises:
        DataError: An empty labelled or validation part, or one without any label; validation images among the others;
            a missing mask, or one of another size, elsewhere on the ground or with values that no class has; files
            that do not decode; another number of bands. One kind of problem per error.
    """
    return _checked(Inspection(split, reading, decode_unlabelled=decode_unlabelled, strict=True))


def check_labelled(samples: Sequence[Sample], classes: Sequence[str], reading: Reading) -> list[str]:
    """Decode images with masks, as for an evaluation; warnings and errors as of `check_split`."""
    split = DataSplit(tuple(classes), (), (), tuple(samples))
    return _checked(Inspection(split, reading, needed=("validation",), strict=True))


def _checked(inspection: Inspection) -> list[str]:
    inspection.refuse_errors()
    return inspection.warnings


def _count(items: Any, noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")


__all__ = [
    "DataError",
    "DataSplit",
    "Sample",
    "check_labelled",
    "check_split",
    "count_class_pixels",
    "find_split",
    "read_labels",
    "read_sample",
]
