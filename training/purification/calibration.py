"""How far a vision-language model can be trusted: fitted once on the labelled images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.purification.regions import find_regions, number_regions

ABOVE_CHANCE = 0.05
_PRIOR_DEVIATION = 2.0  # of biases and sharpness: a handful of regions, all of them right, makes nothing certain


class CalibrationError(ValueError):
    """The model knows too little about these classes to be asked."""


@dataclass(frozen=True)
class Calibration:
    """From the scores of a model to probabilities.

    Attributes:
        temperature: that the scores are divided by.
        bias: added to the scores of each class afterwards.
        precision: of each class, how often the model was right where it named it; nan where it never did.
        accuracy: mean over the classes of how often a region of the class was recognised, see `fit_calibration`.
        answered: share of the regions on which it did not abstain.
        barred: ids of classes whose precision is too low, or unknown, for the model's word to count.
    """

    temperature: float
    bias: tuple[float, ...]
    precision: tuple[float, ...]
    accuracy: float
    answered: float
    barred: tuple[int, ...]

    def probabilities(self, scores: Tensor) -> Tensor:
        """Turn scores (..., K) into probabilities; rows of nan, where the model abstains, stay nan."""
        return (scores.float() / self.temperature + scores.new_tensor(self.bias, dtype=torch.float32)).softmax(-1)

    def to_dict(self) -> dict[str, Any]:
        """Give values that JSON holds."""
        return {**vars(self), "precision": [None if p != p else p for p in self.precision]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Take such values back."""
        listed = {name: tuple(values[name]) for name in ("bias", "barred")}
        precision = tuple(float("nan") if p is None else float(p) for p in values["precision"])
        return cls(**{**values, **listed, "precision": precision})


def labelled_regions(
    label: Tensor, segments: Tensor | None = None, *, min_area_px: int = 64, max_regions: int = 64, ignore: int = 255
) -> tuple[Tensor, Tensor]:
    """Find the regions of an image whose class the labels tell.

    Args:
        label: (H, W) class ids, `ignore` without a label.
        segments: (H, W) int64 regions that are cut along the labels, -1 for none; None for the connected components of
            the classes.
        min_area_px: smaller regions are dropped.
        max_regions: of more, the largest components are kept, or segments evenly spread over the image.
        ignore: value without a label.

    Returns:
        (H, W) int64 regions, ids from 0, -1 for none; and their classes (R,) int64.
    """
    classes = label.long()
    valid = classes != ignore
    if segments is None:
        unsure = torch.zeros(1, *label.shape)
        regions = find_regions(
            classes[None], unsure, valid[None], source="label", min_area_px=min_area_px, max_regions=max_regions
        )[0]
    else:
        pieces = number_regions(segments * (ignore + 1) + classes, valid & (segments >= 0))
        areas = (pieces.flatten() + 1).bincount()[1:]
        large = torch.nonzero(areas >= min_area_px)[:, 0]
        kept = torch.zeros(len(areas) + 1, dtype=torch.bool)  # the last one for -1
        spread = torch.linspace(0, len(large) - 1, min(len(large), max_regions)).round().long()
        kept[large[spread]] = True
        regions = number_regions(pieces, kept[pieces])
    inside = regions >= 0
    truth = torch.zeros(int(regions.max()) + 1, dtype=torch.int64)
    truth[regions[inside]] = classes[inside]
    return regions, truth


def fit_calibration(scores: Tensor, truth: Tensor, *, min_precision: float = 0.6) -> Calibration:
    """Fit temperature and biases by the likelihood of the true classes, and measure how reliable the model is.

    minimise  sum -log softmax(s / T + b)_y + (|b|^2 + z^2) / 8  over b and z, with softplus(z) = std(s) / T

    So probabilities know how frequent the classes are. The accuracy does not: it is that of the class whose probability
    exceeds its frequency the most, so that a model that knows nothing has 1 / K of it.

    Args:
        scores: (n, K) scores of regions with a known class, rows of nan where the model abstained.
        truth: (n,) int64 classes.
        min_precision: classes with less are barred.

    Raises:
        CalibrationError: it abstained everywhere, its mean accuracy is at most 1 / K + 0.05, or every class is barred.
    """
    num_classes = scores.shape[1]
    answered = ~scores.isnan().any(1)
    share = answered.float().mean().item() if len(scores) else 0.0
    if not answered.any():
        raise CalibrationError(
            f"The model abstained on all {len(scores)} labelled regions; expected answers. Check the prompts, take a "
            "smaller minimal area, or another model."
        )
    scores, truth = scores[answered].double(), truth[answered]
    counts = truth.bincount(minlength=num_classes)
    # 1 / T is the parameter: the problem is convex in it and the biases. Scores are brought to size 1 first.
    size = scores.std().clamp(min=1e-6)
    sharpness, bias = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (1, num_classes))
    optimizer = torch.optim.LBFGS([sharpness, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = scores / size * F.softplus(sharpness) + bias
        prior = torch.cat((sharpness, bias)).square().sum() / (2 * _PRIOR_DEVIATION**2)
        value = F.cross_entropy(logits, truth) + prior / len(truth)
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        temperature = (size / F.softplus(sharpness)).item()
        logits = scores / temperature + bias
    named = logits.argmax(1)
    precision = _share(named == truth, named, num_classes)
    recognised = (logits - counts.double().log()).masked_fill(counts == 0, -torch.inf).argmax(1)
    accuracy = _share(recognised == truth, truth, num_classes)[counts > 0].mean().item()
    if accuracy <= 1 / num_classes + ABOVE_CHANCE:
        raise CalibrationError(
            f"The model recognises {100 * accuracy:.0f} % of the labelled regions, on the mean of the classes; "
            f"expected more than {100 * (1 / num_classes + ABOVE_CHANCE):.0f} %, which is hardly more than chance. "
            "Describe the classes better (--concepts), or take another model."
        )
    barred = [k for k, value in enumerate(precision.tolist()) if not value >= min_precision]
    if len(barred) == num_classes:
        raise CalibrationError(
            f"No class is right on {100 * min_precision:.0f} % of the labelled regions where the model names it; the "
            f"best one is on {100 * precision.nan_to_num(0).max():.0f} %, so nothing would be purified. Describe the "
            "classes better (--concepts), take another model, or lower --min_precision."
        )
    return Calibration(
        temperature=temperature,
        bias=tuple(bias.detach().tolist()),
        precision=tuple(precision.tolist()),
        accuracy=accuracy,
        answered=share,
        barred=tuple(barred),
    )


def _share(right: Tensor, group: Tensor, groups: int) -> Tensor:
    """Share of `right` in each group; nan in an empty one."""
    return group.bincount(weights=right.double(), minlength=groups) / group.bincount(minlength=groups)
