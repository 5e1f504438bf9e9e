import doctest

import pytest
import torch

from training.parts import pseudo_labels
from training.parts.pseudo_labels import PseudoLabels, cutmix, mutual_masks

BOX = torch.tensor([[[True, False], [False, False]]])


def pseudo(label, confidence, valid=True, weight=None):
    shape = (1, 2, 2)
    return PseudoLabels(
        torch.full(shape, label),
        torch.full(shape, confidence),
        torch.full(shape, valid),
        None if weight is None else torch.full(shape, weight),
    )


def test_docstring_examples():
    results = doctest.testmod(pseudo_labels)
    assert results.attempted > 0 and results.failed == 0


def test_from_logits_takes_the_most_probable_class_without_gradient():
    logits = torch.log(torch.tensor([0.2, 0.7, 0.1])).view(1, 3, 1, 1).expand(1, 3, 2, 2).requires_grad_()
    made = PseudoLabels.from_logits(logits, torch.ones(1, 2, 2, dtype=torch.bool))
    assert made.label.dtype == torch.int64 and torch.equal(made.label, torch.ones(1, 2, 2, dtype=torch.int64))
    torch.testing.assert_close(made.confidence, torch.full((1, 2, 2), 0.7))
    assert not made.confidence.requires_grad and made.weight is None


def test_from_logits_computes_half_precision_in_float32():
    logits = torch.tensor([0.0, 1.0], dtype=torch.bfloat16).view(1, 2, 1, 1)
    confidence = PseudoLabels.from_logits(logits, torch.ones(1, 1, 1, dtype=torch.bool)).confidence
    assert confidence.dtype == torch.float32 and confidence.item() == pytest.approx(0.731058, abs=1e-6)


def test_cutmix_of_images_pastes_every_channel():
    own, other = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    mixed = cutmix(own, other, BOX)
    assert mixed.shape == own.shape and torch.equal(mixed, BOX[:, None].expand(1, 3, 2, 2).float())
    assert own.sum() == 0  # the view is not changed in place


def test_cutmix_moves_all_four_maps_together():
    mixed = pseudo(1, 0.9, True, 0.5).cutmix(pseudo(2, 0.3, False, 0.25), BOX)
    for name, inside, outside in (("label", 2, 1), ("confidence", 0.3, 0.9), ("valid", 0, 1), ("weight", 0.25, 0.5)):
        expected = torch.tensor([[[inside, outside], [outside, outside]]], dtype=torch.float32)
        torch.testing.assert_close(getattr(mixed, name).float(), expected)


def test_cutmix_refuses_to_lose_a_weight():
    with pytest.raises(ValueError, match="give both or neither"):
        pseudo(1, 0.9, weight=0.5).cutmix(pseudo(1, 0.9), BOX)


def test_confident_needs_confidence_and_validity():
    value = PseudoLabels(
        torch.zeros(1, 2, 2, dtype=torch.int64),
        torch.tensor([[[0.95, 0.94], [0.99, 0.1]]]),
        torch.tensor([[[True, True], [False, True]]]),
    )
    assert value.confident(0.95).tolist() == [[[True, False], [False, False]]]
    assert value.confident_fraction(0.95).item() == pytest.approx(1 / 3)
    assert pseudo(0, 1.0, valid=False).confident_fraction(0.95).item() == 0


@pytest.mark.parametrize(
    ("first", "second", "learns"),
    [
        (0.6, 0.96, (True, False)),  # only the second is confident
        (0.96, 0.6, (False, True)),
        (0.96, 0.98, (True, False)),  # both are, the second one more
        (0.98, 0.96, (False, True)),
        (0.97, 0.97, (True, True)),  # a tie belongs to both
        (0.6, 0.7, (False, False)),
    ],
)
def test_mutual_masks(first, second, learns):
    masks = mutual_masks(pseudo(0, first), pseudo(1, second), 0.95)
    assert tuple(bool(mask.all()) for mask in masks) == tuple(bool(mask.any()) for mask in masks) == learns
