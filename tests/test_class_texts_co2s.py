"""Tests of `co2s_hf.class_texts_co2s`."""

import shutil
import warnings

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from co2s_hf.class_texts_co2s import PROMPT, class_prompts, encode_class_texts, has_text_tower, stand_in_embeddings

CONCEPTS = [("water", "lake", "blue river"), ("road",)]
PROJECTION = 12  # of `clip_folder`


def expected_embeddings(folder) -> torch.Tensor:
    """The same by hand: one prompt at a time through the full CLIP."""
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for words in CONCEPTS:
            raw = [model.get_text_features(**tokenizer(PROMPT.format(w), return_tensors="pt")) for w in words]
            mean = sum(output.pooler_output[0] for output in raw) / len(words)
            rows.append(mean / mean.norm())
    return torch.stack(rows)


# ---- transformers ----------------------------------------------------------------------------------------------------


def test_raw_prompts_are_averaged_then_normalised_once(clip_folder):
    found = encode_class_texts(clip_folder, CONCEPTS)
    assert found.dtype == torch.float32 and found.shape == (2, PROJECTION) and not found.requires_grad
    torch.testing.assert_close(found, expected_embeddings(clip_folder))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_half_precision_weights_are_used_in_float32(clip_folder, tiny_tokenizer, tmp_path):
    CLIPModel.from_pretrained(clip_folder, dtype=torch.float16).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    found = encode_class_texts(tmp_path, CONCEPTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected_embeddings(clip_folder), atol=5e-3, rtol=0)


def test_a_text_tower_alone_is_enough(clip_folder, tiny_tokenizer, tmp_path):
    config = CLIPConfig.from_pretrained(clip_folder).text_config
    config.projection_dim = PROJECTION
    CLIPTextModelWithProjection.from_pretrained(clip_folder, config=config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(encode_class_texts(str(tmp_path), CONCEPTS), expected_embeddings(clip_folder))


def test_activation_follows_the_checkpoint(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    config = CLIPConfig.from_pretrained(clip_folder)
    assert config.text_config.hidden_act == "quick_gelu"
    config.text_config.hidden_act = "gelu"
    config.save_pretrained(tmp_path)
    found = encode_class_texts(tmp_path, CONCEPTS)
    torch.testing.assert_close(found, expected_embeddings(tmp_path))
    assert not torch.equal(found, encode_class_texts(clip_folder, CONCEPTS))


def test_refuses_a_vision_tower(clip_folder, tiny_tokenizer, tmp_path):
    config = CLIPConfig.from_pretrained(clip_folder)
    config.vision_config.projection_dim = PROJECTION
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_folder, config=config.vision_config)
    vision.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no CLIP text tower.*model type is 'clip_vision_model'.*Name a full CLIP"):
        encode_class_texts(tmp_path, CONCEPTS)
    config.save_pretrained(tmp_path)  # the configuration of a full CLIP over the weights of half of it
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no CLIP text tower.*of its tensors are missing from the weights"):
        encode_class_texts(tmp_path, CONCEPTS)


def test_refuses_a_folder_without_tokenizer_files(clip_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, tmp_path)
    with pytest.raises(ValueError, match="tokenizer of .* does not fit its text tower.*tokenizer.json"):
        encode_class_texts(tmp_path, CONCEPTS)


def test_has_text_tower(clip_folder, tmp_path):
    assert has_text_tower(clip_folder)
    config = CLIPConfig.from_pretrained(clip_folder)
    for tower, expected in ((config.text_config, True), (config.vision_config, False)):
        tower.save_pretrained(tmp_path / tower.model_type)
        assert has_text_tower(tmp_path / tower.model_type) is expected


def test_refuses_a_prompt_that_is_too_long(clip_folder):
    with pytest.raises(ValueError, match="'a photo of a x+' has 61 tokens, but .* takes 48. Shorten the concept"):
        encode_class_texts(clip_folder, [("x" * 50,)])


def test_refuses_damaged_weights(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    model = CLIPModel.from_pretrained(clip_folder)
    model.text_projection.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NaN or infinite values. Its weights are damaged"):
        encode_class_texts(tmp_path, CONCEPTS)


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        ([], r"expected a list with the concepts of each class, in their order, found \[\]"),
        ({"water": ["a"], "road": ["b"]}, "expected a list with the concepts of each class"),
        (5, "found 5"),
        ([("a",), ()], "class 1 needs"),
        (["water"], "class 0 needs"),
        ([["a"], ["b", 3]], "class 1 needs"),
    ],
)
def test_refuses_classes_without_concepts(concepts, message):
    with pytest.raises(ValueError, match=message):
        class_prompts(concepts)


# ---- stand-ins -------------------------------------------------------------------------------------------------------


def quiet_stand_ins(concepts, dim):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stand_in_embeddings(concepts, dim)


def test_stand_ins_warn_and_have_unit_length():
    with pytest.warns(UserWarning, match="carry no meaning. For real ones name a text source"):
        found = stand_in_embeddings(CONCEPTS, 64)
    assert found.shape == (2, 64) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert abs(float(found[0] @ found[1])) < 0.5
    assert torch.equal(found, quiet_stand_ins(CONCEPTS, 64))


def test_stand_ins_do_not_depend_on_the_order_of_the_classes():
    assert torch.equal(quiet_stand_ins(CONCEPTS, 8).flip(0), quiet_stand_ins(CONCEPTS[::-1], 8))


def test_stand_ins_are_the_same_in_every_process():
    # From another process: python -c "from co2s_hf.text import stand_in_embeddings as f;
    # print(f([('water', 'lake', 'blue river'), ('road',)], 4))"
    literal = torch.tensor([[-0.629723, 0.732187, -0.035086, -0.257139], [0.372153, -0.710123, 0.54045, -0.255228]])
    torch.testing.assert_close(quiet_stand_ins(CONCEPTS, 4), literal, atol=2e-6, rtol=0)


def test_refuses_stand_ins_without_a_width():
    with pytest.raises(ValueError, match="at least 1, found 0"):
        stand_in_embeddings(CONCEPTS, 0)
