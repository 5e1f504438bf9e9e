from dataclasses import replace

import pytest
import torch

from training.purification.dense import DenseScorer


def test_every_region_gets_a_score_and_always_the_same(towers, bank, picture, regions):
    scorer = DenseScorer(towers, replace(bank, negatives=()))
    scores = scorer.score(picture, regions)
    assert scores.shape == (4, 3) and scores.dtype == torch.float32
    assert scores.isnan().all(1).tolist() == [False, True, False, False]
    assert not scores[[0, 2, 3]].isnan().any() and scores[0].std() > 0
    assert torch.equal(scores.nan_to_num(), scorer.score(picture, regions).nan_to_num())
    assert scorer.audit.calls == 2
    assert scorer.score(picture, torch.full_like(regions, -1)).shape == (0, 3)


def test_dense_scores_are_means_of_patches(towers, bank, picture):
    scorer = DenseScorer(towers, replace(bank, negatives=()))
    assert scorer.patch_embeddings(picture).shape == (12, 2, 2)  # 40 px are two patches of 16
    halves = torch.arange(40).ge(20).long().expand(40, 40)
    bank_of_one = replace(bank, negatives=(), synonyms=(("water",), ("road",), ("grass",)))
    scorer = DenseScorer(towers, bank_of_one)
    whole, parts = scorer.score(picture, torch.zeros(40, 40, dtype=torch.int64)), scorer.score(picture, halves)
    torch.testing.assert_close(parts.mean(0, keepdim=True), whole)


def test_dense_needs_a_clip_of_transformers(bank):
    class Other:
        identity = {"model": "remote.pt"}

    with pytest.raises(ValueError, match="remote.pt is no CLIP in transformers format"):
        DenseScorer(Other(), bank)


def test_a_large_picture_is_shrunk(towers, bank, picture, regions):
    scorer = DenseScorer(towers, replace(bank, negatives=()), max_side_px=16)
    assert scorer.patch_embeddings(picture).shape == (12, 1, 1)
    assert scorer.score(picture, regions).shape == (4, 3) and scorer.parameters()["max_side_px"] == 16
