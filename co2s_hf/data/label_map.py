"""From the values in mask files, ids or RGB colours, to training ids. Only what the map names has a meaning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .wording import some

IGNORE = 255
"""The training id of pixels without a label."""

Value = int | tuple[int, int, int]
"""What a pixel of a mask file holds: an id, which may be the index into a palette, or a colour (red, green, blue)."""


class LabelMapError(ValueError):
    """A label map that contradicts itself, or a mask with values that it does not name.

    Attributes:
        unmapped: Pixels of each value that the map does not name; empty where the map itself is wrong.
    """

    def __init__(self, message: str, unmapped: Mapping[Value, int] | None = None) -> None:
        """Keep the counts next to the message."""
        super().__init__(message)
        self.unmapped = dict(unmapped or {})


@dataclass(frozen=True)
class LabelMap:
    """An explicit table from mask values to training ids; ids and colours may stand in one map, for mixed masks.

    Attributes:
        entries: (value, target) pairs; a target is a class id in 0..254, or 255 for pixels without a label.
    """

    entries: tuple[tuple[Value, int], ...]

    def __post_init__(self) -> None:
        """Refuse values named twice, values that no mask can hold and targets out of range."""
        seen: set[Value] = set()
        for value, target in self.entries:
            if isinstance(value, tuple) and (len(value) != 3 or not all(0 <= level <= 255 for level in value)):
                raise LabelMapError(f"The label map names the colour {value}; expected three levels in 0..255.")
            if isinstance(value, int) and not -(2**31) <= value < 2**32:
                raise LabelMapError(f"The label map names an id of {value.bit_length()} bits; expected ids of 32 bits.")
            if value in seen:
                raise LabelMapError(f"The label map names {show_value(value)} twice; expected one target per value.")
            if not 0 <= target <= IGNORE:
                raise LabelMapError(
                    f"The label map sends {show_value(value)} to {target}; expected 0..254, or {IGNORE}."
                )
            seen.add(value)

    @classmethod
    def identity(cls, num_classes: int) -> "LabelMap":
        """Map for masks that hold training ids already: 0 to `num_classes` - 1 to themselves, 255 ignored."""
        return cls(tuple((i, i) for i in (*range(num_classes), IGNORE)))

    @property
    def targets(self) -> dict[Value, int]:
        """Training id of each value."""
        return dict(self.entries)

    def apply(self, mask: NDArray[Any], known: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Translate a mask.

        Args:
            mask: (H, W) integer ids or (H, W, 3) uint8 colours, as in the file.
            known: (H, W), False where the file says that there is no value; None where it always has one.

        Returns:
            (H, W) uint8 training ids, 255 where there is no label.

        Raises:
            LabelMapError: The mask has another shape, or values that the map does not name; they are counted, and
                nothing is put in their place.
        """
        codes = _encode(mask)
        if mask.ndim == 2 and codes.size and codes.min() >= 0 and codes.max() < len(self._byte_targets):
            found = self._byte_targets[codes]  # ids of 8 bits: a tenth of the time of the search below
            if known is not None:
                found[~known] = IGNORE
            if found.min() >= 0:
                return found.astype(np.uint8)
        named, targets = self._colours if mask.ndim == 3 else self._ids
        hidden = np.zeros(codes.shape, np.bool_) if known is None else ~known
        place = np.minimum(np.searchsorted(named, codes), max(named.size - 1, 0))
        if ((named[place] == codes) | hidden).all() if named.size else hidden.all():
            return np.where(hidden, np.uint8(IGNORE), targets[place] if named.size else np.uint8(IGNORE))
        unmapped = self.unmapped(value_counts(mask, known))
        raise LabelMapError(
            f"The mask holds {show_counts(unmapped)}, which the label map does not name; it names "
            f"{some([show_value(value) for value, _ in self.entries]) or 'nothing'}. Add each of them to label_map: "
            "with its class, or with ignore.",
            unmapped,
        )

    def unmapped(self, counts: Mapping[Value, int]) -> dict[Value, int]:
        """Of the pixels of each value, as of `value_counts`, those of values that the map does not name."""
        targets = self.targets
        return {value: pixels for value, pixels in counts.items() if value not in targets}

    def class_pixels(self, counts: Mapping[Value, int]) -> NDArray[np.int64]:
        """Sum the pixels of each value into (256,) pixels of each training id; unmapped values count nowhere."""
        pixels, targets = np.zeros(256, np.int64), self.targets
        for value, count in counts.items():
            if value in targets:
                pixels[targets[value]] += count
        return pixels

    def suspicions(self, counts: Mapping[Value, int], classes: Sequence[str]) -> list[tuple[str, str]]:
        """Recognise the encodings that are most often mistaken.

        Args:
            counts: Pixels of each value over all masks.
            classes: Class names, in the order of their training ids.

        Returns:
            (what looks wrong, what to do) for each: ids lowered twice or not at all (`reduce_zero_label`), and pixels
            without a label that would be trained as a class.
        """
        targets, found = self.targets, []
        learned = targets.get(IGNORE, IGNORE)
        if learned != IGNORE and list(targets.values()).count(learned) > 1:
            found.append(
                (
                    f"id {IGNORE}, the usual mark of pixels without a label, is trained as {classes[learned]}, which "
                    f"other values mean as well ({counts.get(IGNORE, 0)} pixels)",
                    f"Map {IGNORE} to ignore; if it really is {classes[learned]}, give these pixels another id.",
                )
            )
        ids = {value for value in counts if isinstance(value, int)}
        from_zero = {value: target for value, target in targets.items() if isinstance(value, int) and value != IGNORE}
        lowered = len(from_zero) > 1 and from_zero == {0: IGNORE, **{i: i - 1 for i in range(1, len(from_zero))}}
        plain = len(from_zero) > 1 and from_zero == {i: i for i in range(len(from_zero))}
        last = len(from_zero) - 1
        if lowered and last not in ids and {0, IGNORE} <= ids:
            found.append(
                (
                    f"the map lowers every id by one, but the masks hold 0 and {IGNORE} and never {last}: they look "
                    f"lowered already (reduce_zero_label twice), and {classes[0]} would be ignored",
                    f"Map 0 to {classes[0]}, 1 to the next class and so on, and {IGNORE} to ignore.",
                )
            )
        if plain and 0 not in ids and last + 1 in ids:
            found.append(
                (
                    f"the map starts at 0, but the masks hold {last + 1} and never 0: their ids look one too high "
                    f"(reduce_zero_label was not applied), and {classes[1]} would be learned as {classes[0]}",
                    f"Map 1 to {classes[0]}, 2 to the next class and so on, and 0 to ignore.",
                )
            )
        return found

    def binary(self, counts: Mapping[Value, int], classes: Sequence[str]) -> list[tuple[str, str]]:
        """Recognise binary masks of 0 and 255 under a map that ignores 255, so that nothing but one class is learned.

        Args, returns: As of `suspicions`.
        """
        if set(counts) != {0, IGNORE} or self.targets.get(IGNORE) != IGNORE or len(classes) < 2:
            return []
        first = self.targets.get(0, IGNORE)
        background = classes[first] if first != IGNORE else classes[0]
        other = classes[1] if background == classes[0] else classes[0]
        return [
            (
                f"the masks hold 0 ({counts[0]} px) and 255 ({counts[IGNORE]} px) alone, as binary masks do, and 255 "
                f"is ignored, so that nothing but {background} could be learned",
                f"If 255 means {other}, say so in the label_map of a dataset.yaml: `0: {background}`, `255: {other}`; "
                f"`co2s data init FOLDER --classes {background}=0 {other}=255` writes it.",
            )
        ]

    @cached_property
    def _byte_targets(self) -> NDArray[np.int16]:
        """(256,) targets of the ids 0 to 255; -1 of those that the map does not name."""
        table = np.full(256, -1, np.int16)
        for value, target in self.entries:
            if isinstance(value, int) and 0 <= value < len(table):
                table[value] = target
        return table

    @cached_property
    def _ids(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        return _table([(value, target) for value, target in self.entries if isinstance(value, int)])

    @cached_property
    def _colours(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        return _table([(_pack(value), target) for value, target in self.entries if isinstance(value, tuple)])


def value_counts(mask: NDArray[Any], known: NDArray[np.bool_] | None = None) -> dict[Value, int]:
    """Count the pixels of every value of a mask, (H, W) integer ids or (H, W, 3) uint8 colours; other shapes raise.

    Where `known` (H, W) is False, a pixel does not count.
    """
    codes = _encode(mask)
    codes, counts = np.unique(codes if known is None else codes[known], return_counts=True)
    values = [_unpack(int(code)) if mask.ndim == 3 else int(code) for code in codes]
    return dict(zip(values, counts.tolist(), strict=True))


def show_value(value: Value) -> str:
    """Write a value as a person does: `7`, or `#E2A929`."""
    return "#" + "".join(f"{level:02X}" for level in value) if isinstance(value, tuple) else str(value)


def show_counts(counts: Mapping[Value, int]) -> str:
    """Write pixel counts, the most frequent value first: `7 (120 px), 9 (3 px)`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], show_value(item[0])))
    return some([f"{show_value(value)} ({pixels} px)" for value, pixels in ordered])


def _encode(mask: NDArray[Any]) -> NDArray[Any]:
    """Give every pixel one integer."""
    if mask.ndim == 2 and mask.dtype.kind in "bui":
        return mask.astype(np.int64)
    if mask.ndim == 3 and mask.shape[2] == 3 and mask.dtype == np.uint8:
        levels = mask.astype(np.int64)
        return levels[..., 0] << 16 | levels[..., 1] << 8 | levels[..., 2]
    raise LabelMapError(
        f"The mask is a {mask.dtype} array of shape {mask.shape}; expected (H, W) integer ids, or (H, W, 3) uint8 "
        "colours. Export it as one of these."
    )


def _pack(colour: tuple[int, int, int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpack(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _table(pairs: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Sort (code, target) pairs by code, for a binary search."""
    ordered = sorted(pairs)
    return np.array([code for code, _ in ordered], np.int64), np.array([target for _, target in ordered], np.uint8)
