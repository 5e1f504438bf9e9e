import os
from pathlib import Path

import pytest
import torch

from tests.training.purification.tiny_models import save_qwen, save_sam
from training.purification.build import build_scorer
from training.purification.class_bank import ClassBank

STAND_IN = Path(os.environ.get("CO2S_CLIP", "clip-tiny"))


def test_every_kind_of_scorer_is_built_by_name(bank, clip_folder, tmp_path, picture, regions):
    qwen, sam = save_qwen(tmp_path / "qwen"), save_sam(tmp_path / "sam")
    for kind, vlm in (("dual_encoder", clip_folder), ("dense", clip_folder), ("generative", qwen), ("grounding", qwen)):
        scorer = build_scorer(kind, str(vlm), bank, sam=sam)
        parameters = scorer.parameters()
        assert parameters["scorer"] == kind and parameters["names"] == bank.names and "revision" in parameters
        assert scorer.score(picture, regions).shape == (4, 3) and scorer.audit.calls == 1


def test_refuses_an_unknown_kind(bank):
    with pytest.raises(ValueError, match="dual_encoder, dense, generative, grounding; got 'oracle'"):
        build_scorer("oracle", "x", bank)


@pytest.mark.skipif(not STAND_IN.is_dir(), reason="CO2S_CLIP names no folder of a pretrained CLIP")
def test_a_pretrained_clip_knows_a_lake_from_a_forest():
    bank = ClassBank(("water", "forest"), (("water", "lake"), ("forest", "trees")))
    colours = torch.tensor([[0.05, 0.2, 0.4], [0.1, 0.3, 0.08]])
    noise = 0.04 * torch.randn(3, 128, 256, generator=torch.Generator().manual_seed(0))
    picture = (colours.T[:, None, :].repeat_interleave(128, 2).expand(3, 128, 256) + noise).clamp(0, 1)
    regions = (torch.arange(256) // 128).expand(128, 256).clone()
    scores = build_scorer("dual_encoder", str(STAND_IN), bank).score(picture, regions)
    assert scores[0, 0] - scores[0, 1] > scores[1, 0] - scores[1, 1]
