"""Two processes train like one: the same batches, the same gradients, and a run that resumes bitwise."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from co2s_hf.raster.write import write_image, write_mask
from tests.training.distributed_worker import METHODS
from tests.training.tiny_runs import (
    SCRIPT,
    build_tiny_model,
    finish,
    load_batch,
    save_students,
    start,
    tensors_of,
    write_recipe,
)
from training.parts.schedules import Progress

# A free port is taken; two processes on CPU talk through gloo.
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images of different sizes, the first four with masks; every mask has another share of ignored pixels."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir(), (folder / "labels").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        size = (24 + 4 * i, 40)
        write_image(folder / "images" / f"i{i}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        if i < 4:
            mask = rng.integers(0, 3, size, dtype=np.uint8)
            mask[rng.random(size) < (0.0, 0.1, 0.9, 0.8)[i]] = 255
            write_mask(folder / "labels" / f"i{i}.png", mask)
    return folder


@pytest.fixture(scope="module")
def two_processes(data, tmp_path_factory):
    """What each of two processes made of a step."""
    out = tmp_path_factory.mktemp("out")
    finish(start(*TWO_PROCESSES, WORKER, data, out))
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_the_batches_of_two_processes_are_the_batch_of_one(two_processes, data):
    joint = tensors_of(load_batch(data, batch_size=4, rank=0, world_size=1))
    assert torch.equal(joint.pop("pairs"), torch.tensor([1, 0, 3, 2]))  # within each process, too: places in its batch
    for name, tensor in joint.items():
        assert torch.equal(torch.cat([result["batch"][name] for result in two_processes]), tensor), name
    assert set(joint) | {"pairs"} == set(two_processes[0]["batch"])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_gradients_of_two_processes_are_the_gradient_of_one(name, two_processes, data):
    method = METHODS[name](build_tiny_model())
    expected = method.step(load_batch(data, batch_size=4, rank=0, world_size=1), Progress(5, 10))
    expected["loss"].backward()

    # The premises: counts differ between the processes, and every term counts.
    ignored, padding = (
        [(result["batch"][name] == value).sum().item() for result in two_processes]
        for name, value in (("y", 255), ("u_valid", False))
    )
    assert ignored[0] != ignored[1] and padding[0] != padding[1]
    assert all(value > 0 for scalar, value in expected.items() if scalar != "loss")

    largest, halves = 0.0, [result[name] for result in two_processes]
    for parameter_name, parameter in method.model.named_parameters():
        if parameter.requires_grad:
            scale = parameter.grad.abs().max().clamp(min=1e-9)  # biases of keys have no gradient but rounding
            for half in halves:
                difference = (half["gradients"][parameter_name] - parameter.grad).abs().max()
                largest = max(largest, (difference / scale).item())
    assert largest < 1e-7  # in float64
    mean_loss = sum(half["scalars"]["loss"] for half in halves) / 2
    torch.testing.assert_close(mean_loss, expected["loss"])


@pytest.mark.slow
def test_a_killed_run_of_two_processes_resumes_bitwise(tmp_path):
    """All processes are killed by SIGKILL some time after a checkpoint."""
    students, commands = save_students(tmp_path), {}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        recipe = write_recipe(
            tmp_path / name,
            output_dir=str(tmp_path / name / "run"),
            max_steps=24,
            eval_every=8,
            save_every=3,
            **students,
        )
        commands[name] = (*TWO_PROCESSES, SCRIPT, "--recipe", recipe)
    finish(start(*commands["whole"]))

    process, checkpoints, end = start(*commands["parts"]), tmp_path / "parts/run/checkpoints", time.monotonic() + 240
    while not list(checkpoints.glob("step-*")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(0.7)
    assert process.poll() is None, "the run ended before it could be killed: give it more steps"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "resumed from" in finish(start(*commands["parts"], "--resume"))

    whole, parts = (tmp_path / name / "run" for name in ("whole", "parts"))
    for name in ("model", "best"):
        assert (whole / name / "model.safetensors").read_bytes() == (parts / name / "model.safetensors").read_bytes()
