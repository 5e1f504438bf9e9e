"""Pushes of a training to the Hub: in the background, of folders that stay as they are, never in the way of the run.

What is pushed is a snapshot of links: a model folder is replaced as a whole and its files are never written into, so
the links keep what they had. One thread uploads, one snapshot at a time; of those that wait for a branch, the newest
stays. A push that fails is a warning: every model is on the disk, and `co2s push` sends it later.
"""

import os
import shlex
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars

from co2s_hf.publish.push import Pushed, check_access, push_folder

MAIN = "main"
"""Branch of the best model: what users load who name no revision."""

LAST = "last"
"""Branch of the model after the last step."""

PATIENCE_S = 3600.0
"""How long a finished run waits for its uploads: a connection that hangs raises nothing."""

Say = Callable[[str], None]


class Publisher:
    """Uploads to one repository of the Hub.

    Args:
        repo_id: "owner/name"; the repository is made here.
        scratch: folder for snapshots, on the file system of the models; emptied here and removed at the end.
        private: of a new repository.
        say: called with a line for the terminal, from the thread, too.

    Raises:
        PushError: ahead of the work, if a push could not succeed: no login, no right to write, no connection.
    """

    def __init__(self, repo_id: str, scratch: Path, *, private: bool = False, say: Say = print) -> None:
        """Check and start."""
        self.repo_id = check_access(repo_id, private=private, say=say)
        self.private, self.say, self.scratch = private, say, scratch
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that crashed
        disable_progress_bars()  # the run has one of its own
        self._newest: dict[str, tuple[Path, Path]] = {}  # branch -> snapshot and folder submitted last
        self._waiting: dict[str, tuple[Path, str]] = {}  # branch -> snapshot, message
        self._pushed: dict[str, Pushed] = {}  # branch -> its newest folder, arrived
        self._changed = threading.Condition()
        self._closed, self._count = False, 0
        # A daemon: a training that fails does not wait for its uploads.
        self._thread = threading.Thread(target=self._work, name="push_to_hub", daemon=True)
        self._thread.start()

    def submit(self, folder: Path, branch: str, message: str) -> None:
        """Push a finished model folder to a branch, soon; returns at once.

        What waits for the same branch is dropped. A folder that cannot be linked or copied is a warning.
        """
        self._count += 1
        snapshot = self.scratch / str(self._count)
        with self._changed:
            self._newest[branch] = (snapshot, folder)
            self._pushed.pop(branch, None)
            dropped = self._waiting.pop(branch, None)
        if dropped is not None:
            shutil.rmtree(dropped[0], ignore_errors=True)
        try:
            shutil.copytree(folder, snapshot, copy_function=_link)
        except OSError as error:  # shutil.Error, too
            self.say(f"warning: {folder} was not made ready for the Hub: {error}")
            return
        with self._changed:
            self._waiting[branch] = (snapshot, message)
            self._changed.notify()

    def finish(self, patience_s: float = PATIENCE_S) -> dict[str, str | None]:
        """Wait for what is on its way, and say what the Hub has and how to send what it lacks.

        Returns:
            Branch -> commit, None where the newest model did not arrive.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(patience_s)
        with self._changed:
            arrived = dict(self._pushed)
        for branch, (_, folder) in self._newest.items():
            if branch in arrived:
                self.say(f"pushed {folder} to {self.repo_id}, {branch}: {arrived[branch].url}")
            else:
                self.say(f"warning: {folder} is not on the Hub. To send it: {self._command(folder, branch)}")
        if not self._thread.is_alive():
            shutil.rmtree(self.scratch, ignore_errors=True)
        return {branch: arrived[branch].commit if branch in arrived else None for branch in self._newest}

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                branch = next(iter(self._waiting))
                snapshot, message = self._waiting.pop(branch)
            try:
                pushed = push_folder(snapshot, self.repo_id, message=message, revision=branch, say=self.say)
            except Exception as error:  # whatever it is: the run goes on
                self.say(f"warning: a push failed, the training goes on: {error}")
            else:
                with self._changed:
                    if self._newest[branch][0] == snapshot:  # no newer one has been submitted meanwhile
                        self._pushed[branch] = pushed
            shutil.rmtree(snapshot, ignore_errors=True)

    def _command(self, folder: Path, branch: str) -> str:
        further = [*(["--revision", branch] if branch != MAIN else []), *(["--private"] if self.private else [])]
        return shlex.join(["co2s", "push", str(folder), self.repo_id, *further])


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


__all__ = ["LAST", "MAIN", "Publisher"]
