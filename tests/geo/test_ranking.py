"""Disagreement in [0, 1], and a choice that repeats nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from co2s_hf.geo.ranking import TileSummary, disagreement_by_class, rank, summaries


def pixel(*probabilities):
    return torch.tensor(probabilities).view(1, -1, 1, 1)


def tile(disagreement, shares=(1.0, 0.0), by_class=None):
    by_class = np.array([disagreement, 0.0]) if by_class is None else np.array(by_class)
    return TileSummary(disagreement, by_class, np.array(shares), 0.0)


def test_disagreement_by_hand():
    def of(*students):
        return disagreement_by_class([pixel(*one) for one in students]).flatten().tolist()

    assert of((1.0, 0, 0), (0, 1.0, 0)) == pytest.approx([0.5, 0.5, 0])  # each certain of another class
    assert of((0.2, 0.8), (0.2, 0.8)) == pytest.approx([0, 0], abs=1e-6)
    middle = 0.5 * (0.9 * math.log2(0.9 / 0.6) + 0.3 * math.log2(0.3 / 0.6))
    assert of((0.9, 0.1), (0.3, 0.7))[0] == pytest.approx(middle, abs=1e-6)
    assert of((0.25, 0.25, 0.25, 0.25)) == pytest.approx([0.25] * 4) and of((1.0, 0)) == [0, 0]


@given(st.integers(0, 999), st.integers(1, 2), st.integers(2, 6), st.floats(0.1, 40))
def test_no_class_adds_less_than_nothing_and_the_sum_is_at_most_one(seed, students, classes, gain):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(students, 2, classes, 3, 3, generator=generator) * gain
    found = disagreement_by_class(list(logits.softmax(2)))
    assert found.shape == (2, classes, 3, 3) and found.min() >= 0 and found.sum(1).max() <= 1 + 1e-5


def test_pixels_without_data_say_nothing():
    one, other = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    one[:, 0], other[:, 0], other[:, :, 1] = 1, 1, torch.tensor([0.0, 1]).view(1, 2, 1)
    valid = torch.tensor([[[True, True], [True, False]]])
    (found,) = summaries([one, other], valid)
    assert found.disagreement == pytest.approx(1 / 3) and found.differing == pytest.approx(1 / 3)
    np.testing.assert_allclose(found.shares, [5 / 6, 1 / 6])
    np.testing.assert_allclose(found.by_class, [1 / 6, 1 / 6])
    (alone,) = summaries([one], valid)
    assert alone.disagreement == 0 and math.isnan(alone.differing)


def test_of_tiles_that_show_the_same_one_is_chosen():
    tiles = [tile(0.9), tile(0.89), tile(0.5, (0.0, 1.0), (0.0, 0.5)), tile(0.0, (0.0, 1.0))]
    found = rank(tiles, 4)
    assert [place for place, _ in found] == [0, 2, 1, 3]
    assert [score for _, score in found] == pytest.approx([0.9, 0.5, 0, 0])
    assert [place for place, _ in rank(tiles, 4, diversity=0)] == [0, 1, 2, 3]
    assert [place for place, _ in rank(tiles, 1, chosen=tiles[:1])] == [2]
    half = tile(0.6, (0.5, 0.5), (0.6, 0.0))
    distance = math.sqrt((0.5 * (1 - math.sqrt(0.5)) ** 2 + 0.5 * 0.5) / 2)  # Hellinger
    assert rank([tiles[0], half], 2)[1] == (1, pytest.approx(0.6 * distance))


def test_tiles_that_overlap_are_chosen_once():
    tiles = [tile(0.9), tile(0.8, (0.0, 1.0)), tile(0.1, (0.5, 0.5))]
    shared = np.array([[True, True, False], [True, True, False], [False, False, True]])
    assert [place for place, _ in rank(tiles, 3, overlapping=lambda place: shared[place])] == [0, 2]
    assert rank([], 3) == []


@given(st.integers(0, 999), st.integers(1, 12))
def test_scores_never_rise_and_nothing_is_chosen_twice(seed, count):
    rng = np.random.default_rng(seed)
    tiles = [tile(one.sum(), rng.dirichlet([0.3] * 2), one) for one in rng.random((9, 2)) / 2]
    found = rank(tiles, count)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True) and found == rank(tiles, count)
    assert len({place for place, _ in found}) == len(found) == min(count, 9)
