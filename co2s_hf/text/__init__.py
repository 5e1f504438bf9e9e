"""Class names -> concepts -> class embeddings."""

from .concepts import CONCEPTS, PROMPT, concepts_for
from .embeddings import class_embeddings, stand_in_embeddings

__all__ = ["CONCEPTS", "PROMPT", "class_embeddings", "concepts_for", "stand_in_embeddings"]
