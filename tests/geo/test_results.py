"""Files that appear together, or not at all."""

import json

import pytest

from co2s_hf.geo.results import files_together, write_json
from co2s_hf.raster.errors import RasterError


def test_files_appear_when_all_are_there(tmp_path):
    out = tmp_path / "new" / "out"
    with files_together(out, ("a", "b"), force=False) as folder:
        (folder / "a").write_text("1")
        assert not (out / "a").exists()
        (folder / "b").write_text("2")
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]


def test_an_error_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RasterError, match="holds a already.*--force"):
        with files_together(tmp_path, ("a", "b"), force=False):
            pass
    with pytest.raises(KeyboardInterrupt), files_together(tmp_path, ("a", "b"), force=True) as folder:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"
    with pytest.raises(RasterError, match="cannot be made"), files_together(tmp_path / "a", ("b",), force=True):
        pass


def test_numbers_that_are_none_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [{"c": float("inf")}, (1.5,)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [{"c": None}, [1.5]]}
