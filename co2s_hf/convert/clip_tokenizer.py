"""CLIP's tokenizer for a converted folder, whose weights do not hold it."""

import gzip
import importlib.util
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

NUM_WORDS = 49408
NUM_MERGES = NUM_WORDS - 2 * 256 - 2  # bytes, bytes that end a word, and the two marks of a text
CONTEXT_LENGTH = 77


def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of every CLIP of OpenAI and nearly all of open_clip, from the word list in open_clip's package.

    Raises:
        ValueError: open_clip is not installed.
    """
    package = importlib.util.find_spec("open_clip")  # only its data file is read: importing it takes seconds
    if package is None or not package.submodule_search_locations:
        raise ValueError("the word list of CLIP's tokenizer comes with open_clip: pip install open_clip_torch.")
    path = Path(package.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : NUM_MERGES + 1]
    merges: Any = [tuple(line.split()) for line in lines]  # declared as strings, but pairs is what it takes
    symbols = _byte_symbols()
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)


def _byte_symbols() -> list[str]:
    """A printable character for each byte, in the order of the vocabulary: first those that print themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


__all__ = ["NUM_WORDS", "clip_tokenizer"]
