"""Tests of `co2s_hf.text.embeddings`."""

import json
import shutil
import string
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from co2s_hf.text.concepts import PROMPT
from co2s_hf.text.embeddings import class_embeddings, stand_in_embeddings

CONCEPTS = [("water", "lake", "blue river"), ("road",)]
WIDTH = 16
PROJECTION = 12
OPEN_CLIP_NAME = "co2s-test-tiny"


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with single letters as its only words."""
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    vocab = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[])


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A full CLIP of random weights, in transformers format, with its tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer()
    size = dict(hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(tokenizer),
            max_position_embeddings=48,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **size,
        ),
        vision_config=dict(image_size=32, patch_size=16, **size),
        projection_dim=PROJECTION,  # the towers' own projection_dim stays at 512, as in many real checkpoints
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
    found = class_embeddings(CONCEPTS, clip_folder, dim=PROJECTION)
    assert found.dtype == torch.float32 and found.shape == (2, PROJECTION) and not found.requires_grad
    torch.testing.assert_close(found, expected_embeddings(clip_folder))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_half_precision_weights_are_used_in_float32(clip_folder, tmp_path):
    CLIPModel.from_pretrained(clip_folder, dtype=torch.float16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = class_embeddings(CONCEPTS, tmp_path)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected_embeddings(clip_folder), atol=5e-3, rtol=0)


def test_a_text_tower_alone_is_enough(clip_folder, tmp_path):
    config = CLIPConfig.from_pretrained(clip_folder).text_config
    config.projection_dim = PROJECTION
    CLIPTextModelWithProjection.from_pretrained(clip_folder, config=config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    torch.testing.assert_close(class_embeddings(CONCEPTS, str(tmp_path)), expected_embeddings(clip_folder))


def test_activation_follows_the_checkpoint(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    config = CLIPConfig.from_pretrained(clip_folder)
    assert config.text_config.hidden_act == "quick_gelu"
    config.text_config.hidden_act = "gelu"
    config.save_pretrained(tmp_path)
    found = class_embeddings(CONCEPTS, tmp_path)
    torch.testing.assert_close(found, expected_embeddings(tmp_path))
    assert not torch.equal(found, class_embeddings(CONCEPTS, clip_folder))


def test_refuses_another_width_than_the_vision_tower(clip_folder):
    with pytest.raises(ValueError, match="gives 12 numbers per class, but the vision tower projects to 512.*same CLIP"):
        class_embeddings(CONCEPTS, clip_folder, dim=512)


def test_refuses_a_vision_tower(clip_folder, tmp_path):
    config = CLIPConfig.from_pretrained(clip_folder)
    config.vision_config.projection_dim = PROJECTION
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_folder, config=config.vision_config)
    vision.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no CLIP text tower.*model type is 'clip_vision_model'.*Name a full CLIP"):
        class_embeddings(CONCEPTS, tmp_path)
    config.save_pretrained(tmp_path)  # the configuration of a full CLIP over the weights of half of it
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no CLIP text tower.*of its tensors are missing from the weights"):
        class_embeddings(CONCEPTS, tmp_path)


def test_refuses_a_folder_without_tokenizer_files(clip_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(clip_folder / name, tmp_path)
    with pytest.raises(ValueError, match="tokenizer of .* does not fit its text tower.*tokenizer.json"):
        class_embeddings(CONCEPTS, tmp_path)


def test_refuses_a_prompt_that_is_too_long(clip_folder):
    with pytest.raises(ValueError, match="'a photo of a x+' has 61 tokens, but .* takes 48. Shorten the concept"):
        class_embeddings([("x" * 50,)], clip_folder)


def test_refuses_damaged_weights(clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    model = CLIPModel.from_pretrained(clip_folder)
    model.text_projection.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NaN or infinite values. Its weights are damaged"):
        class_embeddings(CONCEPTS, tmp_path)


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="is no checkpoint file, and no model could be read from it"):
        class_embeddings(CONCEPTS, tmp_path)


@pytest.mark.parametrize(
    ("concepts", "message"), [([], "at least one class"), ([("a",), ()], "class 1 needs"), (["water"], "class 0 needs")]
)
def test_refuses_classes_without_concepts(concepts, message):
    with pytest.raises(ValueError, match=message):
        class_embeddings(concepts, None, dim=4)


# ---- open_clip -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_clip_model(tmp_path_factory):
    """A tiny random open_clip model whose architecture is registered as `OPEN_CLIP_NAME`."""
    open_clip = pytest.importorskip("open_clip")
    file = tmp_path_factory.mktemp("open_clip") / f"{OPEN_CLIP_NAME}.json"
    vision = dict(image_size=32, layers=1, width=WIDTH, patch_size=16, head_width=8)
    text = dict(context_length=24, vocab_size=49408, width=WIDTH, heads=2, layers=1)
    file.write_text(json.dumps(dict(embed_dim=PROJECTION, vision_cfg=vision, text_cfg=text)))
    open_clip.add_model_config(file)
    torch.manual_seed(1)
    return open_clip.create_model(OPEN_CLIP_NAME, pretrained=None).eval()


@pytest.mark.parametrize("kind", ["bare", "nested", "safetensors"])
def test_open_clip_checkpoint(open_clip_model, tmp_path, kind):
    import open_clip

    weights = open_clip_model.state_dict()
    path = tmp_path / {"bare": "a.pt", "nested": "a.bin", "safetensors": "a.safetensors"}[kind]
    if kind == "safetensors":
        save_file(weights, path)
    else:
        nested = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}
        torch.save(nested if kind == "nested" else weights, path)
    rng_before = torch.random.get_rng_state()
    found = class_embeddings(CONCEPTS, path, dim=PROJECTION, open_clip_model=OPEN_CLIP_NAME)
    assert torch.equal(torch.random.get_rng_state(), rng_before)
    with torch.no_grad():
        tokens = [open_clip.get_tokenizer(OPEN_CLIP_NAME)([PROMPT.format(w) for w in words]) for words in CONCEPTS]
        means = torch.stack([open_clip_model.encode_text(ids).mean(dim=0) for ids in tokens])
    torch.testing.assert_close(found, normalize(means, dim=1))


def test_refuses_open_clip_weights_of_another_architecture(open_clip_model, tmp_path):
    path = tmp_path / "a.pt"
    torch.save({name: value for name, value in open_clip_model.state_dict().items() if "ln_final" not in name}, path)
    with pytest.raises(
        ValueError, match=f"a.pt do not fit open_clip_model='{OPEN_CLIP_NAME}': 2 tensors.*such as ln_final.bias"
    ):
        class_embeddings(CONCEPTS, path, open_clip_model=OPEN_CLIP_NAME)


@pytest.mark.parametrize("name", [None, "ViT-B-33"])
def test_refuses_a_checkpoint_without_a_known_architecture(open_clip_model, tmp_path, name):
    path = tmp_path / "a.pt"
    torch.save({}, path)
    with pytest.raises(ValueError, match=f"needs the name of its architecture.*found {name!r}"):
        class_embeddings(CONCEPTS, path, open_clip_model=name)


class Harmless:
    """Stands for pickled code: loading it would call print."""

    def __reduce__(self):
        return print, ("executed",)


def test_never_executes_a_pickle(open_clip_model, tmp_path, capsys):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": Harmless()}, path)
    with pytest.raises(ValueError, match="a.pt could not be read as plain weights"):
        class_embeddings(CONCEPTS, path, open_clip_model=OPEN_CLIP_NAME)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"weights": {"a": torch.zeros(1)}}])
def test_refuses_a_file_that_holds_no_state_dict(open_clip_model, tmp_path, content):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="expected a state dict"):
        class_embeddings(CONCEPTS, path, open_clip_model=OPEN_CLIP_NAME)


def test_refuses_a_missing_checkpoint_and_a_misplaced_architecture(clip_folder, tmp_path):
    with pytest.raises(ValueError, match="missing.pt does not exist"):
        class_embeddings(CONCEPTS, tmp_path / "missing.pt", open_clip_model="ViT-B-32")
    with pytest.raises(ValueError, match="open_clip_model='ViT-B-32' needs a checkpoint file"):
        class_embeddings(CONCEPTS, clip_folder, open_clip_model="ViT-B-32")


# ---- stand-ins -------------------------------------------------------------------------------------------------------


def quiet_stand_ins(concepts, dim):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stand_in_embeddings(concepts, dim)


def test_stand_ins_warn_and_have_unit_length():
    with pytest.warns(UserWarning, match="carry no meaning. For real ones name a text source"):
        found = class_embeddings(CONCEPTS, None, dim=64)
    assert found.shape == (2, 64) and found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert abs(float(found[0] @ found[1])) < 0.5
    assert torch.equal(found, quiet_stand_ins(CONCEPTS, 64))


def test_stand_ins_do_not_depend_on_the_order_of_the_classes():
    assert torch.equal(quiet_stand_ins(CONCEPTS, 8).flip(0), quiet_stand_ins(CONCEPTS[::-1], 8))


def test_stand_ins_are_the_same_in_every_process():
    # From another process: python -c "from co2s_hf.text.embeddings import stand_in_embeddings as f;
    # print(f([('water', 'lake', 'blue river'), ('road',)], 4))"
    literal = torch.tensor([[-0.629723, 0.732187, -0.035086, -0.257139], [0.372153, -0.710123, 0.54045, -0.255228]])
    torch.testing.assert_close(quiet_stand_ins(CONCEPTS, 4), literal, atol=2e-6, rtol=0)


def test_refuses_stand_ins_without_a_width():
    with pytest.raises(ValueError, match="needs dim"):
        class_embeddings(CONCEPTS, None)
    with pytest.raises(ValueError, match="at least 1, found 0"):
        stand_in_embeddings(CONCEPTS, 0)
