"""Reading checkpoint files without running anything in them, and writing folders whole or not at all."""

import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from co2s_hf.convert.files import check_output, read_checkpoint, write_folder

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}
PARTS = ("model", "state_dict")


class Harmful:
    """What a pickle with code in it looks like: opening it would make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


def same(tensors, expected=TENSORS):
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_what_trainings_write(tmp_path, legacy):
    path = tmp_path / "best.pth"
    content = {
        "model": {f"module.{name}": value for name, value in TENSORS.items()},
        "model_ema": {"c": torch.zeros(1)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "previous_best": np.float64(71.5),
        "per_class": [np.float32(0.5), np.int64(3)],
        "epoch": 3,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(path, PARTS)
    assert same(read.tensors) and read.part == "model"
    assert read.left == ("model_ema", "optimizer", "previous_best", "per_class", "epoch")
    assert str(read) == f"best.pth: its 'model'; left in the file: {', '.join(read.left)}"
    assert read_checkpoint(path, ("model_ema", "model")).part == "model_ema"


def test_reads_bare_tensors(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    save_file(TENSORS, tmp_path / "b.anything")  # the content decides, not the name
    for name in ("a.pt", "b.anything"):
        read = read_checkpoint(tmp_path / name, PARTS)
        assert same(read.tensors) and read.part == "" and str(read) == f"{name}: all of it"


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_not_run(tmp_path, nested, legacy):
    path, made = tmp_path / "bad.pth", tmp_path / "made"
    bad = Harmful(made)
    torch.save({"model": TENSORS, "args": bad} if nested else bad, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"bad.pth holds more than data: opening it would run \w+.mkdir, .*state_dict"):
        read_checkpoint(path, PARTS)
    assert not made.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "text", "empty"])
def test_damaged_files_are_refused(tmp_path, kind):
    path = tmp_path / "bad.pth"
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind in ("zip", "legacy"):
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    if kind in ("text", "empty"):
        path.write_text("no weights at all" if kind == "text" else "")
    else:
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"bad.pth is no readable checkpoint, .* {path.stat().st_size} bytes"):
        read_checkpoint(path, PARTS)


def test_other_content_is_refused(tmp_path):
    path = tmp_path / "bad.pth"
    for content, message in (
        ([1, 2], "holds a list, expected named tensors"),
        ({"epoch": 3, "lr": 0.1}, "holds epoch, lr, expected tensors by name, .* under 'model' or 'state_dict'"),
        ({"weights": TENSORS, "epoch": 3}, "there are some under weights;"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            read_checkpoint(path, PARTS)
    with pytest.raises(ValueError, match="is a folder, expected one checkpoint file"):
        read_checkpoint(tmp_path, PARTS)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "nowhere.pth", PARTS)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    def half(folder):
        (folder / "config.json").touch()
        raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        write_folder(tmp_path / "new", half, force=False)
    assert list(tmp_path.iterdir()) == []
    write_folder(tmp_path / "deep" / "out", lambda folder: (folder / "config.json").touch(), force=False)
    with pytest.raises(ValueError, match="out exists already: choose another --output, or replace it with --force"):
        write_folder(tmp_path / "deep" / "out", half, force=False)
    with pytest.raises(ValueError, match="broken off"):
        write_folder(tmp_path / "deep" / "out", half, force=True)
    assert [path.name for path in (tmp_path / "deep").rglob("*")] == ["out", "config.json"]
    write_folder(tmp_path / "deep" / "out", lambda folder: (folder / "config.json").write_text("new"), force=True)
    assert (tmp_path / "deep" / "out" / "config.json").read_text() == "new"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_force_replaces_models_only(tmp_path):
    (tmp_path / "photos").mkdir()
    check_output(tmp_path / "photos", force=True)  # nothing can be lost
    (tmp_path / "photos" / "one.jpg").touch()
    for path in (tmp_path / "photos", tmp_path / "photos" / "one.jpg"):
        with pytest.raises(ValueError, match="is no model folder, so --force does not replace it"):
            check_output(path, force=True)


def test_tensors_larger_than_their_file_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match="a.pth holds .* bytes and tensors of 4000000000000, expected tensors that are"
    ):
        read_checkpoint(tmp_path / "a.pth", PARTS)
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/data/0", bytes(10**6))
    with pytest.raises(ValueError, match="b.pth is no readable checkpoint"):
        read_checkpoint(tmp_path / "b.pth", PARTS)


@pytest.mark.parametrize("content", [b"}", b"\x80\x02X\xff", b"PK\3\4" + bytes(60) + b"PK\5\6" + bytes(18)])
def test_bytes_that_break_a_reader_are_refused_by_name(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match="a.pth"):
        read_checkpoint(tmp_path / "a.pth", PARTS)
