"""The parsers that coverage guides inputs to: bytes in; a result, or an error that says what is wrong."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save, save_file

from co2s_hf.convert.files import read_checkpoint
from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import find_split
from co2s_hf.data.label_map import LabelMap, value_counts
from co2s_hf.data.lists import read_list
from co2s_hf.geo.labelled import Labelled
from co2s_hf.geo.references import ClassLookup, ReferencePolygons, place_points, read_reference_features
from co2s_hf.publish.folder import CHECKSUMS as MODEL_CHECKSUMS
from co2s_hf.publish.folder import check_folder
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.vectors import covered, on_grid
from training.checkpoints import CHECKSUMS, FORMAT, verify_checkpoint
from training.purification.generative import parse_choice
from training.purification.grounding import parse_detections, rescaled
from training.purification.official import parse_boxes

Take = Callable[[bytes], Any]


@dataclass(frozen=True)
class Guided:
    """What takes bytes: `prepare` gets a folder to work in; `seeds` are the first inputs, `words` what to add."""

    prepare: Callable[[Path], Take]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()


JSON_WORDS = ('{"', '":', "[[", "]]", "null", "NaN", "1e999", "true", "\\u0000", "\\ud800")

# ---------------------------------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------------------------------


def _answers(_: Path) -> Take:
    def take(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parse_choice(text, ["water", "road"], "AB"), parse_boxes(text, ["Road", "Water"])
        for _, box in parse_detections(text, {"road": 0, "water": 1}) or []:
            left, top, right, bottom = (round(side) for side in rescaled(box, (28, 28), (100, 100)))
            assert 0 <= left <= right <= 100 and 0 <= top <= bottom <= 100

    return take


def _images(folder: Path) -> Path:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
        for name in "ab":
            Image.new("RGB", (4, 4)).save(folder / kind / f"{name}.png")
    return folder


def _descriptions(folder: Path) -> Take:
    path = _images(folder) / "dataset.yaml"

    def take(data: bytes) -> Any:
        path.write_bytes(data)
        return DatasetDescription.load(path).find_split()

    return take


ROAD = {"name": "road", "colour": None, "concepts": None}
GOOD = {
    "version": 1,
    "root": ".",
    "images": "images",
    "masks": "labels",
    "classes": [{"name": "water", "colour": "#0000FF", "concepts": ["lake"]}, ROAD],
    "label_map": {"#0000FF": "water", "#FF0000": "road", "#000000": "ignore"},
    "bands": {"count": 3, "names": ["r", "g", "b"], "dtype": "uint8", "rgb": [0, 1, 2], "mean": None, "std": None},
    "nodata": None,
    "scene_pattern": None,
    "splits": {"labelled": ["*.png"], "unlabelled": None, "validation": None, "validation_fraction": 0.5, "seed": 0},
}


def _lists(folder: Path) -> Take:
    path = _images(folder) / "names.txt"

    def take(data: bytes) -> Any:
        path.write_bytes(data)
        found = find_split(folder, classes=["a", "b"], labelled=["names.txt"], validation=["b.png"])
        return found, read_list(path)

    return take


def _label_maps(_: Path) -> Take:
    """Whole numbers of 16 bits: the value of a pixel or three of them, and the class; then pixels."""

    def take(data: bytes) -> Any:
        numbers = np.frombuffer(data[: len(data) // 2 * 2], np.int16).tolist()
        count = abs(numbers[0]) % 8 if numbers else 0
        entries, rest = [], numbers[1:]
        for _ in range(count):
            is_colour, *rest = rest or [0]
            size = 3 if is_colour % 2 else 1
            value, (target, *rest) = rest[:size], rest[size:] or [0]
            if value:
                entries.append((tuple(value) if is_colour % 2 else value[0], target))
        mask = np.array(rest, np.int16).astype(["uint8", "uint16", "int32"][count % 3])
        mask = mask[: len(mask) // 3 * 3].reshape((-1, 1, 3) if count % 2 else (-1, 1))
        made = LabelMap(tuple(entries))
        made.suspicions(value_counts(mask), [f"c{i}" for i in range(256)])
        return made.apply(mask)

    return take


# ---------------------------------------------------------------------------------------------------------------------
# Points and polygons
# ---------------------------------------------------------------------------------------------------------------------

GRID = Grid(40, 40, (2, 0, 500_000, 0, -2, 5_000_000), None)
LOOKUP = ClassLookup(["water", "road"], {"sea": "water"})
BOXES = np.array([(0, 0, 20, 20), (20, 20, 40, 40)], np.float64)


def _reference(path: Path) -> Any:
    features = read_reference_features(str(path), GRID)
    if features is None:
        return None
    if features.are_points:
        return place_points(features, GRID, "map.tif", LOOKUP)
    covered(on_grid(features, GRID, "map.tif"), BOXES)
    pixels = slice(0, 40), slice(0, 40)
    return ReferencePolygons(features, GRID, "map.tif", LOOKUP).read(*pixels, pixels)


def _polygons(folder: Path) -> Take:
    def take(data: bytes) -> Any:
        path = folder / "reference.geojson"
        path.write_bytes(data)
        return _reference(path)

    return take


RING = [[500_002, 4_999_998], [500_040, 4_999_998], [500_040, 4_999_950], [500_002, 4_999_998]]


def _geojson(geometry: Any, crs: str | None = None) -> bytes:
    feature = {"type": "Feature", "geometry": geometry, "properties": {"class": "water"}}
    named = {} if crs is None else {"crs": {"type": "name", "properties": {"name": crs}}}
    return json.dumps({"type": "FeatureCollection", **named, "features": [feature]}).encode()


def _tables(folder: Path) -> Take:
    def take(data: bytes) -> Any:
        path = folder / "table.csv"
        path.write_bytes(data[1:])
        if data[:1] < b"P":
            return _reference(path)
        return Labelled().add(path)

    return take


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints and models
# ---------------------------------------------------------------------------------------------------------------------


def _swapped(folder: Path, files: dict[str, bytes], check: Callable[[], Any]) -> Take:
    """The first byte says which of the files the others replace."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names = sorted(files)

    def take(data: bytes) -> Any:
        name = names[data[0] % len(names)] if data else names[0]
        (folder / name).write_bytes(data[1:])
        try:
            return check()
        finally:
            (folder / name).write_bytes(files[name])

    return take


RECORD = {"format": FORMAT, "step": 1, "num_processes": 1, "state": {}, "fingerprint": {"a": {"b": 1}}}


def _records(folder: Path) -> Take:
    record = json.dumps(RECORD).encode()
    sums = json.dumps({"run.json": hashlib.sha256(record).hexdigest()}).encode()
    step = folder / "step-00000001"
    step.mkdir()
    return _swapped(step, {"run.json": record, CHECKSUMS: sums}, lambda: verify_checkpoint(step))


CARD = b"---\nlibrary_name: transformers\nlicense: mit\npipeline_tag: image-segmentation\n---\n# A model\n"
INDEX = {"metadata": {}, "weight_map": {"a": "model-1-of-1.safetensors"}}


def _folders(folder: Path) -> Take:
    save_file({"a": torch.zeros(2)}, folder / "model-1-of-1.safetensors")
    files = {
        "README.md": CARD,
        "config.json": b'{"auto_map": {}}',
        "model.safetensors.index.json": json.dumps(INDEX).encode(),
        "preprocessor_config.json": b"{}",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model-1-of-1.safetensors",)}
    files[MODEL_CHECKSUMS] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    files[MODEL_CHECKSUMS] += f"{hashlib.sha256(files['config.json']).hexdigest()}  config.json\n".encode()
    return _swapped(folder, files, lambda: check_folder(folder))


def _safetensors(folder: Path) -> Take:
    def take(data: bytes) -> Any:
        path = folder / "a.safetensors"
        path.write_bytes(data[:2] + bytes(6) + data[2:])  # no header of more than 64 kB, so that most lengths fit
        return read_checkpoint(path, ("state_dict",))

    return take


WHOLE_TENSORS = save({"visual.proj": torch.zeros(2), "b": torch.zeros(1, 2, dtype=torch.float16)})

# Two values and a pixel of each; a colour and two pixels of it; nothing.
LABELS = [2, 0, 5, 1, 0, 7, 0, 5, 7, 5], [1, 1, 0, 0, 9, 3, 0, 0, 9, 0, 0, 9], []

TARGETS = {
    "answers of models": Guided(
        _answers,
        (
            b'{"answer": "A"}',
            b'[{"label": "road", "bbox_2d": [1, 2, 30, 40]}]',
            b"Road: [1, 2, 3, 4]",
            b"```json\n[]```",
        ),
        (*JSON_WORDS, '"answer"', '"label"', '"bbox_2d"', "Road:", "```json"),
    ),
    "checkpoint records": Guided(
        _records,
        (b"\0" + json.dumps(RECORD).encode(), b"\1" + json.dumps(RECORD).encode(), b'\1{"run.json": "00"}'),
        (*JSON_WORDS, '"format"', '"run.json"', "../"),
    ),
    "dataset.yaml": Guided(
        _descriptions,
        (yaml.safe_dump(GOOD).encode(), yaml.safe_dump(GOOD | {"scene_pattern": "(.)"}, sort_keys=False).encode()),
        (
            "!!python/",
            "!!binary",
            "!!set",
            "&a ",
            "*a",
            "<<: ",
            "? ",
            "- ",
            ": ",
            "| ",
            ".inf",
            "null",
            "~",
            "0x",
            *GOOD,
        ),
    ),
    "label maps": Guided(_label_maps, tuple(np.array(one, np.int16).tobytes() for one in LABELS)),
    "model folders": Guided(
        _folders,
        (b"\0" + CARD, b'\2{"auto_map": {"AutoModel": "a--b.C"}}', b"\3" + json.dumps(INDEX).encode(), b"\1x  y\n"),
        (*JSON_WORDS, '"auto_map"', '"weight_map"', "---\n", "license: ", "../"),
    ),
    "polygons": Guided(
        _polygons,
        (
            _geojson({"type": "Polygon", "coordinates": [RING]}),
            _geojson({"type": "Point", "coordinates": RING[1]}, "EPSG:32633"),
            _geojson({"type": "MultiPolygon", "coordinates": [[RING], [RING, RING]]}),
        ),
        (*JSON_WORDS, '"Polygon"', '"Point"', '"coordinates"', '"geometry"', '"properties"', '"class"', '"crs"'),
    ),
    "safetensors": Guided(
        _safetensors,
        (WHOLE_TENSORS[:2] + WHOLE_TENSORS[8:],),
        (*JSON_WORDS, '"dtype"', '"F32"', '"BF16"', '"shape"', '"data_offsets"'),
    ),
    "split lists": Guided(
        _lists, (b"a.png\n", b"images/a.png labels/a.png\n"), ("a.png", "../", "~", "\u2028", "\ufeff")
    ),
    "tables of points and tiles": Guided(
        _tables,
        (
            b"Ax,y,class\n500010,4999990,water\n",
            b"Alon,lat,class_id\n1,2,1\n",
            b"Zfile,row,column,height,width\na,0,0,8,8\n",
        ),
        ("x,", "y,", "class", "water", '"', "\n", "nan", "1e999", "file,", "row,"),
    ),
}
