"""What a run is guarded against; what two processes do about a fault of one of them is in `test_two_guarded.py`."""

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset

from co2s_hf.data.synthetic import CLASSES
from co2s_hf.publish.folder import CHECKSUMS, FolderError, check_folder
from co2s_hf.raster.errors import RasterError
from tests.faults import children
from tests.faults.spoil import explode
from tests.training.tiny_runs import STAND_INS, draw_blanks, start, tiny_arguments
from training import train_semi
from training.checkpoints import latest_checkpoint, verify_checkpoint
from training.eval_semi import main as evaluate_saved
from training.guards import LOCK, RunError, RunLock, Signals, StepGuard, plain_end, writing
from training.methods.co2s import Co2S
from training.train_semi import main

pytestmark = [pytest.mark.filterwarnings(STAND_INS), pytest.mark.usefixtures("fresh_accelerate_state")]


@pytest.fixture(scope="module", autouse=True)
def blank_pictures():
    with pytest.MonkeyPatch.context() as patch:
        draw_blanks(patch.setattr)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, students, blank_pictures):
    """A finished run of four steps with two checkpoints; copied, never changed."""
    folder = tmp_path_factory.mktemp("finished")
    main(tiny_arguments(folder, **students))
    return folder / "run"


@pytest.fixture
def run_folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def at_step(monkeypatch, wanted, action):
    """Do something in a step of the method."""
    original = Co2S.step

    def step(self, batch, progress):
        if progress.step == wanted:
            action()
        return original(self, batch, progress)

    monkeypatch.setattr(Co2S, "step", step)


# ---- one run in a folder ---------------------------------------------------------------------------------------------


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 7 on another-machine")
file.flush()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_run_in_a_folder_is_refused_while_the_first_one_lives(students, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "run" / LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"locked\n"
    with pytest.raises(SystemExit) as refusal:
        main(tiny_arguments(tmp_path, **students))
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert "run is in use by a run that goes on (process 7 on another-machine): wait for its end, or choose" in said
    first.kill()
    first.communicate()
    RunLock(tmp_path / "run").take()


def test_a_folder_that_was_replaced_is_noticed(tmp_path):
    lock = RunLock(tmp_path / "run")
    lock.require()  # nothing was taken
    lock.take()
    lock.require()
    (tmp_path / "run").rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(RunError, match="was removed or replaced while its run went on"):
            lock.require()
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / LOCK).touch()


# ---- kills -----------------------------------------------------------------------------------------------------------


def test_a_killed_run_resumes_to_the_same_bytes_and_what_it_half_wrote_is_no_checkpoint(finished, students, tmp_path):
    checkpoints = tmp_path / "run/checkpoints"
    moment = children.Moment(change=3, folder="step-00000004")  # its model is there, its run.json is not
    work = partial(main, tiny_arguments(tmp_path, **students))
    assert children.wait([children.start(work, tmp_path / "log", moment=moment)], timeout_s=120) == [-signal.SIGKILL]
    assert (checkpoints / ".tmp-step-00000004/model.safetensors").is_file()
    assert latest_checkpoint(checkpoints).name == "step-00000002"
    main(tiny_arguments(tmp_path, "--resume", **students))
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000004"]
    for name in ("model/model.safetensors", "best/model.safetensors", "checkpoints/step-00000004/optimizer.bin"):
        assert (finished / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_the_resumed_run_is_the_same(
    number, status, finished, students, tmp_path, monkeypatch, capsys
):
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    at_step(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stopped:
        main(tiny_arguments(tmp_path, **students))
    assert stopped.value.code == status
    name = signal.Signals(number).name
    assert f"stopped by {name} after step 3; {tmp_path / 'run/checkpoints/step-00000003'}" in capsys.readouterr().out
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    monkeypatch.undo()
    if number == signal.SIGTERM:
        main(tiny_arguments(tmp_path, "--resume", **students))
        for one in ("model", "best"):
            first, second = (folder / one / "model.safetensors" for folder in (finished, tmp_path / "run"))
            assert first.read_bytes() == second.read_bytes()


def test_a_signal_breaks_an_evaluation_off_and_the_resumed_run_does_it(finished, students, tmp_path, monkeypatch):
    original = train_semi.evaluate

    def evaluate(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(train_semi, "evaluate", evaluate)
        main(tiny_arguments(tmp_path, **students))
    record = json.loads((tmp_path / "run/checkpoints/step-00000002/run.json").read_text())
    assert record["state"]["history"] == []
    main(tiny_arguments(tmp_path, "--resume", **students))
    first, second = (json.loads((one / "metrics.json").read_text()) for one in (finished, tmp_path / "run"))
    assert first["history"] == second["history"]


def test_without_save_on_signal_nothing_listens(students, tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    at_step(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            main(tiny_arguments(tmp_path, "--no-save_on_signal", **students))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_second_signal_ends_at_once():
    code = (
        "import os, signal; from accelerate import Accelerator; from training.guards import Signals\n"
        "signals = Signals(); signals.listen(Accelerator(cpu=True))\n"
        "os.kill(os.getpid(), signal.SIGTERM); print(signals.agreed(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    process = start("-c", code)
    assert "15\n" in process.communicate(timeout=120)[0] and process.returncode == -signal.SIGTERM


def test_no_signal_is_no_wish():
    with Signals() as signals:
        assert signals.agreed() == 0
        signals.listen(Accelerator(cpu=True))
        assert signals.agreed() == signals.agreed(at_once=True) == 0 and not signals.wanted()


# ---- checkpoints and models that changed -----------------------------------------------------------------------------


def test_resume_falls_back_to_the_newest_good_checkpoint_and_says_so(run_folder, finished, students, tmp_path, capsys):
    flip(run_folder / "checkpoints/step-00000004/optimizer.bin")
    main(tiny_arguments(tmp_path, "--resume", **students))
    said = capsys.readouterr().out
    assert "warning: " in said and "step-00000004 is damaged: optimizer.bin changed since it was written. It is" in said
    assert "resumed from" in said and "step-00000002 after step 2" in said
    assert (run_folder / "checkpoints/damaged-step-00000004").is_dir()
    verify_checkpoint(run_folder / "checkpoints/step-00000004")
    first, second = (folder / "model/model.safetensors" for folder in (finished, run_folder))
    assert first.read_bytes() == second.read_bytes()


def test_without_a_good_checkpoint_resume_is_refused(run_folder, students, tmp_path, capsys):
    for number in (2, 4):
        (run_folder / f"checkpoints/step-0000000{number}/checksums.json").unlink()
    with pytest.raises(SystemExit) as refusal:
        main(tiny_arguments(tmp_path, "--resume", **students))
    assert refusal.value.code == 2
    assert "--resume found no finished and undamaged checkpoint in" in capsys.readouterr().err


def test_a_damaged_model_is_neither_evaluated_nor_pushed_nor_kept(run_folder, students, tmp_path, capsys):
    best, by_hand = run_folder / "best", ["sha256sum", "--check", "--status", CHECKSUMS]
    assert CHECKSUMS in check_folder(best) and subprocess.run(by_hand, cwd=best).returncode == 0
    flip(best / "model.safetensors")
    assert subprocess.run(by_hand, cwd=best).returncode == 1
    with pytest.raises(FolderError, match="model.safetensors is not what .*SHA256SUMS says: it is damaged"):
        check_folder(best)
    with pytest.raises(SystemExit) as refusal:
        evaluate_saved([str(best), "--data_dir", str(run_folder / "scenes")])
    assert refusal.value.code == 2 and "it is damaged" in capsys.readouterr().err
    shutil.rmtree(run_folder / "checkpoints/step-00000004")
    main(tiny_arguments(tmp_path, "--resume", **students))
    assert "is damaged. Save the model again" in capsys.readouterr().out
    assert CHECKSUMS in check_folder(best)


# ---- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_earlier_checkpoints_stay(students, tmp_path, monkeypatch, capsys):
    save, calls = Accelerator.save_state, []

    def full(self, folder):
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(self, folder)

    monkeypatch.setattr(Accelerator, "save_state", full)
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(tmp_path, **students))
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert (
        "step-00000004 could not be written ([Errno 28] No space left on device). Earlier checkpoints are as" in message
    )
    verify_checkpoint(tmp_path / "run/checkpoints/step-00000002")


def test_a_folder_that_vanishes_is_one_sentence_and_its_checkpoints_stay(
    finished, students, tmp_path, monkeypatch, capsys
):
    at_step(monkeypatch, 2, lambda: (tmp_path / "run").rename(tmp_path / "away"))
    data = dict(scenes=None, data_dir=str(finished / "scenes"), classes=list(CLASSES), validation=["val_*.png"])
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(tmp_path, **data, **students))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("train_semi.py: error: ") == 1
    assert "run was removed or replaced while its run went on" in said
    verify_checkpoint(tmp_path / "away/checkpoints/step-00000002")


def test_images_that_vanish_are_one_sentence(students, tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, 1, lambda: (tmp_path / "run/scenes/images").rename(tmp_path / "away"))
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(tmp_path, **students))
    sentence = capsys.readouterr().err.partition("train_semi.py: error: ")[2].splitlines()[0]
    assert ended.value.code == 2 and sentence.startswith(f"{tmp_path}/run/scenes/images/")
    assert sentence.endswith(
        "does not exist; check the folder and the list that name it. Once that is mended, --resume goes on."
    )


class Missing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise RasterError("a.png does not exist.")


def test_an_error_of_a_worker_is_one_sentence_too(capsys):
    with pytest.raises(SystemExit) as ended, plain_end("train", RasterError):
        next(iter(DataLoader(Missing(), num_workers=1)))
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(
        "train: error: a.png does not exist. Once that is mended, --resume goes on.\n"
    )


def test_only_failed_writes_become_failures_of_the_disk():
    accelerator = Accelerator(cpu=True)
    with pytest.raises(RunError, match="x could not be written"), writing(accelerator, "x"):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
    with pytest.raises(RuntimeError, match="a mistake"), writing(accelerator, "x"):
        raise RuntimeError("a mistake")


def test_an_output_folder_that_cannot_be_made_is_refused(students, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as refusal:
        main(tiny_arguments(tmp_path, output_dir=str(tmp_path / "file" / "run"), **students))
    assert refusal.value.code == 2 and "train_semi.py: error: " in capsys.readouterr().err


# ---- losses of no number ---------------------------------------------------------------------------------------------


def step_of(guard, accelerator, model, optimizer, factor):
    loss = guard.marked((model(torch.ones(1, 2)) * factor).sum())
    accelerator.backward(loss)
    guard.judge()
    optimizer.step()
    optimizer.zero_grad()
    return loss


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_without_a_finite_loss_changes_nothing_and_is_counted(bad):
    said = []
    torch.manual_seed(0)
    accelerator, model = Accelerator(cpu=True), torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    guard = StepGuard(accelerator, model, optimizer, limit=2, skipped=3, say=said.append)
    step_of(guard, accelerator, model, optimizer, 1.0)
    before, moments = model.weight.clone(), optimizer.state[model.weight]["exp_avg"].clone()
    step_of(guard, accelerator, model, optimizer, bad)
    assert torch.equal(model.weight, before) and torch.equal(optimizer.state[model.weight]["exp_avg"], moments)
    assert optimizer.state[model.weight]["step"].item() == 1
    assert guard.failing() and guard.read(2, None) == 4
    assert said == ["warning: 4 steps up to 2 left out: the loss or a gradient was not finite"]
    step_of(guard, accelerator, model, optimizer, 1.0)
    assert not torch.equal(model.weight, before) and not guard.failing() and guard.read(3, None) == 4 and len(said) == 1
    step_of(guard, accelerator, model, optimizer, bad)
    step_of(guard, accelerator, model, optimizer, bad)
    with pytest.raises(
        SystemExit, match=r"not finite in 2 steps in a row, up to step 5: .*good checkpoint is step-3\."
    ):
        guard.read(5, Path("step-3"))


def test_a_finite_loss_with_a_gradient_of_no_number_is_left_out():
    accelerator, weight = Accelerator(cpu=True), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    guard = StepGuard(accelerator, torch.nn.ParameterList([weight]), optimizer, limit=9)
    accelerator.backward(guard.marked(weight.sqrt().sum()))  # the slope of a root at 0 is infinite
    guard.judge()
    optimizer.step()
    assert weight.item() == 0 and guard.read(1, None) == 1


def test_a_finite_loss_is_what_it_was():
    accelerator, weight = Accelerator(cpu=True), torch.nn.Parameter(torch.tensor([0.1, 0.7]))
    guard = StepGuard(accelerator, torch.nn.ParameterList([weight]), torch.optim.AdamW([weight], fused=True), limit=9)
    loss = (weight.sin() * 0.3).sum()
    assert torch.equal(guard.marked(loss), loss)
    plain, marked = (torch.autograd.grad(one, weight, retain_graph=True)[0] for one in (loss, guard.marked(loss)))
    assert torch.equal(plain, marked)


def test_while_steps_fail_no_checkpoint_takes_the_place_of_the_good_one(students, tmp_path, monkeypatch, capsys):
    original = Co2S.step

    def step(self, batch, progress):
        scalars = original(self, batch, progress)
        return {**scalars, "loss": scalars["loss"] * (math.nan if progress.step >= 2 else 1)}

    monkeypatch.setattr(Co2S, "step", step)
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(tmp_path, "--max_skipped_steps", "3", max_steps=9, save_every=1, eval_every=9, **students))
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["step-00000001", "step-00000002"]
    assert "in 3 steps in a row, up to step 5" in ended.value.code and "step-00000002. Lower --lr" in ended.value.code
    weights = load_file(tmp_path / "run/checkpoints/step-00000002/model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_weights_of_no_number_end_the_run_and_start_none(bad):
    accelerator, model, kept = Accelerator(cpu=True), torch.nn.Linear(2, 1), {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    guard = StepGuard(accelerator, model, optimizer, limit=2, kept=lambda: kept)
    step_of(guard, accelerator, model, optimizer, 1.0)
    guard.require_finite(1, None), guard.require_finite_start(None)
    places = {
        "model.bias": model.bias.data,
        "optimizer.0.exp_avg_sq": optimizer.state[model.weight]["exp_avg_sq"].view(-1),
        "method.teacher.weight": torch.ones(1),
    }
    kept["teacher"] = {"weight": places["method.teacher.weight"], "count": torch.ones(1, dtype=torch.int64)}
    for name, tensor in places.items():
        before, tensor[0] = tensor[0].item(), bad
        with pytest.raises(
            SystemExit, match=f"^{name} is not finite after step 7, .* good checkpoint is step-5. Lower"
        ):
            guard.require_finite(7, Path("step-5"))
        with pytest.raises(RunError, match=f"^step-5 cannot be resumed: {name} is not finite in it. Remove it, and"):
            guard.require_finite_start(Path("step-5"))
        with pytest.raises(RunError, match=f"^{name} is not finite ahead of the first step"):
            guard.require_finite_start(None)
        tensor[0] = before
    guard.require_finite(7, None)


def test_weights_of_no_number_take_the_place_of_no_checkpoint_and_get_no_score(students, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(AdamW, "step", AdamW.step)  # takes the fault away again
    explode(1, "weight", math.inf, seed=0)
    with pytest.raises(SystemExit) as ended:
        main(tiny_arguments(tmp_path, save_every=1, **students))
    assert re.search("is not finite after step 2, .*checkpoint is .*step-00000001. Lower --lr", ended.value.code)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000001"]
    assert "mIoU" not in capsys.readouterr().out and not (tmp_path / "run/best").exists()


def test_with_a_scaler_what_it_leaves_out_is_counted_and_nothing_else():
    accelerator, weight = Accelerator(cpu=True), torch.nn.Parameter(torch.ones(2))
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)  # as accelerate makes one for fp16 on a GPU
    optimizer = accelerator.prepare(torch.optim.AdamW([weight], lr=0.1, fused=True))
    guard, made = StepGuard(accelerator, torch.nn.ParameterList([weight]), optimizer.optimizer, limit=9, say=len), []
    for _ in range(6):
        before = weight.detach().clone()
        accelerator.backward(guard.marked(8 * weight.sum()))  # 2**130 overflows; 2**127 has a square that does
        guard.judge()
        optimizer.step()
        optimizer.zero_grad()
        made.append(not torch.equal(weight, before))
    assert made == [False] * 3 + [True] * 3 and guard.read(6, None) == 3
    assert optimizer.state[weight]["step"].item() == 3 and accelerator.scaler.get_scale() == 2.0**124


def test_a_cpu_says_that_it_has_no_fp16():
    for precision, device, said in (("fp16", "cpu", 1), ("bf16", "cpu", 0), ("fp16", "cuda", 0)):
        accelerator = SimpleNamespace(mixed_precision=precision, device=torch.device(device))
        assert len(train_semi.precision_warnings(accelerator)) == said
