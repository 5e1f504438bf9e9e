import doctest

import pytest
import torch
import torch.nn.functional as F

from training.parts import supervision
from training.parts.losses import cross_entropy


def test_docstring_examples():
    results = doctest.testmod(supervision)
    assert results.attempted > 0 and results.failed == 0


def test_weights_of_classes_are_those_of_torch():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 4, requires_grad=True), torch.randint(0, 3, (2, 5, 4))
    labels[0, :2] = 255
    weights = supervision.as_tensor([0.5, 1.0, 4.0])
    loss = cross_entropy(logits, labels, class_weights=weights)
    expected = F.cross_entropy(logits, labels, weight=weights, ignore_index=255)
    torch.testing.assert_close(loss, expected)
    for one, two in zip(*(torch.autograd.grad(value, logits) for value in (loss, expected)), strict=True):
        torch.testing.assert_close(one, two)
    ones = cross_entropy(logits, labels, class_weights=torch.ones(3))
    torch.testing.assert_close(ones, cross_entropy(logits, labels))
    assert cross_entropy(logits, torch.full_like(labels, 255), class_weights=weights) == 0
    doubled = cross_entropy(logits, labels, class_weights=weights, average_count=lambda count: 2 * count)
    torch.testing.assert_close(doubled, loss / 2)
    assert supervision.as_tensor(None) is None


def test_median_frequency_without_any_pixel_is_even():
    assert supervision.median_frequency_weights([[3, 0]]) == [1.0, 1.0]
    weights = supervision.median_frequency_weights([[90, 9, 1]])
    assert weights == pytest.approx([0.1, 1.0, 9.0])
