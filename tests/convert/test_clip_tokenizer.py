"""The tokenizer of converted CLIPs gives the tokens of open_clip's."""

import open_clip
import pytest
from transformers import AutoTokenizer

from co2s_hf.convert.clip_tokenizer import NUM_WORDS, clip_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


@pytest.mark.parametrize(
    "text",
    ["a photo of a low vegetation", "Impervious surfaces, it's 2 km²!", "straße  zum See", "tree\nwater-body 水", ""],
)
def test_gives_the_same_tokens(tokenizer, text):
    expected = open_clip.tokenize([text])[0].tolist()
    ids = tokenizer(text)["input_ids"]
    assert ids == expected[: len(ids)] and ids[-1] == NUM_WORDS - 1 and not any(expected[len(ids) :])


def test_survives_saving(tokenizer, tmp_path):
    assert len(tokenizer) == NUM_WORDS
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = "a photo of a building"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"] and again.model_max_length == 77
