import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipModel

from co2s_hf.text import OpenClipTowers
from training.purification.towers import CLIP_MEAN, TransformersTowers, load_towers


def test_towers_of_clip_are_those_of_transformers(towers, clip_folder):
    model = CLIPModel.from_pretrained(clip_folder).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=towers.normalised(images)).pooler_output
    torch.testing.assert_close(towers.embed_images(images), torch.nn.functional.normalize(expected, dim=1))
    assert towers.size_px == 32 and towers.scale == pytest.approx(model.logit_scale.exp().item())
    texts = towers.embed_texts(["a road", "water seen from above"])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(texts[:1], towers.embed_texts(["a road"]))


def test_the_processor_of_the_model_says_its_statistics(clip_folder, tmp_path):
    assert TransformersTowers(str(clip_folder)).mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    model = TransformersTowers(str(clip_folder))
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    CLIPImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    assert TransformersTowers(str(tmp_path)).mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_a_siglip_has_towers_too(tmp_path, tiny_tokenizer):
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    text = dict(vocab_size=len(tiny_tokenizer), max_position_embeddings=24, **size)
    SiglipModel(
        SiglipConfig(text_config=text, vision_config=dict(image_size=32, patch_size=16, **size))
    ).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    towers = load_towers(str(tmp_path))
    assert towers.embed_images(torch.rand(2, 3, 32, 32)).shape == (2, 16)
    assert towers.embed_texts(["a road", "water"]).shape == (2, 16)


def test_a_tokenizer_that_knows_no_word_is_refused(towers):
    with pytest.raises(ValueError, match="does not know the words of"):
        towers.embed_texts(["№ 1"])


def test_another_model_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="nothing-here has no image and text towers"):
        load_towers(str(tmp_path / "nothing-here"))


def test_a_checkpoint_file_is_one_of_open_clip(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(OpenClipTowers, "__init__", lambda self, *args, **options: asked.append((args, options)))
    (tmp_path / "remote.pt").write_bytes(b"weights")
    towers = load_towers(str(tmp_path / "remote.pt"), open_clip_model="ViT-B-32")
    assert isinstance(towers, OpenClipTowers) and asked[0][0] == (str(tmp_path / "remote.pt"), "ViT-B-32")
    assert towers.identity["model"] == "remote.pt" and towers.identity["open_clip_model"] == "ViT-B-32"
