import doctest
from types import SimpleNamespace

import pytest
import torch

from training.purification import grounding
from training.purification.grounding import GroundingScorer, parse_detections

WORDS = {"water": 0, "lake": 0, "road": 1, "low vegetation": 2}


class Detecting:
    """A model that answers with a fixed text, and sees pictures at half their size."""

    identity = {"model": "detecting"}

    def __init__(self, text, model_type="qwen2_5_vl"):
        self.text, self.model = text, SimpleNamespace(config=SimpleNamespace(model_type=model_type))

    def answer(self, pictures, questions, max_new_tokens):
        self.question = questions[0]
        return [self.text]

    def seen_size(self, picture):
        return picture.shape[1] // 2, picture.shape[2] // 2


def test_docstring_examples():
    results = doctest.testmod(grounding)
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize(
    "text, found",
    [
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "Lake"}]', [(0, (1, 2, 3, 4))]),
        ('{"box": [1, 2, 3, 4.5], "class": "low_vegetation"}', [(2, (1, 2, 3, 4.5))]),
        ('[{"bbox_2d": [3, 2, 1, 4], "label": "road"}]', None),  # right of its right side
        ('[{"bbox_2d": [1, 2, 3], "label": "road"}]', None),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "car"}]', []),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "road"}, {"bbox_2d": [1, 2', [(1, (1, 2, 3, 4))]),
        ("Road (1, 2, 3, 4)", [(1, (1, 2, 3, 4))]),
        ("Railroad: [1, 2, 3, 4]", None),
        ('{"bbox_2d": "x", "label": 3}', None),
        ("nothing to see", None),
    ],
)
def test_answers_are_read_or_refused(text, found):
    assert parse_detections(text, WORDS) == found


def test_the_whole_path_runs_with_models_that_know_nothing(answering, segmenter, bank, picture, regions):
    scorer = GroundingScorer(answering, segmenter, bank, max_new_tokens=4)
    assert scorer.frame == "seen"
    assert scorer.score(picture, regions).isnan().all() and scorer.score(picture, regions).shape == (4, 3)
    assert (scorer.audit.calls, scorer.audit.parsed) == (2, 0)


def test_boxes_become_masks_of_the_picture(segmenter, picture):
    masks = segmenter.masks(picture, [(0, 0, 20, 20), (5.5, 5, 30, 39)])
    assert masks.shape == (2, 40, 40) and masks.dtype == torch.bool
    assert torch.equal(masks, segmenter.masks(picture, [(0, 0, 20, 20), (5.5, 5, 30, 39)]))


def test_a_detection_goes_through_sam(segmenter, bank, picture):
    text = '[{"bbox_2d": [0, 0, 10, 10], "label": "road"}]'
    maps = GroundingScorer(Detecting(text), segmenter, bank).ground(picture)
    assert not maps[[0, 2]].any() and torch.equal(maps[1], segmenter.masks(picture, [(0, 0, 20, 20)])[0])


@pytest.mark.parametrize(
    "model_type, frame, box",
    [
        ("qwen2_5_vl", None, [0, 0, 7, 7]),
        ("qwen3_vl", None, [0, 0, 350, 350]),
        ("smolvlm", "image", [0, 0, 14, 14]),
        ("qwen3_vl", "seen", [0, 0, 7, 7]),
    ],
)
def test_coordinates_are_counted_as_the_model_does(bank, picture, model_type, frame, box):
    text = f'[{{"bbox_2d": {box}, "label": "road"}}]'
    maps = GroundingScorer(Detecting(text, model_type), None, bank, frame=frame).ground(picture)
    assert maps[1, :14, :14].all() and maps.sum() == 14 * 14


def test_regions_count_the_classes_that_cover_them(bank, picture, regions):
    text = '[{"bbox_2d": [0, 0, 5, 5], "label": "lake"}, {"bbox_2d": [0, 0, 4, 5], "label": "road"}]'
    scores = GroundingScorer(Detecting(text), None, bank).score(picture, regions)
    assert scores[0].exp().tolist() == pytest.approx([1.0, 0.8, 0.02])
    assert scores[1:].isnan().all()  # nothing was detected there: no softmax over zeros, no class 0


def test_a_region_that_is_hardly_covered_abstains(bank, picture, regions):
    text = '[{"bbox_2d": [0, 0, 5, 2], "label": "lake"}]'
    assert GroundingScorer(Detecting(text), None, bank).score(picture, regions).isnan().all()
    assert not GroundingScorer(Detecting(text), None, bank, min_coverage=0.4).score(picture, regions)[0].isnan().any()


def test_what_cannot_be_boxed_is_not_asked_for(bank, picture):
    model = Detecting('[{"bbox_2d": [0, 0, 5, 5], "label": "water"}]')
    scorer = GroundingScorer(model, None, bank, skipped=(0,))
    assert not scorer.ground(picture).any() and "water" not in model.question and "road" in model.question


def test_refuses_an_unknown_frame(bank):
    with pytest.raises(ValueError, match="seen, thousand, image"):
        GroundingScorer(Detecting(""), None, bank, frame="metres")
    with pytest.raises(
        ValueError, match="detecting is a smolvlm, and what its coordinates are counted in is not known"
    ):
        GroundingScorer(Detecting("", "smolvlm"), None, bank)


def test_boxes_nested_beyond_sense_or_beyond_numbers_are_no_boxes():
    deep = '{"label": "road", "bbox_2d": ' + "[" * 100_000 + "]" * 100_000 + "}"
    huge = '{"label": "road", "bbox_2d": [1, 2, 3, 1' + "0" * 400 + "]}"
    assert parse_detections(deep + huge + '{"label": "road", "bbox_2d": [1, 2, 3, 4]}', WORDS) == [(1, (1, 2, 3, 4))]
