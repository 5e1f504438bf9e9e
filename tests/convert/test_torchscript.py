"""Tensors of a program's archive, read without the program."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from co2s_hf.convert.files import read_checkpoint
from co2s_hf.convert.torchscript import is_torchscript, read_torchscript

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("count", torch.tensor(7))
        self.narrow = nn.Linear(4, 2, bias=False).half()

    def forward(self, x):
        return self.layers(x) * self.scale + self.count + self.narrow.weight.sum()


@pytest.fixture
def archive(tmp_path):
    torch.manual_seed(0)
    program = Program()
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.trace(program, torch.ones(2, 3)), path)
    return path, program.state_dict()


def test_gives_the_state_dict(archive):
    path, expected = archive
    tensors = read_torchscript(path)
    assert is_torchscript(path) and tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[n], v) and tensors[n].dtype == v.dtype for n, v in expected.items())
    read = read_checkpoint(path, ("model",))
    assert read.is_torchscript and read.tensors.keys() == expected.keys()


def test_other_files_are_no_archives(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_text("text")
    assert not is_torchscript(tmp_path / "a.pt") and not is_torchscript(tmp_path / "b.pt")


def test_code_hidden_in_an_archive_is_not_run(archive, tmp_path):
    path, _ = archive

    class Harmful:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "made"),)

    changed = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            harmful = name.endswith("/data.pkl") and name.count("/") == 1
            target.writestr(name, pickle.dumps(Harmful()) if harmful else source.read(name))
    with pytest.raises(ValueError, match=r"changed.pt holds more than data: opening it would run \w+.mkdir,"):
        read_checkpoint(changed, ("model",))
    assert not (tmp_path / "made").exists()


def test_a_damaged_archive_is_refused(archive, tmp_path):
    path, _ = archive
    lacking = tmp_path / "lacking.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(lacking, "w") as target:
        for name in source.namelist():
            if not name.endswith("/data/0"):
                target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="lacking.pt is no readable checkpoint"):
        read_checkpoint(lacking, ("model",))
