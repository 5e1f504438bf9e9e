"""What is generated, and who gets it: one `Target` for each door of the project."""

import contextlib
import io
import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from co2s_hf import Co2SConfig, Co2SImageProcessor, Dinov2DPTConfig
from co2s_hf.__main__ import main as co2s
from co2s_hf.convert.folders import Target as Folder
from co2s_hf.convert.folders import convert_clip_file, convert_co2s_files, convert_dino_file, convert_dpt_file
from co2s_hf.data import images
from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import find_split
from co2s_hf.data.label_map import LabelMap, value_counts
from co2s_hf.data.lists import read_list
from training.purification.generative import parse_choice
from training.purification.grounding import parse_detections, rescaled
from training.purification.official import parse_boxes
from tests.faults.judge import Row

Try = Callable[[Row, Any], None]


@dataclass(frozen=True)
class Target:
    """Inputs, and what takes them: `prepare` gets a folder and gives what tries one of the inputs."""

    inputs: st.SearchStrategy[Any]
    prepare: Callable[[Path], Try]
    weight: int


# ---------------------------------------------------------------------------------------------------------------------
# Anything
# ---------------------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([255, 256, 65535, 65536, 2**31, 2**63, 2**64, 10**12, 10**400, -1, 0]),
    st.floats(),
)
JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.text(max_size=12), st.sampled_from(["", "TODO", "\0", "../..", "/"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) < 200 else f"{repr(value)[:100]}... ({len(repr(value))})"


def _changed(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The document with one to three of its values, at any depth, replaced by junk, or removed, or new keys."""

    @st.composite
    def draw(give: Any) -> dict[str, Any]:
        made = json.loads(json.dumps(document))
        for _ in range(give(st.integers(1, 3))):
            place, parents = made, []
            while isinstance(place, (dict, list)) and place and (not parents or give(st.booleans())):
                key = give(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
                parents.append((place, key))
                place = place[key]
            holder, key = parents[-1]
            if isinstance(holder, dict) and give(st.integers(0, 5)) == 0:
                del holder[key]
            else:
                holder[key] = give(JUNK)
            if not made:
                break
        return made

    return draw()


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------

MODES = [
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBX",
    "RGBa",
    "La",
    "I;16",
]
FORMATS = [
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "WEBP",
    "GIF",
    "PPM",
    "TGA",
    "ICO",
    "PCX",
    "SGI",
    "JPEG2000",
    "DDS",
    "IM",
    "MSP",
]
SIZES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([(1, 100_000), (100_000, 1), (1, 1), (0, 0)])
)


@st.composite
def _pictures(give: Any) -> tuple[str, bytes]:
    """A file of Pillow, whole or damaged, as (what it is, its bytes)."""
    mode, kind, size = give(st.sampled_from(MODES)), give(st.sampled_from(FORMATS)), give(SIZES)
    file = io.BytesIO()
    try:
        image = Image.new(mode, size)
        if mode == "P":
            image.putpalette([i % 256 for i in range(3 * give(st.integers(1, 256)))])
        if give(st.booleans()) and size[0] * size[1] < 2000 and mode not in ("LAB", "HSV", "I;16", "1"):
            with contextlib.suppress(ValueError):
                image.frombytes(give(st.binary(min_size=1, max_size=64)) * 2000)
        options = {"transparency": 0} if give(st.booleans()) and mode in "LP" and kind == "PNG" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(file, kind, **options)
    except Exception:  # Pillow cannot write every mode in every format: random bytes instead
        kind, file = "none", io.BytesIO(give(st.binary(max_size=200)))
    data = bytearray(file.getvalue())
    damage = give(st.sampled_from(["whole", "whole", "cut", "flipped", "head"]))
    if data and damage == "cut":
        del data[give(st.integers(0, len(data) - 1)) :]
    if data and damage == "flipped":
        for _ in range(give(st.integers(1, 4))):
            data[give(st.integers(0, min(len(data), 400) - 1))] = give(st.integers(0, 255))
    if damage == "head":
        data[: give(st.integers(0, 8))] = give(st.sampled_from([b"II*\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"BM", b""]))
    return f"{mode} {size} {kind} {damage}", bytes(data)


def _png(width: int, height: int, depth: int, colour: int, chunks: list[tuple[bytes, bytes]]) -> bytes:
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join(chunk(name, data) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


@st.composite
def _headers(give: Any) -> tuple[str, bytes]:
    """PNG files whose header, palette and transparency do not fit: palettes of 16 bits and the like."""
    import zlib

    numbers = st.sampled_from([0, 1, 2, 7, 100, 100_000, 2**31 - 1, 2**32 - 1])
    width, height = give(numbers), give(numbers)
    depth, colour = give(st.sampled_from([1, 2, 4, 8, 16, 3, 0])), give(st.sampled_from([0, 2, 3, 4, 6, 1, 5, 255]))
    chunks = [(b"PLTE", give(st.binary(max_size=30))), (b"tRNS", give(st.binary(max_size=8)))]
    chunks += [(b"gAMA", give(st.binary(max_size=6))), (b"IDAT", zlib.compress(give(st.binary(max_size=100))))]
    kept = give(st.lists(st.sampled_from(chunks), max_size=5))
    return f"PNG header {width}x{height} {depth} bit, colour {colour}", _png(width, height, depth, colour, kept)


@st.composite
def _rasters(give: Any) -> tuple[str, bytes]:
    """GeoTIFF of any type of numbers, NaN and infinity among them."""
    import rasterio
    from rasterio.io import MemoryFile

    kind = give(st.sampled_from(["uint8", "uint16", "int16", "int8", "uint32", "float32", "float64", "complex64"]))
    bands, height, width = give(st.integers(1, 20)), give(st.integers(1, 20)), give(st.integers(1, 20))
    value = give(st.one_of(st.integers(0, 255), st.sampled_from([np.nan, np.inf, -np.inf, 1e30])))
    pixels = np.zeros((bands, height, width), kind)
    pixels[0, 0] = value if kind.startswith(("f", "c")) else int(value) % 128 if np.isfinite(value) else 1
    profile: dict[str, Any] = dict(driver="GTiff", count=bands, height=height, width=width, dtype=kind)
    nodata = give(st.sampled_from([None, 0, 255, np.nan, -1]))
    if nodata is not None and (kind.startswith("f") or (kind in ("uint8", "uint16") and nodata in (0, 255))):
        profile["nodata"] = nodata
    profile |= give(st.sampled_from([{}, {"compress": "deflate"}, {"compress": "lzw"}, {"BIGTIFF": "YES"}]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with MemoryFile() as memory:
            with rasterio.open(memory.name, "w", **profile) as file:
                file.write(pixels)
            data = bytearray(memory.read())
    if give(st.booleans()):
        for _ in range(give(st.integers(1, 3))):
            data[give(st.integers(0, min(len(data), 600) - 1))] = give(st.integers(0, 255))
    return f"{kind} {bands}x{height}x{width}", bytes(data)


READERS: dict[str, Callable[[Any], Any]] = {
    "image": images.read_image,
    "image4": lambda path: images.read_image_and_valid(path, 0, num_bands=4),
    "mask": images.read_mask,
    "raw mask": images.read_raw_mask,
    "size": images.image_size,
    "suffix": images.file_suffix,
    "lossy": images.is_lossy,
}


def _images(folder: Path) -> Try:
    def try_one(row: Row, value: tuple[tuple[str, bytes], str, bool, str]) -> None:
        (what, data), reader, encoded, suffix = value
        if reader == "mask" and encoded:
            reader = "raw mask"
        path: Any = folder / f"fuzzed{suffix}"
        if encoded:
            path = images.EncodedImage(f"fuzzed{suffix}", data)
        else:
            path.write_bytes(data)
        row.judge(lambda: READERS[reader](path), f"{reader}: {what}", "fuzzed")

    return try_one


def _file_inputs(files: st.SearchStrategy[tuple[str, bytes]]) -> st.SearchStrategy[Any]:
    return st.tuples(files, st.sampled_from(sorted(READERS)), st.booleans(), st.sampled_from([".png", ".tif", ".jpg"]))


# ---------------------------------------------------------------------------------------------------------------------
# Label maps, descriptions, lists
# ---------------------------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(0, 9),
    NUMBERS.filter(lambda one: isinstance(one, int)),
    st.tuples(*[st.sampled_from([0, 255, 128, -1, 300])] * 3),
)
MASKS = st.sampled_from(["uint8", "bool", "int8", "uint16", "int32", "int64", "uint64", "float32", "U3", "complex64"])
MASK_SHAPES = st.sampled_from([[2, 3], [2, 3, 3], [0, 0], [0, 2, 3], [2, 3, 1], [2, 3, 4], [2], []])
LABEL_MAPS = st.one_of(
    st.dictionaries(VALUES, st.one_of(st.integers(0, 255), st.integers(-1, 256)), max_size=6).map(
        lambda one: list(one.items())
    ),
    st.lists(st.tuples(VALUES, st.integers(-1, 256)), max_size=4),
)


def _label_maps(_: Path) -> Try:
    def try_one(row: Row, value: tuple[list[tuple[Any, int]], str, list[int], int]) -> None:
        entries, kind, shape, fill = value
        mask = np.zeros(shape, kind)
        with contextlib.suppress(OverflowError, ValueError, IndexError):
            mask[..., :1] = fill

        def run() -> Any:
            made = LabelMap(tuple(entries))
            counts = value_counts(mask)
            made.suspicions(counts, [f"c{i}" for i in range(256)])
            return made.apply(mask)

        row.judge(run, f"{entries} on {kind} {shape} of {fill}")

    return try_one


GOOD = {
    "version": 1,
    "root": ".",
    "images": "images",
    "masks": "labels",
    "classes": [
        {"name": "water", "colour": "#0000FF", "concepts": ["lake"]},
        {"name": "road", "colour": None, "concepts": None},
    ],
    "label_map": {"#0000FF": "water", "#FF0000": "road", "#000000": "ignore"},
    "bands": {
        "count": 3,
        "names": ["red", "green", "blue"],
        "dtype": "uint8",
        "rgb": [0, 1, 2],
        "mean": None,
        "std": None,
    },
    "nodata": None,
    "scene_pattern": None,
    "splits": {"labelled": ["*.png"], "unlabelled": None, "validation": None, "validation_fraction": 0.5, "seed": 0},
}
BOMB = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)).replace("*a0", "x")
YAML_TEXTS = st.one_of(
    _changed(GOOD).map(lambda made: yaml.safe_dump(made).encode()),
    _changed(GOOD).map(lambda made: yaml.safe_dump(made | {"root": "."}, sort_keys=False).encode()),
    st.sampled_from(["version", "classes", "label_map", "nodata", "scene_pattern", "splits"]).flatmap(
        lambda key: st.one_of(
            st.integers(-1, 300),
            st.sampled_from(
                [None, "(a)", "(?P<x>.)", "(", {0: "water", 10**30: "road"}, {0: ["water"]}, {0: {"a": 1}}, [1], {}]
            ),
            st.dictionaries(st.integers(-1, 999), st.sampled_from(["water", "road", "ignore"]), max_size=4),
        ).map(lambda value: yaml.safe_dump(GOOD | {key: value}).encode())
    ),
    st.sampled_from(
        [
            BOMB,
            "[" * 100_000,
            "{a: " * 50_000,
            "- " * 50_000,
            "&a [*a]",
            "&a {b: *a}",
            "x: " + "9" * 5000,
            yaml.safe_dump(GOOD),
        ]
    ).map(str.encode),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            "version: 1 | root: . | label_map: | classes: |  - |  ? [1, 2] : |  0: water | &a [ | *a | ] | { | } | !!int "
            "| !!bool x | !!timestamp x | !!float abc | !!binary = | !!python/object:os.system [id] | << | 2024-99-99 | "
            "1:99:99 | 0x | 0o9 | .inf | .nan | --- | ... | % | @ | \t | 'x | \"\\x | | > | ~ | !!set {a} | !!omap [a]".split(
                " | "
            )
        ),
        max_size=10,
    ).map(lambda parts: "\n".join(parts).encode()),
)


def _descriptions(folder: Path) -> Try:
    root = folder / "described"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for name in "ab":
            Image.new("RGB", (4, 4)).save(root / kind / f"{name}.png")

    def try_one(row: Row, data: bytes) -> None:
        path = root / "dataset.yaml"
        path.write_bytes(data)

        def run() -> Any:
            try:
                description = DatasetDescription.load(path)
            except ValueError as error:
                assert "dataset.yaml" in str(error)
                raise
            return description.find_split()  # its errors name the folder or the entry

        row.judge(run, _shown(data))

    return try_one


NAMES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["images/a.png", "a.png", "../dataset.yaml", "/etc/passwd", "x" * 5000, "a\0b", "~", "**", "a b", "\u2028"]
    ),
)


def _lists(folder: Path) -> Try:
    _descriptions(folder)
    root = folder / "described"

    def try_one(row: Row, value: tuple[list[str], bytes, bool]) -> None:
        names, junk, as_entries = value
        path = root / "names.txt"
        path.write_bytes("\n".join(names).encode("utf-8", "surrogatepass") + junk)

        def split(entries: list[str]) -> Any:
            return find_split(root, classes=["a", "b"], labelled=entries, validation=["b.png"])

        if as_entries:
            row.judge(lambda: split(names), _shown(names))
        else:
            row.judge(lambda: read_list(path), _shown(names), "names.txt")
            row.judge(lambda: split(["names.txt"]), _shown(names), "names.txt")

    return try_one


# ---------------------------------------------------------------------------------------------------------------------
# Answers of models
# ---------------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ['{"answer": "A"}', '{"answer": ', "{", "}", "[", "]", '"label": "road"', '"bbox_2d": [1, 2, 30, 40]', "Road: [1, 2, 3, 4]",
     "Road:", "```json", "\\u0000", "\ud800", "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, ", ", ": ", '"', "null", " "]
)  # fmt: skip
ANSWERS = st.one_of(
    st.text(max_size=60),
    JUNK.map(lambda value: json.dumps({"answer": value})),
    st.lists(NUMBERS, min_size=3, max_size=5).map(lambda box: json.dumps({"label": "road", "bbox_2d": box})),
    st.tuples(JUNK, JUNK).map(lambda pair: json.dumps([{"label": pair[0], "bbox_2d": pair[1]}, {"label": "road"}])),
    st.lists(PIECES, max_size=12).map("".join),
    st.tuples(st.text(max_size=9), st.sampled_from(["A", "B", "water", "a. water", "C", "."])).map(
        lambda pair: f'{pair[0]} {{"answer": "{pair[1]}"}}'
    ),
    st.tuples(PIECES, st.sampled_from([10, 1000, 100_000, 250_000])).map(lambda one: (one[0] * one[1])[: 1 << 20]),
    st.tuples(
        st.sampled_from(['{"answer": ', '{"label": "road", "bbox": ', "Road: "]),
        st.sampled_from('[{":,1 '),
        st.sampled_from([2, 5, 12, 17, 20]),
    ).map(lambda one: one[0] + one[1] * 2 ** one[2] + "]}"),
)


def _answers(_: Path) -> Try:
    def read(text: str) -> Any:
        found = parse_choice(text, ["water", "road"], "AB"), parse_boxes(text, ["Road", "Water"])
        for _, box in parse_detections(text, {"road": 0, "water": 1}) or []:
            left, top, right, bottom = (round(side) for side in rescaled(box, (28, 28), (100, 100)))
            assert 0 <= left <= right <= 100 and 0 <= top <= bottom <= 100
        return found

    return lambda row, text: row.judge(lambda: read(text), _shown(text)) and None


# ---------------------------------------------------------------------------------------------------------------------
# Configurations
# ---------------------------------------------------------------------------------------------------------------------


def _small(config: Any) -> dict[str, Any]:
    return json.loads(config.to_json_string(use_diff=False))


CONFIGS = {
    "co2s": (Co2SConfig, _small(Co2SConfig.from_backbones(None, None, ["a", "b"]))),
    "dpt": (
        Dinov2DPTConfig,
        _small(Dinov2DPTConfig.from_backbones(None, ["a", "b"], translators=[{"teacher_width": 8}])),
    ),
}


def _configs(folder: Path) -> Try:
    def try_one(row: Row, value: tuple[str, dict[str, Any], bool]) -> None:
        kind, fields, as_file = value
        made = CONFIGS[kind][0]
        if not as_file:
            row.judge(lambda: made.from_dict(fields), f"{kind} {_difference(kind, fields)}")
            return
        path = folder / "fuzzed_config"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        row.judge(lambda: made.from_pretrained(path), f"{kind} file {_difference(kind, fields)}")

    return try_one


def _difference(kind: str, fields: dict[str, Any]) -> str:
    good = CONFIGS[kind][1]
    flat, other = (dict(_flat(one)) for one in (fields, good))
    return _shown({key: flat.get(key, "gone") for key in flat.keys() | other.keys() if flat.get(key) != other.get(key)})


def _flat(tree: Any, prefix: str = "") -> Any:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix, tree


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ---------------------------------------------------------------------------------------------------------------------

TENSORS = st.sampled_from(
    [
        torch.zeros(2, 3),
        torch.zeros(0),
        torch.zeros(()),
        torch.full((4, 4), torch.nan),
        torch.zeros(1, 3, 2, 2),
        torch.zeros(1, dtype=torch.complex64),
        torch.zeros(1).expand(10**12),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(2, 2).to_sparse(),
    ]
)
KEYS = st.sampled_from(
    [
        "visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection", "module.visual.class_embedding",
        "blocks.0.attn.qkv.weight", "pos_embed", "patch_embed.proj.weight", "storage_tokens", "rope_embed.periods", "cls_token",
        "head.scratch.layer1_rn.weight", "head.projects.0.weight", "backbone.pos_embed", "feature_translator_for_a.0.weight",
        "_cached_text", "backbone.layers.0.attn.attn.in_proj_weight", "text_provider.weight", "decode_head.conv.weight",
        "model", "state_dict", "student", "model_ema", "optimizer", "epoch", "", "blocks.999999999.attn.qkv.weight",
    ]
)  # fmt: skip
CONTENTS = st.recursive(
    st.one_of(TENSORS, JUNK),
    lambda inner: st.one_of(st.dictionaries(KEYS, inner, max_size=5), st.lists(inner, max_size=2)),
    max_leaves=6,
)


@st.composite
def _checkpoints(give: Any) -> tuple[str, bytes]:
    """What torch.save or safetensors writes, whole or damaged, or no checkpoint at all."""
    content, kind = give(CONTENTS), give(st.sampled_from(["zip", "zip", "old", "safetensors", "bytes", "head"]))
    file = io.BytesIO()
    if kind in ("zip", "old"):
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "safetensors":
        header = json.dumps(
            {
                "visual.proj": {
                    "dtype": "F32",
                    "shape": give(st.sampled_from([[1], [10**12], [-1], [2, 2]])),
                    "data_offsets": [0, 4],
                }
            }
        )
        header = give(st.sampled_from([header, "{", "{}", "[" * 1000, '{"a": 1}', "{" * 50]))
        size = give(st.sampled_from([len(header), 0, 2**40, 2**63]))
        file.write(struct.pack("<Q", size) + header.encode() + bytes(4))
    else:
        file.write(give(st.binary(max_size=100)) if kind == "bytes" else b"\x80\x02" + give(st.binary(max_size=60)))
    data = bytearray(file.getvalue())
    damage = give(st.sampled_from(["whole", "whole", "cut", "flipped"]))
    if data and damage == "cut":
        del data[give(st.integers(0, len(data) - 1)) :]
    if data and damage == "flipped":
        for _ in range(give(st.integers(1, 4))):
            data[give(st.integers(0, len(data) - 1))] = give(st.integers(0, 255))
    return f"{kind} {damage} {repr(content)[:60]}", bytes(data)


CONVERTERS: dict[str, Callable[[Path, Folder], Any]] = {
    "co2s": lambda file, target: convert_co2s_files(file, file, target),
    "rs-mtdf": lambda file, target: convert_dpt_file(file, target, kind="rs-mtdf"),
    "semiearth": lambda file, target: convert_dpt_file(file, target, kind="semiearth", weights="ema"),
    "clip": convert_clip_file,
    "dino": convert_dino_file,
}


def _converted(folder: Path) -> Try:
    path = folder / "fuzzed.pth"

    def try_one(row: Row, value: tuple[tuple[str, bytes], str]) -> None:
        (what, data), kind = value
        path.write_bytes(data)
        row.judge(lambda: CONVERTERS[kind](path, Folder(folder / "converted")), f"{kind}: {what}", "fuzzed.pth")
        assert not (folder / "converted").exists()

    return try_one


# ---------------------------------------------------------------------------------------------------------------------
# The image processor
# ---------------------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 30]), max_size=5)
KINDS = ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "complex64", "U1", "O", "M8[s]", ">u2"]  # fmt: skip
TORCH_KINDS = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.uint64]  # fmt: skip
FILLS = st.sampled_from([0, 1, 255, -1, np.nan, np.inf])


@st.composite
def _pixels(give: Any) -> Any:
    source, shape, fill = give(st.sampled_from(["numpy", "torch", "pil", "junk"])), give(SHAPES), give(FILLS)
    if source == "numpy":
        made = np.zeros(shape, give(st.sampled_from(KINDS)))
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made[...] = fill
        return made[::-1] if made.ndim and give(st.booleans()) else made
    if source == "torch":
        made = torch.zeros(shape, dtype=give(st.sampled_from(TORCH_KINDS)))
        if made.is_floating_point():
            made.fill_(fill)
        return made
    if source == "pil":
        return Image.new(give(st.sampled_from(MODES)), give(st.tuples(*[st.integers(0, 9)] * 2)))
    return give(JUNK)


SETTINGS = st.dictionaries(
    st.sampled_from(
        ["do_resize", "size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "x"]
    ),
    st.one_of(
        JUNK,
        st.sampled_from(
            [{"height": 4, "width": 5}, {"shortest_edge": 3}, {"shortest_edge": 10**9}, [0.5], [0.5] * 3, [1] * 4]
        ),
    ),
    max_size=3,
)


def _processor(_: Path) -> Try:
    def try_one(row: Row, value: tuple[dict[str, Any], Any, Any, dict[str, Any]]) -> None:
        settings, pictures, maps, overrides = value

        def run() -> Any:
            processor = Co2SImageProcessor.from_dict(dict(settings))
            return processor(pictures, maps, **overrides)

        kind = getattr(pictures, "dtype", getattr(pictures, "mode", type(pictures).__name__))
        size = getattr(pictures, "shape", getattr(pictures, "size", pictures))
        row.judge(run, _shown((settings, kind, size, type(maps).__name__, overrides)))

    return try_one


# ---------------------------------------------------------------------------------------------------------------------
# Command lines
# ---------------------------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(
        [
            "data", "init", "check", "split", "prepare", "fetch", "convert", "clip", "dino", "co2s", "rs-mtdf", "push", "export",
            "ROOT", "ROOT/dataset.yaml", "ROOT/images/a.png", "ROOT/none", "-o", "ROOT/out", "--fraction", "--count", "--seed",
            "--group", "block", "scene", "tile", "--tile_pattern", "(", "(?P<row>a)", "--validation_fraction", "0.5", "nan", "-1",
            "1e400", "0", "--force", "--html", "--json", "--output", "--protocol", "LoveDA", "RS-MTDF", "--format", "onnx", "int8",
            "--classes", "--split", "--tolerance", "--reference", "", "--opset", "99999999999", "9" * 30, "--block_tiles",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)  # fmt: skip
STARTS = [
    ["data", "init", "ROOT"], ["data", "check", "ROOT/dataset.yaml"], ["data", "split", "ROOT/dataset.yaml", "ROOT/out"],
    ["data", "split", "ROOT/dataset.yaml", "ROOT/out", "--count", "1"], ["data", "prepare", "LoveDA", "ROOT", "ROOT/out"],
    ["convert", "clip", "ROOT/images/a.png", "--output", "ROOT/out"], ["push", "ROOT", "a/b"],
    ["export", "ROOT", "--format", "int8", "--output", "ROOT/out"], [],
]  # fmt: skip


def _commands(folder: Path) -> Try:
    _descriptions(folder)
    root = folder / "described"

    def run(words: list[str]) -> int:
        import os
        import shutil

        (root / "dataset.yaml").write_text(yaml.safe_dump(GOOD))
        before = os.getcwd()
        os.chdir(root)  # where relative names of outputs go
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return co2s(words)
        finally:
            os.chdir(before)
            shutil.rmtree(root / "out", ignore_errors=True)

    def try_one(row: Row, value: tuple[list[str], list[str]]) -> None:
        words = [word.replace("ROOT", str(root)) for word in value[0] + value[1]]
        row.judge(lambda: run(words), _shown([*value[0], *value[1]]))

    return try_one


TARGETS = {
    "image files": Target(_file_inputs(_pictures()), _images, 20),
    "PNG headers, palettes": Target(_file_inputs(_headers()), _images, 8),
    "rasters, NaN, infinity": Target(_file_inputs(_rasters()), _images, 10),
    "label maps": Target(
        st.tuples(LABEL_MAPS, MASKS, MASK_SHAPES, st.one_of(st.integers(0, 9), NUMBERS)), _label_maps, 8
    ),
    "dataset.yaml": Target(YAML_TEXTS, _descriptions, 14),
    "split lists": Target(st.tuples(st.lists(NAMES, max_size=5), st.binary(max_size=5), st.booleans()), _lists, 6),
    "configurations": Target(
        st.sampled_from(sorted(CONFIGS)).flatmap(
            lambda kind: st.tuples(st.just(kind), _changed(CONFIGS[kind][1]), st.booleans())
        ),
        _configs,
        10,
    ),
    "answers of models": Target(ANSWERS, _answers, 8),
    "checkpoint files": Target(st.tuples(_checkpoints(), st.sampled_from(sorted(CONVERTERS))), _converted, 6),
    "image processor": Target(
        st.tuples(
            SETTINGS, st.one_of(_pixels(), st.lists(_pixels(), max_size=3)), st.one_of(st.none(), _pixels()), SETTINGS
        ),
        _processor,
        8,
    ),
    "command lines": Target(st.tuples(st.sampled_from(STARTS), st.lists(WORDS, max_size=5)), _commands, 2),
}
