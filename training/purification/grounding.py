"""Scores by detection: a generative model boxes the classes, SAM turns boxes into masks, regions count them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import SamModel, SamProcessor

from training.purification.answering import AnsweringModel
from training.purification.class_bank import ClassBank
from training.purification.regions import count_regions
from training.purification.scorers import Audit, empty_scores, model_identity

Frame = Literal["seen", "thousand", "image"]
Box = tuple[float, float, float, float]

QUESTION = (
    "Detect all of these in the aerial image: {classes}. Answer with a JSON list only, with one object for each of "
    'them in the form {{"bbox_2d": [x1, y1, x2, y2], "label": "<name>"}}.'
)
# What the coordinates of a model's answers are counted in.
FRAMES: Mapping[str, Frame] = {
    "internvl": "thousand",
    "qwen2_vl": "thousand",
    "qwen2_5_vl": "seen",
    "qwen3_vl": "thousand",
    "qwen3_vl_moe": "thousand",
}
LEAST = 0.02  # share that a class without a mask counts with

_BOX_KEYS, _LABEL_KEYS = ("bbox_2d", "bbox", "box_2d", "box"), ("label", "class", "name", "category")
_OBJECT = re.compile(r"\{[^{}]*\}")
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_LISTED = r"(?<![\w-]){name}[\s\"':]*[\[(]" + ",".join([_NUMBER] * 4) + r"[\])]"


class BoxSegmenter:
    """Transformers' SAM: from boxes to masks.

    Args:
        source: folder or Hub id, e.g. facebook/sam-vit-base.
        revision: of the Hub id.
        device: where it computes.

    Raises:
        ValueError: there is no such model.
    """

    def __init__(self, source: str, revision: str | None = None, device: torch.device | str = "cpu") -> None:
        """Load model and processor."""
        self.device = torch.device(device)
        try:
            model: Any = SamModel.from_pretrained(source, revision=revision)
            self.processor: Any = SamProcessor.from_pretrained(source, revision=revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{source} is no SAM; expected one in transformers format. transformers says: {error}"
            ) from error
        self.model = model.to(self.device).eval().requires_grad_(False)
        identity = model_identity(source, revision, getattr(self.model.config, "_commit_hash", None))
        self.identity = {f"sam_{name}": value for name, value in identity.items()}

    @torch.no_grad()
    def masks(self, image: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Give the best mask of each box: (n, H, W) bool on the CPU, for a picture (3, H, W) in [0, 1]."""
        pixels = (image * 255).round().to(torch.uint8).cpu()
        inputs = self.processor(images=[pixels], input_boxes=[[list(box) for box in boxes]], return_tensors="pt")
        output = self.model(
            pixel_values=inputs["pixel_values"].to(self.device),
            input_boxes=inputs["input_boxes"].float().to(self.device),
            multimask_output=True,
        )
        masks = self.processor.image_processor.post_process_masks(
            output.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0]
        best = output.iou_scores[0].argmax(1).cpu()  # (n, 3) -> (n,)
        return masks[torch.arange(len(boxes)), best]


class GroundingScorer:
    """Score a region by the share of it that the masks of each class cover; abstain where nothing was detected.

    Args:
        model: the model that detects.
        segmenter: from boxes to masks; None takes the boxes themselves.
        bank: the classes in words; a synonym in an answer counts as its class.
        frame: what coordinates are counted in: "seen", the pixels of the picture as the processor resized it;
            "thousand", thousandths of its sides; "image", its own pixels. None: what the model is known for.
        min_coverage: share of a region that the masks of some class must cover.
        max_new_tokens: of an answer.
        skipped: ids of classes that cannot be boxed, such as the background; they are not asked for.

    Raises:
        ValueError: the frame is unknown, or none is given for a model that is not known.
    """

    def __init__(
        self,
        model: AnsweringModel,
        segmenter: BoxSegmenter | None,
        bank: ClassBank,
        *,
        frame: Frame | None = None,
        min_coverage: float = 0.5,
        max_new_tokens: int = 1024,
        skipped: Sequence[int] = (),
    ) -> None:
        """Take the two models."""
        self.model, self.segmenter, self.bank = model, segmenter, bank
        model_type = model.model.config.model_type
        if frame is None and model_type not in FRAMES:
            raise ValueError(
                f"{model.identity['model']} is a {model_type}, and what its coordinates are counted in is not known "
                f"here; expected a frame, one of {', '.join(get_args(Frame))} (--frame). See how the model was trained."
            )
        self.frame: Frame = frame or FRAMES[model_type]
        if self.frame not in get_args(Frame):
            raise ValueError(f"frame must be one of {', '.join(get_args(Frame))}; got '{self.frame}'")
        self.min_coverage, self.max_new_tokens = min_coverage, max_new_tokens
        names = [name for i, name in enumerate(bank.spoken_names()) if i not in skipped]
        self.question = QUESTION.format(classes=", ".join(names))
        self.vocabulary = {
            word.replace("_", " ").lower(): i
            for i, words in enumerate(bank.synonyms)
            for word in (*words, bank.names[i])
            if i not in skipped
        }
        self.audit = Audit()

    def parameters(self) -> dict[str, Any]:
        """Give what the scores depend on."""
        return {
            "scorer": "grounding",
            **self.model.identity,
            **({} if self.segmenter is None else self.segmenter.identity),
            "names": self.bank.names,
            "synonyms": self.bank.synonyms,
            "question": self.question,
            "frame": self.frame,
            "min_coverage": self.min_coverage,
            "max_new_tokens": self.max_new_tokens,
        }

    @torch.no_grad()
    def score(self, image: Tensor, regions: Tensor) -> Tensor:
        """Score the regions (H, W) of a picture (3, H, W); see `Scorer`."""
        scores = empty_scores(count_regions(regions), len(self.bank.names))
        maps = self.ground(image)
        if not maps.any() or not len(scores):
            return scores
        flat = regions.flatten().cpu() + 1
        pixels = flat.bincount(minlength=len(scores) + 1)[1:].clamp(min=1)
        covered = torch.stack(
            [(flat * mask.flatten()).bincount(minlength=len(scores) + 1)[1:] / pixels for mask in maps], dim=1
        )
        detected = covered.amax(1) >= self.min_coverage
        scores[detected] = covered[detected].clamp(min=LEAST).log()
        return scores

    def ground(self, image: Tensor) -> Tensor:
        """Detect the classes in a picture (3, H, W) in [0, 1]: (K, H, W) bool, on the CPU."""
        text = self.model.answer([image], [self.question], self.max_new_tokens)[0]
        detections = parse_detections(text, self.vocabulary)
        self.audit.calls += 1
        self.audit.answers += 1
        self.audit.parsed += detections is not None
        height, width = image.shape[1:]
        seen = {"thousand": (1000, 1000), "image": (height, width)}.get(self.frame) or self.model.seen_size(image)
        maps = torch.zeros(len(self.bank.names), height, width, dtype=torch.bool)
        boxes = [(k, rescaled(box, seen, (height, width))) for k, box in detections or []]
        boxes = [(k, box) for k, box in boxes if box[2] - box[0] >= 1 and box[3] - box[1] >= 1]
        if not boxes:
            return maps
        if self.segmenter is None:
            masks = torch.stack([_filled(box, height, width) for _, box in boxes])
        else:
            masks = self.segmenter.masks(image, [box for _, box in boxes])
        for (class_id, _), mask in zip(boxes, masks, strict=True):
            maps[class_id] |= mask
        return maps


def parse_detections(text: str, vocabulary: Mapping[str, int]) -> list[tuple[int, Box]] | None:
    """Read boxes from an answer: JSON objects, also of a list that was cut off, or `name: [x1, y1, x2, y2]`.

    Args:
        text: the answer.
        vocabulary: words in lower case -> class ids; other labels are left out.

    Returns:
        Class ids and boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2 as the answer has them; an empty list where it says
        that there is nothing, None where it cannot be read.

    >>> parse_detections('```json\\n[{"bbox_2d": [1, 2, 30, 40], "label": "Water"}, {"bbox_2d": [3,', {"water": 2})
    [(2, (1.0, 2.0, 30.0, 40.0))]
    >>> parse_detections("Road: [1.5, 2, 3, 4]; Railroad: [5, 6, 7, 8]", {"road": 0})
    [(0, (1.5, 2.0, 3.0, 4.0))]
    >>> parse_detections("[]", {"road": 0}), parse_detections("I see a road.", {"road": 0})
    ([], None)
    """
    objects = [found for found in map(_object, _OBJECT.findall(text)) if found is not None]
    if objects:
        return [(vocabulary[label], box) for label, box in objects if label in vocabulary]
    listed = [
        (class_id, box)
        for name, class_id in vocabulary.items()
        for match in re.findall(_LISTED.replace("{name}", re.escape(name)), text, re.IGNORECASE)
        if (box := _box(match)) is not None
    ]
    if listed:
        return listed
    return [] if re.search(r"\[\s*\]", text) else None


def rescaled(box: Box, seen: tuple[int, int], size: tuple[int, int]) -> Box:
    """Bring a box from a picture of (height, width) `seen` to one of `size`, and cut it to the picture.

    >>> rescaled((14, 28, 280, 600), seen=(560, 280), size=(1120, 280))
    (14.0, 56.0, 280.0, 1120.0)
    """
    along, across = size[0] / seen[0], size[1] / seen[1]
    x1, y1, x2, y2 = box
    return (
        min(max(x1 * across, 0.0), size[1]),
        min(max(y1 * along, 0.0), size[0]),
        min(max(x2 * across, 0.0), float(size[1])),
        min(max(y2 * along, 0.0), float(size[0])),
    )


def _object(text: str) -> tuple[str, Box] | None:
    """Label in lower case and box of a JSON object; None where it is not one of these."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or nested beyond any sense
        return None
    label = next((values[key] for key in _LABEL_KEYS if isinstance(values.get(key), str)), None)
    box = next((_box(values[key]) for key in _BOX_KEYS if isinstance(values.get(key), list)), None)
    return None if label is None or box is None else (label.replace("_", " ").strip().lower(), box)


def _box(values: Sequence[Any]) -> Box | None:
    try:
        x1, y1, x2, y2 = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _filled(box: Box, height: int, width: int) -> Tensor:
    """(H, W) bool, True in the box."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    left, top, right, bottom = (round(side) for side in box)
    mask[top:bottom, left:right] = True
    return mask
