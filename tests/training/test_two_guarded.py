"""What two processes do about a fault of one of them; they run in `guards_worker.py`."""

import json
import signal

import pytest

from tests.training.guards_worker import run_two
from training.checkpoints import verify_checkpoint


def test_a_step_without_a_number_on_one_process_is_left_out_on_both(tmp_path):
    assert run_two("nan", tmp_path)[0] == [0, 0], (tmp_path / "log").read_text()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["skipped"] == 1


def test_the_death_of_one_process_ends_the_others_with_its_reason(tmp_path):
    statuses, printed = run_two("death", tmp_path)
    assert statuses == [1, -signal.SIGKILL], printed
    assert "another process of this run is gone or does not answer (" in printed and "--resume" in printed
    verify_checkpoint(tmp_path / "run/checkpoints/step-00000002")


@pytest.mark.slow
def test_a_process_without_a_label_stays_with_the_other_one(tmp_path):
    assert run_two("ignored", tmp_path)[0] == [0, 0], (tmp_path / "log").read_text()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["skipped"] == 0


@pytest.mark.slow
def test_steps_that_fail_on_one_process_end_all_of_them(tmp_path):
    statuses, printed = run_two("nan for good", tmp_path)
    assert statuses == [1, 1] and "The last good checkpoint is" in printed and "step-00000002. Lower" in printed


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_both(tmp_path):
    statuses, printed = run_two("image", tmp_path)
    assert statuses == [1, 2], printed
    assert "error: a.png does not exist. Once that is mended" in printed and "another process of this run is" in printed


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_ahead_of_the_same_step(tmp_path):
    statuses, printed = run_two("signal", tmp_path)
    assert statuses == [143, 143], printed
    (checkpoint,) = (tmp_path / "run/checkpoints").glob("step-0000000[34]")
    verify_checkpoint(checkpoint)
    assert "stopped by SIGTERM after step" in printed
