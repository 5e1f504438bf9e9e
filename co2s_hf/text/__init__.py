"""Class names -> concepts -> class embeddings."""

from co2s_hf.class_texts_co2s import PROMPT, stand_in_embeddings

from .concepts import CONCEPTS, concepts_for
from .embeddings import class_embeddings

__all__ = ["CONCEPTS", "PROMPT", "class_embeddings", "concepts_for", "stand_in_embeddings"]
