"""From a downloaded public data set to images/ and labels/ of class ids, every mask checked against its encoding."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..raster.errors import RasterError
from ..raster.ids import read_ids
from ..raster.read import read_raster
from ..raster.write import write_image, write_mask
from .facts import DatasetFacts, Protocol, Source, Tiling, dataset_facts
from .journal import Journal, fingerprint, refuse_target
from .label_map import IGNORE, LabelMapError
from .samples import DataError
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

    The folder appears under its name when it is complete, and not before. An interrupted run is resumed: the same call
    goes on behind the last image that was finished, as its progress bar says, and makes the same bytes as an
    uninterrupted one. One scene is held in memory at a time.

    Args:
        name: Data set, such as "LoveDA"; see `dataset_facts`.
        protocol: Protocol, such as "RS-MTDF".
        source_dir: The unpacked download, or a folder that holds it.
        target_dir: The folder to make.
        force: Replace what an earlier run of this function made there, or began there from something else; nothing
            else is ever replaced.

    Returns:
        The record, as in `prepared.json`: classes, palette, pixels per class, protocol, licence, citation.

    Raises:
        DataError: No such data set or protocol; the target exists, or lies in the download; an interrupted run there
            was of another data set, protocol or download, or the download has changed since; the download is
            incomplete or of another layout; masks hold values that the encoding does not know (files and values are
            named); files that cannot be read or are of another size. Of the last three nothing is left behind.
    """
    facts = dataset_facts(name)
    return prepare_protocol(facts, facts.protocol(protocol), source_dir, target_dir, force=force)


def prepare_protocol(
    facts: DatasetFacts, protocol: Protocol, source_dir: str | Path, target_dir: str | Path, *, force: bool = False
) -> dict[str, Any]:
    """Do the work of `prepare` for a record of one's own."""
    target = Path(target_dir).expanduser().absolute()
    folder = Path(source_dir).expanduser().absolute()
    refuse_target(target, RECORD, folder, force=force)
    source, pairs = _find_source(protocol, folder)
    with Journal(target, _task(facts, protocol, source, pairs, folder), force=force) as journal:
        try:
            tiles, pixels = _write_tiles(source, pairs, journal, len(protocol.classes))
        except ValueError:  # the same download would fail again; what stops for other reasons can be continued
            journal.discard()
            raise
        record = _record(facts, protocol, tiles, pixels)
        journal.finish(RECORD, record)
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


def _task(facts: DatasetFacts, protocol: Protocol, source: Source, pairs: list[_Pair], folder: Path) -> dict[str, Any]:
    """Say all that the result depends on."""
    files = [path for pair in pairs for path in (pair.image, pair.mask)]
    return {
        "data set": facts.title,
        "protocol": protocol.name,
        "source": str(folder),
        "encoding and tiling": hashlib.sha256(repr((source, protocol.classes)).encode()).hexdigest()[:16],
        "files": fingerprint(files, folder),
    }


def _write_tiles(source: Source, pairs: list[_Pair], journal: Journal, num_classes: int) -> tuple[int, NDArray[Any]]:
    """Write every tile; after the first wrong file only look for more of them, to name them all in one error."""
    for kind in ("images", "labels"):
        (journal.folder / kind).mkdir(exist_ok=True)
    wrong: list[str] = []
    done = journal.resumed
    written = {name: pair.image for pair, entry in zip(pairs, journal.entries, strict=False) for name in entry["tiles"]}
    desc = "Preparing, resumed" if done else "Preparing"
    for pair in tqdm(pairs[done:], desc=desc, unit="image", initial=done, total=len(pairs), disable=None):
        try:
            ids = read_ids(pair.mask)
            labels = source.encoding.apply(ids.values, ids.known)
            if wrong:
                continue
            image = np.moveaxis(read_raster(pair.image).colours, 0, 2)
            _check_size(pair, source.tiling, image, labels)
        except LabelMapError as error:
            wrong.append(f"{pair.mask}: {error}")
            continue
        except (RasterError, DataError) as error:
            wrong.append(str(error))
            continue
        tiles, pixels = [], np.zeros(num_classes, np.int64)
        for name, image_tile, label_tile in _cut(source, pair, image, labels):
            if name in written:
                raise DataError(
                    f"{written[name]} and {pair.image} would both become {name}.png; expected every scene once."
                )
            written[name] = pair.image
            tiles.append(name)
            write_image(journal.folder / "images" / f"{name}.png", image_tile)
            write_mask(journal.folder / "labels" / f"{name}.png", label_tile)
            pixels += np.bincount(label_tile.ravel(), minlength=IGNORE + 1)[:num_classes]
        files = [journal.folder / kind / f"{name}.png" for name in tiles for kind in ("images", "labels")]
        journal.add(files, {"tiles": tiles, "class_pixels": pixels.tolist()})
    if wrong:
        more = f" And {len(wrong) - SHOWN} more." if len(wrong) > SHOWN else ""
        raise DataError(
            f"{len(wrong)} of {len(pairs)} images do not fit the protocol, nothing was written. "
            + " ".join(wrong[:SHOWN])
            + more
        )
    return len(written), np.sum([entry["class_pixels"] for entry in journal.entries], axis=0)


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
