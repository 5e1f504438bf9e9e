"""One training step of Co2S with one labelled and one unlabelled image of 256 px, against the released code.

python tests/benchmarks/train_step.py
"""

from collections.abc import Callable

import torch

from tests.benchmarks.measure import (
    DTYPES,
    Calibrators,
    build_model,
    gflop,
    in_turn,
    matmul_gflops,
    own_peak_gb,
    parser,
    peak_gb,
    ratio,
    report,
)
from training.batches import Batch
from training.methods.co2s import Co2S
from training.models import checkpoint_activations
from training.optim import build_optimizer, parameter_groups, select_trainable
from training.parts.schedules import Progress

RELEASED_IN_D = {1: 9.2, 2: 8.1}  # threads -> 1 + 1 images of 256 px, 6 classes
RELEASED_PEAK_GB = 5.3


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--side", type=int, default=256, help="of the images in px")
    arguments.add_argument("--batch_size", type=int, default=1, help="labelled and unlabelled images each")
    arguments.add_argument(
        "--activation_checkpointing", action="store_true", help="compute the backbones' activations again"
    )
    arguments.add_argument("--peak", action="store_true", help="take two steps and print the peak memory only")
    arguments = arguments.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    step = {dtype: build_step(arguments, dtype) for dtype in arguments.dtype}
    if arguments.peak:
        for take in (*step.values(), *step.values()):
            take()
        print(own_peak_gb())
        return []
    calibrators = Calibrators(arguments.size, arguments.device)
    as_released = arguments.device == "cpu" and (arguments.side, arguments.batch_size) == (256, 1)
    rows = []
    for dtype, take in step.items():
        ceiling = matmul_gflops(DTYPES[dtype], arguments.device)
        times = in_turn({"D": calibrators.D, "step": take}, arguments.repeats, arguments.device)
        ours, work, fastest = ratio(times, "step", "D"), gflop(take), min(times["step"])
        released = RELEASED_IN_D.get(arguments.threads) if as_released else None
        peak = peak_of(arguments, dtype)
        rows.append(
            {
                "work": f"step {arguments.batch_size}+{arguments.batch_size} of {arguments.side} px, {dtype}",
                "in D": ours,
                "released in D": released,
                "ratio": released and released / ours,
                "seconds": fastest,
                "GFLOP": work,
                "GFLOP/s": work / fastest,
                "ceiling": ceiling,
                "share": work / fastest / ceiling,
                "peak GB": peak,
                "of released": peak / RELEASED_PEAK_GB if as_released else None,
            }
        )
    report("train_step", arguments, rows)
    return rows


def build_step(arguments, dtype: str) -> Callable[[], None]:
    """A whole optimizer step on drawn images, in the middle of a training."""
    torch.manual_seed(0)
    device = arguments.device
    model = build_model(arguments.size, arguments.num_classes).to(device).train()
    if arguments.activation_checkpointing:
        checkpoint_activations(model)
    select_trainable(model, "attention")
    optimizer = build_optimizer(parameter_groups(model, lr=1e-4))
    method, progress = Co2S(model), Progress(step=500, total_steps=1000)
    batch = draw_batch(arguments.batch_size, arguments.side, arguments.num_classes, device)

    def step() -> None:
        with torch.autocast(device.partition(":")[0], DTYPES[dtype], enabled=dtype != "fp32"):
            loss = method.step(batch, progress)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def draw_batch(batch_size: int, side: int, num_classes: int, device: torch.device | str) -> Batch:
    """Noise with labels; the partners are in the batch where it has two images, and shown for themselves where not."""
    images = {name: torch.randn(batch_size, 3, side, side) for name in ("x", "u_w", "u_s1", "u_s2")}
    everywhere = torch.ones(batch_size, side, side, dtype=torch.bool)
    box = everywhere.clone()
    box[..., side // 2 :] = False
    partners = {name: torch.randn(batch_size, 3, side, side) for name in ("p_s1", "p_s2")}
    if batch_size > 1:
        partners["pairs"] = torch.arange(batch_size).roll(1)
    else:
        partners |= {"p_w": torch.randn(batch_size, 3, side, side), "p_valid": everywhere}
    y = torch.randint(0, num_classes, (batch_size, side, side))
    tensors = {"y": y, "u_valid": everywhere, "box1": box, "box2": box, **images, **partners}
    return Batch(**{name: tensor.to(device) for name, tensor in tensors.items()})


def peak_of(arguments, dtype: str) -> float:
    """Peak memory of two steps: of a process of their own on the CPU, allocated on a GPU."""
    if arguments.device != "cpu":
        return torch.cuda.max_memory_allocated(arguments.device) / 1e9
    given = {
        "--size": arguments.size,
        "--threads": arguments.threads,
        "--num_classes": arguments.num_classes,
        "--side": arguments.side,
        "--batch_size": arguments.batch_size,
        "--dtype": dtype,
    }
    flags = ["--activation_checkpointing"] if arguments.activation_checkpointing else []
    return peak_gb("tests.benchmarks.train_step", [*(str(part) for pair in given.items() for part in pair), *flags])


if __name__ == "__main__":
    main()
