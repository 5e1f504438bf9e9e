"""Purification of pseudo-labels by a vision-language model (SemiEarth, arXiv:2602.00202), so that it reaches the loss.

regions -> scorers -> calibration -> decisions; `cache` keeps the scores of images ahead of training, and `official` is
the released refinement, for comparison.
"""
