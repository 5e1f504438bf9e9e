"""Files of one result: all of them appear, or none, and nothing is replaced unasked."""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..raster.errors import RasterError


@contextmanager
def files_together(output: Path, names: Sequence[str], *, force: bool) -> Iterator[Path]:
    """Give a folder to write files of these names in; they move to `output` when this is left without an error.

    Raises:
        RasterError: `output` holds one of them and `force` is not set, or it cannot be made.
    """
    found = [name for name in names if (output / name).exists()]
    if found and not force:
        raise RasterError(f"{output} holds {', '.join(found)} already. Name another output, or replace with --force.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RasterError(f"{output} cannot be made ({error}); expected a folder. Name another one.") from None
    with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=output) as folder:
        yield Path(folder)
        for name in names:
            (Path(folder) / name).replace(output / name)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON; numbers that are not finite become null."""
    path.write_text(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["files_together", "write_json"]
