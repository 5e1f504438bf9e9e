"""Images, labels and maps of regions at one scale, kept in memory or on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import get_worker_info

from co2s_hf.data.folders import Sample, read_labels
from co2s_hf.raster.image import EncodedImage, FileWindow, ImageFile, Reading
from co2s_hf.raster.read import read_raster
from training.purification.cache import RegionCache

from .tile_cache import TileCache
from .views import resize_valid


class ImageReader:
    """Reads images and labels at one scale, and keeps them.

    Images are (C, H, W) as `Raster.input`: uint8, or float32 of 0 to 1 or of physical values, with 0 where they hold no
    data; and come with (H, W) bool, False there, or None. Labels are (H, W) uint8 on the grid of their image. None of
    them may be written to.

    Args:
        scale: Factor on the size of every image.
        cache_bytes: Memory to keep them in, shared by all workers of a loader; what does not fit is decoded again.
        reading: What the files do not say of themselves.
        tiles: Where they are kept instead: on disk, so that what is in memory of them is there once for all processes.
    """

    def __init__(self, scale: float, cache_bytes: int, reading: Reading, tiles: TileCache | None = None) -> None:
        """Read nothing yet."""
        self.scale, self.cache_bytes, self.reading, self.tiles = scale, cache_bytes, reading, tiles
        self.cache: dict[Any, tuple[Tensor, Tensor | None]] = {}  # by kind and what it is made of
        self.used_bytes = 0

    def image(self, file: ImageFile) -> tuple[Tensor, Tensor | None]:
        """Give an image, and where it holds data."""
        if isinstance(file, EncodedImage):  # what comes from a stream does not come again
            return self._decoded(file)
        source = Path(file) if isinstance(file, str) else file
        return self._kept("image", source, None, f"x {self.scale}, {self.reading}", lambda: self._decoded(source))

    def labels(self, sample: Sample) -> Tensor:
        """Give the labels of a sample that has a mask."""
        assert sample.mask is not None
        options = f"x {self.scale}, {sample.label_map}"
        return self._kept("labels", sample.mask, sample.image, options, lambda: (self._decoded_labels(sample), None))[0]

    def regions(self, file: ImageFile, scores: RegionCache, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Region ids (H, W) of an image of this size, as float32, which holds them exactly; and their scores."""
        cached = self.cache.get(("regions", file))
        if cached is None:
            ids, table = scores.lookup(file)
            ids = _resize_ids(ids, size)
            cached = (ids, table) if isinstance(file, EncodedImage) else self._keep(("regions", file), ids, table)
        return cached

    def whole_image(self, file: ImageFile) -> tuple[Tensor, Tensor | None]:
        """Decode an image at its own scale, and where it holds data; keep nothing. RasterError for other bands."""
        raster = read_raster(file, self.reading)
        return torch.from_numpy(raster.input), None if raster.valid.all() else torch.from_numpy(raster.valid)

    def scaled_image(self, image: Tensor) -> Tensor:
        """Resize an image of its own scale."""
        if self.scale == 1:
            return image
        return interpolate(image[None], self._scaled(image), mode="bilinear", antialias=True)[0]

    def _decoded(self, file: ImageFile) -> tuple[Tensor, Tensor | None]:
        image, valid = self.whole_image(file)
        if valid is not None and self.scale != 1:
            valid = resize_valid(valid, *self._scaled(valid))
        return self.scaled_image(image), valid

    def _decoded_labels(self, sample: Sample) -> Tensor:
        labels = torch.from_numpy(read_labels(sample))
        if self.scale == 1:
            return labels
        return interpolate(labels[None, None], self._scaled(labels), mode="nearest-exact")[0, 0]

    def _scaled(self, plane: Tensor) -> tuple[int, int]:
        height, width = (max(1, int(side * self.scale + 0.5)) for side in plane.shape[-2:])
        return height, width

    def _kept(
        self,
        kind: str,
        source: Path | FileWindow,
        onto: Path | FileWindow | None,
        options: str,
        decode: Callable[[], tuple[Tensor, Tensor | None]],
    ) -> tuple[Tensor, Tensor | None]:
        if self.tiles is None:
            key = kind, source, onto
            return self.cache[key] if key in self.cache else self._keep(key, *decode())
        tensors = self.tiles.get(source, f"{kind} {options}", lambda: _entry(*decode()), onto=onto)
        pixels = tensors["pixels"]
        return pixels if pixels.ndim == 2 else pixels.permute(2, 0, 1), tensors.get("valid")

    def _keep(self, key: Any, tensor: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        worker = get_worker_info()
        size_bytes = tensor.nbytes + (0 if valid is None else valid.nbytes)
        if self.used_bytes + size_bytes <= self.cache_bytes // (worker.num_workers if worker else 1):
            self.cache[key] = tensor, valid
            self.used_bytes += size_bytes
        return tensor, valid


def _entry(plane: Tensor, valid: Tensor | None) -> dict[str, Tensor]:
    """What the tile cache holds of an image or a mask, row by row, so that a crop lies in few pages of memory."""
    pixels = plane if plane.ndim == 2 else plane.permute(1, 2, 0)  # (C, H, W) -> (H, W, C)
    return {"pixels": pixels.contiguous()} | ({} if valid is None else {"valid": valid.contiguous()})


def _resize_ids(ids: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (H, W) ids to another size, as float32."""
    ids = ids.float()
    return ids if ids.shape == tuple(size) else interpolate(ids[None, None], tuple(size), mode="nearest-exact")[0, 0]


__all__ = ["ImageReader"]
