"""Class names -> concepts -> class embeddings."""

from co2s_hf.class_texts_co2s import PROMPT, stand_in_embeddings

from .concepts import CONCEPTS, concepts_for
from .embeddings import CHECKPOINT_SUFFIXES, class_embeddings
from .open_clip_towers import OpenClipTowers

__all__ = [
    "CHECKPOINT_SUFFIXES",
    "CONCEPTS",
    "OpenClipTowers",
    "PROMPT",
    "class_embeddings",
    "concepts_for",
    "stand_in_embeddings",
]
