"""Supervised training on the labelled images only: the baseline of every paper."""

from training.parts.method import Method


class Supervised(Method):
    """Cross-entropy of each student with the labels; every method has that, and this one has nothing else."""
