"""FixMatch (arXiv 2001.07685) for segmentation, with the moving average as its teacher: one strong view, CutMix."""

from training.parts.average_teacher import TaughtByAverage


class FixMatch(TaughtByAverage):
    """What every method with such a teacher has, and nothing else."""
