import json
import math
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from training import checkpoints
from training.checkpoints import (
    CHECKSUMS,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    newest_good_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)

FINGERPRINT = {"method": "co2s", "seed": 0, "optim": {"lr": 1e-4, "betas": (0.9, 0.999)}}


class Counter:
    """Stands for the extra state of a method, like an EMA copy."""

    def __init__(self):
        self.mean = torch.zeros(3)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]


class Run:
    """Fresh objects, as a new process has them."""

    def __init__(self, seed=0):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        self.accelerator = Accelerator(cpu=True)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.counter = Counter()
        self.accelerator.register_for_checkpointing(self.counter)

    def train(self, steps):
        losses = []
        for _ in range(steps):
            x = torch.randn(5, 4) + random.random() + float(np.random.normal())
            out = self.model(x)
            loss = out.square().mean()
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.counter.mean = 0.9 * self.counter.mean + 0.1 * out.detach().mean(0)
            losses.append(loss.item())
        return losses

    def save(self, folder, step, state=None, fingerprint=FINGERPRINT, **options):
        return save_checkpoint(
            self.accelerator, folder, step=step, state=state or {}, fingerprint=fingerprint, **options
        )


def test_resumed_run_is_bitwise_equal_to_the_uninterrupted_one(tmp_path):
    whole = Run()
    whole.train(3)
    expected = whole.train(3)

    first = Run()
    first.train(3)
    first.save(tmp_path, 3, {"best": 0.5, "history": [{"step": 3, "iou": math.nan}]})
    second = Run(seed=99)
    second.train(1)
    step, state = load_checkpoint(second.accelerator, latest_checkpoint(tmp_path), fingerprint=FINGERPRINT)

    assert step == 3 and state["best"] == 0.5 and math.isnan(state["history"][0]["iou"])
    assert second.train(3) == expected
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for left, right in zip(*(run.optimizer.state_dict()["state"].values() for run in (whole, second)), strict=True):
        assert all(torch.equal(left[key], right[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert torch.equal(whole.counter.mean, second.counter.mean)


def test_crash_while_saving_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    run = Run()
    earlier = run.save(tmp_path, 1)
    before = sorted(path.name for path in earlier.iterdir())
    monkeypatch.setattr(run.counter, "state_dict", lambda: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        run.save(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == earlier and sorted(path.name for path in earlier.iterdir()) == before
    assert (tmp_path / ".tmp-step-00000002" / "model.safetensors").exists()
    monkeypatch.undo()

    assert run.save(tmp_path, 3).name == "step-00000003"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_what_a_killed_run_left_is_removed_ahead_of_a_resume(tmp_path, monkeypatch):
    run = Run()
    run.save(tmp_path, 1)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.save(tmp_path, 2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-discarded-step-00000001", "step-00000002"]
    assert newest_good_checkpoint(tmp_path) == (tmp_path / "step-00000002", [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "run.json", CHECKSUMS])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_checkpoint_with_a_changed_file_is_passed_over_and_named(name, damage, tmp_path):
    run = Run()
    good, bad = run.save(tmp_path, 1, keep=2), run.save(tmp_path, 2, keep=2)
    content = bytearray((bad / name).read_bytes())
    content[len(content) // 2] ^= 4
    (bad / name).write_bytes({"flip": content, "truncate": content[:-1], "remove": b""}[damage])
    if damage == "remove":
        (bad / name).unlink()
    if (name, damage) == ("run.json", "remove"):  # then it never was one
        assert newest_good_checkpoint(tmp_path) == (good, [])
        return
    found, (problem,) = newest_good_checkpoint(tmp_path)
    assert found == good and str(bad) in problem and (name in problem or name == CHECKSUMS)
    assert (tmp_path / "damaged-step-00000002").is_dir()
    assert run.save(tmp_path, 2).name == "step-00000002"  # the run that goes on gets there again


def test_a_checkpoint_of_another_name_is_no_checkpoint_of_that_step(tmp_path):
    path = Run().save(tmp_path, 1)
    path.rename(tmp_path / "step-00000007")
    with pytest.raises(CheckpointError, match="step-00000007 is damaged: it holds step 1, which its name does not say"):
        verify_checkpoint(tmp_path / "step-00000007")


@pytest.mark.parametrize("name", ["run.json", CHECKSUMS])
@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", "3", "null", '{"a": 1'])
def test_json_of_any_form_is_a_named_error(tmp_path, name, content):
    path = Run().save(tmp_path, 1)
    (path / name).write_text(content)
    with pytest.raises(CheckpointError, match="step-00000001"):
        verify_checkpoint(path)


def test_crash_before_the_rename_keeps_the_old_one(tmp_path, monkeypatch):
    run = Run()
    earlier = run.save(tmp_path, 1)
    monkeypatch.setattr(checkpoints, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.save(tmp_path, 2)
    assert latest_checkpoint(tmp_path) == earlier


def test_keeps_the_newest_and_replaces_the_same_step(tmp_path):
    run = Run()
    for step in (1, 2, 3):
        run.save(tmp_path, step, keep=2)
    run.save(tmp_path, 3, {"note": "again"}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert json.loads((tmp_path / "step-00000003" / "run.json").read_text())["state"] == {"note": "again"}


def test_latest_ignores_what_is_not_finished(tmp_path):
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "nowhere") is None
    for name in (".tmp-step-00000009", "step-00000008", "step-latest"):
        (tmp_path / name).mkdir()
    (tmp_path / ".tmp-step-00000009" / "run.json").write_text("{}")
    (tmp_path / "step-latest" / "run.json").write_text("{}")
    assert latest_checkpoint(tmp_path) is None
    for step in (99_999_999, 100_000_000):  # ten digits sort by number, not by name
        (tmp_path / f"step-{step:08d}").mkdir()
        (tmp_path / f"step-{step:08d}" / "run.json").write_text("{}")
    assert latest_checkpoint(tmp_path).name == "step-100000000"


def test_refuses_another_configuration(tmp_path):
    run = Run()
    path = run.save(tmp_path, 1)
    other = {"method": "co2s", "optim": {"lr": 0.1, "betas": [0.9, 0.999]}, "size_px": 64}
    before = run.model.state_dict()["0.weight"].clone()
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(run.accelerator, path, fingerprint=other)
    assert str(error.value) == (
        f"{path} belongs to a run with another configuration:\n"
        "  optim.lr: checkpoint 0.0001, now 0.1\n"
        "  seed: checkpoint 0, now absent\n"
        "  size_px: checkpoint absent, now 64\n"
        "Start the new run in a new --output_dir, or resume with the old arguments."
    )
    assert torch.equal(run.model.state_dict()["0.weight"], before)


def test_refuses_to_mix_two_runs_in_one_folder(tmp_path):
    run = Run()
    run.save(tmp_path, 5)
    with pytest.raises(CheckpointError, match="holds step-00000005, a later step than 2.*new --output_dir"):
        run.save(tmp_path, 2)


def test_refuses_another_number_of_processes(tmp_path):
    run = Run()
    path = run.save(tmp_path, 1)
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, "num_processes": 2}))
    with pytest.raises(CheckpointError, match="saved by 2 processes, this run has 1"):
        load_checkpoint(run.accelerator, path, fingerprint=FINGERPRINT)


def test_refuses_missing_or_damaged_random_states(tmp_path):
    run = Run()
    path = run.save(tmp_path, 1)
    load = partial(load_checkpoint, run.accelerator, path, fingerprint=FINGERPRINT)
    states = path / "random_states_0.pkl"
    states.write_bytes(states.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"random_states_0.pkl cannot be read .* damaged"):
        load()
    states.unlink()
    with pytest.raises(CheckpointError, match=r"random_states_0.pkl is missing"):
        load()
    (path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"is no finished checkpoint: its run.json cannot be read"):
        load()
    (path / "run.json").write_text('{"format": 0}')
    with pytest.raises(CheckpointError, match=r"has format 0, this version reads format 2"):
        load()


@pytest.mark.parametrize("setter", ["random.setstate", "numpy.random.set_state", "torch.set_rng_state"])
def test_notices_random_states_that_accelerate_failed_to_restore(tmp_path, monkeypatch, setter):
    run = Run()
    path = run.save(tmp_path, 1)
    random.random(), np.random.normal(), torch.rand(1)
    monkeypatch.setattr(setter, lambda *_: 1 / 0)
    with pytest.raises(CheckpointError, match="were not restored for: .*torch CPU"):
        load_checkpoint(run.accelerator, path, fingerprint=FINGERPRINT)


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "random_states_0.pkl"])
def test_executes_no_foreign_pickle(tmp_path, monkeypatch, name, write):
    monkeypatch.chdir(tmp_path)
    run = Run()
    path = run.save(tmp_path / "checkpoints", 1)
    write(Malicious(), path / name)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read as plain tensors"):
        load_checkpoint(run.accelerator, path, fingerprint=FINGERPRINT)
    assert not (tmp_path / "executed").exists()
