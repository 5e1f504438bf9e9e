"""What the commands are given: scenes by path, folder or glob, and a model."""

import glob
import os
import sys
from collections.abc import Sequence
from typing import Any

from ..raster.errors import RasterError
from .outputs import ENDINGS

SUFFIXES = (".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg", ".jp2", ".img")
"""What is taken for a scene in a folder, compared in lower case; elsewhere GDAL decides."""

DTYPES = ("float32", "bfloat16", "float16")


def scene_paths(inputs: Sequence[str]) -> list[str]:
    """Paths of scenes, each once, in the order of the inputs; maps among the files of a folder are left out.

    Raises:
        RasterError: a folder or glob without any.
    """
    return list(dict.fromkeys(path for one in inputs for path in _expanded(one)))


def _expanded(one: str) -> list[str]:
    if "://" in one or one.startswith("/vsi"):
        return [one]
    if os.path.isdir(one):
        names = sorted(name for name in os.listdir(one) if name.lower().endswith(SUFFIXES))
        made = tuple(ending for ending in ENDINGS if ending != ".png")
        found = [os.path.join(one, name) for name in names if not name.endswith(made) and name[0] != "."]
    elif os.path.exists(one) or not glob.has_magic(one):
        return [one]
    else:
        found = sorted(glob.glob(one, recursive=True))
    if not found:
        raise RasterError(f"{one} holds no scene; expected files that end in {', '.join(SUFFIXES)}.")
    return found


def load_model(model: str, device: str | None, dtype: str) -> tuple[Any, Any]:
    """Load a model, in eval mode, and its image processor.

    Args:
        model: folder or Hub id.
        device: None: this process's GPU where there is one.
        dtype: one of `DTYPES`.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    loaded = AutoModelForSemanticSegmentation.from_pretrained(
        model, dtype=getattr(torch, dtype), trust_remote_code=False
    )
    device = device or (f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")
    return loaded.eval().to(device), AutoImageProcessor.from_pretrained(model, trust_remote_code=False)


def is_first() -> bool:
    """Whether this process speaks for all that `accelerate launch` has started."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Tell a person what is no error."""
    if is_first():
        print(f"note: {text}", file=sys.stderr)


__all__ = ["DTYPES", "SUFFIXES", "is_first", "load_model", "say", "scene_paths"]
