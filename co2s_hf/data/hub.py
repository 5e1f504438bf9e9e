"""From a labelled data set of the Hub to images/ and labels/: a folder like any other, bytes as they come."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from tqdm import tqdm

from ..raster.errors import RasterError
from ..raster.ids import read_ids
from ..raster.image import EncodedImage
from ..raster.read import IMAGE_SUFFIXES, file_suffix, is_lossy, read_raster
from .journal import Journal, fingerprint, refuse_target
from .lists import Line, write_list
from .samples import DataError
from .wording import some

RECORD = "fetched.json"
"""The file that marks a finished folder, and says where it comes from."""

_IMAGE_NAMES = ("image", "images", "img", "picture", "pixel_values")
_MASK_NAMES = (
    *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentation_mask"),
    *("semantic_mask", "label_mask", "gt", "ground_truth"),
)
_VALIDATION_NAMES = ("validation", "val", "valid", "dev")
_ARCHIVES = ("zip://", "tar://", "gzip://")
_LONGEST_NAME = 100  # characters; file systems take 255 bytes
_STATE_EVERY = 100  # rows; a resumed run reads at most so many again, and not all the shards before them


@dataclass(frozen=True)
class _Source:
    """An opened data set: where it is, which version of it, and the undecoded stream of each of its splits."""

    name: str
    revision: str
    streams: Mapping[str, Any]
    licence: str | None


@dataclass(frozen=True)
class _Columns:
    image: str
    mask: str


def fetch(
    source: str,
    target_dir: str | Path,
    *,
    splits: Sequence[str] = ("train",),
    image_column: str | None = None,
    mask_column: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    skip_broken: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write the images and masks of a data set as files: `images/NAME.jpg`, `labels/NAME.png`, as `datasets` has them.

    The bytes are those of the data set; endings are those of the real formats. Rows without a mask become images
    without one. A name is that of the row's file, or else its split and number; of several splits, each name starts
    with the split, and `<split>.txt` lists its images with masks, `<split>_unlabelled.txt` those without.

    Read as a stream, one row in memory at a time. The folder appears under its name when it is complete, and not
    before. An interrupted run is resumed: the same call goes on behind the last row that was finished, as its progress
    bar says, and makes the same bytes as an uninterrupted one.

    Args:
        source: Id of the data set on the Hub, or a folder laid out like one: parquet files, images with metadata.
        target_dir: The folder to make.
        splits: Splits to fetch. All their images become one pool: fetch a test split into a folder of its own.
        image_column: Column of the images; None for the only one, or the only one with a usual name.
        mask_column: Column of the masks; None for the only one with a usual name.
        config: Configuration, of a data set with several.
        revision: Commit, branch or tag on the Hub; None for the newest.
        skip_broken: Leave out rows whose image or mask cannot be used, and say so, instead of stopping at the first.
        force: Replace what an earlier run of this function made there, or began there from something else; nothing
            else is ever replaced.

    Returns:
        The record, as in `fetched.json`: data set, commit, columns, images and masks per split, rows left out, licence.

    Raises:
        DataError: The target exists; the data set cannot be opened or breaks off; it lacks the split or the columns;
            an interrupted run there was of another one, or of another version; a row without a usable image; a mask
            that is broken or compressed with losses, which smears its ids; no usable row.
    """
    target = Path(target_dir).expanduser().absolute()
    folder = Path(source).expanduser().absolute()
    refuse_target(target, RECORD, folder if folder.is_dir() else None, force=force)
    opened = _open_folder(folder, config, revision) if folder.is_dir() else _open_hub(source, config, revision)
    splits = list(dict.fromkeys(splits))
    missing = [split for split in splits if split not in opened.streams]
    if missing or not splits:
        raise DataError(
            f"{opened.name} has the splits {', '.join(opened.streams)}; expected {', '.join(missing) or 'one'}. "
            "Name others with --split."
        )
    columns = _find_columns(opened, splits[0], image_column, mask_column)
    task = {
        "data set": opened.name,
        "configuration": config,
        "revision": opened.revision,
        "splits": splits,
        "columns": [columns.image, columns.mask],
    }
    with Journal(target, task, force=force) as journal:
        for kind in ("images", "labels"):
            (journal.folder / kind).mkdir(exist_ok=True)
        for split in splits:
            _fetch_split(opened, split, columns, journal, prefixed=len(splits) > 1, skip_broken=skip_broken)
        written = {
            split: [
                Line(step["files"]["images"], step["files"].get("labels"))
                for step in _steps(journal, split)
                if step["files"]
            ]
            for split in splits
        }
        if not any(written.values()):
            errors = [step["left_out"] for step in journal.entries]
            journal.discard()
            raise DataError(f"{opened.name} has no usable row in {', '.join(splits)}; expected some. {some(errors)}")
        record = {**task, **_record(opened, written, journal)}
        for name, lines in _lists(written).items():
            write_list(journal.folder / name, lines, force=True)
        journal.finish(RECORD, record)
    return record


# ---------------------------------------------------------------------------------------------------------------------
# Open
# ---------------------------------------------------------------------------------------------------------------------


def _open_folder(folder: Path, config: str | None, revision: str | None) -> _Source:
    if revision is not None:
        raise DataError(f"{folder} is a folder, which has no revision {revision}; leave it out.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _Source(str(folder), fingerprint(files, folder), _streams(str(folder), config, None), None)


def _open_hub(source: str, config: str | None, revision: str | None) -> _Source:
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(source, revision=revision)
    except Exception as error:  # of the network, of the server, of the name
        raise _unopened(source, error) from error
    licence = found.card_data.license if found.card_data else None
    # The commit, so that what is resumed is what was begun.
    return _Source(
        source,
        str(found.sha),
        _streams(source, config, found.sha),
        ", ".join(licence) if isinstance(licence, list) else licence,
    )


def _streams(source: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    import datasets

    try:
        found = datasets.load_dataset(source, config, revision=revision, streaming=True)
        return {str(split): stream.decode(False) for split, stream in found.items()}
    except Exception as error:  # of the network, of a file system, of any format
        raise _unopened(source, error) from error


def _unopened(source: str, error: Exception) -> DataError:
    text = " ".join(str(error).split())
    return DataError(
        f"{source} cannot be opened ({type(error).__name__}: {text}); expected the id of a data set on the Hub, such "
        "as user/name, or a folder of parquet files or of images with metadata. Check the name, and the network; "
        "--config names one of several configurations."
    )


def _find_columns(source: _Source, split: str, image: str | None, mask: str | None) -> _Columns:
    import datasets

    stream = source.streams[split]
    features = stream.features or stream._resolve_features().features or {}  # shards do not say: their first rows do
    pictures = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    binary = [name for name, kind in features.items() if getattr(kind, "dtype", "") in ("binary", "large_binary")]
    candidates = pictures or binary
    has = f"{source.name} has the columns {', '.join(features) or '(none)'}, and {', '.join(candidates) or 'none'}"
    for column, option in ((image, "--image_column"), (mask, "--mask_column")):
        if column is not None and column not in pictures + binary:
            raise DataError(f"{has} could be images or masks; {option} names {column}. Name one of them.")
    if mask is None:
        usual = [name for name in candidates if name.lower() in _MASK_NAMES and name != image]
        if len(usual) != 1:
            raise DataError(
                f"{has} could be masks; expected one of them to be called {', '.join(_MASK_NAMES[:5])} or so. Name it "
                "with --mask_column. A data set of images alone trains without a folder: --unlabelled_stream."
            )
        mask = usual[0]
    if image is None:
        left = [name for name in candidates if name != mask]
        usual = [name for name in left if name.lower() in _IMAGE_NAMES]
        if len(left) != 1 and len(usual) != 1:
            raise DataError(
                f"{has} could be images; expected one besides the masks ({mask}), or one called "
                f"{', '.join(_IMAGE_NAMES)}. Name it with --image_column."
            )
        image = usual[0] if len(usual) == 1 else left[0]
    if image == mask:
        raise DataError(f"{has} could be images or masks; {image} is named for both. Name two of them.")
    return _Columns(image, mask)


# ---------------------------------------------------------------------------------------------------------------------
# Write
# ---------------------------------------------------------------------------------------------------------------------


def _fetch_split(
    source: _Source, split: str, columns: _Columns, journal: Journal, *, prefixed: bool, skip_broken: bool
) -> None:
    """Write the rows behind those that are done."""
    stream, done = source.streams[split], _steps(journal, split)
    used = {step["name"].casefold() for step in journal.entries if step["name"]}
    kept = max((i for i, step in enumerate(done) if "state" in step), default=-1)
    if kept >= 0:
        stream.load_state_dict(done[kept]["state"])
    sizes = stream.info.splits or {}
    rows = tqdm(
        islice(_read(stream, source, split), len(done) - kept - 1, None),
        desc=f"Fetching {split}{', resumed' if journal.resumed else ''}",
        unit="row",
        initial=len(done),
        total=sizes[split].num_examples if split in sizes else None,
        disable=None,
    )
    for number, row in enumerate(rows, start=len(done) + 1):
        step: dict[str, Any] = {"split": split, "name": None, "files": {}}
        try:
            usable = _usable(row, columns, f"row {number} of {split}", source.name)
        except RasterError as error:
            if not skip_broken:
                raise DataError(
                    f"{error} Give --skip_broken to leave such rows out; the rows before are kept for that run."
                ) from error
            step["left_out"] = str(error)
        else:
            step["name"] = name = _name(row, columns.image, split, number, prefixed, used)
            used.add(name.casefold())
            for kind, encoded in usable.items():
                step["files"][kind] = f"{kind}/{name}{file_suffix(encoded)}"
                (journal.folder / step["files"][kind]).write_bytes(encoded.data)
        if number % _STATE_EVERY == 0:
            step["state"] = stream.state_dict()
        journal.add([journal.folder / file for file in step["files"].values()], step)


def _read(stream: Any, source: _Source, split: str) -> Iterator[dict[str, Any]]:
    try:
        yield from stream
    except Exception as error:  # of the network, of a file system, of any format
        raise _broken_off(f"{source.name}, {split},", error) from error


def _usable(row: dict[str, Any], columns: _Columns, place: str, source: str) -> dict[str, EncodedImage]:
    """Give the image of a row and its mask, if there is one, under the names of their folders.

    Both are decoded once; raises RasterError where one of them is of no use.
    """
    image = _encoded(row.get(columns.image), f"{place}, column {columns.image},", source)
    if image is None:
        raise RasterError(f"{place} has no image in the column {columns.image}; expected one in every row.")
    read_raster(image)
    file_suffix(image)  # refuses formats without an ending of ours
    mask = _encoded(row.get(columns.mask), f"{place}, column {columns.mask},", source)
    if mask is None:
        return {"images": image}
    if is_lossy(mask):
        raise RasterError(
            f"{mask} is a mask with lossy compression ({file_suffix(mask)}), which smears class ids at every edge; "
            "expected PNG or TIFF. Look for another version of the data set, or name another --mask_column."
        )
    read_ids(mask)
    file_suffix(mask)
    return {"images": image, "labels": mask}


def read_named(path: str, source: str) -> bytes:
    """Read the file that a row of `source` names, a folder or an id on the Hub.

    Rows come from others, and whatever they name would be fetched: only what lies on the Hub or in that folder is read.

    Raises:
        DataError: The row names another place.
    """
    *wrapped, place = path.split("::")  # zip://a.png::hf://datasets/...
    below = Path(source).is_dir() and Path(place).resolve().is_relative_to(Path(source).resolve())
    if not (below or place.startswith("hf://")) or not all(one.startswith(_ARCHIVES) for one in wrapped):
        raise DataError(
            f"A row of {source} names {path[:200]}; expected a file in it or on the Hub. Nothing was opened; look at "
            "who made the data set."
        )
    with fsspec.open(path, "rb") as file:
        return bytes(file.read())


def _encoded(value: Any, place: str, source: str) -> EncodedImage | None:
    if value is None:
        return None
    path, data = (value.get("path"), value.get("bytes")) if isinstance(value, Mapping) else (None, value)
    if data is None and path:  # a folder of images: its rows are paths, on disk or on the Hub
        try:
            data = read_named(path, source)
        except DataError:
            raise
        except Exception as error:  # of the network, of a file system
            raise _broken_off(f"{place} {path}", error) from error
    return None if data is None else EncodedImage(place, bytes(data))


def _broken_off(what: str, error: Exception) -> DataError:
    text = " ".join(str(error).split())
    return DataError(
        f"{what} cannot be read ({type(error).__name__}: {text}); expected more rows, or the end. The rows before are "
        "kept: the same command goes on behind them."
    )


def _name(row: dict[str, Any], column: str, split: str, number: int, prefixed: bool, used: set[str]) -> str:
    """Name a row after its file; where it has none, or a name that is taken, after its split and number."""
    value = row.get(column)
    path = (value.get("path") if isinstance(value, Mapping) else None) or row.get("__key__") or ""
    stem = PurePosixPath(str(path).split("::")[0].replace("\\", "/")).name  # zip://a.png::hf://datasets/... is a.png
    if PurePosixPath(stem).suffix.lower() in IMAGE_SUFFIXES:
        stem = PurePosixPath(stem).stem
    stem = re.sub(r"[^\w.-]", "_", stem).lstrip(".")[:_LONGEST_NAME]  # lists separate names by blanks
    name = f"{split}_{number:07d}"
    if stem:
        named = f"{split}_{stem}" if prefixed else stem
        name = name if named.casefold() in used else named
    while name.casefold() in used:  # on some file systems, "A" and "a" are one file
        name += "_"
    return name


# ---------------------------------------------------------------------------------------------------------------------
# Tell
# ---------------------------------------------------------------------------------------------------------------------


def _steps(journal: Journal, split: str) -> list[dict[str, Any]]:
    return [step for step in journal.entries if step["split"] == split]


def _lists(written: Mapping[str, Sequence[Line]]) -> dict[str, list[Line]]:
    """Give the lists of several splits; one split alone needs none."""
    if len(written) == 1:
        return {}
    parts = {}
    for split, lines in written.items():
        parts[f"{split}.txt"] = [line for line in lines if line.mask]
        parts[f"{split}_unlabelled.txt"] = [line for line in lines if not line.mask]
    return {name: lines for name, lines in parts.items() if lines}


def _record(source: _Source, written: Mapping[str, Sequence[Line]], journal: Journal) -> dict[str, Any]:
    info = next(iter(source.streams.values())).info
    lists = _lists(written)
    training = [split for split in written if split not in (*_VALIDATION_NAMES, "test")]
    parts = {
        "labelled": [f"{split}.txt" for split in training],
        "unlabelled": [f"{split}_unlabelled.txt" for split in training],
        "validation": [f"{split}.txt" for split in _VALIDATION_NAMES],
    }
    return {
        "images": sum(map(len, written.values())),
        "counts": {
            split: {"images": len(lines), "masks": sum(line.mask is not None for line in lines)}
            for split, lines in written.items()
        },
        "lists": {part: [name for name in names if name in lists] for part, names in parts.items()},
        "left_out": [step["left_out"] for step in journal.entries if "left_out" in step],
        "licence": source.licence or info.license or "not stated",
        "citation": info.citation or None,
        "page": info.homepage or None,
    }
