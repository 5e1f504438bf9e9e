"""What every benchmark here is measured in, and how: ratios of one run, never seconds alone.

Machines are shared and their clocks wander, so a time says nothing without another one taken beside it. Every benchmark
runs its work and a calibrator in turn and reports the median of the ratios of neighbours. Calibrators are of a plain
12-layer encoder of ViT-B's size on 257 tokens in float32: C is its forward without gradients, D forward and backward.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, DINOv3ViTConfig

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.configuration_co2s import TINY_HEAD

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZES = {
    "full": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "tiny": dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2),
}
TOKENS = 257


class Calibrators:
    """C and D: see the module. Of `size` "tiny" they check that a benchmark runs, and measure nothing."""

    def __init__(self, size: str, device: str = "cpu") -> None:
        """Make the encoder with random weights."""
        shape = SIZES[size]
        layer = nn.TransformerEncoderLayer(
            shape["hidden_size"],
            shape["num_attention_heads"],
            shape["intermediate_size"],
            dropout=0.0,
            activation="gelu",
            norm_first=True,
        )
        layers = nn.TransformerEncoder(layer, shape["num_hidden_layers"], enable_nested_tensor=False)
        self.encoder = layers.to(device)
        self.tokens = torch.randn(TOKENS, 1, shape["hidden_size"], device=device)

    @torch.no_grad()
    def C(self) -> None:
        """Forward."""
        self.encoder.eval()(self.tokens)

    def D(self) -> None:
        """Forward and backward."""
        self.encoder.train().zero_grad(set_to_none=True)
        self.encoder(self.tokens).sum().backward()


def build_model(size: str, num_classes: int, window_px: int = 4096) -> Co2SForSemanticSegmentation:
    """Two students of patches of 16 px, ViT-B/16 twice if `size` is "full", random weights; no window by default."""
    names = [f"class {index}" for index in range(num_classes)]
    config = Co2SConfig(
        clip_config=CLIPVisionConfig(
            image_size=224, patch_size=16, projection_dim=512, hidden_act="gelu", **SIZES[size]
        ),
        dinov3_config=DINOv3ViTConfig(image_size=224, patch_size=16, num_register_tokens=4, **SIZES[size]),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        window_px=window_px,
        **(TINY_HEAD if size == "tiny" else {}),
    )
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation(config).eval()


def seconds(work: Callable[[], Any], device: str = "cpu") -> float:
    """Wall-clock time of one call; on a GPU until it is done."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def in_turn(works: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every work, `repeats` times one after the other, after one call of each to warm up."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return times


def ratio(times: dict[str, list[float]], work: str, unit: str) -> float:
    """How many times as long `work` takes as `unit`: median over neighbours."""
    return statistics.median(a / b for a, b in zip(times[work], times[unit], strict=True))


def gflop(work: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products and convolutions of one call, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def matmul_gflops(dtype: torch.dtype, device: str = "cpu", side: int = 2048) -> float:
    """The ceiling: 10^9 operations per second of a square matrix product, the best of five."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2e-9 * side**3 / min(in_turn({"product": lambda: a @ b}, 5, device)["product"])


def peak_gb(module: str, arguments: Sequence[str]) -> float:
    """Peak memory in 10^9 bytes of a fresh process that runs a benchmark's `--peak`: all of it, libraries too."""
    command = [sys.executable, "-m", module, "--peak", *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def own_peak_gb() -> float:
    """Peak resident memory of this process in 10^9 bytes; VmHWM, which unlike ru_maxrss a new program starts at 0."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e9


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny checks that it runs, and measures nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32"])
    parser.add_argument("--num_classes", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def report(name: str, arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Print what was measured and where."""
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    if arguments.device != "cpu":
        machine += f", {torch.cuda.get_device_name(arguments.device)}"
    if arguments.json:
        print(json.dumps({"benchmark": name, "machine": machine, "rows": list(rows)}))
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"{name}: {machine}")
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
