"""How time grows with classes, pixels, processes and accumulated batches; each row in units of the first of its kind.

python tests/benchmarks/scaling.py --axis classes pixels processes accumulation
"""

import os
import subprocess
import sys
import time

import torch
from accelerate import Accelerator

from tests.benchmarks.measure import build_model, in_turn, parser, ratio, report
from tests.benchmarks.train_step import draw_batch
from training.methods.co2s import Co2S
from training.optim import build_optimizer, parameter_groups, select_trainable
from training.parts.schedules import Progress

AXES = ("classes", "pixels", "processes", "accumulation")
WINDOW_PX = 512
TOTAL_BATCH = 2  # labelled and unlabelled images each of a step, however it is shared out


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--axis", nargs="+", choices=AXES, default=list(AXES))
    arguments.add_argument("--classes", type=int, nargs="+", default=[2, 8, 32, 64])
    arguments.add_argument(
        "--sides", type=int, nargs="+", default=[256, 512, 1024, 2048], help="px, one window each 512"
    )
    arguments.add_argument("--side", type=int, default=256, help="of everything but the axis of pixels, px")
    arguments.add_argument(
        "--worker", nargs=2, type=int, metavar=("BATCH", "ACCUMULATION"), help="of a process, inside"
    )
    arguments = arguments.parse_args(argv)
    if arguments.worker is not None:
        measure_step(arguments, *arguments.worker)
        return []
    torch.set_num_threads(arguments.threads)
    rows = []
    if "classes" in arguments.axis:
        rows += forward_rows(arguments, {f"{n} classes": (n, arguments.side) for n in arguments.classes})
    if "pixels" in arguments.axis:
        rows += forward_rows(arguments, {f"{side} px": (arguments.num_classes, side) for side in arguments.sides})
    if "processes" in arguments.axis:
        rows += step_rows(arguments, {"1 process": (1, TOTAL_BATCH, 1), "2 processes": (2, TOTAL_BATCH // 2, 1)})
    if "accumulation" in arguments.axis:
        rows += step_rows(arguments, {"at once": (1, TOTAL_BATCH, 1), "accumulated": (1, 1, TOTAL_BATCH)})
    report("scaling", arguments, rows)
    return rows


@torch.no_grad()
def forward_rows(arguments, cases: dict[str, tuple[int, int]]) -> list[dict]:
    """Evaluation forward for (number of classes, side), all cases in turn."""

    def forward(num_classes: int, side: int):
        model = build_model(arguments.size, num_classes, window_px=WINDOW_PX).to(arguments.device)
        image = torch.randn(1, 3, side, side, device=arguments.device)
        return torch.no_grad()(lambda: model(image))

    works = {name: forward(*case) for name, case in cases.items()}
    times = in_turn(works, arguments.repeats, arguments.device)
    first = next(iter(works))
    return [
        {"work": f"forward, {name}", "of the first": ratio(times, name, first), "seconds": min(times[name])}
        for name in works
    ]


def step_rows(arguments, cases: dict[str, tuple[int, int, int]]) -> list[dict]:
    """Optimizer step for (processes, batch of each, accumulated batches), all of the same total batch, in turn."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(max(1, arguments.repeats // 3)):
        for name, case in cases.items():
            times[name].append(launch(arguments, *case))
    first = next(iter(cases))
    return [
        {"work": f"step, {name}", "of the first": ratio(times, name, first), "seconds": min(times[name])}
        for name in cases
    ]


def launch(arguments, processes: int, batch_size: int, accumulation: int) -> float:
    """Seconds of a step in fresh processes that share the threads out."""
    own = ["--size", arguments.size, "--side", str(arguments.side), "--repeats", str(arguments.repeats)]
    own += ["--num_classes", str(arguments.num_classes), "--threads", str(max(1, arguments.threads // processes))]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    command += ["-m", "tests.benchmarks.scaling", *own, "--worker", str(batch_size), str(accumulation)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if arguments.device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "1"
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return float(printed.split()[-1])


def measure_step(arguments, batch_size: int, accumulation: int) -> None:
    """In a process of its own: print the median time of an optimizer step as the training script takes it."""
    accelerator = Accelerator(gradient_accumulation_steps=accumulation)
    torch.set_num_threads(arguments.threads)
    model = build_model(arguments.size, arguments.num_classes).train()
    select_trainable(model, "attention")
    method = Co2S(model)
    method.model, optimizer = accelerator.prepare(model, build_optimizer(parameter_groups(model, lr=1e-4)))
    batch = draw_batch(batch_size, arguments.side, arguments.num_classes, accelerator.device)
    times = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        for _ in range(accumulation):
            with accelerator.accumulate(method.model):
                accelerator.backward(method.step(batch, Progress(step=500, total_steps=1000))["loss"])
                optimizer.step()
                optimizer.zero_grad()
        accelerator.wait_for_everyone()
        times.append(time.perf_counter() - start)
    accelerator.print(sorted(times[1:])[arguments.repeats // 2])
    accelerator.end_training()


if __name__ == "__main__":
    main()
