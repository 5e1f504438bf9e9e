"""A scene of any size through a model: windows in, whole bands of the map out.

Memory holds the windows of one batch and GDAL's cache, and grows neither with the height nor with the width of the
scene: what the next row of windows needs of this one waits in a file.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..raster.cog import NODATA
from ..raster.errors import RasterError
from ..raster.resample import OpenRaster
from ..segmentation import WINDOW_BATCH, in_steps, window_overlap_px
from .memory import batch_within
from .scene import SceneOptions
from .windows import Band, Blender, Chunk, Sums, WindowGrid, as_share, cut_bands, share
from .work import BandWriter, FileCarry, WorkFolder

DEFAULT_BATCH = WINDOW_BATCH
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} MP [{elapsed}<{remaining}, {rate_noinv_fmt}]"

LARGEST = 1e4
"""Standard deviations beyond which one stray value would make everything that a network sees with it NaN."""
MAX_FLOAT = 1e30  # what a processor normalises without an overflow

Probabilities = tuple[NDArray[np.bool_], Sums]


@dataclass(frozen=True)
class PredictSettings(SceneOptions):
    """How a scene is read and predicted; all fields but `max_memory_mb` and `band_px` are part of what the map holds.

    Attributes:
        window_px: side of a window; None: the one that the model was made for.
        overlap_px: shared by neighbouring windows; None: what those of the model share, so that the map is the one that
            `model(image)` gives, or of windows of another side the same part.
        batch: windows in a forward pass; None: 8, or what `max_memory_mb` allows.
        band_px: rows of the map that are finished together, and lost together when a process is killed.
        probabilities: also keep the probability of every class.
        disagreement: also keep how much the two students of Co2S disagree.
        max_memory_mb: bound of the process's memory; sets `batch`.
    """

    window_px: int | None = None
    overlap_px: int | None = None
    batch: int | None = None
    band_px: int = 1024
    probabilities: bool = False
    disagreement: bool = False
    max_memory_mb: int | None = None


class ScenePrediction:
    """The prediction of one open scene into a work folder, by one process or by several.

    Args:
        scene: see `co2s_hf.geo.scene`.
        model: any model of this package, in eval mode and on its device.
        processor: its image processor.
        output: folder of the map.
        stem: first part of the names of its files.
        settings: see there; how the scene is read has been decided.
        source: what the work folder notes of the scene, besides its size and type: equal values, equal pixels.

    Raises:
        RasterError: the model cannot map scenes.

    Attributes:
        grid: the windows.
        bands: all bands of the map.
        layers: names of the layers of a band.
    """

    def __init__(
        self,
        scene: OpenRaster,
        model: Any,
        processor: Any,
        output: Path,
        stem: str,
        settings: PredictSettings,
        source: dict[str, Any] | None = None,
    ) -> None:
        """Look at the scene and the model; nothing is predicted yet."""
        config, reading = model.config, scene.reading
        self.scene, self.model, self.processor, self.settings = scene, model, processor, settings
        self.classes = [config.id2label[index] for index in range(config.num_labels)]
        self._check_model()
        window_px = config.window_px if settings.window_px is None else settings.window_px
        stride_px = max(window_px * config.window_stride_px // config.window_px, 1)
        overlap_px = window_overlap_px(window_px, stride_px) if settings.overlap_px is None else settings.overlap_px
        self.grid = WindowGrid(scene.height, scene.width, window_px, overlap_px)
        self.bands = cut_bands(self.grid, settings.band_px)
        self.layers = ["classes", "confidence", *(["disagreement"] if settings.disagreement else [])]
        if settings.probabilities:
            self.layers += self.classes
        self.channels = len(self.classes) + settings.disagreement
        task: dict[str, Any] = {
            "scene": {"size": [scene.height, scene.width], "dtype": str(scene.dtype), **(source or {})},
            "model": fingerprint(model, processor),
            "device": model.device.type,
            "window_px": window_px,
            "overlap_px": overlap_px,
            "band_px": settings.band_px,
            "bands": [band.number for band in scene.bands],
            "nodata": None if reading.nodata is None else [reading.nodata.value, reading.nodata.within],
            "scale": reading.scale,
            "offset": reading.offset,
            "layers": self.layers,
        }
        self.work = WorkFolder(output, stem, task, layers=len(self.layers), width=scene.width)
        self.batch = self._find_batch()
        self.work.task["batch"] = self.batch
        self.chunks = self.grid.chunks(self.batch)

    def _check_model(self) -> None:
        if len(self.classes) > NODATA:
            raise RasterError(
                f"The model has {len(self.classes)} classes; expected at most {NODATA} in a map of bytes."
            )
        if self.processor.do_resize:
            raise RasterError(
                "The processor resizes images, so that windows would not fit together; expected do_resize=False. "
                "Resample the scene instead, with --gsd."
            )
        voting = [student for student in self.model.students if student in self.model.predictions]
        if self.settings.disagreement and len(voting) != 2:
            raise RasterError(
                "A disagreement needs two students that know all classes, as Co2S has; here "
                f"{' and '.join(voting)} predicts alone. Leave --disagreement out."
            )

    def _find_batch(self) -> int:
        """Windows in a forward pass; a run that goes on keeps its own, for batches of another size round otherwise."""
        begun = self.work.begun()
        if self.settings.batch is not None or (begun is None and self.settings.max_memory_mb is None):
            return self.settings.batch or DEFAULT_BATCH
        if begun is not None and "batch" in begun:
            return int(begun["batch"])
        assert self.settings.max_memory_mb is not None
        bands, shape = self.model.config.num_channels, self.grid.window_shape
        return batch_within(
            self.settings.max_memory_mb << 20, self.model, bands, shape, self.channels, len(self.layers)
        )

    def run(self, index: int = 0, count: int = 1, *, progress: bool = False) -> None:
        """Predict what is missing of the share `index` of `count`; call `work.begin` before.

        Args:
            index, count: which share of how many.
            progress: show megapixels per second and the time left.
        """
        todo = self.work.missing(share(self.bands, index, count))
        overlap_rows = self.grid.window_shape[0]
        columns = max(chunk.stop - chunk.lefts[0] for chunk in self.chunks)
        carry = FileCarry(self.work.folder, self.channels * overlap_rows * columns * 4)
        blender = Blender(self.grid, self.chunks, self.channels, carry)
        bar = tqdm(
            total=sum(band.bottom - band.top for band in todo) * self.grid.width,
            unit="MP",
            unit_scale=1e-6,
            desc=self.work.stem,
            bar_format=BAR,
            disable=not progress,
        )
        reached = -1  # the row of windows that the blender knows everything about
        try:
            for band in todo:
                if reached != band.rows.start:
                    blender.forget()
                    reached = self.grid.first_reaching(band.rows.start)
                with self.work.writing(band) as writer:
                    for row in range(reached, band.rows.stop):
                        for chunk in self.chunks:
                            self._add(blender, row, chunk, writer if row in band.rows else None, bar)
                reached = band.rows.stop
        finally:
            carry.close()
            bar.close()

    def _add(self, blender: Blender, row: int, chunk: Chunk, writer: BandWriter | None, bar: Any) -> None:
        valid, windows = self._windows(row, chunk)
        sums = blender.add(row, chunk, windows)
        if writer is None:  # a row above the band, whose windows reach into it
            return
        rows, columns = self.grid.final_rows(row), chunk.columns
        valid = valid[: rows.stop - rows.start, : columns.stop - columns.start]
        writer.write(rows, columns, self._final(sums, valid, rows, columns))
        bar.update(valid.size)

    def _windows(self, row: int, chunk: Chunk) -> tuple[NDArray[np.bool_], list[Sums | None]]:
        """Where the chunk holds data, and the probabilities of its windows; None for those without any."""
        (height, width), top, first = self.grid.window_shape, self.grid.tops[row], chunk.lefts[0]
        raster = self.scene.read(slice(top, top + height), slice(first, chunk.lefts[-1] + width))
        pixels, valid = raster.input, raster.valid
        cuts = [slice(left - first, left - first + width) for left in chunk.lefts]
        seen = [cut for cut in cuts if valid[:, cut].any()]
        found = iter(self.probabilities([pixels[..., cut] for cut in seen], [valid[:, cut] for cut in seen]))
        return valid, [next(found) if cut in seen else None for cut in cuts]

    @torch.inference_mode()
    def probabilities(self, pixels: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> list[Sums]:
        """(channels, height, width) whole numbers up to `PROBABILITY_STEPS` for each window.

        See `normalised` for pixels without data.
        """
        if not pixels:
            return []
        outputs = self.model(pixel_values=normalised(self.processor, pixels, valid).to(self.model.device))
        found = outputs.logits.float().softmax(1)
        if self.settings.disagreement:
            one, other = (outputs[name].float().softmax(1) for name in self.model.students.values())
            # The total variation distance: the largest difference that the two give to any set of classes.
            found = torch.cat([found, (one - other).abs().sum(1, keepdim=True) / 2], dim=1)
        if not torch.isfinite(found).all():
            raise RasterError(f"{self.scene.name}: the model gives NaN. Try --dtype float32.")
        return list(in_steps(found).int().cpu().numpy())

    def _final(self, sums: Sums, valid: NDArray[np.bool_], rows: slice, columns: slice) -> list[NDArray[np.uint8]]:
        """The layers of final pixels."""
        totals = self.grid.row_totals[rows], self.grid.column_totals[columns]
        of_classes = sums[: len(self.classes)]
        best = of_classes.argmax(axis=0)
        confidence = np.take_along_axis(of_classes, best[None], axis=0)[0]
        layers = [best.astype(np.uint8), as_share(confidence, *totals)]
        if self.settings.disagreement:
            layers.append(as_share(sums[len(self.classes)], *totals))
        if self.settings.probabilities:
            layers += [as_share(one, *totals) for one in of_classes]
        return [np.where(valid, layer, np.uint8(NODATA)) for layer in layers]

    def missing(self) -> list[Band]:
        """Bands of the whole map that no process has finished."""
        return self.work.missing(self.bands)


def normalised(processor: Any, pixels: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> torch.Tensor:
    """Make windows of one size the input of a model.

    Args:
        processor: an image processor.
        pixels: (bands, H, W) each, see `co2s_hf.raster.image.Raster.input`.
        valid: (H, W) each; pixels without data are the mean of the training images to the model.

    Returns:
        (B, bands, H, W) float32, at most `LARGEST` in absolute value.
    """
    layout = dict(input_data_format="channels_first", return_tensors="pt")
    known = torch.from_numpy(np.stack(valid))[:, None]
    if all(one.dtype == np.uint8 for one in pixels):
        bytes_of: torch.Tensor = processor(list(pixels), **layout)["pixel_values"]
        return bytes_of.masked_fill(~known, 0.0)
    # What the values mean has been decided, and whether they can be meant was looked at before: see `.domain`.
    units = [one / np.float32(255) if one.dtype == np.uint8 else one.clip(-MAX_FLOAT, MAX_FLOAT) for one in pixels]
    values: torch.Tensor = processor(units, do_rescale=False, **layout)["pixel_values"]
    return values.clamp_(-LARGEST, LARGEST).masked_fill(~known, 0.0)


def fingerprint(model: Any, processor: Any) -> str:
    """Hash what fixes the numbers of a model: its weights and their dtype, its configuration, its processor."""
    digest = hashlib.sha256(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


__all__ = ["DEFAULT_BATCH", "PredictSettings", "ScenePrediction", "fingerprint", "normalised"]
