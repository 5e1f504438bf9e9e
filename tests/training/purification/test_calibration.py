import json

import pytest
import torch
from torch.nn import functional as F

from training.purification.calibration import Calibration, CalibrationError, fit_calibration, labelled_regions


def answers(n=300, noise=1.0, sharpness=8.0, shift=0.0):
    """Scores of a model that is `sharpness` times too sure, and leans towards class 0 by `shift`."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (n,), generator=generator)
    scores = 2 * F.one_hot(truth, 3) + noise * torch.randn(n, 3, generator=generator)
    scores[:, 0] += shift
    return sharpness * scores, truth


def nll(calibration, scores, truth):
    return F.nll_loss(calibration.probabilities(scores).log(), truth).item()


def test_overconfidence_is_taken_back():
    scores, truth = answers()
    calibration = fit_calibration(scores, truth)
    assert nll(calibration, scores, truth) < 0.5 * F.cross_entropy(scores, truth).item()
    assert 3 < calibration.temperature < 6  # log odds of these answers are 2 per score
    named = calibration.probabilities(scores).max(1)
    assert abs(named.values.mean() - (named.indices == truth).float().mean()) < 0.05


def test_a_leaning_towards_a_class_is_taken_back():
    scores, truth = answers(shift=2.0)
    calibration = fit_calibration(scores, truth)
    assert calibration.bias[0] < min(calibration.bias[1:]) - 1
    assert (calibration.probabilities(scores).argmax(1) == truth).float().mean() > (
        scores.argmax(1) == truth
    ).float().mean()


def test_precision_and_accuracy_are_those_of_its_answers():
    scores = 10 * F.one_hot(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1]), 3).float()
    truth = torch.tensor([0, 0, 0, 2, 1, 1, 1, 2, 2])
    calibration = fit_calibration(scores, truth, min_precision=0.65)
    assert calibration.precision[:2] == (0.75, 0.6) and calibration.precision[2] != calibration.precision[2]
    assert calibration.accuracy == pytest.approx(2 / 3) and calibration.barred == (1, 2)


def test_frequent_classes_are_likelier_and_rare_ones_recognised_as_well():
    scores, truth = answers(n=600, noise=2.0)
    kept = torch.cat((torch.nonzero(truth != 2)[:, 0], torch.nonzero(truth == 2)[:20, 0]))
    calibration = fit_calibration(scores[kept], truth[kept])
    assert calibration.bias[2] < min(calibration.bias[:2]) - 1
    probabilities = calibration.probabilities(scores[kept])
    assert probabilities[:, 2].mean() == pytest.approx(20 / len(kept), abs=0.02)
    everything = fit_calibration(scores, truth)
    assert calibration.accuracy == pytest.approx(everything.accuracy, abs=0.1)


def test_abstentions_are_left_out_and_stay():
    scores, truth = answers(n=100)
    scores[::2] = torch.nan
    calibration = fit_calibration(scores, truth)
    assert calibration.answered == 0.5
    without = fit_calibration(scores[1::2], truth[1::2])
    assert calibration.bias == without.bias and calibration.temperature == without.temperature
    assert calibration.probabilities(scores).isnan().all(1).tolist() == [True, False] * 50
    torch.testing.assert_close(calibration.probabilities(scores[1::2]).sum(1), torch.ones(50))


def test_chance_is_refused():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(CalibrationError, match=r"recognises \d+ % of the labelled regions"):
        fit_calibration(torch.zeros(90, 3), torch.randint(3, (90,), generator=generator))
    with pytest.raises(CalibrationError, match="No class is right on 95 %"):
        fit_calibration(*answers(noise=1.5), min_precision=0.95)
    with pytest.raises(CalibrationError, match="abstained on all 5"):
        fit_calibration(torch.full((5, 3), torch.nan), torch.zeros(5, dtype=torch.int64))


def test_it_survives_json():
    calibration = fit_calibration(*answers())
    never_named = Calibration(**{**vars(calibration), "precision": (1.0, float("nan"), 0.5)})
    back = Calibration.from_dict(json.loads(json.dumps(never_named.to_dict())))
    assert back.precision[1] != back.precision[1] and back.bias == never_named.bias
    assert Calibration.from_dict(json.loads(json.dumps(calibration.to_dict()))) == calibration


def test_labelled_regions_are_components_without_what_is_ignored():
    label = torch.full((8, 12), 255, dtype=torch.uint8)
    label[:, :4], label[:, 4:6], label[0, 8] = 2, 1, 2
    regions, truth = labelled_regions(label, min_area_px=4)
    assert truth.tolist() == [2, 1] and (regions >= 0).sum() == 48
    assert torch.equal(truth[regions[:, :6]], label[:, :6].long())


def test_segments_are_cut_along_the_labels():
    label = torch.zeros(4, 8, dtype=torch.uint8)
    label[:, 3:] = 5
    segments = torch.arange(8).div(4, rounding_mode="floor").expand(4, 8).clone()
    segments[0, 0] = -1
    regions, truth = labelled_regions(label, segments, min_area_px=5)
    assert regions[1].tolist() == [0, 0, 0, -1, 1, 1, 1, 1] and regions[0, 0] == -1  # the middle piece is 4 px
    assert truth.tolist() == [0, 5]


def test_an_image_without_labels_has_no_region():
    regions, truth = labelled_regions(torch.full((4, 4), 255, dtype=torch.uint8))
    assert (regions == -1).all() and truth.shape == (0,)
