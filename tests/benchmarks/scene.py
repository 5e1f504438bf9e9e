"""A map of a whole scene: reading, windows, blending and writing, against the model's forward passes alone.

python tests/benchmarks/scene.py
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch

from co2s_hf import Co2SImageProcessor
from co2s_hf.geo.maps import predict_scene
from co2s_hf.geo.predict import PredictSettings
from co2s_hf.geo.windows import WindowGrid
from co2s_hf.segmentation import default_stride_px, window_overlap_px
from tests.benchmarks.measure import Calibrators, build_model, in_turn, parser, ratio, report


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure and print; returns the rows."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.set_defaults(repeats=2)
    arguments.add_argument("--sides", type=int, nargs="+", default=[1024], help="of the scene in px")
    arguments.add_argument("--window", type=int, default=512, help="px; a sixth is shared with the next one")
    arguments.add_argument("--batch", type=int, default=4, help="windows in a forward pass")
    arguments = arguments.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    calibrators = Calibrators(arguments.size, arguments.device)
    model = build_model(arguments.size, arguments.num_classes, window_px=arguments.window).to(arguments.device)
    settings, rows = PredictSettings(batch=arguments.batch), []
    with tempfile.TemporaryDirectory() as folder:
        for side in arguments.sides:
            scene = draw_scene(Path(folder) / f"{side}.tif", side)
            works = {
                "C": calibrators.C,
                "map": partial(make_map, scene, model, settings, Path(folder) / "maps"),
                "forward": partial(run_windows, model, side, arguments),
            }
            times = in_turn(works, arguments.repeats, arguments.device)
            megapixels = side * side / 1e6
            rows.append(
                {
                    "work": f"{side} px, windows of {arguments.window}",
                    "in C per MP": ratio(times, "map", "C") / megapixels,
                    "of the forward passes": ratio(times, "map", "forward"),
                    "MP/s": megapixels / min(times["map"]),
                }
            )
    report("scene", arguments, rows)
    return rows


def draw_scene(path: Path, side: int) -> Path:
    """Noise of 8 bits on a metre grid."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    profile = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32633", tiled=True)
    with rasterio.open(path, "w", transform=rasterio.Affine(1, 0, 400000, 0, -1, 5_000_000), **profile) as file:
        file.write(pixels)
    return path


def make_map(scene: Path, model, settings: PredictSettings, output: Path) -> None:
    """All files of a map but the outlines, which depend on what the map shows."""
    processor = Co2SImageProcessor()
    with rasterio.open(scene) as dataset:
        predict_scene(dataset, model, processor, output, scene.stem, settings=settings, with_polygons=False, force=True)


@torch.inference_mode()
def run_windows(model, side: int, arguments) -> None:
    """As many windows as the map needs through the model, and nothing else."""
    grid = WindowGrid(
        side, side, arguments.window, window_overlap_px(arguments.window, default_stride_px(arguments.window))
    )
    windows = len(grid.tops) * len(grid.lefts)
    images = torch.randn(arguments.batch, 3, *grid.window_shape, device=arguments.device)
    for start in range(0, windows, arguments.batch):
        model(images[: windows - start])


if __name__ == "__main__":
    main()
