"""Scores that were made ahead of training, on disk: for each image its map of regions and their table of scores."""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from co2s_hf.raster.image import EncodedImage, FileWindow, ImageFile
from training.purification.calibration import Calibration
from training.purification.regions import NO_REGION

PARAMETERS, CALIBRATION = "parameters.json", "calibration.json"


class CacheError(ValueError):
    """A cache that cannot be used; the message says what it holds and how to go on."""


class RegionCache:
    """A folder of scores, all made with the same parameters.

    Images are known by their content, so that a data set may move; a changed image is a new one, and so is every window
    of a file.

    Args:
        folder: of the cache.
        parameters: everything that the scores depend on, see `Scorer.parameters`, apart from the images; None to open
            a cache as it is.

    Raises:
        CacheError: there is no cache and no parameters are given, or it was made with other ones.
    """

    def __init__(self, folder: str | Path, parameters: Mapping[str, Any] | None = None) -> None:
        """Open the folder, or make it."""
        self.folder = Path(folder)
        path = self.folder / PARAMETERS
        if path.is_file():
            self.parameters: dict[str, Any] = _read(path)
            if not isinstance(self.parameters.get("names"), list):
                raise CacheError(f"{path} names no classes; expected what training/purify_labels.py wrote there.")
        elif parameters is None:
            raise CacheError(
                f"{self.folder} holds no {PARAMETERS}; expected a cache made by training/purify_labels.py."
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.parameters = _plain(parameters)
            _write(path, self.parameters)
        if parameters is not None:
            self._require(_plain(parameters))
        self.names: dict[tuple[str, int, int], str] = {}
        self.calibrated: Calibration | None = None

    @property
    def classes(self) -> list[str]:
        """The class names that the columns of the scores stand for."""
        return list(self.parameters["names"])

    def has(self, image: ImageFile) -> bool:
        """Say whether an image is finished."""
        return self._file(image).is_file()

    def missing(self, images: Iterable[ImageFile]) -> list[ImageFile]:
        """Give the images that are not finished."""
        return [image for image in images if not self.has(image)]

    def write(self, image: ImageFile, regions: Tensor, scores: Tensor) -> None:
        """Keep an image's regions (H, W) int64 and their scores (R, K) float32; whole or not at all."""
        small = np.int16 if len(scores) < 2**15 else np.int32
        packed = np.frombuffer(zlib.compress(regions.cpu().numpy().astype(small).tobytes(), 6), np.uint8)
        tensors = {
            "regions": torch.from_numpy(packed.copy()),
            "shape": torch.tensor([*regions.shape, np.dtype(small).itemsize]),
            "scores": scores.cpu().float().contiguous(),
        }
        path = self._file(image)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        # Not safetensors' torch writer: that leaves a type behind for every new size, 5 kB for almost every image.
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        save_file(arrays, unfinished, {"sha256": _digest(path.stem, tensors)})
        os.replace(unfinished, path)

    def read(self, image: ImageFile) -> tuple[Tensor, Tensor]:
        """Give an image's regions (H, W) int64 and scores (R, K) float32 as they were written, not calibrated.

        Raises:
            CacheError: the image is not in the cache, or its file is damaged.
        """
        path = self._file(image)
        if not path.is_file():
            raise CacheError(
                f"{image} is not in the cache {self.folder}, or has changed since. Run training/purify_labels.py "
                "again: it does what is missing."
            )
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
                noted = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError) as error:
            raise CacheError(
                f"{path} is damaged ({error}); expected scores of {image}. Delete it, and make it again."
            ) from error
        if noted not in (None, _digest(path.stem, tensors)):  # None: of an older version
            raise CacheError(
                f"{path} is damaged, or of another image: it is not what was written as scores of {image}. Delete it, "
                "and make it again."
            )
        if tensors.keys() != {"regions", "shape", "scores"}:
            raise CacheError(
                f"{path} holds no regions and scores; expected those of {image}. Delete it, and make it again."
            )
        height, width, item_bytes = tensors["shape"].tolist()
        flat = np.frombuffer(zlib.decompress(tensors["regions"].numpy().tobytes()), f"<i{item_bytes}")
        return torch.from_numpy(flat.astype(np.int64)).view(height, width), tensors["scores"]

    def lookup(self, image: ImageFile) -> tuple[Tensor, Tensor]:
        """Give an image's regions (H, W) int64 and calibrated probabilities (R, K); rows of nan abstain."""
        regions, scores = self.read(image)
        return regions, self.calibration().probabilities(scores)

    def calibration(self) -> Calibration:
        """Give the calibration that was fitted last. Raises CacheError where there is none."""
        if self.calibrated is not None:
            return self.calibrated
        path = self.folder / CALIBRATION
        if not path.is_file():
            raise CacheError(
                f"{self.folder} holds no {CALIBRATION}: training/purify_labels.py was not finished; run it again."
            )
        try:
            self.calibrated = Calibration.from_dict(_read(path))
        except (KeyError, TypeError) as error:
            raise CacheError(f"{path} is no calibration ({error}): run training/purify_labels.py again.") from error
        return self.calibrated

    def keep_calibration(self, calibration: Calibration) -> None:
        """Keep a calibration next to the scores."""
        self.calibrated = calibration
        _write(self.folder / CALIBRATION, calibration.to_dict())

    def _file(self, image: ImageFile) -> Path:
        return self.folder / f"{self._name(image)}.safetensors"

    def _name(self, image: ImageFile) -> str:
        """Hash of the content; of a file it is kept as long as size and time of the file stay."""
        if isinstance(image, EncodedImage):
            return sha256(image.data).hexdigest()[:32]
        if isinstance(image, FileWindow):
            place = image.top, image.left, image.height, image.width
            return sha256(f"{self._name(image.path)} {place}".encode()).hexdigest()[:32]
        state = os.stat(image)
        known = str(image), state.st_size, state.st_mtime_ns
        if known not in self.names:
            with open(image, "rb") as file:
                self.names[known] = file_digest(file, "sha256").hexdigest()[:32]
        return self.names[known]

    def _require(self, parameters: dict[str, Any]) -> None:
        for name in sorted(parameters.keys() | self.parameters.keys()):
            found, expected = self.parameters.get(name), parameters.get(name)
            if found != expected:
                raise CacheError(
                    f"The cache {self.folder} was made with {name} = {found}; expected {expected}. Scores of two kinds "
                    "do not mix: choose another folder, or remove this one."
                )


def visible_regions(regions: Tensor, scores: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Keep the regions that a crop shows, in a table of a fixed size that a batch can be made of.

    Args:
        regions: (S, S) int64 of a crop, rows of `scores`, -1 for none.
        scores: (R, K) of the whole image.
        rows: R' of the new table; of more regions the smallest are dropped.

    Returns:
        (S, S) int64 with new ids, -1 for none; and (R', K) scores, padded with rows of nan.
    """
    ids, counts = regions[regions >= 0].unique(return_counts=True)
    ids = ids[counts.argsort(descending=True, stable=True)[:rows]]
    numbers = torch.full((len(scores) + 1,), NO_REGION, dtype=torch.int64)
    numbers[ids] = torch.arange(len(ids))
    table = scores.new_full((rows, scores.shape[1]), torch.nan)
    table[: len(ids)] = scores[ids]
    return numbers[regions], table  # the last number is that of -1


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON makes of the parameters: tuples become lists."""
    return json.loads(json.dumps(dict(parameters)))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps({**content, "sha256": _sum(content)}, indent=1, sort_keys=True), encoding="utf-8")
    os.replace(unfinished, path)


def _read(path: Path) -> dict[str, Any]:
    """What was written, held against its checksum; an older version wrote none."""
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        if content.pop("sha256", None) not in (None, _sum(content)):
            raise ValueError("its checksum is another one")
    except (ValueError, TypeError) as error:
        raise CacheError(
            f"{path} is damaged ({error}); expected what training/purify_labels.py wrote. Delete it, and run it again."
        ) from error
    return content


def _sum(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Checksum of tensors, and of the image that they belong to."""
    digest = sha256(name.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
