import doctest

import pytest
import torch

from training.purification import generative
from training.purification.crops import CropOptions
from training.purification.generative import GenerativeScorer

OPTIONS = dict(crops=CropOptions(min_crop_px=16), view_px=56)


class Knowing:
    """A model that likes the letter A, and otherwise answers what `told` says."""

    identity = {"model": "knowing"}

    def __init__(self, told, form='{{"answer": "{}"}}'):
        self.told, self.form, self.questions = told, form, []

    def letter_tokens(self, letters):
        return [[ord(letter)] for letter in letters]

    def letter(self, question):
        return next(line[0] for line in question.splitlines() if line[1:] == f". {self.told}")

    def next_token_log_probabilities(self, pictures, questions):
        self.questions += questions
        logits = torch.zeros(len(questions), 128)
        for row, question in zip(logits, questions, strict=True):
            row[ord("A")] += 8
            row[ord(self.letter(question))] += 8
        return logits.log_softmax(1)

    def answer(self, pictures, questions, max_new_tokens):
        return [self.form.format(self.letter(question)) for question in questions]


def test_docstring_examples():
    results = doctest.testmod(generative)
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize("reading", ["logits", "json"])
def test_the_whole_path_runs_with_a_model_that_knows_nothing(answering, bank, picture, regions, reading):
    scorer = GenerativeScorer(answering, bank, reading=reading, max_new_tokens=4, **OPTIONS)
    scores = scorer.score(picture, regions)
    assert scores.shape == (4, 3) and scores[1].isnan().all()
    assert scorer.audit.answers == 6 and scorer.audit.calls == 1  # three regions in two orders
    assert torch.equal(scores.nan_to_num(9), scorer.score(picture, regions).nan_to_num(9))
    if reading == "json":
        assert scorer.audit.parsed == 0 and scores.isnan().all()


@pytest.mark.parametrize("reading", ["logits", "json"])
def test_the_answer_is_found_in_any_order_of_the_options(bank, picture, regions, reading):
    scorer = GenerativeScorer(Knowing("low vegetation"), bank, reading=reading, orderings=4, **OPTIONS)
    scores = scorer.score(picture, regions)
    assert scores[[0, 2, 3]].argmax(1).tolist() == [2, 2, 2] and scores[1].isnan().all()
    assert scorer.audit.parsed == scorer.audit.answers == 12


def test_none_of_these_abstains(bank, picture, regions):
    assert (
        GenerativeScorer(Knowing("none of these"), bank, reading="json", **OPTIONS)
        .score(picture, regions)
        .isnan()
        .all()
    )


def test_what_is_not_json_abstains_and_lowers_the_parse_rate(bank, picture, regions):
    scorer = GenerativeScorer(Knowing("road", form="It is {}."), bank, reading="json", **OPTIONS)
    assert scorer.score(picture, regions).isnan().all()
    assert (scorer.audit.answers, scorer.audit.parsed) == (6, 0)


def test_orders_differ_and_are_drawn_again_alike(bank):
    scorer = GenerativeScorer(Knowing("road"), bank, orderings=5, **OPTIONS)
    assert scorer.orders(3) == scorer.orders(3)
    assert len({tuple(order) for region in range(4) for order in scorer.orders(region)}) > 2
    assert all(sorted(order[:-1]) == [0, 1, 2] and order[-1] == 3 for order in scorer.orders(0))


def test_a_picture_without_regions_asks_nothing(bank, picture, regions):
    scorer = GenerativeScorer(Knowing("road"), bank, **OPTIONS)
    assert scorer.score(picture, torch.full_like(regions, -1)).shape == (0, 3) and scorer.audit.calls == 0


def test_parameters_name_what_was_asked(bank):
    logits, answers = (
        GenerativeScorer(Knowing("road"), bank, reading=reading).parameters() for reading in ("logits", "json")
    )
    assert logits["question"] != answers["question"] and logits["model"] == "knowing"
    assert "max_new_tokens" in answers and "max_new_tokens" not in logits


def test_refuses_an_unknown_reading(bank):
    with pytest.raises(ValueError, match="logits, json"):
        GenerativeScorer(Knowing("road"), bank, reading="words")


def test_answers_nested_beyond_sense_are_no_answers():
    deep = '{"answer": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert generative.parse_choice(deep + '{"answer": "B"}', ["water", "road"], "AB") == 1
