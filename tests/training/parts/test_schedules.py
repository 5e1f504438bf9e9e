import doctest

import pytest

from training.parts import schedules
from training.parts.schedules import Progress, polynomial_factor, stability_weight


def test_docstring_examples():
    results = doctest.testmod(schedules)
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize(
    ("step", "total_steps", "ramp_fraction", "mode", "weight"),
    [
        (0, 50, 0.2, "cosine", 0.0),
        (1, 50, 0.2, "cosine", 0.015076844803522893),
        (5, 50, 0.2, "cosine", 0.2934120444167326),
        (9, 50, 0.2, "cosine", 0.5),
        (49, 50, 0.2, "cosine", 0.5),
        (1, 50, 0.2, "linear", 0.05555555555555555),
        (8, 50, 0.2, "linear", 0.4444444444444444),
        (137, 1000, 0.2, "cosine", 0.38950724539836),
        (0, 7, 0.2, "cosine", 0.5),  # a ramp of one step starts at the peak
        (0, 7, 0.2, "linear", 0.5),
        (0, 10, 0.0, "cosine", 0.5),
        (9, 10, 1.0, "cosine", 0.5),
        (-1, 10, 0.2, "cosine", 0.0),
        (10, 10, 0.2, "cosine", 0.0),
    ],
)
def test_stability_weight(step, total_steps, ramp_fraction, mode, weight):
    value = stability_weight(step, total_steps, ramp_fraction=ramp_fraction, mode=mode)
    assert value == pytest.approx(weight, abs=1e-12)


def test_stability_weight_scales_with_its_peak():
    assert stability_weight(20, 50, peak=0.2) == 0.2


def test_stability_weight_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="'cosine' or 'linear', got 'sine'"):
        stability_weight(0, 10, mode="sine")


@pytest.mark.parametrize(
    ("step", "warmup_steps", "used_as_released"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (2, 0, 0.9774716137503494),
        (9, 0, 0.8180521460508584),
        (39, 0, 0.06746414238367821),
        (0, 8, 1.0),
        (1, 8, 1.0000000000287556e-06),
        (2, 8, 0.12500087500000002),
        (8, 8, 0.875000125),
        (9, 8, 0.8180521460508584),
    ],
)
def test_polynomial_factor(step, warmup_steps, used_as_released):
    released = polynomial_factor(step, 40, warmup_steps=warmup_steps, released=True)
    assert released == pytest.approx(used_as_released, rel=1e-12)
    if step > 0:
        assert polynomial_factor(step - 1, 40, warmup_steps=warmup_steps) == released


def test_polynomial_factor_is_zero_from_the_end_on():
    assert polynomial_factor(40, 40) == polynomial_factor(41, 40) == 0


@pytest.mark.parametrize(("step", "total_steps"), [(0, 0), (-1, 10)])
def test_progress_refuses(step, total_steps):
    with pytest.raises(ValueError, match=f"got step {step} of {total_steps}"):
        Progress(step, total_steps)
