"""From a downloaded public data set to images/ and labels/ of class ids, every mask checked against its encoding."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .facts import DatasetFacts, Protocol, Source, Tiling, dataset_facts
from .folders import DataError
from .images import IGNORE, ImageError, read_image, read_raw_mask, write_image, write_mask
from .label_map import LabelMapError
from .wording import SHOWN, some

RECORD = "prepared.json"
"""The file that marks a finished folder, and says what it is."""


@dataclass(frozen=True)
class _Pair:
    """An image of the download, its mask, and the groups of its name."""

    image: Path
    mask: Path
    groups: dict[str, str]


def prepare(
    name: str, protocol: str, source_dir: str | Path, target_dir: str | Path, *, force: bool = False
) -> dict[str, Any]:
    """Turn a downloaded data set into `images/*.png` and `labels/*.png`, cut as the protocol wants it.

    The folder appears under its name when it is complete, and not before; an interrupted run is started again. One
    scene is held in memory at a time.

    Args:
        name: Data set, such as "LoveDA"; see `dataset_facts`.
        protocol: Protocol, such as "RS-MTDF".
        source_dir: The unpacked download, or a folder that holds it.
        target_dir: The folder to make.
        force: Replace what an earlier run of this function made there; nothing else is ever replaced.

    Returns:
        The record, as in `prepared.json`: classes, palette, pixels per class, protocol, licence, citation.

    Raises:
        DataError: No such data set or protocol; the target exists, or lies in the download; the download is
            incomplete or of another layout; masks hold values that the encoding does not know (files and values are
            named); files that cannot be read or are of another size.
    """
    facts = dataset_facts(name)
    return prepare_protocol(facts, facts.protocol(protocol), source_dir, target_dir, force=force)


def prepare_protocol(
    facts: DatasetFacts, protocol: Protocol, source_dir: str | Path, target_dir: str | Path, *, force: bool = False
) -> dict[str, Any]:
    """Do the work of `prepare` for a record of one's own."""
    target = Path(target_dir).expanduser().absolute()
    folder = Path(source_dir).expanduser().absolute()
    _check_target(target, folder, force)
    source, pairs = _find_source(protocol, folder)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an interrupted run
    try:
        for kind in ("images", "labels"):
            (part / kind).mkdir(parents=True)
        tiles, pixels = _write_tiles(source, pairs, part, len(protocol.classes))
        record = _record(facts, protocol, tiles, pixels)
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            part.rename(target)
            shutil.rmtree(old)
        else:
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return record


def windows(tiling: Tiling, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Give (top, left) of every tile of a scene in px, row by row.

    Raises:
        DataError: With border "shift", a scene smaller than a tile.
    """
    side = tiling.tile_px
    if tiling.border == "shift" and min(height, width) < side:
        raise DataError(f"The scene is {width}x{height}; expected at least the {side}x{side} of one tile.")
    for row in range(-(-height // side)):
        for column in range(-(-width // side)):
            top, left = row * side, column * side
            yield (min(top, height - side), min(left, width - side)) if tiling.border == "shift" else (top, left)


# ---------------------------------------------------------------------------------------------------------------------
# Find
# ---------------------------------------------------------------------------------------------------------------------


def _check_target(target: Path, source: Path, force: bool) -> None:
    if target.is_relative_to(source):
        raise DataError(f"{target} lies in the download {source}; expected a folder outside of it. Name another one.")
    if not target.exists():
        return
    if not force:
        raise DataError(f"{target} exists; expected a new folder. Name another one, or force it.")
    if not (target / RECORD).is_file():
        raise DataError(
            f"{target} exists and holds no {RECORD}, so it was not made here; only prepared folders are replaced. Name "
            "another folder, or move this one away."
        )


def _find_source(protocol: Protocol, folder: Path) -> tuple[Source, list[_Pair]]:
    """Find out in which of the known layouts the data are, and list them all."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}; expected the unpacked download.")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sources = [source for source in (protocol.original, protocol.packaged) if source is not None]
    found = [(source, pairs) for source in sources if (pairs := _match(source, folder, files))]
    if len(found) != 1:
        layouts = " or ".join(source.images for source in sources)
        what = "no image" if not found else "images of two layouts"
        raise DataError(
            f"{folder} holds {what} of the protocol {protocol.name}; expected files like {layouts} (regular "
            "expressions). Unpack the whole download there, and only that."
        )
    source, pairs = found[0]
    if source.count is not None and len(pairs) != source.count:
        raise DataError(
            f"{folder} holds {len(pairs)} images; expected the {source.count} of the protocol {protocol.name}, whose "
            "lists name them all. Complete the download, or take what is too much away."
        )
    _check_masks(source, folder, pairs)
    return source, pairs


def _match(source: Source, folder: Path, files: list[str]) -> list[_Pair]:
    known = set(files)
    pattern = re.compile(rf"(?P<base>(?:.*/)?)(?:{source.images})")
    pairs = []
    for file in files:
        match = pattern.fullmatch(file)
        if match:
            groups = match.groupdict()
            base = groups.pop("base")
            masks = [base + mask.format(**groups) for mask in source.masks]
            mask = next((mask for mask in masks if mask in known), masks[0])
            pairs.append(_Pair(folder / file, folder / mask, groups))
    return pairs


def _check_masks(source: Source, folder: Path, pairs: list[_Pair]) -> None:
    missing = [pair.mask.relative_to(folder).as_posix() for pair in pairs if not pair.mask.is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks the masks of {len(missing)} of {len(pairs)} images: {some(missing)}. Unpack the masks "
            "next to the images; expected places: " + " or ".join(source.masks) + "."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Write
# ---------------------------------------------------------------------------------------------------------------------


def _write_tiles(source: Source, pairs: list[_Pair], part: Path, num_classes: int) -> tuple[int, NDArray[np.int64]]:
    """Write every tile; after the first wrong file only look for more of them, to name them all in one error."""
    wrong: list[str] = []
    written: dict[str, Path] = {}
    pixels = np.zeros(num_classes, np.int64)
    for pair in tqdm(pairs, desc="Preparing", unit="image", disable=None):
        try:
            labels = source.encoding.apply(read_raw_mask(pair.mask))
            if wrong:
                continue
            image = read_image(pair.image)
            _check_size(pair, source.tiling, image, labels)
        except LabelMapError as error:
            wrong.append(f"{pair.mask}: {error}")
            continue
        except (ImageError, DataError) as error:
            wrong.append(str(error))
            continue
        for name, image_tile, label_tile in _cut(source, pair, image, labels):
            if name in written:
                raise DataError(
                    f"{written[name]} and {pair.image} would both become {name}.png; expected every scene once."
                )
            written[name] = pair.image
            write_image(part / "images" / f"{name}.png", image_tile)
            write_mask(part / "labels" / f"{name}.png", label_tile)
            pixels += np.bincount(label_tile.ravel(), minlength=IGNORE + 1)[:num_classes]
    if wrong:
        more = f" And {len(wrong) - SHOWN} more." if len(wrong) > SHOWN else ""
        raise DataError(
            f"{len(wrong)} of {len(pairs)} images do not fit the protocol, nothing was written. "
            + " ".join(wrong[:SHOWN])
            + more
        )
    return len(written), pixels


def _check_size(pair: _Pair, tiling: Tiling | None, image: NDArray[Any], labels: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    if labels.shape != (height, width):
        raise DataError(
            f"{pair.mask} is {labels.shape[1]}x{labels.shape[0]}; expected {width}x{height} as {pair.image}."
        )
    if tiling and tiling.scene_px not in (None, (height, width)):
        assert tiling.scene_px is not None
        raise DataError(
            f"{pair.image} is {width}x{height}; expected {tiling.scene_px[1]}x{tiling.scene_px[0]}, as the original is."
        )


def _cut(
    source: Source, pair: _Pair, image: NDArray[Any], labels: NDArray[np.uint8]
) -> Iterator[tuple[str, NDArray[Any], NDArray[np.uint8]]]:
    tiling = source.tiling
    if tiling is None:
        yield source.name.format(**pair.groups), image, labels
        return
    height, width = labels.shape
    side = tiling.tile_px
    columns = -(-width // side)
    if tiling.border == "pad":
        below, right = -height % side, -width % side
        image = np.pad(image, ((0, below), (0, right), (0, 0)))
        labels = np.pad(labels, ((0, below), (0, right)), constant_values=tiling.pad_id)
    for i, (top, left) in enumerate(windows(tiling, height, width)):
        place = {"index": i + 1, "row": i // columns, "column": i % columns}
        corners = {"x1": left, "y1": top, "x2": left + side, "y2": top + side}
        name = source.name.format(**pair.groups, **place, **corners)
        window = np.s_[top : top + side, left : left + side]
        yield name, image[window], labels[window]


def _record(facts: DatasetFacts, protocol: Protocol, tiles: int, pixels: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "dataset": facts.title,
        "protocol": protocol.name,
        "images": tiles,
        "classes": list(protocol.classes),
        "palette": [list(colour) for colour in protocol.palette],
        "class_pixels": pixels.tolist(),
        "ignore": IGNORE,
        "bands": facts.bands and list(facts.bands),
        "gsd_m": facts.gsd_m,
        "name_pattern": protocol.name_pattern,
        "licence": facts.licence or "not stated",
        "citation": facts.citation,
        "page": facts.page,
        "note": protocol.note,
    }
