"""What is generated, and who gets it: one `Target` for each door of the project."""

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from co2s_hf import Co2SConfig, Co2SImageProcessor, Dinov2DPTConfig
from co2s_hf.__main__ import main as co2s
from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import find_split
from co2s_hf.data.label_map import LabelMap, value_counts
from co2s_hf.data.lists import read_list
from tests.faults.fuzz_files import (
    CONVERTERS,
    MODES,
    checkpoints,
    converted,
    file_inputs,
    headers,
    images_read,
    pictures,
    rasters,
)
from tests.faults.fuzz_values import JUNK, NUMBERS, Target, Try, changed, shown
from tests.faults.judge import Row
from training.purification.generative import parse_choice
from training.purification.grounding import parse_detections, rescaled
from training.purification.official import parse_boxes

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
    changed(GOOD).map(lambda made: yaml.safe_dump(made).encode()),
    changed(GOOD).map(lambda made: yaml.safe_dump(made | {"root": "."}, sort_keys=False).encode()),
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
            "version: 1 | root: . | label_map: | classes: |  - |  ? [1, 2] : |  0: water | &a [ | *a | ] | "
            "{ | } | !!int "
            "| !!bool x | !!timestamp x | !!float abc | !!binary = | !!python/object:os.system [id] | << | "
            "2024-99-99 | 1:99:99 | 0x | 0o9 | .inf | .nan | --- | ... | % | @ | \t | 'x | \"\\x | | > | ~ | "
            "!!set {a} | !!omap [a]".split(" | ")
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

        row.judge(run, shown(data))

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
            row.judge(lambda: split(names), shown(names))
        else:
            row.judge(lambda: read_list(path), shown(names), "names.txt")
            row.judge(lambda: split(["names.txt"]), shown(names), "names.txt")

    return try_one


# ---------------------------------------------------------------------------------------------------------------------
# Answers of models
# ---------------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ['{"answer": "A"}', '{"answer": ', "{", "}", "[", "]", '"label": "road"', '"bbox_2d": [1, 2, 30, 40]',
    "Road: [1, 2, 3, 4]",
     "Road:", "```json", "\\u0000", "\ud800", "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, ", ", ": ",
     '"', "null", " "]
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

    return lambda row, text: row.judge(lambda: read(text), shown(text)) and None


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
    return shown({key: flat.get(key, "gone") for key in flat.keys() | other.keys() if flat.get(key) != other.get(key)})


def _flat(tree: Any, prefix: str = "") -> Any:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix, tree


# ---------------------------------------------------------------------------------------------------------------------
# The image processor
# ---------------------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 30]), max_size=5)
KINDS = ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64",
    "complex64", "U1", "O", "M8[s]", ">u2"]  # fmt: skip
TORCH_KINDS = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.float16, torch.bfloat16, torch.float64,
    torch.complex64, torch.uint64]  # fmt: skip
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
        row.judge(run, shown((settings, kind, size, type(maps).__name__, overrides)))

    return try_one


# ---------------------------------------------------------------------------------------------------------------------
# Command lines
# ---------------------------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.sampled_from(
        [
            "data", "init", "check", "split", "prepare", "fetch", "convert", "clip", "dino", "co2s", "rs-mtdf",
            "push", "export",
            "ROOT", "ROOT/dataset.yaml", "ROOT/images/a.png", "ROOT/none", "-o", "ROOT/out", "--fraction",
            "--count", "--seed",
            "--group", "block", "scene", "tile", "--tile_pattern", "(", "(?P<row>a)", "--validation_fraction",
            "0.5", "nan", "-1",
            "1e400", "0", "--force", "--html", "--json", "--output", "--protocol", "LoveDA", "RS-MTDF",
            "--format", "onnx", "int8",
            "--classes", "--split", "--tolerance", "--reference", "", "--opset", "99999999999", "9" * 30,
            "--block_tiles",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)  # fmt: skip
STARTS = [
    ["data", "init", "ROOT"], ["data", "check", "ROOT/dataset.yaml"], ["data", "split", "ROOT/dataset.yaml",
    "ROOT/out"],
    ["data", "split", "ROOT/dataset.yaml", "ROOT/out", "--count", "1"], ["data", "prepare", "LoveDA", "ROOT",
    "ROOT/out"],
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
        row.judge(lambda: run(words), shown([*value[0], *value[1]]))

    return try_one


TARGETS = {
    "image files": Target(file_inputs(pictures()), images_read, 20),
    "PNG headers, palettes": Target(file_inputs(headers()), images_read, 8),
    "rasters, NaN, infinity": Target(file_inputs(rasters()), images_read, 10),
    "label maps": Target(
        st.tuples(LABEL_MAPS, MASKS, MASK_SHAPES, st.one_of(st.integers(0, 9), NUMBERS)), _label_maps, 8
    ),
    "dataset.yaml": Target(YAML_TEXTS, _descriptions, 14),
    "split lists": Target(st.tuples(st.lists(NAMES, max_size=5), st.binary(max_size=5), st.booleans()), _lists, 6),
    "configurations": Target(
        st.sampled_from(sorted(CONFIGS)).flatmap(
            lambda kind: st.tuples(st.just(kind), changed(CONFIGS[kind][1]), st.booleans())
        ),
        _configs,
        10,
    ),
    "answers of models": Target(ANSWERS, _answers, 8),
    "checkpoint files": Target(st.tuples(checkpoints(), st.sampled_from(sorted(CONVERTERS))), converted, 6),
    "image processor": Target(
        st.tuples(
            st.one_of(st.just({}), SETTINGS),
            st.one_of(_pixels(), st.lists(_pixels(), max_size=3)),
            st.one_of(st.none(), _pixels()),
            SETTINGS,
        ),
        _processor,
        8,
    ),
    "command lines": Target(st.tuples(st.sampled_from(STARTS), st.lists(WORDS, max_size=5)), _commands, 2),
}
