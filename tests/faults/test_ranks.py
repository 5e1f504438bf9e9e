"""Two processes that are started as a launcher starts them, and end as Python ends; `ranks.py` forks its own."""

import socket

import pytest

from tests.faults import jobs, ranks
from tests.training.tiny_runs import start

RUN = """
import sys
from pathlib import Path
from tests.faults import ranks, spoil
from training.arguments import parse_arguments
from training.train_semi import main
spoil.lean()
ranks._strike_at(sys.argv[1], int(sys.argv[2]), "error", 1, Path(sys.argv[3]))
arguments = parse_arguments(["--recipe", sys.argv[4]])
arguments.command = "train"
main(arguments)
"""


@pytest.mark.slow
def test_a_process_that_raises_ends_and_the_other_one_says_so(tmp_path, monkeypatch):
    jobs.Training(tmp_path).arguments(tmp_path, timeout_minutes=ranks.SILENCE_MINUTES, eval_every=jobs.STEPS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(2):
        for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, str(value))
        processes.append(start("-c", RUN, "the backward", 3, tmp_path / "struck", tmp_path / "recipe.yaml"))
    other, victim = (process.communicate(timeout=200)[0] for process in processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert "a mistake in one process" in victim and (tmp_path / "struck").exists()
    assert "another process of this run is gone or does not answer (" in other and "Traceback" not in other
