"""A folder in the making: what is kept of an interrupted run, and what is not."""

import json
import os

import pytest

from co2s_hf.data.folders import DataError
from co2s_hf.data.journal import JOURNAL, Journal, fingerprint, refuse_target

TASK = {"data set": "Seas", "side": 8}


def work(target, steps, stop=99, **options):
    """Make a folder of one file per step, and be interrupted ahead of the step `stop`; give what was resumed."""
    with Journal(target, TASK, **options) as journal:
        for number in range(len(journal.entries), steps):
            path = journal.folder / f"{number}.txt"
            path.write_text(f"file {number}")
            if number == stop:
                raise KeyboardInterrupt
            journal.add([path], {"number": number})
        journal.finish("made.json", {"steps": [entry["number"] for entry in journal.entries]})
    return journal.resumed


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_what_is_done_is_kept_and_the_rest_is_made_anew(tmp_path):
    assert work(tmp_path / "whole", 5) == 0
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=3)
    assert not (tmp_path / "made").exists()
    assert {path.name for path in (tmp_path / ".made.part").iterdir()} == {JOURNAL, *(f"{i}.txt" for i in range(4))}
    assert work(tmp_path / "made", 5) == 3
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")
    assert json.loads((tmp_path / "made" / "made.json").read_text()) == {"steps": [0, 1, 2, 3, 4]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "whole"]


@pytest.mark.parametrize("damage", ["torn", "no line end", "short file", "no file", "stray file"])
def test_what_is_not_complete_does_not_count(tmp_path, damage):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=3)
    part = tmp_path / ".made.part"
    if damage == "torn":
        with open(part / JOURNAL, "a") as file:
            file.write('{"files": {"3.t')
    elif damage == "no line end":
        (part / JOURNAL).write_bytes((part / JOURNAL).read_bytes()[:-1])
    elif damage == "short file":
        (part / "1.txt").write_text("fi")
    elif damage == "no file":
        (part / "1.txt").unlink()
    else:
        (part / "9.txt").touch()
    assert work(tmp_path / "made", 5) == {"torn": 3, "no line end": 2, "short file": 1, "no file": 1}.get(damage, 3)
    assert set(contents(tmp_path / "made")) == {"made.json", *(f"{i}.txt" for i in range(5))}
    assert contents(tmp_path / "made")["1.txt"] == "file 1"


def change(path, old, new):
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))


def test_a_damaged_file_or_line_is_made_anew(tmp_path):
    for name, old, new, resumed in (("1.txt", b"file", b"fIle", 1), (JOURNAL, b'"number": 2', b'"number": 7', 2)):
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path / name, 5, stop=3)
        change(tmp_path / f".{name}.part" / name, old, new)
        assert work(tmp_path / name, 5) == resumed
        assert json.loads((tmp_path / name / "made.json").read_text()) == {"steps": [0, 1, 2, 3, 4]}
        assert (tmp_path / name / "1.txt").read_text() == "file 1"


def test_a_damaged_task_is_refused_and_deletes_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=3)
    change(tmp_path / ".made.part" / JOURNAL, b"Seas", b"Sees")
    with pytest.raises(DataError, match=r"jsonl is damaged, .*: its first line does not say what is being made"):
        work(tmp_path / "made", 5)
    assert (tmp_path / ".made.part" / "2.txt").is_file()
    assert work(tmp_path / "made", 5, force=True) == 0


def test_another_task_is_refused_and_forced(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=3)
    with monkeypatch.context() as patch:
        patch.setitem(TASK, "side", 16)
        with pytest.raises(DataError, match=r"\.made\.part is the unfinished run of another task \(side 8, not 16\)"):
            work(tmp_path / "made", 5)
    assert work(tmp_path / "made", 4, stop=99, force=True) == 3  # the same task goes on, forced or not
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=3, force=True)
    monkeypatch.setitem(TASK, "side", 16)
    assert work(tmp_path / "made", 2, force=True) == 0
    assert set(contents(tmp_path / "made")) == {"made.json", "0.txt", "1.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_nothing_done_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path / "made", 5, stop=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".made.part").mkdir()
    (tmp_path / ".made.part" / "old.txt").touch()  # killed before it said what it was
    assert work(tmp_path / "made", 1) == 0 and set(contents(tmp_path / "made")) == {"made.json", "0.txt"}


def test_only_what_was_made_here_is_replaced(tmp_path):
    source = tmp_path / "source"
    with pytest.raises(DataError, match="lies in the download"):
        refuse_target(source / "made", "made.json", source, force=True)
    refuse_target(tmp_path / "made", "made.json", source, force=False)
    (tmp_path / "made").mkdir()
    with pytest.raises(DataError, match="made exists; expected a new folder"):
        refuse_target(tmp_path / "made", "made.json", source, force=False)
    with pytest.raises(DataError, match="holds no made.json, so it was not made here"):
        refuse_target(tmp_path / "made", "made.json", source, force=True)
    (tmp_path / "made" / "made.json").touch()
    refuse_target(tmp_path / "made", "made.json", source, force=True)


def test_the_fingerprint_sees_names_sizes_and_times(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    first = fingerprint([path], tmp_path)
    assert fingerprint([path], tmp_path) == first != fingerprint([path], tmp_path.parent)
    os.utime(path, ns=(0, 1))
    later = fingerprint([path], tmp_path)
    path.write_text("four")
    os.utime(path, ns=(0, 1))
    assert len({first, later, fingerprint([path], tmp_path)}) == 3
