"""One process of `test_distributed.py`: the gradients of its share of a step, started by torch.distributed.run."""

import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from tests.training.tiny_runs import build_tiny_model, load_batch, tensors_of
from training.methods.co2s import Co2S
from training.methods.fixmatch import FixMatch
from training.parts.schedules import Progress

METHODS = {
    "co2s": partial(Co2S, threshold=0.2, feature_dropout=0.0),
    "fixmatch": partial(FixMatch, threshold=0.2),
}


def main(data: Path, out: Path) -> None:
    """Write the batch, and for each method the averaged gradients and the loss of this process, to `out`."""
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    batch = load_batch(data, batch_size=2, rank=accelerator.process_index, world_size=accelerator.num_processes)
    result = {"batch": tensors_of(batch)}
    for name, build in METHODS.items():
        method = build(build_tiny_model(), average_count=lambda count: accelerator.reduce(count, "mean"))
        method.model = accelerator.prepare(method.model)
        scalars = method.step(batch, Progress(5, 10))
        accelerator.backward(scalars["loss"])
        model = accelerator.unwrap_model(method.model)
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        result[name] = {"gradients": gradients, "scalars": scalars}
    torch.save(result, out / f"{accelerator.process_index}.pt")
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
