"""Memory: how many windows go through a model at once within a bound, and giving back what is freed."""

import ctypes
import sys
from typing import Any

import torch

from ..raster.errors import RasterError
from ..raster.read import GDAL_CACHE_BYTES

# A block of a network holds about as much at once: input, output, and what lies between.
LIVE_ACTIVATIONS = 4
MAX_BATCH = 64


def batch_within(limit: int, model: Any, bands: int, shape: tuple[int, int], channels: int, layers: int) -> int:
    """The largest power of two windows for which the estimated memory stays below `limit` bytes.

    The estimate is what the process has used so far, GDAL's cache, and for each window its pixels, its probabilities
    and, on a CPU, four times the largest activation of the model, found by one forward pass.

    Args:
        limit: in bytes, of the process.
        model: in eval mode.
        bands: of an image.
        shape: (height, width) of a window.
        channels: that are averaged at each pixel.
        layers: that are written.

    Raises:
        RasterError: not even one window fits.
    """
    pixels = shape[0] * shape[1]
    window = pixels * (bands * 16 + channels * 20 + layers)
    if model.device.type == "cpu":
        window += LIVE_ACTIVATIONS * _largest_activation(model, bands, shape)
    fixed = peak_bytes() + GDAL_CACHE_BYTES
    fitting = (limit - fixed) // window
    if fitting < 1:
        raise RasterError(
            f"--max-memory is {limit >> 20} MB, but one window of {shape[0]} x {shape[1]} px of this model needs about "
            f"{(fixed + window) >> 20} MB with all that is loaded. Allow more, or take a smaller --window_px."
        )
    return int(min(1 << (int(fitting).bit_length() - 1), MAX_BATCH))


def give_back() -> None:
    """Let the system have the memory that is free again, where the C library keeps it (glibc).

    Scene after scene a few kilobytes that stay, of GDAL for example, would cut the holes between them, and the next
    scene would need new memory.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def peak_bytes() -> int:
    """The most memory that this process has held so far (resident set size)."""
    try:
        import resource
    except ImportError:  # Windows
        return 1 << 29
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@torch.inference_mode()
def _largest_activation(model: Any, bands: int, shape: tuple[int, int]) -> int:
    """Bytes of the largest tensor that a module of the model gives for one window."""
    sizes = [0]

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        tensors = [output] if isinstance(output, torch.Tensor) else output if isinstance(output, (tuple, list)) else []
        sizes.extend(one.numel() * one.element_size() for one in tensors if isinstance(one, torch.Tensor))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        model(pixel_values=torch.zeros(1, bands, *shape, device=model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


__all__ = ["batch_within", "give_back", "peak_bytes"]
