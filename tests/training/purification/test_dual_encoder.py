from dataclasses import replace
from pathlib import Path

import torch

from training.purification.crops import CropOptions
from training.purification.dual_encoder import DualEncoderScorer

OPTIONS = CropOptions(min_crop_px=16)


def test_every_region_gets_a_score_and_always_the_same(towers, bank, picture, regions):
    scorer = DualEncoderScorer(towers, replace(bank, negatives=()), crops=OPTIONS)
    scores = scorer.score(picture, regions)
    assert scores.shape == (4, 3) and scores.dtype == torch.float32
    assert scores.isnan().all(1).tolist() == [False, True, False, False]
    assert not scores[[0, 2, 3]].isnan().any() and scores[0].std() > 0
    assert torch.equal(scores.nan_to_num(), scorer.score(picture, regions).nan_to_num())
    assert scorer.audit.calls == 2
    assert scorer.score(picture, torch.full_like(regions, -1)).shape == (0, 3)


def test_scores_do_not_depend_on_the_batch(towers, bank, picture, regions):
    bank = replace(bank, negatives=())
    together, apart = (
        DualEncoderScorer(towers, bank, crops=OPTIONS, batch_size=n).score(picture, regions) for n in (8, 1)
    )
    torch.testing.assert_close(together, apart, equal_nan=True)


def test_the_view_weights_mix_the_two_views(towers, bank, picture, regions):
    bank = replace(bank, negatives=(), synonyms=(("water",), ("road",), ("grass",)))  # linear without a choice of words
    plain, hidden, both = (
        DualEncoderScorer(towers, bank, crops=OPTIONS, view_weights=weights).score(picture, regions)
        for weights in ((1, 0), (0, 1), (0.5, 0.5))
    )
    assert not torch.allclose(plain[0], hidden[0])
    torch.testing.assert_close(both, (plain + hidden) / 2, equal_nan=True)


class Axes:
    """Towers whose pictures all lie on the first axis, and whose texts lie on one axis each."""

    size_px, scale, identity = 8, 10.0, {"model": "axes"}

    def embed_images(self, images):
        return torch.eye(4)[torch.zeros(len(images), dtype=torch.int64)]

    def embed_texts(self, texts):
        return torch.eye(4)[[["noise", "water", "road", "grass"].index(text) for text in texts]]


def test_the_scale_of_the_towers_and_the_negatives_count(bank, picture, regions):
    bank = replace(bank, synonyms=(("water",), ("road",), ("grass",)), templates=("{}",), negatives=("noise",))
    assert DualEncoderScorer(Axes(), bank).score(picture, regions).isnan().all()
    bank = replace(bank, synonyms=(("water",), ("noise",), ("grass",)), negatives=())
    torch.testing.assert_close(DualEncoderScorer(Axes(), bank).score(picture, regions)[2], torch.tensor([0, 10.0, 0]))


def test_parameters_name_the_model_and_the_words(towers, bank, clip_folder):
    parameters = DualEncoderScorer(towers, bank, crops=OPTIONS).parameters()
    assert parameters["model"] == Path(clip_folder).name and len(parameters["revision"]) == 16
    assert parameters["min_crop_px"] == 16 and parameters["synonyms"] == bank.synonyms
