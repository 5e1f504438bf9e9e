"""A generative vision-language model that looks at pictures and answers questions about them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from training.purification.scorers import model_identity, precision_on


class AnsweringModel:
    """Any model of transformers' `AutoModelForImageTextToText`, such as Qwen-VL or SmolVLM, one picture per question.

    Args:
        source: folder or Hub id, with its processor and chat template.
        revision: of the Hub id.
        device: where it computes.

    Raises:
        ValueError: there is no such model, or it has no chat template.
    """

    def __init__(self, source: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        """Load model and processor."""
        self.device = torch.device(device)
        self.dtype = precision_on(self.device)
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(
                source, revision=revision, dtype=self.dtype, trust_remote_code=False
            )
            self.processor: Any = AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ValueError(
                f"{source} is no model that answers questions about pictures; expected one in transformers format, "
                f"with its processor. transformers says: {error}"
            ) from error
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(
                f"{source} has no chat template, so it cannot be asked; expected a model that was tuned to "
                "instructions."
            )
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer: Any = self.processor.tokenizer
        self.tokenizer.padding_side = "left"  # the answer begins where the question ends, for all of a batch
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.identity = model_identity(source, revision, getattr(self.model.config, "_commit_hash", None))

    def letter_tokens(self, letters: Sequence[str]) -> list[list[int]]:
        """Find the tokens that are an answer of one letter, with or without a blank ahead of it.

        Raises:
            ValueError: a letter is no token of its own.
        """
        found = []
        for letter in letters:
            variants = (self.tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}"))
            tokens = sorted({ids[0] for ids in variants if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id})
            if not tokens:
                raise ValueError(
                    f"the tokenizer of {self.identity['model']} has no token for the letter {letter}; read its "
                    "answers as JSON instead."
                )
            found.append(tokens)
        return found

    @torch.no_grad()
    def next_token_log_probabilities(self, pictures: Sequence[Tensor], questions: Sequence[str]) -> Tensor:
        """Give the log probabilities (B, V) float32 of the first token of each answer, on the CPU.

        Args:
            pictures: B of (3, H, W) float32 in [0, 1].
            questions: as many.
        """
        inputs = self.inputs(pictures, questions)
        logits = self.model(**inputs, logits_to_keep=1).logits[:, -1]
        return logits.float().log_softmax(1).cpu()

    @torch.no_grad()
    def answer(self, pictures: Sequence[Tensor], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Give the most probable answers, greedily, of at most `max_new_tokens` tokens; arguments as above."""
        inputs = self.inputs(pictures, questions)
        options = {"temperature": None, "top_p": None, "top_k": None}  # many models bring settings for sampling
        tokens = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            **options,
        )
        return self.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def seen_size(self, picture: Tensor) -> tuple[int, int]:
        """Give height and width in pixels that the model sees of a picture, after its processor has resized it."""
        inputs = self.inputs([picture], [""])
        grid = inputs.get("image_grid_thw")
        if grid is None:
            height, width = inputs["pixel_values"].shape[-2:]
            return height, width
        patch_px = int(self.processor.image_processor.patch_size)
        return int(grid[0, 1]) * patch_px, int(grid[0, 2]) * patch_px

    def inputs(self, pictures: Sequence[Tensor], questions: Sequence[str]) -> Any:
        """Put pictures and questions into the form of a conversation that the model knows."""
        turns = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            for question in questions
        ]
        texts = [self.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
        pixels = [[(picture * 255).round().to(torch.uint8).cpu()] for picture in pictures]
        inputs = self.processor(text=texts, images=pixels, padding=True, return_tensors="pt")
        return inputs.to(self.device, self.dtype)
