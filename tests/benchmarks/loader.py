"""Making batches: decoding, crops, weak and strong views, CutMix boxes of labelled and unlabelled images.

python tests/benchmarks/loader.py
python tests/benchmarks/loader.py --data_dir FOLDER         of images/ and labels/, instead of eight drawn images

"crops" is the share of decoding and cropping, which workers do, measured without them. The rest are the views, made on
the device that trains.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from co2s_hf.data.folders import Sample
from co2s_hf.raster.read import IMAGE_SUFFIXES, read_raster
from co2s_hf.raster.write import write_image, write_mask
from tests.benchmarks.measure import Calibrators, in_turn, parser, ratio, report
from training.batches import SemiDataset, train_loader
from training.pools import FilePool, LabelledPool
from training.tile_cache import TileCache
from training.views import ViewNeeds


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--crops", type=int, nargs="+", default=[256, 512], help="px")
    arguments.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    arguments.add_argument(
        "--caches", nargs="+", choices=["none", "memory", "tiles"], default=["none", "memory", "tiles"]
    )
    arguments.add_argument("--positions", type=int, default=16, help="for each measurement")
    arguments.add_argument("--data_dir", type=Path, help="with images/ and labels/ of the same names")
    arguments = arguments.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    calibrators = Calibrators(arguments.size)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for crop_px in arguments.crops:
            drawn = folder / str(crop_px)
            samples = find_images(arguments.data_dir) or draw_images(drawn, crop_px + crop_px // 4)
            for workers in arguments.workers:
                for cache in arguments.caches:
                    rows.append(measure(samples, crop_px, workers, cache, folder, calibrators, arguments))
    report("loader", arguments, rows)
    return rows


def measure(samples, crop_px, workers, cache, folder, calibrators, arguments) -> dict:
    """One row; the caches are full."""
    positions = arguments.positions
    tiles = TileCache(folder / "tiles", limit_bytes=50 * 2**30) if cache == "tiles" else None
    dataset = build(samples, crop_px, cache_bytes=2 * 2**30 if cache == "memory" else 0, tiles=tiles)
    loader = train_loader(dataset, batch_size=1, start_step=0, total_steps=10**6, num_workers=workers)
    batches = iter(loader)
    for _ in range(0 if cache == "none" else len(samples) * max(workers, 1)):
        next(batches)
    works = {
        "C": calibrators.C,
        "load": lambda: [next(batches) for _ in range(positions)],
        "crops": lambda: [dataset[k] for k in range(positions)],
    }
    times = in_turn(works if workers == 0 else {name: works[name] for name in ("C", "load")}, arguments.repeats)
    return {
        "work": f"1+1 of {crop_px} px, {workers} workers, cache: {cache}",
        "in C": ratio(times, "load", "C") / positions,
        "positions/s": positions / min(times["load"]),
        "crops": min(times["crops"]) / min(times["load"]) if workers == 0 else None,
    }


def find_images(folder: Path | None) -> list[Sample]:
    """The images of a folder and their masks."""
    if folder is None:
        return []
    masks = {path.stem: path for path in sorted((folder / "labels").iterdir())}
    images = [path for path in sorted((folder / "images").iterdir()) if path.suffix in IMAGE_SUFFIXES]
    return [Sample(path, masks[path.stem], path.stem) for path in images]


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


def build(samples: list[Sample], crop_px: int, **caching) -> SemiDataset:
    """Half of the images with their masks, half without."""
    bands = len(read_raster(samples[0].image).input)
    return SemiDataset(
        LabelledPool(samples[::2], seed=0),
        FilePool(samples[1::2], seed=0),
        crop_px=crop_px,
        seed=0,
        views=ViewNeeds(unlabelled=True),
        mean=[0.5] * bands,
        std=[0.25] * bands,
        **caching,
    )


if __name__ == "__main__":
    main()
