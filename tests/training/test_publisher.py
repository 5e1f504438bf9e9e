"""Pushes in the background: a snapshot that stays, the newest first, and no failure that reaches the run."""

import os
import shutil
import threading
import time

import pytest

from co2s_hf.publish.push import Pushed, PushError
from training.publisher import Publisher


@pytest.fixture
def model(tmp_path):
    """A folder with a file; what is in it does not matter to the thread."""
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "model.safetensors").write_text("first")
    return folder


class Uploads:
    """Stands in for `push_folder`: holds each upload until it is let go, and keeps what it would have sent."""

    def __init__(self):
        self.sent, self.errors, self.running, self.most = [], [], 0, 0
        self.started, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, folder, repo_id, *, message, revision, say):
        self.running += 1
        self.most = max(self.most, self.running)
        self.started.release()
        assert self.go.acquire(timeout=20)
        self.running -= 1
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((revision, message, (folder / "model.safetensors").read_text()))
        return Pushed(repo_id, revision, f"commit{len(self.sent)}", "https://example.com")


@pytest.fixture
def uploads(monkeypatch):
    stand_in = Uploads()
    monkeypatch.setattr("training.publisher.push_folder", stand_in)
    monkeypatch.setattr("training.publisher.check_access", lambda repo_id, **_: f"me/{repo_id}")
    return stand_in


@pytest.fixture
def said():
    return []


@pytest.fixture
def publisher(uploads, tmp_path, said):
    return Publisher("model", tmp_path / ".push", say=said.append)


def replace_model(folder, text):
    """As a training does: a new folder in the place of the old one."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "model.safetensors").write_text(text)


def test_what_is_sent_is_what_was_submitted(publisher, uploads, model, tmp_path, said):
    publisher.submit(model, "main", "step 1")
    assert uploads.started.acquire(timeout=20)
    replace_model(model, "second")  # while the first one is on its way
    uploads.go.release(2)
    publisher.submit(model, "last", "step 2")
    assert publisher.finish() == {"main": "commit1", "last": "commit2"}
    assert uploads.sent == [("main", "step 1", "first"), ("last", "step 2", "second")]
    assert not (tmp_path / ".push").exists()
    assert said == [
        f"pushed {model} to me/model, main: https://example.com",
        f"pushed {model} to me/model, last: https://example.com",
    ]


def test_of_those_that_wait_the_newest_stays(publisher, uploads, model):
    for step in range(5):
        replace_model(model, f"step {step}")
        publisher.submit(model, "main", f"{step}")
        if step == 0:
            assert uploads.started.acquire(timeout=20)
    snapshots = list(publisher.scratch.iterdir())
    uploads.go.release(5)
    publisher.finish()
    assert [text for _, _, text in uploads.sent] == ["step 0", "step 4"]
    assert uploads.most == 1 and len(snapshots) == 2


def test_submitting_waits_for_nothing(publisher, uploads, model):
    (model / "large.bin").write_bytes(bytes(2**24))
    start = time.perf_counter()
    for _ in range(3):
        publisher.submit(model, "main", "m")
    assert time.perf_counter() - start < 1  # none of the uploads has been let go
    assert (publisher.scratch / "3" / "large.bin").stat().st_ino == (model / "large.bin").stat().st_ino
    uploads.go.release(3)
    publisher.finish()


def test_without_links_files_are_copied(publisher, uploads, model, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    publisher.submit(model, "main", "m")
    (model / "model.safetensors").write_text("changed")
    uploads.go.release()
    publisher.finish()
    assert uploads.sent == [("main", "m", "first")]


@pytest.mark.parametrize("error", [PushError("no route"), RuntimeError("surprise")])
def test_a_failure_is_a_warning_and_the_way_to_repeat_it(publisher, uploads, model, said, error):
    uploads.errors = [error]
    publisher.submit(model, "last", "m")
    uploads.go.release()
    assert publisher.finish() == {"last": None}
    assert said == [
        f"warning: a push failed, the training goes on: {error}",
        f"warning: {model} is not on the Hub. To send it: co2s push {model} me/model --revision last",
    ]
    assert (model / "model.safetensors").read_text() == "first"


def test_a_later_push_mends_an_earlier_failure(publisher, uploads, model, said):
    uploads.errors = [PushError("no route")]
    publisher.submit(model, "main", "1")
    assert uploads.started.acquire(timeout=20)
    publisher.submit(model, "main", "2")
    uploads.go.release(2)
    assert publisher.finish() == {"main": "commit1"}
    assert said[-1].startswith("pushed ")


def test_a_connection_that_hangs_does_not_hold_the_run_for_ever(publisher, uploads, model, said):
    publisher.submit(model, "main", "1")
    assert uploads.started.acquire(timeout=20)
    publisher.submit(model, "last", "2")
    assert publisher.finish(patience_s=0.05) == {"main": None, "last": None}
    assert [line.startswith("warning: ") and "co2s push" in line for line in said] == [True, True]
    uploads.go.release(2)
    publisher._thread.join(20)


def test_what_is_outdated_does_not_count_as_pushed(publisher, uploads, model):
    publisher.submit(model, "main", "1")
    assert uploads.started.acquire(timeout=20)
    uploads.errors = []
    publisher.submit(model, "main", "2")
    uploads.go.release()
    assert uploads.started.acquire(timeout=20)  # the first one has arrived, the second one is on its way
    uploads.errors = [PushError("no route")]
    uploads.go.release()
    assert publisher.finish() == {"main": None} and len(uploads.sent) == 1


def test_a_folder_that_is_gone_is_a_warning(publisher, uploads, tmp_path, said):
    publisher.submit(tmp_path / "gone", "main", "m")
    assert publisher.finish() == {"main": None} and "was not made ready" in said[0]


def test_leftovers_of_a_crash_go(uploads, tmp_path):
    (tmp_path / ".push" / "7").mkdir(parents=True)
    publisher = Publisher("model", tmp_path / ".push", say=lambda line: None)
    assert not (tmp_path / ".push").exists() and publisher.finish() == {}
