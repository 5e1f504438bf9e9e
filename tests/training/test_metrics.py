import math
import os
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from training.metrics import ConfusionMatrix, MeanIoU, PseudoLabelQuality

# Truth 0 0 0 1 1 ., prediction 0 0 1 1 0 1 ("." = ignored), class 2 never occurs.
TRUTH = torch.tensor([[0, 0, 0], [1, 1, 255]])
PREDICTION = torch.tensor([[0, 0, 1], [1, 0, 1]])

# Case `absent_class_case` of the golden data made with the released reference implementation ("." = ignored).
REFERENCE_PREDICTION = """
011202202102 111200200112 202101120002 120211212110 121011221010 120201100122
101221211210 100210001200 011101202220 011021102200 110020110201 000121020102"""
REFERENCE_TARGET = """
............ ............ 002001221021 120012212222 200120021110 211202211011
102020221101 001221212110 221100002110 022210021012 111200110122 002221200201"""


def digits(text):
    return torch.tensor([[255 if c == "." else int(c) for c in row] for row in text.split()])


def counted(prediction=PREDICTION, truth=TRUTH, num_classes=3):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(prediction, truth)
    return matrix


def assert_list(tensor, expected):
    assert tensor.dtype == torch.float64
    assert tensor.tolist() == pytest.approx(expected, abs=1e-15, nan_ok=True)


def test_counts_and_numbers_by_hand():
    matrix = counted()
    assert matrix.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]] and matrix.counts.dtype == torch.int64
    assert_list(matrix.iou(), [2 / 4, 1 / 3, math.nan])
    assert_list(matrix.precision(), [2 / 3, 1 / 2, math.nan])
    assert_list(matrix.recall(), [2 / 3, 1 / 2, math.nan])
    assert_list(matrix.pixel_share(), [3 / 5, 2 / 5, 0])
    assert matrix.overall_accuracy() == 3 / 5
    assert matrix.mean_iou() == pytest.approx(5 / 12, abs=1e-15)
    assert matrix.mean_iou("zero") == pytest.approx(5 / 18, abs=1e-9)


def test_equals_the_released_evaluation_with_an_absent_class():
    matrix = counted(digits(REFERENCE_PREDICTION), digits(REFERENCE_TARGET), num_classes=4)
    assert matrix.counts.diagonal().tolist() == [19, 15, 12, 0]
    assert 100 * matrix.mean_iou("zero") == pytest.approx(17.857977693153266, abs=1e-12)
    assert 100 * matrix.mean_iou("nan") == pytest.approx((1900 / 62 + 1500 / 69 + 1200 / 63) / 3, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("num_classes", [1, 7, 255])
def test_equals_a_loop_over_pixels(dtype, num_classes):
    generator = torch.Generator().manual_seed(num_classes)
    prediction = torch.randint(num_classes, (2, 9, 11), generator=generator)
    truth = torch.randint(num_classes, (2, 9, 11), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = 255
    expected = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for true, predicted in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        if true != 255:
            expected[true, predicted] += 1
    assert torch.equal(counted(prediction.to(dtype), truth, num_classes).counts, expected)
    assert torch.equal(counted(prediction, truth.to(torch.uint8), num_classes).counts, expected)


def test_nothing_counted_is_nan_not_an_error():
    for matrix in (
        ConfusionMatrix(2),
        counted(truth=torch.full_like(TRUTH, 255)),
        counted(*torch.zeros(2, 0, 4).long()),
    ):
        assert matrix.counts.sum() == 0 and math.isnan(matrix.mean_iou()) and math.isnan(matrix.overall_accuracy())
        assert matrix.mean_iou("zero") == 0


def test_merge_adds_the_counts_of_all_processes():
    first, second = counted(), counted(TRUTH.clamp(max=2), TRUTH)
    assert first.merge(lambda counts: counts + second.counts) is first
    assert first.counts.tolist() == [[5, 1, 0], [1, 3, 0], [0, 0, 0]]
    first.merge(partial(Accelerator(cpu=True).reduce, reduction="sum"))
    assert first.counts.sum() == 10


@pytest.mark.parametrize(
    "prediction, truth, message",
    [
        (PREDICTION + 2, TRUTH, r"prediction holds the ids \[3\], expected 0..2"),
        (PREDICTION - 1, TRUTH, r"prediction holds the ids \[-1\], expected 0..2"),
        (
            PREDICTION,
            torch.tensor([[0, 0, 3], [254, 1, 255]]),
            r"target holds the ids \[3, 254\], expected 0..2 or 255",
        ),
        (PREDICTION, TRUTH - 1, r"target holds the ids \[-1\], expected 0..2 or 255"),
        (PREDICTION, TRUTH + 1, r"target holds the ids \[256\], expected 0..2 or 255"),
        (torch.arange(6).view(2, 3) + 90, TRUTH, r"ids \[90, 91, 92, 93, 94, 95\], expected 0..2"),
        (torch.arange(12) + 90, torch.zeros(12).long(), r"\[90, 91, 92, 93, 94, 95, 96, 97\] and 4 more"),
        (PREDICTION.float(), TRUTH, "prediction must hold integer class ids, got torch.float32: take the argmax"),
        (PREDICTION, TRUTH[None], r"one shape, got \(2, 3\) and \(1, 2, 3\): resize the logits"),
    ],
)
def test_refuses_bad_input_without_counting_it(prediction, truth, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(prediction, truth)
    assert matrix.counts.sum() == 0


def test_refuses_impossible_numbers_of_classes():
    for num_classes in (0, 256):
        with pytest.raises(ValueError, match=f"between 1 and 255 .*, got {num_classes}"):
            ConfusionMatrix(num_classes)


def test_pseudo_label_quality_by_hand():
    # Two classes, so softmax([z, 0]) = sigmoid(z); sigmoid(2) = 0.88, sigmoid(1) = 0.73.
    margin = torch.tensor([[[2.0, -2.0, 1.0], [2.0, 3.0, 9.0]]])
    logits = torch.stack([margin, torch.zeros_like(margin)], dim=1)
    truth = torch.tensor([[[0, 0, 1], [0, 0, 255]]])
    quality = PseudoLabelQuality(0.8)
    quality.update(logits, truth)
    assert quality.counts.tolist() == [5, 4, 3]  # valid, confident, correct
    assert quality.summary() == {"pseudo_label_coverage": 4 / 5, "pseudo_label_precision": 3 / 4}
    quality.update(logits.to(torch.bfloat16), truth.to(torch.uint8))
    assert quality.merge(lambda counts: 2 * counts).counts.tolist() == [20, 16, 12]


def test_pseudo_label_threshold_is_inclusive_and_empty_is_nan():
    quality = PseudoLabelQuality(0.5)
    assert math.isnan(quality.coverage()) and math.isnan(quality.precision())
    quality.update(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    assert quality.coverage() == 1
    never = PseudoLabelQuality(1.0)
    never.update(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    assert never.coverage() == 0 and math.isnan(never.precision())


def test_pseudo_label_quality_refuses():
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        PseudoLabelQuality(95)
    with pytest.raises(ValueError, match=r"do not match: \(1, 2, 3, 4\), \(1, 3, 5\)"):
        PseudoLabelQuality(0.9).update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 5))


def test_metric_streams_and_starts_again():
    metric = MeanIoU(num_classes=3)
    metric.add_batch(predictions=PREDICTION[None], references=TRUTH[None])
    read_only = TRUTH.numpy().astype(np.uint8)  # as numpy sees a picture
    read_only.flags.writeable = False
    metric.add(prediction=PREDICTION.tolist(), reference=read_only)
    metric.add_batch(predictions=[np.zeros((1, 1), int), np.zeros((2, 1), int)], references=[[[255]], [[255], [255]]])
    assert len(metric) == 4
    results = metric.compute()
    for name, value in counted().summary().items():  # the same image twice: the same ratios
        assert results[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert list(results)[:4] == ["mean_iou", "mean_iou_absent_zero", "overall_accuracy", "per_category_iou"]
    assert len(metric) == 0
    assert metric.compute(predictions=[[[0, 1]]], references=[[[0, 255]]])["mean_iou"] == 1
    with pytest.raises(ValueError, match="Nothing to compute"):
        metric.compute()


def test_metric_merges_with_a_process_that_saw_no_image():
    metric = MeanIoU(num_classes=3)
    assert metric.merge(lambda counts: counts + (1 if counts.ndim == 0 else counted().counts)) is metric
    assert metric.compute()["overall_accuracy"] == 3 / 5


def test_metric_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = np.random.get_state()[2]
    metric = MeanIoU(num_classes=3)
    metric.add_batch(predictions=PREDICTION[None], references=TRUTH[None])
    assert len(pickle.loads(pickle.dumps(metric.confusion.counts))) == 3 and "mean" in repr(metric)
    metric.compute()
    del metric
    assert os.listdir(tmp_path) == [] and np.random.get_state()[2] == before


def test_metric_refuses_batches_of_different_length():
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        MeanIoU(2).add_batch(predictions=[[[0]], [[0]]], references=[[[0]]])
