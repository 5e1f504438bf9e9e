"""Scores by multiple choice: a generative model names the class of an outlined region."""

import json
import re
import string
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from training.purification.answering import AnsweringModel
from training.purification.class_bank import ClassBank
from training.purification.crops import CropOptions, crop_boxes, outlined_crop
from training.purification.regions import count_regions
from training.purification.scorers import Audit, empty_scores

Reading = Literal["logits", "json"]

NONE_OF_THESE = "none of these"
QUESTION = "The picture is part of an aerial image. What is inside the red outline?\n{options}\n{how}"
HOW = {
    "logits": "Answer with one letter only.",
    "json": 'Answer with JSON only, in the form {"answer": "<letter>"}.',
}
LEAST = 0.02  # probability of a class that was not chosen: an answer in words is never certain
_OBJECT = re.compile(r"\{[^{}]*\}")


class GenerativeScorer:
    """Ask for the letter of the class of each region, with the options in several orders.

    Args:
        model: the model that is asked.
        bank: the classes in words; only their names are asked for.
        crops: how a region is shown; there is no second view.
        reading: "logits" reads the probabilities of the letters, in one pass; "json" lets the model write, and takes
            answers that are valid JSON with one of the options.
        orderings: orders of the options that are asked about and averaged, because models like some letters better.
        view_px: side of a picture.
        batch_size: questions at a time.
        max_new_tokens: of an answer in JSON.
        seed: draws the orders.

    Raises:
        ValueError: an unknown reading, or more classes than letters.
    """

    def __init__(
        self,
        model: AnsweringModel,
        bank: ClassBank,
        *,
        crops: CropOptions | None = None,
        reading: Reading = "logits",
        orderings: int = 2,
        view_px: int = 336,
        batch_size: int = 8,
        max_new_tokens: int = 24,
        seed: int = 0,
    ) -> None:
        """Find the tokens of the letters."""
        if reading not in get_args(Reading) or orderings < 1:
            raise ValueError(
                f"reading is '{reading}' and orderings {orderings}; expected one of {', '.join(get_args(Reading))}, "
                "and at least one order"
            )
        if len(bank.names) >= len(string.ascii_uppercase):
            raise ValueError(f"{len(bank.names)} classes and one answer for none of them are more than the 26 letters")
        self.model, self.bank = model, bank
        self.crops = crops or CropOptions()
        self.reading, self.orderings, self.view_px = reading, orderings, view_px
        self.batch_size, self.max_new_tokens, self.seed = batch_size, max_new_tokens, seed
        self.letters = string.ascii_uppercase[: len(bank.names) + 1]
        self.tokens = model.letter_tokens(self.letters) if reading == "logits" else []
        self.audit = Audit()

    def parameters(self) -> dict[str, Any]:
        """Give what the scores depend on."""
        crops = {name: value for name, value in asdict(self.crops).items() if name != "outside"}
        answer = {} if self.reading == "logits" else {"max_new_tokens": self.max_new_tokens}
        return {
            "scorer": "generative",
            **self.model.identity,
            "names": self.bank.names,
            **crops,
            "question": QUESTION + HOW[self.reading],
            "reading": self.reading,
            "orderings": self.orderings,
            "view_px": self.view_px,
            "seed": self.seed,
            **answer,
        }

    @torch.no_grad()
    def score(self, image: Tensor, regions: Tensor) -> Tensor:
        """Score the regions (H, W) of a picture (3, H, W); see `Scorer`."""
        scores = empty_scores(count_regions(regions), len(self.bank.names))
        boxes = crop_boxes(regions, self.crops)
        asked = [(region, order) for region in boxes for order in self.orders(region)]
        rows = []
        for start in range(0, len(asked), self.batch_size):
            chunk = asked[start : start + self.batch_size]
            shown = [outlined_crop(image, regions, region, boxes[region], self.view_px) for region, _ in chunk]
            rows.append(self.ask(shown, [order for _, order in chunk]))
        if not rows:
            return scores
        # (regions, orders, K + 1), the last column for none of these; unreadable answers are rows of nan
        chances = torch.cat(rows).unflatten(0, (len(boxes), self.orderings)).nanmean(1)
        best = chances.nan_to_num(-1).argmax(1)
        abstains = chances.isnan().any(1) | (best == len(self.bank.names))
        logits = chances[:, :-1].clamp(min=1e-6).log()
        scores[list(boxes)] = torch.where(abstains[:, None], torch.nan, logits)
        return scores

    def orders(self, region: int) -> list[list[int]]:
        """Draw the orders of the options for a region: of its classes; none of these comes last."""
        names = len(self.bank.names)
        draws = (np.random.default_rng((self.seed, region, i)).permutation(names) for i in range(self.orderings))
        return [[*map(int, draw), names] for draw in draws]

    def ask(self, pictures: Sequence[Tensor], orders: Sequence[Sequence[int]]) -> Tensor:
        """Give the probabilities (B, K + 1) of the classes, and of none of them, under each order of the options."""
        names = [*self.bank.spoken_names(), NONE_OF_THESE]
        options = [[names[index] for index in order] for order in orders]
        questions = [question(texts, self.letters, self.reading) for texts in options]
        self.audit.calls += 1
        self.audit.answers += len(questions)
        if self.reading == "logits":
            log_chances = self.model.next_token_log_probabilities(pictures, questions)
            by_letter = torch.stack([log_chances[:, tokens].logsumexp(1) for tokens in self.tokens], dim=1)
            of_letters = {token for tokens in self.tokens for token in tokens}
            self.audit.parsed += sum(token in of_letters for token in log_chances.argmax(1).tolist())
            chances = by_letter.softmax(1)
        else:
            answers = self.model.answer(pictures, questions, self.max_new_tokens)
            chosen = [parse_choice(text, given, self.letters) for text, given in zip(answers, options, strict=True)]
            self.audit.parsed += sum(place is not None for place in chosen)
            chances = torch.stack([_certain(place, len(names)) for place in chosen])
        return torch.zeros_like(chances).scatter_(1, torch.tensor(orders), chances)


def question(options: Sequence[str], letters: str, reading: Reading) -> str:
    """Write the question with its options, one to a line.

    >>> print(question(["water", "none of these"], "AB", "logits"))
    The picture is part of an aerial image. What is inside the red outline?
    A. water
    B. none of these
    Answer with one letter only.
    """
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, options, strict=True))
    return QUESTION.format(options=lines, how=HOW[reading])


def parse_choice(text: str, options: Sequence[str], letters: str) -> int | None:
    """Read the place of the chosen option from an answer in JSON: its letter, or its text; None for anything else.

    >>> parse_choice('Sure! ```json {"answer": "B"} ```', ["water", "road"], "AB")
    1
    >>> parse_choice('{"answer": "Road"}', ["water", "road"], "AB")
    1
    >>> parse_choice('{"answer": "B"}', ["b", "a"], "AB")
    1
    >>> parse_choice('{"answer": "C"}', ["water", "road"], "AB") is None
    True
    """
    for found in _OBJECT.findall(text):
        try:
            answer = json.loads(found).get("answer")
        except (ValueError, RecursionError):  # no JSON, or nested beyond any sense
            continue
        if not isinstance(answer, str):
            continue
        plain = answer.strip().strip(".").lower()
        marked = [f"{letter}. {option}".lower() for letter, option in zip(letters, options, strict=False)]
        # A letter is a letter, also where a class is called by one: the question asks for it.
        for names in ([letter.lower() for letter in letters[: len(options)]], marked, [one.lower() for one in options]):
            if plain in names:
                return names.index(plain)
    return None


def _certain(place: int | None, count: int) -> Tensor:
    """(count,) probabilities of an answer in words; nan without one."""
    if place is None:
        return torch.full((count,), torch.nan)
    chances = torch.full((count,), LEAST)
    chances[place] = 1 - LEAST * (count - 1)
    return chances
