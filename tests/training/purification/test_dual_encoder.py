from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.purification.crops import CropOptions
from training.purification.dense import DenseScorer
from training.purification.dual_encoder import DualEncoderScorer
from training.purification.towers import load_towers

OPTIONS = CropOptions(min_crop_px=16)


@pytest.mark.parametrize("make", [lambda t, b: DualEncoderScorer(t, b, crops=OPTIONS), DenseScorer])
def test_every_region_gets_a_score_and_always_the_same(make, towers, bank, picture, regions):
    scorer = make(towers, replace(bank, negatives=()))
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


def test_parameters_name_the_model_and_the_words(towers, bank, clip_folder):
    parameters = DualEncoderScorer(towers, bank, crops=OPTIONS).parameters()
    assert parameters["model"] == Path(clip_folder).name and len(parameters["revision"]) == 16
    assert parameters["min_crop_px"] == 16 and parameters["synonyms"] == bank.synonyms


def test_another_model_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="nothing-here has no image and text towers"):
        load_towers(str(tmp_path / "nothing-here"))


def test_a_checkpoint_of_open_clip_scores_too(tmp_path, bank, picture, regions):
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-16-alt", pretrained=None)
    torch.save(model.state_dict(), tmp_path / "remote.pt")
    towers = load_towers(str(tmp_path / "remote.pt"), open_clip_model="ViT-S-16-alt")
    assert towers.size_px == 224 and towers.identity["open_clip_model"] == "ViT-S-16-alt"
    scores = DualEncoderScorer(towers, replace(bank, negatives=()), crops=OPTIONS).score(picture, regions)
    assert scores.isnan().all(1).tolist() == [False, True, False, False]
