"""What is generated as files: images of every kind, rasters, checkpoints."""

import contextlib
import io
import json
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from co2s_hf.convert.folders import Target as Folder
from co2s_hf.convert.folders import convert_clip_file, convert_co2s_files, convert_dino_file, convert_dpt_file
from co2s_hf.raster.ids import read_ids
from co2s_hf.raster.image import EncodedImage, NoData, Reading
from co2s_hf.raster.read import file_suffix, image_size, is_lossy, read_raster
from tests.faults.fuzz_values import JUNK, Try
from tests.faults.judge import Row

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
def pictures(give: Any) -> tuple[str, bytes]:
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
def headers(give: Any) -> tuple[str, bytes]:
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
def rasters(give: Any) -> tuple[str, bytes]:
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
    "image": read_raster,
    "input": lambda path: read_raster(path).input,
    "image4": lambda path: read_raster(path, Reading(count=4, nodata=NoData(0))),
    "borders": lambda path: read_raster(path, Reading(nodata=NoData(0, within=12))),
    "mask": read_ids,
    "size": image_size,
    "suffix": file_suffix,
    "lossy": is_lossy,
}


def images_read(folder: Path) -> Try:
    def try_one(row: Row, value: tuple[tuple[str, bytes], str, bool, str]) -> None:
        (what, data), reader, encoded, suffix = value
        path: Any = folder / f"fuzzed{suffix}"
        if encoded:
            path = EncodedImage(f"fuzzed{suffix}", data)
        else:
            path.write_bytes(data)
        row.judge(lambda: READERS[reader](path), f"{reader}: {what}", "fuzzed")

    return try_one


def file_inputs(files: st.SearchStrategy[tuple[str, bytes]]) -> st.SearchStrategy[Any]:
    return st.tuples(files, st.sampled_from(sorted(READERS)), st.booleans(), st.sampled_from([".png", ".tif", ".jpg"]))


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
        "visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection",
        "module.visual.class_embedding",
        "blocks.0.attn.qkv.weight", "pos_embed", "patch_embed.proj.weight", "storage_tokens",
        "rope_embed.periods", "cls_token",
        "head.scratch.layer1_rn.weight", "head.projects.0.weight", "backbone.pos_embed",
        "feature_translator_for_a.0.weight",
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
def checkpoints(give: Any) -> tuple[str, bytes]:
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


def converted(folder: Path) -> Try:
    path = folder / "fuzzed.pth"

    def try_one(row: Row, value: tuple[tuple[str, bytes], str]) -> None:
        (what, data), kind = value
        path.write_bytes(data)
        row.judge(lambda: CONVERTERS[kind](path, Folder(folder / "converted")), f"{kind}: {what}", "fuzzed.pth")
        assert not (folder / "converted").exists()

    return try_one
