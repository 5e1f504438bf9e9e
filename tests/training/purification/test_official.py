import doctest
import logging

import torch

from training.purification import official
from training.purification.official import OfficialPurifier


def test_docstring_examples():
    results = doctest.testmod(official)
    assert results.attempted > 0 and results.failed == 0


def test_it_says_that_nothing_comes_of_it(caplog):
    with caplog.at_level(logging.WARNING):
        OfficialPurifier(["a", "b"], lambda pixels: "")
    assert "changes nothing that a threshold of 0.95 lets pass" in caplog.text and "up to 0.72" in caplog.text


def test_no_pixel_passes_the_threshold_whatever_is_detected():
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (2, 8, 8), generator=generator)
    confidence = torch.rand(2, 8, 8, generator=generator)
    ours = OfficialPurifier(["a", "b", "c"], lambda pixels: {"b": [(0, 0, 8, 8)]})
    refined_label, refined = ours(torch.zeros(2, 3, 8, 8), label, confidence)
    assert (refined_label != label).any() and (refined != confidence).any()
    assert torch.equal(refined >= 0.95, confidence >= 0.95)
    assert torch.equal(refined_label[refined >= 0.95], label[refined >= 0.95])
