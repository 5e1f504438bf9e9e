"""What a test of parity compares, counted: a test that compared nothing proves nothing."""

import math
from collections import Counter

import torch


class Comparison:
    """Comparisons of one test. A subclass brings `counts` and `worst`, both by test, for its module."""

    counts: Counter[str]
    worst: dict[str, float]

    def __init__(self, test):
        self.test = test

    def measured(self, error, tolerance, what=""):
        self.counts[self.test] += 1
        self.worst[self.test] = max(self.worst.get(self.test, 0.0), float(error))
        assert error <= tolerance, f"{what} differs by {float(error):.3g}, more than {tolerance:.3g}"

    def close(self, actual, expected, tolerance, what=""):
        """Compare all elements absolutely."""
        actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
        assert actual.shape == expected.shape, f"{what} is {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        self.measured((actual.double() - expected.double()).abs().max().item(), tolerance, what)

    def close_norm(self, actual, expected, tolerance, what=""):
        """Compare the norm of the difference relative to the norm of the recording."""
        assert actual.shape == expected.shape, f"{what} is {tuple(actual.shape)}, expected {tuple(expected.shape)}"
        error = (actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-6)
        self.measured(error.item(), tolerance, what)

    def equal(self, actual, expected, what=""):
        self.measured(0.0 if torch.equal(actual, expected) else math.inf, 0.0, what)
