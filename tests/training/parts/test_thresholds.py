import pytest
import torch

from training.parts.pseudo_labels import PseudoLabels
from training.parts.thresholds import BINS, MOMENTUM, ClassThresholds

CEILING = 0.9


def pseudo(*confidences):
    """One picture with one row for each class, all of it valid but the last column."""
    confidence = torch.stack(list(confidences))[None]
    label = torch.arange(len(confidences))[None, :, None].expand_as(confidence)
    valid = torch.ones_like(label, dtype=torch.bool)
    valid[..., -1] = False
    return PseudoLabels(label.contiguous(), confidence, valid)


@pytest.fixture
def rare_class_is_unsure():
    sure, unsure = torch.linspace(0.8, 0.999, 201), torch.linspace(0.4, 0.6, 201)
    return pseudo(sure, unsure)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_threshold_leaves_its_share_of_the_class(rare_class_is_unsure, share):
    thresholds = ClassThresholds(CEILING, share)
    thresholds.update(rare_class_is_unsure, num_classes=3)
    common, rare, absent = thresholds.thresholds().tolist()
    assert common == pytest.approx(min(CEILING, 0.999 - share * 0.199), abs=1.5 / BINS)
    assert rare == pytest.approx(0.6 - share * 0.2, abs=1.5 / BINS) and absent == pytest.approx(CEILING)

    relative = thresholds.relative(rare_class_is_unsure)
    counted = relative.confident(CEILING)[0].float().mean(1)
    assert counted[1] == pytest.approx(share, abs=0.04)
    assert counted[0] == pytest.approx(max(share, 0.5), abs=0.04)
    assert torch.equal(relative.label, rare_class_is_unsure.label)
    # Within a class the order stays, and probabilities stay probabilities.
    assert (relative.confidence.diff(dim=-1) > 0).all() and 0 < relative.confidence.min()
    assert relative.confidence.max() <= 1


def test_without_a_share_nothing_changes(rare_class_is_unsure):
    thresholds = ClassThresholds(CEILING, 0.0)
    thresholds.update(rare_class_is_unsure, num_classes=2)
    assert thresholds.relative(rare_class_is_unsure) is rare_class_is_unsure and thresholds.counts is None
    with pytest.raises(ValueError, match="no pseudo-label was counted yet"):
        thresholds.thresholds()


def test_a_class_that_is_confident_anyway_keeps_the_ceiling():
    sure = pseudo(torch.full((11,), 0.97), torch.full((11,), 0.5))
    thresholds = ClassThresholds(CEILING, 0.5)
    thresholds.update(sure, num_classes=2)
    assert torch.equal(thresholds.relative(sure).confidence[:, 0], sure.confidence[:, 0])


def test_old_steps_fade(rare_class_is_unsure):
    thresholds = ClassThresholds(CEILING, 0.5)
    thresholds.update(rare_class_is_unsure, num_classes=2)
    first = thresholds.counts.clone()
    lower = pseudo(torch.full((201,), 0.30), torch.full((201,), 0.30))
    thresholds.update(lower, num_classes=2)
    torch.testing.assert_close(thresholds.counts.sum(1), first.sum(1))
    assert thresholds.counts[1, int(0.3 * BINS)] == pytest.approx(200 * (1 - MOMENTUM), rel=1e-5)
    for _ in range(200):
        thresholds.update(lower, num_classes=2)
    assert thresholds.thresholds().tolist() == pytest.approx([0.3, 0.3], abs=1e-6)


def test_two_processes_count_what_one_would(rare_class_is_unsure):
    halves = [
        PseudoLabels(*(getattr(rare_class_is_unsure, name)[:, rows] for name in ("label", "confidence", "valid")))
        for rows in (slice(0, 1), slice(1, 2))
    ]
    counts = []
    for half in halves:
        alone = ClassThresholds(CEILING, 0.5)
        alone.update(half, num_classes=2)
        counts.append(alone.counts)
    together, whole = ClassThresholds(CEILING, 0.5), ClassThresholds(CEILING, 0.5)
    together.update(halves[0], num_classes=2, average_count=lambda count: (counts[0] + counts[1]) / 2)
    whole.update(rare_class_is_unsure, num_classes=2)
    assert torch.equal(together.thresholds(), whole.thresholds())


@pytest.mark.parametrize(("ceiling", "share"), [(0.9, 1.1), (0.9, -0.1), (1.0, 0.5), (0.0, 0.5)])
def test_refuses_what_no_threshold_can_be(ceiling, share):
    with pytest.raises(ValueError, match="expected a share in"):
        ClassThresholds(ceiling, share)


def test_confidences_of_no_number_are_not_counted(rare_class_is_unsure):
    known, lost = ClassThresholds(CEILING, 0.5), ClassThresholds(CEILING, 0.5)
    confidence, valid = rare_class_is_unsure.confidence.clone(), rare_class_is_unsure.valid.clone()
    confidence[0, :, 7], valid[0, :, 7] = torch.nan, False
    known.update(PseudoLabels(rare_class_is_unsure.label, rare_class_is_unsure.confidence, valid), num_classes=2)
    lost.update(PseudoLabels(rare_class_is_unsure.label, confidence, rare_class_is_unsure.valid), num_classes=2)
    assert torch.equal(known.counts, lost.counts)
