"""Making batches: decoding, crops, weak and strong views, CutMix boxes of labelled and unlabelled images.

python tests/benchmarks/loader.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from co2s_hf.data.folders import Sample
from co2s_hf.data.images import write_image, write_mask
from tests.benchmarks.measure import Calibrators, in_turn, parser, ratio, report
from training.batches import SemiDataset, train_loader
from training.pools import FilePool, LabelledPool
from training.views import ViewNeeds


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--crops", type=int, nargs="+", default=[256, 512], help="px")
    arguments.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--positions", type=int, default=16, help="for each measurement")
    arguments = arguments.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    calibrators = Calibrators(arguments.size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for crop_px in arguments.crops:
            samples = draw_images(Path(folder) / str(crop_px), crop_px + crop_px // 4)
            for workers in arguments.workers:
                load = prepare(samples, crop_px, workers, arguments.positions)
                times = in_turn({"C": calibrators.C, "load": load}, arguments.repeats)
                rows.append(
                    {
                        "work": f"1+1 of {crop_px} px, {workers} workers",
                        "in C": ratio(times, "load", "C") / arguments.positions,
                        "positions/s": arguments.positions / min(times["load"]),
                    }
                )
    report("loader", arguments, rows)
    return rows


def draw_images(folder: Path, side: int) -> list[Sample]:
    """Eight JPEG of smooth noise, about as hard to decode as aerial images, and their masks."""
    rng, samples = np.random.default_rng(0), []
    folder.mkdir()
    for index in range(8):
        coarse = torch.from_numpy(rng.random((1, 3, side // 4, side // 4), dtype=np.float32))
        smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)[0]
        image, mask = folder / f"{index}.jpg", folder / f"{index}.png"
        write_image(image, (255 * smooth).byte().permute(1, 2, 0).numpy())
        write_mask(mask, rng.integers(0, 6, (side, side), dtype=np.uint8))
        samples.append(Sample(image, mask, scene=str(index)))
    return samples


def prepare(samples: list[Sample], crop_px: int, workers: int, positions: int):
    """A function that loads so many positions; its workers are running and its images are not cached."""
    dataset = SemiDataset(
        LabelledPool(samples[:4], seed=0),
        FilePool(samples[4:], seed=0),
        crop_px=crop_px,
        seed=0,
        views=ViewNeeds(unlabelled=True),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        cache_bytes=0,
    )
    loader = train_loader(dataset, batch_size=1, start_step=0, total_steps=10**6, num_workers=workers)
    batches = iter(loader)

    def load() -> None:
        for _ in range(positions):
            next(batches)

    return load


if __name__ == "__main__":
    main()
