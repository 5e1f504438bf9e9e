"""The purification that SemiEarth released, for comparison: it changes no training whose threshold is above 0.73."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the crop."""

Detector = Callable[[NDArray[np.uint8]], str | Mapping[str, Sequence[Box]]]
Segmenter = Callable[[NDArray[np.uint8], Box], Tensor]

# The released code's own.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DETECTED = 0.1  # a pixel whose highest probability is above this counts as detected
CORRECTED_BELOW = 0.3  # confidence below which a pixel takes the detected class

logger = logging.getLogger(__name__)


class OfficialPurifier:
    """Refine uncertain pseudo-labels as released, its mistakes included.

    Every `interval`-th call asks the detector about each picture; the calls between take the maps of the batch before,
    which shows other pictures. The map of a picture with a detection is a softmax over 0 and `bbox_confidence`, so
    every pixel counts as detected, and none gets a confidence over the usual threshold of 0.95.

    Args:
        class_names: in the order of their ids.
        detect: from (H, W, 3) uint8 to the text of the answer, or to the boxes of the classes it names.
        segment: from the picture and a box to its best mask, (h, w) in [0, 1]; None to fill the box.
        tau: confidence below which a pixel is refined.
        bbox_confidence: value of a detected pixel ahead of the softmax.
        interval: calls from one detection to the next.
        corrects: take the detected class where the two disagree; else only confidences change.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        detect: Detector,
        segment: Segmenter | None = None,
        *,
        tau: float = 0.7,
        bbox_confidence: float = 0.95,
        interval: int = 2,
        corrects: bool = True,
    ) -> None:
        """Take the two models, and say what comes of it."""
        self.class_names, self.detect, self.segment = tuple(class_names), detect, segment
        self.tau, self.bbox_confidence, self.interval, self.corrects = tau, bbox_confidence, interval, corrects
        self.calls = 0
        self.maps: Tensor | None = None  # (B, K, H, W) of the batch that was asked about last
        logger.warning(
            "The released purification changes nothing that a threshold of 0.95 lets pass: it writes confidences up to "
            "%.2f. It is here for comparison; the default purification is the one that works.",
            max(tau, highest_probability(len(self.class_names), bbox_confidence)),
        )

    def __call__(self, images: Tensor, label: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Refine labels and confidences (B, H, W) of the weak views (B, 3, H, W), normalised as ImageNet is."""
        self.calls += 1
        low = confidence < self.tau
        if not low.any():
            return label, confidence
        if self.maps is None or self.calls % self.interval == 0:
            maps = [
                self.ground(image) if asked else self._nothing(image)
                for image, asked in zip(images, low.any(2).any(1), strict=True)
            ]
            self.maps = torch.stack(maps)
        return self.refine(label, confidence, low, self.maps)

    def ground(self, image: Tensor) -> Tensor:
        """Detect the classes in a normalised picture (3, H, W): (K, H, W) probabilities, 0 where none was named."""
        pixels = to_uint8(image)
        answer = self.detect(pixels)
        boxes = parse_boxes(answer, self.class_names) if isinstance(answer, str) else answer
        scores = self._nothing(image)
        for class_id, name in enumerate(self.class_names):
            for box in boxes.get(name, ()):
                scores[class_id] = torch.maximum(
                    scores[class_id], self.bbox_confidence * self._mask(pixels, box, image)
                )
        return scores.softmax(0) if any(boxes.values()) else scores

    def refine(self, label: Tensor, confidence: Tensor, low: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Blend and correct with maps of B' pictures: those past B are cut, missing ones are 0."""
        maps = maps.to(confidence)
        missing = maps.new_zeros(max(0, len(label) - len(maps)), *maps.shape[1:])
        maps = torch.cat((maps, missing))[: len(label)]
        best, best_class = maps.max(1)
        own = maps.gather(1, label[:, None])[:, 0]
        detected = low & (best > DETECTED)
        share = confidence / self.tau
        refined = torch.where(detected, share * confidence + (1 - share) * own, confidence)
        if not self.corrects:
            return label, refined
        mismatch = detected & (label != best_class) & (confidence < CORRECTED_BELOW)
        return torch.where(mismatch, best_class, label), torch.where(mismatch, best, refined)

    def _nothing(self, image: Tensor) -> Tensor:
        return image.new_zeros(len(self.class_names), *image.shape[1:])

    def _mask(self, pixels: NDArray[np.uint8], box: Box, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        if self.segment is not None:
            mask = self.segment(pixels, box).to(image)
            return interpolate(mask[None, None], (height, width), mode="nearest")[0, 0]
        mask = image.new_zeros(height, width)
        left, top, right, bottom = box
        mask[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)] = 1
        return mask


def parse_boxes(text: str, class_names: Sequence[str]) -> dict[str, list[Box]]:
    """Find `name: [x1, y1, x2, y2]` in an answer, as released: also within a longer word, and never in JSON.

    >>> parse_boxes("Railroad: [3, 3, 9, 9]", ["Road", "Water"])
    {'Road': [(3, 3, 9, 9)]}
    """
    found = {}
    for name in class_names:
        matches = re.findall(rf"{re.escape(name)}[:\s]+\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\]", text, flags=re.IGNORECASE)
        if matches:
            found[name] = [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in matches]
    return found


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """Undo ImageNet's normalisation of (3, H, W): (H, W, 3) uint8, cut off and not rounded, as released."""
    mean, std = (image.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = ((image * std + mean).clamp(0, 1) * 255).to(torch.uint8)
    return pixels.permute(1, 2, 0).cpu().numpy()  # (3, H, W) -> (H, W, 3)


def highest_probability(num_classes: int, bbox_confidence: float = 0.95) -> float:
    """Give the largest probability that a softmax over 0 and `bbox_confidence` can have.

    >>> [round(highest_probability(number), 3) for number in (2, 6, 8)]
    [0.721, 0.341, 0.27]
    """
    return float(np.exp(bbox_confidence) / (np.exp(bbox_confidence) + num_classes - 1))
