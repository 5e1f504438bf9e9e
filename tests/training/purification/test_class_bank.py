import math

import pytest
import torch

from training.purification.class_bank import ClassBank, TextBank


def test_words_are_averaged_over_sentences_and_kept_apart():
    seen = []

    def embed(sentences):
        seen.extend(sentences)
        return torch.eye(len(sentences))

    bank = ClassBank(("low_veg", "road"), (("low_veg",), ("road", "street")), ("a {}", "the {}"), ("noise",))
    texts = bank.embed(embed)
    assert seen == ["a low veg", "the low veg", "a road", "the road", "a street", "the street", "a noise", "the noise"]
    assert texts.counts == [1, 2] and texts.rows.shape == (4, 8)
    torch.testing.assert_close(texts.rows[1, :4], torch.tensor([0, 0, math.sqrt(0.5), math.sqrt(0.5)]))
    assert bank.spoken_names() == ["low veg", "road"]


def test_the_best_word_counts_and_a_better_negative_abstains():
    texts = TextBank(torch.eye(4), [2, 1])
    scores = texts.class_scores(torch.tensor([[0.1, 0.5, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]]))
    torch.testing.assert_close(scores[0], torch.tensor([0.5, 0.3]))
    assert scores[1].isnan().all()


def test_without_negatives_nothing_abstains():
    assert not TextBank(torch.eye(3), [2, 1]).class_scores(torch.rand(5, 3)).isnan().any()


def test_refuses_classes_without_words_and_sentences_without_a_place():
    with pytest.raises(ValueError, match="one or more synonyms for each"):
        ClassBank(("a", "b"), (("a",), ()))
    with pytest.raises(ValueError, match="at least two classes"):
        ClassBank(("a",), (("a",),))
    with pytest.raises(ValueError, match="sentences with {} for the class"):
        ClassBank(("a", "b"), (("a",), ("b",)), templates=("a photo",))
