"""What changes while training, as functions of the optimizer step."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """How far training has come, counted in optimizer steps: `step` of `total_steps`, the first step being 0."""

    step: int
    total_steps: int

    def __post_init__(self) -> None:
        """Refuse a training without steps and a negative step."""
        if self.total_steps < 1 or self.step < 0:
            raise ValueError(
                f"progress needs total_steps >= 1 and step >= 0, got step {self.step} of {self.total_steps}"
            )


def stability_weight(
    step: int,
    total_steps: int,
    *,
    peak: float = 0.5,
    ramp_fraction: float = 0.2,
    mode: Literal["cosine", "linear"] = "cosine",
) -> float:
    """Weight of Co2S's stability term: rises from 0 to `peak` over the first steps and stays there.

    lambda(t) = peak (1 - cos(pi t / (R - 1))) / 2 for t < R = round(ramp_fraction T), else peak

    Args:
        step: optimizer step t, from 0.
        total_steps: T.
        peak: final weight, reached at step R - 1.
        ramp_fraction: share of T spent rising, in [0, 1]; R is rounded half to even.
        mode: "cosine", or "linear" for peak t / (R - 1).

    Returns:
        The weight in [0, peak]; 0 outside [0, T). A ramp of a single step starts at the peak.

    Raises:
        ValueError: the mode is unknown.

    >>> [round(stability_weight(step, 50), 3) for step in (0, 3, 9, 10, 49, 50)]
    [0.0, 0.125, 0.5, 0.5, 0.5, 0.0]
    """
    if mode not in ("cosine", "linear"):
        raise ValueError(f"mode must be 'cosine' or 'linear', got '{mode}'")
    if not 0 <= step < total_steps:
        return 0.0
    ramp_steps = min(max(round(ramp_fraction * total_steps), 0), total_steps)
    if step >= ramp_steps or ramp_steps == 1:
        return peak
    risen = step / (ramp_steps - 1)
    return peak * (risen if mode == "linear" else (1 - math.cos(math.pi * risen)) / 2)


def polynomial_factor(
    step: int, total_steps: int, *, power: float = 0.9, warmup_steps: int = 0, released: bool = False
) -> float:
    """Return the factor on the initial learning rate that optimizer step `step` uses.

    f(t) = 1 - (1 - t / W)(1 - 1e-6) for t < W (warm-up), else (1 - t / T)^power

    Args:
        step: optimizer step t, from 0.
        total_steps: T; from t = T on the factor is 0.
        power: exponent of the decay; 0.9 in the papers.
        warmup_steps: W. The decay counts from step 0 as well, so there is a small jump at t = W.
        released: as the released Co2S code does, which sets the rate after a step from the index of the step just
            finished: step 0 uses factor 1 (also with warm-up) and step t uses f(t - 1).

    >>> [round(polynomial_factor(step, 40), 4) for step in (0, 1, 2, 40)]
    [1.0, 0.9775, 0.9549, 0.0]
    >>> [round(polynomial_factor(step, 40, released=True), 4) for step in (0, 1, 2)]
    [1.0, 1.0, 0.9775]
    """
    if released and step == 0:
        return 1.0
    at = step - 1 if released else step
    if at < warmup_steps:
        return 1 - (1 - at / warmup_steps) * (1 - 1e-6)
    return max(1 - at / total_steps, 0.0) ** power
