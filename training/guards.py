"""What a run is guarded against: a second run in its folder, signals, failing disks and processes, losses of no number.

Where several processes train, what happens to one of them is made known to all before anybody waits for it.
"""

import fcntl
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from tqdm.auto import tqdm

LOCK = ".lock"
"""File in the output folder that the run of the folder has locked."""

# What torch.save says where a disk is full or a folder is gone: a RuntimeError like any other one.
_NOT_WRITTEN = re.compile(r"PytorchStreamWriter|inline_container|Parent directory|cannot be opened|iostream error")
# What a process says that waits for one that is gone: gloo, NCCL and the store through which they meet.
_NOBODY_THERE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Timed out|timeout|recvBytes|Socket|NCCL|Watchdog", re.IGNORECASE
)
# Every process holds the same gradients here; shards of them (FSDP, DeepSpeed) are judged by the loss alone.
_WHOLE_GRADIENTS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)

T = TypeVar("T")


class RunError(OSError):
    """A run that cannot start or go on, for a reason outside of it; the message says which, and how it goes on."""


# ---------------------------------------------------------------------------------------------------------------------
# One run in a folder
# ---------------------------------------------------------------------------------------------------------------------


class RunLock:
    """The right to an output folder. It ends with the process that took it, however that ends.

    A lock of POSIX, not of BSD: forked workers that outlive a killed run do not hold it.

    Args:
        output: of the run; made where it does not exist.
    """

    def __init__(self, output: Path) -> None:
        """Take nothing yet."""
        self.output, self.file = Path(output), None

    def take(self) -> None:
        """Lock the folder. Raises RunError where another run has it; a file system without locks grants it."""
        self.output.mkdir(parents=True, exist_ok=True)
        self.file = open(self.output / LOCK, "a+", encoding="utf-8")
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            self.file.seek(0)
            holder = self.file.read().strip() or "another one"
            raise RunError(
                f"{self.output} is in use by a run that goes on ({holder}): wait for its end, or choose another "
                "--output_dir."
            ) from None
        except OSError:
            return
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()

    def require(self) -> None:
        """Raise RunError where the folder is no longer the one that was locked; call it ahead of every write."""
        if self.file is None:
            return
        try:
            same = os.path.samestat(os.stat(self.output / LOCK), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            same = False
        if not same:
            raise RunError(
                f"{self.output} was removed or replaced while its run went on, which stops here: nothing of it can be "
                "saved. Start it anew, with another --output_dir if the folder is gone for good."
            )


def ask_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Let the main process do something, and give its result or its refusal (as RunError) to all of them."""
    if accelerator.num_processes == 1:
        return work()
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = work()
        except (ValueError, OSError) as error:
            answer[1] = str(error)
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise RunError(answer[1])
    return answer[0]


# ---------------------------------------------------------------------------------------------------------------------
# Disks and processes
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def writing(accelerator: Accelerator, what: str) -> Iterator[None]:
    """Write on every process; where one of them cannot, all raise RunError instead of waiting for it.

    No process may wait for another one inside.
    """
    caught: Exception | None = None
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _NOT_WRITTEN.search(str(error)):
            raise
        caught = error
    reasons = [reason for reason in gather_object([None if caught is None else str(caught)]) if reason is not None]
    if isinstance(caught, RunError):
        raise caught
    if reasons:
        raise RunError(
            f"{what} could not be written ({reasons[0].strip().splitlines()[0]}). Earlier checkpoints are as they "
            "were: make room or mend the disk, and go on with --resume."
        ) from caught


@contextmanager
def plain_end(program: str, *reading: type[Exception]) -> Iterator[None]:
    """End the program with one sentence where the reason lies outside of it: a disk, a folder, another process.

    Another process that is gone or does not answer in time is status 1, everything else 2.

    Args:
        program: its name.
        reading: errors of what it reads while it goes on, which may differ from what it has checked.
    """
    try:
        yield
    except RunError as error:
        tqdm.write(f"{program}: error: {error}", file=sys.stderr)  # above the progress bar
        raise SystemExit(2) from error
    except reading as error:
        reason = str(error)
        if reason.startswith("Caught "):  # in a worker of a DataLoader, whose traceback torch makes the message
            reason = reason.strip().splitlines()[-1].partition(": ")[2]
        tqdm.write(f"{program}: error: {reason} Once that is mended, --resume goes on.", file=sys.stderr)
        if _distributed():
            sys.stderr.flush()
            os._exit(2)  # a clean end would wait for the others, which have not met it
        raise SystemExit(2) from error
    except RuntimeError as error:
        if not _distributed() or not _NOBODY_THERE.search(str(error)):
            raise
        reason = str(error).strip().splitlines()[0]
        tqdm.write(
            f"{program}: error: another process of this run is gone or does not answer ({reason}); its own output says "
            "why. The last checkpoint is whole: go on with --resume.",
            file=sys.stderr,
        )
        sys.stderr.flush()
        os._exit(1)  # a clean end would wait for the others


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


# ---------------------------------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------------------------------


class Signals:
    """SIGTERM and Ctrl-C as a wish to stop ahead of a step, the same one on every process; a second one ends at once.

    A context that gives the signals their old meaning back.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self.received = 0
        self.accelerator: Accelerator | None = None
        self.asked: Tensor | None = None
        self.old: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        """Give the signals; nothing changes before `listen`."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop listening."""
        self.stop_listening()

    def listen(self, accelerator: Accelerator | None) -> None:
        """Note signals from now on, in the main thread, where Python delivers them; without accelerator do nothing."""
        self.accelerator = accelerator
        if accelerator is not None and threading.current_thread() is threading.main_thread():
            self.old = {one: signal.signal(one, self._note) for one in (signal.SIGTERM, signal.SIGINT)}

    def stop_listening(self) -> None:
        """Give the signals their old meaning."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.old, self.accelerator = {}, None

    def wanted(self) -> bool:
        """Say whether this process has got a signal."""
        return self.received != 0

    def agreed(self, *, at_once: bool = False) -> int:
        """Give the signal to stop for, 0 for none: the same answer on every process, all of which must ask.

        Processes agree by a number on their device. It is read one call later, when it has long been there, so that no
        device waits for its host; `at_once` reads it now.
        """
        if self.accelerator is None:
            return 0
        if self.accelerator.num_processes == 1:
            return self.received
        wish = torch.full((), float(self.wanted()), device=self.accelerator.device)
        before, self.asked = self.asked, self.accelerator.reduce(wish, "sum")
        known = self.asked if at_once else before
        return (self.received or int(signal.SIGTERM)) if known is not None and known.item() > 0 else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for one in self.old:
            signal.signal(one, signal.SIG_DFL)
        if self.accelerator is not None and self.accelerator.is_main_process:
            os.write(2, b"\nstopping ahead of the next step; the same signal again ends at once\n")


# ---------------------------------------------------------------------------------------------------------------------
# Losses of no number
# ---------------------------------------------------------------------------------------------------------------------


class StepGuard:
    """Leaves out optimizer steps whose loss or gradient is not finite, and counts them.

    A loss that is not finite makes the whole gradient nan, which the mean over the processes carries to all of them: so
    one look at the gradient is the same everywhere and needs no word between them. Torch's fused optimizers leave a
    step out on the device (`found_inf`, made for GradScaler, which sets it itself and counts nothing here): the host
    waits for nothing but the counts, where the losses are read anyway.

    Args:
        accelerator: of the run.
        model: that trains.
        optimizer: fused, not wrapped.
        kept: gives what the method remembers, as its `state_dict`.
        limit: steps in a row that end the run.
        skipped: steps left out before a resume.
        say: called with a line where there are new ones.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        limit: int,
        kept: Callable[[], dict[str, Any]] = dict,
        skipped: int = 0,
        say: Callable[[str], None] = print,
    ) -> None:
        """Start with no bad step in a row."""
        self.accelerator, self.model, self.optimizer, self.limit = accelerator, model, optimizer, limit
        self.kept, self.said, self.say = kept, skipped, say
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.counts = torch.tensor([float(skipped), 0, 0], device=accelerator.device)  # skipped, in a row, longest row
        self.looks = accelerator.distributed_type in _WHOLE_GRADIENTS

    def marked(self, loss: Tensor) -> Tensor:
        """Give the loss, with a gradient of nan where it is not finite; others stay what they are, bit by bit."""
        return loss * torch.where(loss.isfinite(), 1.0, torch.nan)

    def judge(self) -> None:
        """Look at the gradient ahead of the optimizer's step; nothing while gradients accumulate."""
        if not self.looks or not self.accelerator.sync_gradients:
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        # A finite gradient whose square is not would stop AdamW's weights for good. A GradScaler looks at the numbers
        # themselves, which are scaled here; what counts must be what it leaves out.
        kind = 2.0 if self.accelerator.scaler is None else math.inf
        bad = (~get_total_norm(gradients, kind).isfinite()).to(self.counts)
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        skipped, row, longest = self.counts
        row = (row + 1) * bad
        self.counts = torch.stack((skipped + bad, row, torch.maximum(longest, row)))

    def failing(self) -> bool:
        """Say whether the last step was left out; waits for the device."""
        return bool(self.counts[1].item())

    def require_finite(self, step: int, checkpoint: Path | None) -> None:
        """Look at the weights ahead of whatever measures or saves them; waits for the device.

        Finite gradients can leave weights of no number, where --lr is too large. All later steps would be left out, and
        a checkpoint of such weights would count as the last good one.

        Raises:
            SystemExit: something is not finite; names the checkpoint to go on from.
        """
        lost = self._not_finite()
        if lost is not None:
            raise SystemExit(
                f"{lost} is not finite after step {step}, which no later step can mend, and the run ends. "
                f"{_last_good(checkpoint)}. Lower --lr, or train without --mixed_precision."
            )

    def require_finite_start(self, checkpoint: Path | None) -> None:
        """Look at what a run starts with. Raises RunError where something is not finite."""
        lost = self._not_finite()
        if lost is not None and checkpoint is None:
            raise RunError(f"{lost} is not finite ahead of the first step: name other weights to start from.")
        if lost is not None:
            raise RunError(
                f"{checkpoint} cannot be resumed: {lost} is not finite in it. Remove it, and --resume takes the one "
                "before."
            )

    def _not_finite(self) -> str | None:
        """Name the first tensor that is not finite; shards are not looked at."""
        if not self.looks:
            return None
        parts = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict()["state"],
            "method": self.kept(),
        }
        tensors = dict(_tensors("", parts))
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()])
        return None if finite.all() else list(tensors)[int(finite.logical_not().nonzero()[0])]

    def read(self, step: int, checkpoint: Path | None, loss: float = 0.0) -> int:
        """Count the steps left out so far; waits for the device.

        Raises:
            SystemExit: too many of them in a row, or one where it cannot be left out; names the checkpoint to go on
                from.
        """
        skipped, _, longest = (int(count) for count in self.counts.tolist())
        if longest >= self.limit or not self.looks and not math.isfinite(loss):
            left_out = "none of them changed the model" if self.looks else "it cannot be left out here"
            raise SystemExit(
                f"The loss or a gradient was not finite in {max(longest, 1)} steps in a row, up to step {step}: "
                f"{left_out}, and the run ends. {_last_good(checkpoint)}. Lower --lr, or train without "
                "--mixed_precision."
            )
        if skipped > self.said:
            self.said = skipped
            self.say(f"warning: {skipped} steps up to {step} left out: the loss or a gradient was not finite")
        return skipped


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of fractions in nested dictionaries, with their paths."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _tensors(f"{name}.{key}" if name else str(key), entry)
    elif isinstance(value, Tensor) and value.is_floating_point():
        yield name, value


def _last_good(checkpoint: Path | None) -> str:
    return "There is no checkpoint yet" if checkpoint is None else f"The last good checkpoint is {checkpoint}"


__all__ = ["LOCK", "RunError", "RunLock", "Signals", "StepGuard", "ask_main", "plain_end", "writing"]
