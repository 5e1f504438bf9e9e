"""Work in forked processes that can be killed, stopped or starved of disk at a chosen moment.

The parent has imported everything and has no threads at work, so a child costs its work alone and not the seconds that
torch and transformers take to load.
"""

import errno
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

# A progress bar of the parent would start a thread, and leave the children one lock for all of them, which one that is
# killed never gives back.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())

DEADLINE_S = 300.0
"""No work here takes as long: who reaches it hangs."""

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}


@dataclass(frozen=True)
class Moment:
    """When something happens to a child, and what.

    Attributes:
        what: "kill" (SIGKILL); "fail": an error instead of this change; "fill": from it on, no file may grow beyond
            `file_bytes`, whoever writes it, as on a disk that is full and stays so.
        change: at this change of a file below `folder`, counted from 0; None for never.
        folder: part of a path that counts.
        call: at this call of `function`, counted from 0; None for never.
        function: (object, name of its attribute).
        delay_s: from there to the kill.
        error: number of the error of "fail".
        file_bytes: largest file that the child may write; None for any. Without `change` from the start.
    """

    what: str = "kill"
    change: int | None = None
    folder: str = ""
    call: int | None = None
    function: tuple[Any, str] | None = None
    delay_s: float = 0.0
    error: int = errno.ENOSPC
    file_bytes: int | None = None


def start(
    work: Callable[[], None],
    log: Path,
    *,
    moment: Moment | None = None,
    environment: dict[str, str] | None = None,
    changes: Path | None = None,
) -> int:
    """Fork a child in a session of its own; what it prints goes to the end of `log`. Returns its process id.

    Args:
        work: to do.
        log: file.
        moment: what happens to it.
        environment: variables of the child.
        changes: file to write the number of changes of files to, at the end.
    """
    sys.stdout.flush(), sys.stderr.flush()
    log.touch()  # a child that is killed at once has not opened it yet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads, which libraries have idle
        child = os.fork()
    if child:
        return child
    status, moment, copier = 1, moment or Moment(), 0
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if moment.file_bytes is not None:
            output, copier = _copy_to(output)
        os.dup2(output, 1), os.dup2(output, 2)
        os.close(output)
        # In a test pytest has streams of its own, and makes warnings errors.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        warnings.simplefilter("default")
        os.environ.update(environment or {})
        counted = _arm(moment)
        try:
            work()
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        if changes is not None:
            changes.write_text(str(counted[0]))
        sys.stdout.flush(), sys.stderr.flush()
        if copier:  # until it has written the last words
            os.close(1), os.close(2)
            os.waitpid(copier, 0)
    finally:
        os._exit(status)


def start_ranks(work: Callable[[], None], log: Path, count: int, **options: Any) -> list[int]:
    """Fork the processes of one distributed run; a moment is that of the first of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    moment = options.pop("moment", None)
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    return [
        start(
            work,
            log,
            moment=moment if rank == 0 else None,
            environment={**shared, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **options,
        )
        for rank in range(count)
    ]


def wait(children: Sequence[int], timeout_s: float = DEADLINE_S) -> list[int | None]:
    """Wait for the ends; a status below 0 is a signal, None is a child that had to be killed after `timeout_s`."""
    statuses: dict[int, int | None] = {}
    end = time.monotonic() + timeout_s
    while len(statuses) < len(children):
        for child in children:
            if child not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    kill(child)
                    os.waitpid(child, 0)
                    statuses[child] = None
        time.sleep(0.005)
    return [statuses[child] for child in children]


def kill(child: int, number: int = signal.SIGKILL) -> None:
    """Signal a child and what it has forked; nothing where it has ended."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:
        pass
    except PermissionError:  # it has not made its session yet
        os.kill(child, number)


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _copy_to(output: int) -> tuple[int, int]:
    """Fork a process that copies what is printed: a limit on the size of files is none to its log."""
    read, write = os.pipe()
    copier = os.fork()
    if copier:
        os.close(read), os.close(output)
        return write, copier
    os.close(write)
    while printed := os.read(read, 1 << 16):
        os.write(output, printed)
    os._exit(0)


def _arm(moment: Moment) -> list[int]:
    """Prepare a child for its moment; returns a list with the number of changes so far."""
    counted = [0]
    if moment.folder:
        sys.addaudithook(partial(_watch, moment, counted))
    if moment.call is not None and moment.function is not None:
        _count_calls(moment, *moment.function)
    if moment.file_bytes is not None and moment.change is None:
        _limit(moment.file_bytes)
    return counted


def _watch(moment: Moment, counted: list[int], event: str, arguments: tuple[Any, ...]) -> None:
    """Hear of everything that Python does to files; an error from here is the error of what it was about to do."""
    opens = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if not (opens or event in _CHANGES) or moment.folder not in str(arguments[0]):
        return
    counted[0] += 1
    if counted[0] - 1 == moment.change:
        if moment.what == "fail":
            raise OSError(moment.error, os.strerror(moment.error), str(arguments[0]))
        if moment.what == "fill":
            _limit(moment.file_bytes or 0)
        else:
            _strike(moment.delay_s)


def _count_calls(moment: Moment, owner: Any, name: str) -> None:
    original, called = getattr(owner, name), [0]

    def counting(*arguments: Any, **named: Any) -> Any:
        called[0] += 1
        if called[0] - 1 == moment.call:
            _strike(moment.delay_s)
        return original(*arguments, **named)

    setattr(owner, name, counting)


def _limit(file_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def _strike(delay_s: float) -> None:
    if delay_s:
        threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
