"""Both towers of an open_clip checkpoint, against open_clip itself."""

import json

import pytest
import torch
from torch.nn.functional import normalize

from co2s_hf.text import OpenClipTowers

NAME = "tiny-for-towers"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip")
    file = folder / f"{NAME}.json"
    vision = dict(image_size=32, layers=1, width=16, patch_size=16, head_width=8)
    text = dict(context_length=24, vocab_size=49408, width=16, heads=2, layers=1)
    file.write_text(json.dumps(dict(embed_dim=12, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(file)
    torch.manual_seed(0)
    model = open_clip.create_model(NAME, pretrained=None).eval()
    torch.save(model.state_dict(), folder / "remote.pt")
    return folder / "remote.pt", model


def test_towers_embed_as_open_clip_does(checkpoint):
    import open_clip

    path, model = checkpoint
    towers = OpenClipTowers(path, NAME)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    with torch.no_grad():
        seen = normalize(model.encode_image((images - mean) / std), dim=1)
        read = normalize(model.encode_text(open_clip.get_tokenizer(NAME)(["a road", "water"])), dim=1)
    torch.testing.assert_close(towers.embed_images(images), seen)
    torch.testing.assert_close(towers.embed_texts(["a road", "water"]), read)
    assert towers.size_px == 32 and towers.scale == pytest.approx(model.logit_scale.exp().item())


def test_refuses_a_file_without_its_architecture(checkpoint):
    with pytest.raises(ValueError, match="needs the name of its architecture"):
        OpenClipTowers(checkpoint[0], None)
