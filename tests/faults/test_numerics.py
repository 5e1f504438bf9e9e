"""That values of no number get where they should, and that a guard that does not guard is found out."""

import pytest
import torch

from co2s_hf.raster.write import write_mask
from tests.faults import jobs, numerics, spoil
from tests.faults.children import fresh
from tests.faults.spoil import Spoiled
from training.guards import StepGuard
from training.report import write_metrics


def scores(ious, recalls):
    names = {"per_category_iou": ious, "per_category_recall": recalls, "mean_iou": 0.25}
    return {"skipped_steps": 0, "losses": [{"loss": 1.0}], "history": [{"step": 1, "clip": names}]}


@pytest.mark.parametrize(
    ("ious", "recalls", "wrong"),
    [
        ([0.5, 0.0, None], [0.7, 0.0, None], []),
        ([0.5, 0.0, None], [0.7, 0.0, 0.1], ["clip: recall of {0, 1, 2}, in the masks are {0, 1}"]),
        ([0.5, None, 0.0], [0.7, 0.0, None], ["clip: b has no IoU"]),
        ([0.4, 0.0, 0.35], [0.7, 0.0, None], ["clip: an absent class has an IoU above 0"]),
        ([0.5, 0.25, None], [0.7, 0.0, None], ["clip: the mean 0.25 is not that of [0.5, 0.25, None]"]),
    ],
)
def test_wrong_scores_of_a_class_that_is_not_there_are_found(ious, recalls, wrong, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    write_metrics(tmp_path / "run" / "metrics.json", scores(ious, recalls))
    (tmp_path / "run" / "model" / "README.md").write_text("a card")
    (tmp_path / "scenes" / "labels").mkdir(parents=True)
    write_mask(tmp_path / "scenes" / "labels" / "val_0.png", torch.tensor([[0, 1, 255]]).byte().numpy())
    assert numerics._wrong_scores(tmp_path, ("a", "b", "c")) == wrong


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Spoiled("gradient", "large", 2, 2), Spoiled("loss", "nan", 2, 2)])
def test_a_step_that_is_not_left_out_is_noticed(fault, tmp_path):
    train = jobs.Training(tmp_path)

    def guard_nothing():
        StepGuard.judge = lambda self: None
        spoil.spoil(fault)

    status = numerics._train(train, fresh(tmp_path / "parts"), guard_nothing)
    assert status == spoil.TOUCHED


@pytest.mark.slow
@pytest.mark.parametrize("row", sorted(numerics.ROWS))
def test_two_tries_of_every_row_lose_nothing(row, tmp_path):
    assert list(numerics.ROWS[row](tmp_path, 2)) == ["", ""]
