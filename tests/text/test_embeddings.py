"""Tests of `co2s_hf.text.embeddings`: where class embeddings come from, and open_clip checkpoints."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from co2s_hf.class_texts_co2s import encode_class_texts
from co2s_hf.text import PROMPT, class_embeddings, stand_in_embeddings

CONCEPTS = [("water", "lake", "blue river"), ("road",)]
WIDTH = 16
PROJECTION = 12
OPEN_CLIP_NAME = "co2s-test-tiny"


# ---- dispatch --------------------------------------------------------------------------------------------------------


def test_a_folder_is_encoded_by_its_text_tower(clip_folder):
    found = class_embeddings(CONCEPTS, clip_folder, dim=PROJECTION)
    assert torch.equal(found, encode_class_texts(clip_folder, CONCEPTS))
    assert torch.equal(found, class_embeddings(CONCEPTS, str(clip_folder)))


def test_no_source_gives_stand_ins():
    with pytest.warns(UserWarning, match="carry no meaning"):
        assert torch.equal(class_embeddings(CONCEPTS, None, dim=8), stand_in_embeddings(CONCEPTS, 8))


def test_refuses_no_source_without_a_width():
    with pytest.raises(ValueError, match="without a text source, class_embeddings needs dim"):
        class_embeddings(CONCEPTS, None)
    with pytest.raises(ValueError, match="takes no open_clip_model"):
        class_embeddings(CONCEPTS, None, dim=8, open_clip_model="ViT-B-32")


def test_refuses_another_width_than_the_vision_tower(clip_folder):
    with pytest.raises(ValueError, match="gives 12 numbers per class, but the vision tower projects to 512.*same CLIP"):
        class_embeddings(CONCEPTS, clip_folder, dim=512)


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="is no checkpoint file, and no model could be read from it"):
        class_embeddings(CONCEPTS, tmp_path)


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
