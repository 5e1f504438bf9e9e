"""What all scorers share: a scorer tells how well each class fits each region of a picture."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_SAMPLE_BYTES = 2**20


@dataclass
class Audit:
    """What a scorer did.

    Attributes:
        calls: forward passes or generations of the model.
        answers: questions it was asked in words.
        parsed: those of them that it answered as it was asked to.
    """

    calls: int = 0
    answers: int = 0
    parsed: int = 0


class Scorer(Protocol):
    """Any vision-language model, frozen, on one device."""

    audit: Audit

    def parameters(self) -> dict[str, Any]:
        """Give what the scores depend on, as values that JSON holds."""
        ...

    def score(self, image: Tensor, regions: Tensor) -> Tensor:
        """Score the K classes in the regions of a picture.

        Args:
            image: (3, H, W) float32 in [0, 1], red, green and blue.
            regions: (H, W) int64, ids from 0, -1 for none.

        Returns:
            (R, K) float32 on the CPU, logits before the calibration; rows of nan where the model abstains.
        """
        ...


def empty_scores(regions: int, classes: int) -> Tensor:
    """Abstain everywhere: (R, K) of nan."""
    return torch.full((regions, classes), torch.nan)


def precision_on(device: torch.device) -> torch.dtype:
    """Compute in bfloat16 on a GPU, in float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def model_identity(source: str | Path, revision: str | None = None, commit: str | None = None) -> dict[str, Any]:
    """Name a model so that another one is never taken for it.

    Args:
        source: id on the Hub, folder or checkpoint file.
        revision: as asked for.
        commit: of the files that were loaded from the Hub.

    Returns:
        The id and the commit; of local files the name, and a hash of their sizes, beginnings and ends.
    """
    path = Path(source)
    if not path.exists():
        return {"model": str(source), "revision": commit or revision}
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (*WEIGHT_SUFFIXES, ".json"))
    digest = sha256()
    for file in files:
        size_bytes = file.stat().st_size
        digest.update(f"{file.name} {size_bytes} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_SAMPLE_BYTES))
            opened.seek(max(0, size_bytes - _SAMPLE_BYTES))
            digest.update(opened.read())
    return {"model": path.name, "revision": digest.hexdigest()[:16]}
