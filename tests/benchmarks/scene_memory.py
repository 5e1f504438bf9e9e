"""Memory and speed of `predict_scene` over the size of a scene: python -m tests.benchmarks.scene_memory SIDE FOLDER.

Draws a scene of SIDE x SIDE px, predicts it with a model that looks at one pixel at a time, and prints the most memory
that the process has held and megapixels per second. Run each size in a process of its own.
"""

import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from co2s_hf.geo.maps import predict_scene
from tests.geo.pixel_model import PixelModel, pixel_processor

BLOCK_PX, FIELD_PX = 1000, 90
COLOURS = np.array([[200, 50, 90], [60, 180, 80], [80, 70, 220]], np.uint8)  # (band, class)


def draw_scene(path, side):
    """Fields of one colour each, with noise; written block by block."""
    profile = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32633", tiled=True)
    transform = rasterio.Affine(1, 0, 400000, 0, -1, 5_000_000)
    with rasterio.open(path, "w", transform=transform, **profile) as file:
        for top in range(0, side, BLOCK_PX):
            for left in range(0, side, BLOCK_PX):
                rng = np.random.default_rng([top, left])
                fields = COLOURS[:, rng.integers(0, 3, [BLOCK_PX // FIELD_PX + 1] * 2)]
                block = fields.repeat(FIELD_PX, 1).repeat(FIELD_PX, 2)[:, :BLOCK_PX, :BLOCK_PX]
                block = block + rng.integers(0, 20, block.shape, dtype=np.uint8)
                file.write(block, window=Window(left, top, BLOCK_PX, BLOCK_PX))


def main(side, folder):
    torch.set_num_threads(1)
    path = Path(folder) / f"scene_{side}.tif"
    if not path.exists():  # in a process of its own: GDAL sizes its cache once
        process = multiprocessing.get_context("spawn").Process(target=draw_scene, args=(path, side))
        process.start()
        process.join()
    model = PixelModel(window_px=256).eval()
    start, computed = time.perf_counter(), time.process_time()
    with rasterio.open(path) as dataset:
        predict_scene(dataset, model, pixel_processor(), folder, f"map_{side}", progress=True, force=True)
    seconds, computed = time.perf_counter() - start, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    megapixels = side * side / 1e6
    print(
        f"{side} px: {peak:.0f} MB at most, {megapixels / seconds:.2f} MP/s ({seconds:.0f} s, all files), "
        f"{megapixels / computed:.2f} MP for each second that a core computed"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
