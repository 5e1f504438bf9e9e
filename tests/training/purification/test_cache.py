import ctypes
import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from co2s_hf.raster.image import EncodedImage, FileWindow
from training.purification.cache import CacheError, RegionCache, visible_regions
from training.purification.calibration import Calibration
from training.purification.regions import boundary_band
from training.views import random_crop

PARAMETERS = {"model": "tiny", "names": ("a", "b"), "min_area_px": 64}
CALIBRATION = Calibration(2.0, (0.5, -0.5), (0.9, math.nan), 0.8, 1.0, (1,))


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


@pytest.fixture
def cache(tmp_path):
    return RegionCache(tmp_path / "cache", PARAMETERS)


def scored(regions=3):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(regions, 2, generator=generator)
    scores[1] = torch.nan
    return torch.randint(-1, regions, (30, 20), generator=generator), scores


@pytest.mark.parametrize("regions", [3, 40000])
def test_what_is_read_equals_what_was_written(cache, image, regions):
    ids, scores = scored(regions)
    cache.write(image, ids, scores)
    again, table = RegionCache(cache.folder, PARAMETERS).read(image)
    assert again.dtype == torch.int64 and torch.equal(again, ids)
    assert torch.equal(table.nan_to_num(9.0), scores.nan_to_num(9.0)) and torch.equal(table.isnan(), scores.isnan())


def test_a_file_is_what_the_torch_writer_would_make_and_leaves_nothing_in_memory(cache, image, tmp_path):
    cache.write(image, *scored())
    kept = len(ctypes._pointer_type_cache)  # safetensors' torch writer adds a type for every new number of bytes
    for regions in range(60, 80):
        cache.write(image, *scored(regions))
    assert len(ctypes._pointer_type_cache) == kept
    (written,) = cache.folder.glob("**/*.safetensors")
    with safe_open(written, "pt") as file:
        tensors, noted = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, tmp_path / "same.safetensors", noted)
    assert (tmp_path / "same.safetensors").read_bytes() == written.read_bytes()


def test_lookup_is_calibrated_as_online(cache, image):
    ids, scores = scored()
    cache.write(image, ids, scores)
    cache.keep_calibration(CALIBRATION)
    opened = RegionCache(cache.folder)
    again, probabilities = opened.lookup(image)
    assert torch.equal(again, ids) and opened.classes == ["a", "b"] and opened.calibration().barred == (1,)
    assert torch.equal(probabilities.nan_to_num(9.0), CALIBRATION.probabilities(scores).nan_to_num(9.0))


def test_images_are_known_by_their_content(cache, image, tmp_path):
    cache.write(image, *scored())
    moved = image.rename(tmp_path / "moved.png")
    assert cache.has(moved) and cache.has(EncodedImage("in a shard", moved.read_bytes()))
    moved.write_bytes(moved.read_bytes() + b"\0")
    os.utime(moved, (1, 1))
    assert not cache.has(moved) and cache.missing([moved]) == [moved]
    with pytest.raises(CacheError, match="moved.png is not in the cache"):
        cache.read(moved)


def test_other_parameters_are_never_mixed_in(cache):
    with pytest.raises(CacheError, match="made with min_area_px = 64; expected 16"):
        RegionCache(cache.folder, {**PARAMETERS, "min_area_px": 16})
    with pytest.raises(CacheError, match="templates = None; expected"):
        RegionCache(cache.folder, {**PARAMETERS, "templates": ["a {}"]})


def test_a_folder_that_is_no_cache_says_so(cache, tmp_path, image):
    with pytest.raises(
        CacheError, match=r"holds no parameters.json; expected a cache made by training/purify_labels.py"
    ):
        RegionCache(tmp_path)
    cache.write(image, *scored())
    with pytest.raises(CacheError, match="was not finished"):
        cache.lookup(image)


def test_an_interrupted_write_leaves_nothing(cache, image, monkeypatch):
    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("training.purification.cache.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.write(image, *scored())
    assert not cache.has(image)


def test_a_damaged_file_is_named(cache, image):
    cache.write(image, *scored())
    file = next(cache.folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CacheError, match="is damaged"):
        cache.read(image)


def test_changed_scores_are_named_and_scores_of_another_image_too(cache, image, tmp_path):
    cache.write(image, *scored())
    file = next(cache.folder.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # the last byte of a tensor: safetensors has no checksum
    file.write_bytes(content)
    with pytest.raises(CacheError, match="is damaged, or of another image"):
        cache.read(image)
    cache.write(image, *scored())
    other = tmp_path / "other.png"
    other.write_bytes(image.read_bytes() + b"1")
    os.replace(file, cache._file(other))
    with pytest.raises(CacheError, match="is damaged, or of another image"):
        cache.read(other)


def test_changed_parameters_are_named_and_those_of_older_versions_read(cache):
    path = cache.folder / "parameters.json"
    content = json.loads(path.read_text())
    path.write_text(path.read_text().replace('"tiny"', '"tinx"'))
    with pytest.raises(CacheError, match="parameters.json is damaged .its checksum is another one"):
        RegionCache(cache.folder)
    content.pop("sha256")
    path.write_text(json.dumps(content))
    assert RegionCache(cache.folder).classes == content["names"]


@pytest.mark.parametrize("seed", range(6))
def test_regions_stay_with_their_pixels_through_crop_and_flip(seed):
    # Colour and id are the same number; ids pass as float32, which holds them exactly.
    blocks = torch.arange(6 * 8).view(6, 8).repeat_interleave(9, 0).repeat_interleave(9, 1) + 300
    image = blocks.float().expand(3, -1, -1) / 1000
    crop, ids, valid = random_crop(
        image, blocks.float(), crop_px=64, scale_range=(0.8, 2.0), rng=np.random.default_rng(seed)
    )
    regions = ids.long().masked_fill(~valid, -1)
    assert (regions == -1).any() or valid.all()
    inner = valid & ~boundary_band(regions[None], valid[None], 2)[0]  # colours are blended at the edges of blocks
    assert inner.float().mean() > 0.1
    torch.testing.assert_close(1000 * crop[0][inner], regions[inner].float(), atol=1e-3, rtol=0)


def test_visible_regions_have_a_table_of_fixed_size():
    scores = torch.arange(10.0).view(5, 2)
    regions = torch.tensor([[4, 4, 4, -1], [1, 1, 3, -1]])
    ids, table = visible_regions(regions, scores, 4)
    assert ids.tolist() == [[0, 0, 0, -1], [1, 1, 2, -1]]
    torch.testing.assert_close(table[:3], scores[[4, 1, 3]])
    assert table.shape == (4, 2) and table[3].isnan().all()
    ids, table = visible_regions(regions, scores, 2)
    assert ids.tolist() == [[0, 0, 0, -1], [1, 1, -1, -1]] and table.shape == (2, 2)


def test_windows_of_a_file_are_images_of_their_own(tmp_path):
    cache = RegionCache(tmp_path / "cache", PARAMETERS)
    file, moved = tmp_path / "a.png", tmp_path / "b.png"
    Image.new("RGB", (8, 8)).save(file)
    shutil.copy(file, moved)
    regions, scores = torch.zeros(4, 4, dtype=torch.int64), torch.ones(1, 2)
    cache.write(FileWindow(file, 0, 0, 4, 4), regions, scores)
    assert cache.has(FileWindow(moved, 0, 0, 4, 4))
    assert cache.missing([file, FileWindow(file, 0, 4, 4, 4)]) == [file, FileWindow(file, 0, 4, 4, 4)]
