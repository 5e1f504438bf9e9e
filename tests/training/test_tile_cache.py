import os
import shutil
import time

import numpy as np
import pytest
import torch

from co2s_hf.raster.image import FileWindow
from training import tile_cache
from training.tile_cache import TileCache

ROOM = 2**20


class Decoder:
    """Decodes to numbers that grow with every call."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        pixels = np.random.default_rng(self.calls).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        return {"pixels": torch.from_numpy(pixels), "valid": torch.from_numpy(pixels[..., 0] > 9)}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.png").write_bytes(b"some image")
    return tmp_path / "a.png"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tiles"


def entry(folder):
    [path] = folder.glob("*.safetensors")
    return path


def test_decodes_once_for_all_processes(source, folder):
    decode = Decoder()
    cache, later = TileCache(folder, limit_bytes=ROOM), TileCache(folder, limit_bytes=ROOM)
    made = cache.get(source, "x", decode)
    for again in (cache.get(source, "x", decode), later.get(source, "x", decode)):
        assert again.keys() == made.keys() and all(torch.equal(again[name], made[name]) for name in made)
        assert again["valid"].dtype == torch.bool
    assert decode.calls == 1 and [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_options_and_files_have_entries_of_their_own(source, folder):
    decode, cache = Decoder(), TileCache(folder, limit_bytes=ROOM)
    other = source.with_name("b.png")
    shutil.copy2(source, other)
    one, two, three = (cache.get(*which, decode)["pixels"] for which in ((source, "x"), (source, "y"), (other, "x")))
    assert decode.calls == 3 and not torch.equal(one, two) and not torch.equal(one, three)
    assert torch.equal(TileCache(folder, limit_bytes=ROOM).get(source, "y", decode)["pixels"], two)


def test_a_relative_path_is_the_same_file(source, folder, monkeypatch):
    decode = Decoder()
    TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    monkeypatch.chdir(source.parent)
    TileCache("tiles", limit_bytes=ROOM).get(source.relative_to(source.parent), "x", decode)
    assert decode.calls == 1


@pytest.mark.parametrize("change", ["size", "time", "mask", "nodata", "place", "other place", "version"])
def test_what_is_out_of_date_is_made_again(change, source, folder, monkeypatch):
    decode = Decoder()
    TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    if change == "size":
        state = source.stat()
        source.write_bytes(b"another image")
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(source, (1, 1))
    elif change == "version":
        monkeypatch.setattr(tile_cache, "FORMAT", tile_cache.FORMAT + 1)
    else:  # read by GDAL with the image
        names = {"mask": "a.png.msk", "nodata": "a.png.aux.xml", "place": "a.pgw", "other place": "a.WLD"}
        source.with_name(names[change]).write_bytes(b"x")
    for _ in range(2):
        made = TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    assert decode.calls == 2 and torch.equal(
        made["pixels"], TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)["pixels"]
    )
    assert entry(folder)  # in the place of the old one


def test_labels_are_those_of_a_mask_on_the_grid_of_an_image(source, folder):
    decode, cache = Decoder(), TileCache(folder, limit_bytes=ROOM)
    other = source.with_name("b.png")
    shutil.copy2(source, other)
    for onto in (source, other, None, source):
        cache.get(source, "x", decode, onto=onto)
    assert decode.calls == 3
    os.utime(other, (1, 1))
    later = TileCache(folder, limit_bytes=ROOM)
    later.get(source, "x", decode, onto=source)
    later.get(source, "x", decode, onto=other)
    assert decode.calls == 4


def test_windows_of_a_file_have_entries_of_their_own(source, folder):
    decode, cache = Decoder(), TileCache(folder, limit_bytes=ROOM)
    for _ in range(2):
        for left in (0, 4):
            cache.get(FileWindow(source, 0, left, 4, 4), "x", decode)
    assert decode.calls == 2
    os.utime(source, (1, 1))
    TileCache(folder, limit_bytes=ROOM).get(FileWindow(source, 0, 0, 4, 4), "x", decode)
    assert decode.calls == 3


def flipped(content):
    place = len(content) - 1000
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "a flipped bit": flipped,
    "cut off": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "header alone": lambda content: content[:8],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "another format": lambda content: b"not an entry " * 50,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_made_again(damage, source, folder):
    decode = Decoder()
    TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    path = entry(folder)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    made = TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    again = TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    assert decode.calls == 2 and torch.equal(made["pixels"], again["pixels"])


def test_the_entry_of_another_file_is_not_taken(source, folder):
    decode, cache = Decoder(), TileCache(folder, limit_bytes=ROOM)
    cache.get(source, "x", decode)
    first = entry(folder)
    right = cache.get(source, "y", decode)
    second = next(path for path in folder.iterdir() if path != first)
    shutil.copy(first, second)
    assert not torch.equal(TileCache(folder, limit_bytes=ROOM).get(source, "y", decode)["pixels"], right["pixels"])
    assert decode.calls == 3


def test_an_entry_is_held_against_its_checksum_once(source, folder, monkeypatch):
    """What follows reads the part that it crops, not the image."""
    decode = Decoder()
    TileCache(folder, limit_bytes=ROOM).get(source, "x", decode)
    cache, sums = TileCache(folder, limit_bytes=ROOM), []
    checksum = tile_cache._checksum
    monkeypatch.setattr(tile_cache, "_checksum", lambda tensors: sums.append(1) or checksum(tensors))
    for _ in range(3):
        cache.get(source, "x", decode)
    assert len(sums) == decode.calls == 1
    entry(folder).unlink()  # by hand, in the middle of a run
    cache.get(source, "x", decode)
    assert decode.calls == 2 and entry(folder)


def test_it_keeps_to_its_room(tmp_path, folder):
    decode, cache = Decoder(), TileCache(folder, limit_bytes=12_000)  # an entry is 4,800 bytes and its header
    with pytest.warns(
        UserWarning, match=r"tiles is full with .* GiB of 1\.12e-05: what is not in it is decoded for"
    ) as said:
        for name in "abcdef":
            cache.get(tmp_path / name, "x", decode)
    assert len(said) == 1 and decode.calls == 6
    assert len(list(folder.iterdir())) == 2 and sum(path.stat().st_size for path in folder.iterdir()) <= 12_000
    cache.get(tmp_path / "a", "x", decode)
    assert decode.calls == 6  # what is in it stays in use
    other = TileCache(folder, limit_bytes=12_000)
    with pytest.warns(UserWarning, match="is full"):
        other.get(tmp_path / "g", "x", decode)


def test_a_full_disk_ends_nothing(source, folder, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"as far as it went")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tile_cache, "save_file", fail)
    decode, cache = Decoder(), TileCache(folder, limit_bytes=ROOM)
    with pytest.warns(UserWarning, match=r"cannot be written to \(.*No space left on device\)"):
        made = cache.get(source, "x", decode)
    assert made["pixels"].shape == (40, 30, 3) and list(folder.iterdir()) == []
    cache.get(source, "x", decode)  # and does not try or warn again
    assert decode.calls == 2


def test_leftovers_of_killed_processes_go(folder):
    folder.mkdir()
    for name, age_s in ((".old.tmp", 7200), (".young.tmp", 0)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    TileCache(folder, limit_bytes=ROOM)
    assert [path.name for path in folder.iterdir()] == [".young.tmp"]


def test_the_folder_must_be_one(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        TileCache(tmp_path / "file", limit_bytes=ROOM)
