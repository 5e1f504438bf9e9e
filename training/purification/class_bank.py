"""The classes in words: names, synonyms, the sentences around them, and words for what is no class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

TEMPLATES = ("a satellite photo of {}", "an aerial photo of {}", "a photo of {} seen from above")
NEGATIVES = ("noise", "a blank image")


@dataclass(frozen=True)
class ClassBank:
    """The classes in words.

    Attributes:
        names: class names, in the order of their ids.
        synonyms: words for each class, one or more; `co2s_hf.text.concepts_for` finds them.
        templates: sentences with `{}` for the word.
        negatives: words for what is no class; where one fits best, the model abstains.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...] = TEMPLATES
    negatives: tuple[str, ...] = NEGATIVES

    def __post_init__(self) -> None:
        """Refuse a class without a word, and a sentence without a place for it."""
        if len(self.names) < 2 or len(self.names) != len(self.synonyms) or not all(self.synonyms):
            raise ValueError(
                f"there are {len(self.names)} class names and {len(self.synonyms)} lists of synonyms; expected at "
                "least two classes, and one or more synonyms for each"
            )
        wrong = [template for template in self.templates if "{}" not in template]
        if wrong or not self.templates:
            raise ValueError(f"templates are {self.templates}, expected one or more sentences with {{}} for the class")

    def spoken_names(self) -> list[str]:
        """Give the names as they read in a sentence: `low_vegetation` is low vegetation."""
        return [_spoken(name) for name in self.names]

    def parameters(self) -> dict[str, Any]:
        """Give what a cache of scores must be made with."""
        return {name: getattr(self, name) for name in ("names", "synonyms", "templates", "negatives")}

    def embed(self, embed_texts: Callable[[list[str]], Tensor]) -> "TextBank":
        """Embed each word as the mean of its sentences' unit vectors, with unit length again.

        Args:
            embed_texts: from P sentences to their embeddings (P, E).
        """
        words = [*(word for words in self.synonyms for word in words), *self.negatives]
        sentences = [template.format(_spoken(word)) for word in words for template in self.templates]
        rows = normalize(embed_texts(sentences).float(), dim=1).view(len(words), len(self.templates), -1)
        return TextBank(normalize(rows.mean(1), dim=1), [len(words) for words in self.synonyms])


@dataclass(frozen=True)
class TextBank:
    """Embedded words: those of class 0, of class 1, ..., and the negatives.

    Attributes:
        rows: (P, E) float32 of length 1.
        counts: number of words of each class.
    """

    rows: Tensor
    counts: Sequence[int]

    def class_scores(self, cosines: Tensor) -> Tensor:
        """Take the best word of each class: (R, P) -> (R, K); rows of nan where a negative is better than all."""
        *classes, negatives = cosines.split([*self.counts, cosines.shape[1] - sum(self.counts)], dim=1)
        best = torch.stack([words.amax(1) for words in classes], dim=1)
        if negatives.shape[1]:
            best[negatives.amax(1) > best.amax(1)] = torch.nan
        return best


def _spoken(word: str) -> str:
    return word.replace("_", " ").strip()
