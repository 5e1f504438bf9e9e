"""Drawing a split: which images get labels, which are held out to measure, and which must not be torn apart."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..raster.image import FileWindow
from .lists import Line, write_files
from .samples import DataError, DataSplit, Sample, path_of
from .wording import some


@dataclass(frozen=True)
class Blocks:
    r"""Square blocks of neighbouring tiles, from the positions in the names of the images.

    Attributes:
        pattern: Regular expression, searched for in the path below the images folder. Named groups: `x` and `y`, or
            `column` and `row` (whole numbers), and `scene` where every scene counts from its own corner: without it
            all tiles lie on one grid. For `6_14_4608_512_5120_1024.png`: `(?P<scene>\d+_\d+)_(?P<x>\d+)_(?P<y>\d+)_`.
        tiles: Tiles on one side of a block.
        step: From one tile to the next, in the units of the names: 1 for columns and rows, 512 for positions in px of
            tiles of 512 px. Tiles not further apart than that, in both directions, are neighbours.
    """

    pattern: str
    tiles: int
    step: int = 1

    def __post_init__(self) -> None:
        """Refuse empty blocks and patterns without a position."""
        if self.tiles < 1 or self.step < 1:
            raise DataError(f"Blocks of {self.tiles} tiles with a step of {self.step}; expected at least 1 for both.")
        groups = set(re.compile(self.pattern).groupindex)
        if not ({"x", "y"} <= groups or {"column", "row"} <= groups):
            raise DataError(
                f"The tile pattern {self.pattern!r} names the groups {sorted(groups)}; expected x and y, or column "
                r"and row, such as (?P<column>\d+)_(?P<row>\d+)."
            )


Grouping: TypeAlias = Literal["tile", "scene"] | Blocks
"""What belongs together: nothing but the image itself, the images of one `Sample.scene`, or blocks of neighbours."""


@dataclass(frozen=True)
class Leaks:
    """How much of the training images validation has seen already.

    Attributes:
        unit: "tile", "scene" or "block".
        shared: The units with images on both sides.
        training_units: How many units have training images.
        validation_units: How many units have validation images.
        leaking_images: Training images of shared units or, with blocks, next to a validation tile.
        training_images: All training images, labelled and unlabelled.
    """

    unit: str
    shared: tuple[str, ...]
    training_units: int
    validation_units: int
    leaking_images: int
    training_images: int

    def __bool__(self) -> bool:
        """Tell whether any training image leaks."""
        return self.leaking_images > 0

    def __str__(self) -> str:
        """Say it in one sentence."""
        return (
            f"{len(self.shared)} of {self.validation_units} validation {self.unit}s also among the "
            f"{self.training_units} of training; {self.leaking_images} of {self.training_images} training images are "
            "neighbours of validation images" + (", so that validation flatters the model." if self else ".")
        )


# ---------------------------------------------------------------------------------------------------------------------
# Draw
# ---------------------------------------------------------------------------------------------------------------------


def draw_split(
    samples: Sequence[Sample],
    *,
    classes: Sequence[str],
    fraction: float | None = None,
    count: int | None = None,
    seed: int,
    group: Grouping = "scene",
    labels_by: Grouping = "tile",
    validation_fraction: float | None = None,
    class_pixels: Mapping[Path | FileWindow, Sequence[int]] | None = None,
    images_dir: str | Path | None = None,
) -> DataSplit:
    """Draw validation images and labelled images from a pool; the rest of the training images is unlabelled.

    Validation takes whole groups, until it has its share; with blocks, the training tiles next to a validation tile
    are in no part of the split. Labels are drawn from what is left. Both draws start with a unit for each class, the
    rarest class first, and go on with units that bring the shares of the classes near to those of the pool: see
    `_rank`. So a larger fraction contains a smaller one of the same seed and validation, and as many labelled units as
    there are classes are enough to have all of them. Validation never takes the last images of a class away from
    training.

    Args:
        samples: The pool. An image without a mask is unlabelled, or in no part if its group is held out.
        classes: Class names, for the split.
        fraction: Share of the training images with a mask that are labelled, in (0, 1]; rounded down, at least 1.
        count: Number of labelled images, instead of `fraction`. Whole units of `labels_by` are taken until it is
            reached, so that with scenes or blocks there may be more.
        seed: Decides both draws. The order of `samples` and the place of the folder do not matter.
        group: What is never torn apart between training and validation.
        labels_by: In what units labels are drawn: single images, or whole scenes or blocks.
        validation_fraction: Share of the images with a mask that are held out, in (0, 1); None holds out none.
        class_pixels: Pixels per class of each image with a mask, by image path; None draws without looking at classes.
        images_dir: The names of images start below this folder; None: below the folder that all of them share.

    Raises:
        DataError: Not exactly one of `fraction` and `count`, or out of range; no image with a mask; no pixel counts of
            some image; a name without a position; nothing left for training or for validation.
    """
    ordered = sorted(samples, key=_order)
    names = _names(ordered, images_dir)
    has_mask = np.array([sample.has_mask for sample in ordered], dtype=bool)
    if not has_mask.any():
        raise DataError(f"None of the {len(ordered)} images has a mask; expected some to draw labels from.")
    holds = _holdings(ordered, has_mask, class_pixels, len(classes))
    label_seed, validation_seed = np.random.SeedSequence(seed).spawn(2)

    units = _Units(ordered, names, group)
    held_out, lost = _hold_out(units, holds, has_mask, validation_fraction, np.random.default_rng(validation_seed))
    training = [i for i in range(len(ordered)) if i not in lost]
    with_mask = [i for i in training if has_mask[i]]
    target = _target(fraction, count, len(with_mask))
    ranked = _rank(_Units(ordered, names, labels_by).among(with_mask), holds, np.random.default_rng(label_seed))
    labelled: set[int] = set()
    for unit in ranked:
        if len(labelled) >= target:
            break
        labelled.update(unit)
    return DataSplit(
        tuple(classes),
        tuple(ordered[i] for i in sorted(labelled)),
        tuple(Sample(ordered[i].image, None, ordered[i].scene) for i in training if i not in labelled),
        tuple(ordered[i] for i in sorted(held_out) if has_mask[i]),
    )


def leaks(split: DataSplit, group: Grouping = "scene", *, images_dir: str | Path | None = None) -> Leaks:
    """Count what stands on both sides of training and validation; `images_dir` as in `draw_split`.

    Raises:
        DataError: A name without a position, with blocks.
    """
    training = {sample.image: sample for sample in split.labelled + split.unlabelled}
    ordered = [*training.values(), *split.validation]
    units = _Units(ordered, _names(ordered, images_dir), group)
    first_validation = len(training)
    of_training = {units.keys[i] for i in range(first_validation)}
    of_validation = {units.keys[i] for i in range(first_validation, len(ordered))}
    shared = of_training & of_validation
    leaking = {i for i in range(first_validation) if units.keys[i] in shared}
    leaking |= {j for i in range(first_validation, len(ordered)) for j in units.neighbours(i) if j < first_validation}
    return Leaks(
        group if isinstance(group, str) else "block",
        tuple(sorted(_text(key) for key in shared)),
        len(of_training),
        len(of_validation),
        len(leaking),
        len(training),
    )


def class_shares(split: DataSplit, class_pixels: Mapping[Path | FileWindow, Sequence[int]]) -> list[str]:
    """Lines of a table: the share of every class among the labelled pixels of labelled and of validation images."""
    columns = []
    for samples in (split.labelled, split.validation):
        pixels = np.zeros(len(split.classes))
        for sample in samples:
            pixels += class_pixels[sample.image]
        columns.append(100 * pixels / max(pixels.sum(), 1))
    width = max(len(name) for name in ("class", *split.classes))
    rows = zip(split.classes, *columns, strict=True)
    return [
        f"{'class':<{width}}  labelled  validation",
        *(f"{name:<{width}}  {labelled:6.2f} %    {validation:6.2f} %" for name, labelled, validation in rows),
    ]


def write_split(split: DataSplit, folder: str | Path, root: str | Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write `labelled.txt`, `unlabelled.txt` and, if there are any, `val.txt`; all of them or none.

    A line is "image mask", relative to `root` (absolute where the file is not under it); an unlabelled line has no
    mask. With `force`, a `val.txt` of before is removed when the split has no validation images.

    Returns:
        The paths of the lists.

    Raises:
        DataError: A list exists and `force` is not set; a name with blanks.
    """
    folder, root = Path(folder), Path(root).expanduser().absolute()
    parts = {"labelled.txt": split.labelled, "unlabelled.txt": split.unlabelled, "val.txt": split.validation}
    files = {folder / name: [_line(s, root) for s in samples] for name, samples in parts.items()}
    if not split.validation:
        del files[folder / "val.txt"]
        stale = folder / "val.txt"
        if stale.exists() and not force:
            raise DataError(
                f"{stale} exists, and this split has no validation images. Name another folder, or force it."
            )
        write_files(dict(files), force=force)
        stale.unlink(missing_ok=True)
    else:
        write_files(dict(files), force=force)
    return tuple(files)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the draw. An image is its place in the sorted pool, a unit is the places that are taken together.
# ---------------------------------------------------------------------------------------------------------------------

_CANDIDATES = 32
"""Units among which the best is taken: enough to balance the classes, few enough that another seed draws others."""

_Key: TypeAlias = tuple[str | int, ...]


class _Units:
    """The units of a grouping, and which images are neighbours although they are of two units."""

    def __init__(self, samples: Sequence[Sample], names: Sequence[str], group: Grouping) -> None:
        self.keys: list[_Key]
        self._positions: list[tuple[str, int, int]] = []
        self._cells: dict[_Key, list[int]] = defaultdict(list)
        self._step = 1
        if isinstance(group, Blocks):
            self._step = group.step
            self._positions = _positions(names, group)
            side = group.tiles * group.step
            self.keys = [(scene, x // side, y // side) for scene, x, y in self._positions]
            for i, (scene, x, y) in enumerate(self._positions):
                self._cells[scene, x // self._step, y // self._step].append(i)
        elif group == "scene":
            self.keys = [(sample.scene,) for sample in samples]
        else:
            self.keys = [(name,) for name in names]

    def among(self, places: Iterable[int]) -> list[list[int]]:
        """Give the units, each cut down to `places`, in the order of their keys."""
        members: dict[_Key, list[int]] = defaultdict(list)
        for i in places:
            members[self.keys[i]].append(i)
        return [members[key] for key in sorted(members)]

    def neighbours(self, i: int) -> list[int]:
        """Give the places of the tiles that touch or overlap a tile, itself included; none without positions."""
        if not self._positions:
            return []
        scene, x, y = self._positions[i]
        column, row = x // self._step, y // self._step
        near = (
            j for dx in (-1, 0, 1) for dy in (-1, 0, 1) for j in self._cells.get((scene, column + dx, row + dy), ())
        )
        return [
            j
            for j in near
            if abs(self._positions[j][1] - x) <= self._step and abs(self._positions[j][2] - y) <= self._step
        ]


def _hold_out(
    units: _Units,
    holds: NDArray[np.int64],
    has_mask: NDArray[np.bool_],
    fraction: float | None,
    rng: np.random.Generator,
) -> tuple[set[int], set[int]]:
    """Draw whole units; return the images in them, and all images that training loses (those and their neighbours)."""
    held_out: set[int] = set()
    lost: set[int] = set()
    if fraction is None:
        return held_out, lost
    if not 0 < fraction < 1:
        raise DataError(f"validation_fraction is {fraction}; expected a share between 0 and 1.")
    candidates = [unit for unit in units.among(range(len(has_mask))) if has_mask[unit].any()]
    # Of every class, how many images training still has; the last column counts the images with a mask.
    present = np.column_stack([holds > 0, has_mask]).astype(np.int64)
    left = present.sum(axis=0)
    occurs = left > 0
    taken = 0
    for unit in _rank(candidates, holds, rng):
        if taken >= fraction * has_mask.sum():
            break
        loses = {j for i in unit for j in (i, *units.neighbours(i))} - lost
        remaining = left - present[sorted(loses)].sum(axis=0)
        if (remaining[occurs] > 0).all():
            held_out.update(unit)
            taken += int(has_mask[unit].sum())
            lost |= loses
            left = remaining
    if not held_out:
        raise DataError(
            f"No validation images can be held out: the {has_mask.sum()} images with a mask form {len(candidates)} "
            "groups, and without any one of them training would lose its last image, or its last one of some class. "
            "Use smaller groups, or name the validation images."
        )
    return held_out, lost


def _rank(units: Sequence[list[int]], holds: NDArray[np.int64], rng: np.random.Generator) -> list[list[int]]:
    """Order units so that the classes of the first ones have the shares that they have in all.

    One unit for each class comes first, the rarest class before the others; then always, of the next few of a random
    order, the one with which the shares of the classes are nearest to those of all units.
    """
    pixels = np.array([holds[unit].sum(axis=0) for unit in units], np.float64).reshape(len(units), holds.shape[1])
    everything = pixels.sum(axis=0)
    wanted = everything / max(everything.sum(), 1)
    ranked: list[int] = []
    drawn = np.zeros(holds.shape[1])

    def take(candidates: Sequence[int]) -> None:
        nonlocal drawn
        sums = drawn + pixels[list(candidates)]
        shares = sums / np.maximum(sums.sum(axis=1, keepdims=True), 1)
        # As of a chi-square test: a class of one per cent counts as much as one of half of the pixels.
        distances = ((shares - wanted) ** 2 / np.where(wanted > 0, wanted, 1)).sum(axis=1)
        best = candidates[int(distances.argmin())]
        ranked.append(best)
        drawn = drawn + pixels[best]

    for label in np.argsort((pixels > 0).sum(axis=0), kind="stable"):
        if everything[label] and not drawn[label]:
            holding = int((pixels[:, label] > 0).sum())
            share = pixels[:, label] / everything[label]
            take(rng.choice(len(units), min(_CANDIDATES, holding), replace=False, p=share).tolist())
    first = set(ranked)
    waiting = [int(i) for i in rng.permutation(len(units)) if i not in first]
    while waiting:
        take(waiting[:_CANDIDATES])
        waiting.remove(ranked[-1])
    return [units[i] for i in ranked]


def _holdings(
    samples: Sequence[Sample],
    has_mask: NDArray[np.bool_],
    class_pixels: Mapping[Path | FileWindow, Sequence[int]] | None,
    num_classes: int,
) -> NDArray[np.int64]:
    """Give (images, classes) pixel counts, zero without a mask; without counts there are no columns."""
    if class_pixels is None:
        return np.zeros((len(samples), 0), np.int64)
    holds = np.zeros((len(samples), num_classes), np.int64)
    for i in np.flatnonzero(has_mask).tolist():
        counts = class_pixels.get(samples[i].image)
        if counts is None or len(counts) != num_classes:
            found = "none" if counts is None else str(len(counts))
            raise DataError(
                f"The pixel counts of {samples[i].image} are of {found} classes; expected {num_classes} for every "
                "image with a mask."
            )
        holds[i] = counts
    return holds


def _target(fraction: float | None, count: int | None, available: int) -> int:
    if (fraction is None) == (count is None):
        raise DataError(f"fraction is {fraction} and count is {count}; expected exactly one of the two.")
    if count is not None:
        if not 1 <= count <= available:
            raise DataError(f"count is {count}; expected 1 to {available}, the training images with a mask.")
        return count
    assert fraction is not None
    if not 0 < fraction <= 1:
        raise DataError(f"fraction is {fraction}; expected a share above 0, up to 1.")
    return max(1, math.floor(fraction * available + 1e-9))  # 0.29 * 100 is 28.999…


def _positions(names: Sequence[str], blocks: Blocks) -> list[tuple[str, int, int]]:
    pattern = re.compile(blocks.pattern)
    column, row = ("x", "y") if "x" in pattern.groupindex else ("column", "row")
    positions, unmatched = [], []
    for name in names:
        match = pattern.search(name)
        if match is None:
            unmatched.append(name)
            continue
        groups = match.groupdict()
        try:
            positions.append((groups.get("scene") or "", int(groups[column]), int(groups[row])))
        except (TypeError, ValueError):
            unmatched.append(name)
    if unmatched:
        raise DataError(
            f"The tile pattern {blocks.pattern!r} finds no whole-numbered position in {some(unmatched)}. "
            f"Give a regular expression with the groups {column} and {row} that fits every name."
        )
    return positions


def _names(samples: Sequence[Sample], images_dir: str | Path | None) -> list[str]:
    if not samples:
        raise DataError("There is no image to draw from; expected at least one.")
    parents = [str(path_of(sample.image).parent) for sample in samples]
    base = Path(os.path.commonpath(parents) if images_dir is None else Path(images_dir).expanduser().absolute())
    return [_relative(sample.image, base) for sample in samples]


def _order(sample: Sample) -> tuple[Path, str]:
    return path_of(sample.image), str(sample.image)


def _line(sample: Sample, root: Path) -> Line:
    for source in (sample.image, sample.mask):
        if isinstance(source, FileWindow):
            raise DataError(f"{source} is a window of a file, which a list cannot name; expected whole files.")
    return Line(_relative(sample.image, root), None if sample.mask is None else _relative(sample.mask, root))


def _relative(source: Path | FileWindow, root: Path) -> str:
    """The place of a file below a folder, with the rectangle of a window behind it."""
    path = path_of(source)
    place = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return place + str(source).removeprefix(str(path))


def _text(key: _Key) -> str:
    return " ".join(str(part) for part in key if part != "")
