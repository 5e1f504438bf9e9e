"""What the word of a vision-language model does to pseudo-labels, pixel by pixel.

SemiEarth (arXiv:2602.00202) blends the confidence of uncertain pixels with the model's, and corrects their class where
the two disagree. As released neither can lift a pixel over the threshold of the loss, so nothing comes of it. Here a
pixel that the model confirms or corrects is admitted to the loss with a weight of its own.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from training.parts.pseudo_labels import PseudoLabels
from training.purification.regions import RegionSource

Admission = Literal["weight", "threshold"]

BACKGROUND_NAMES = ("background", "clutter", "unknown", "ignore", "other", "unlabelled", "unlabeled")
"""Names of classes that are what is left over: a model that looks at a crop cannot know what belongs to them."""


@dataclass(frozen=True)
class PurifierSettings:
    """Which regions are asked about, and which answers count.

    Attributes:
        source: pixels that regions are made of, see `find_regions`; unused where regions are given.
        boundary_radius_px: half the width of the band along boundaries of pseudo-classes.
        min_area_px: smaller regions are not asked about.
        max_regions: of one picture.
        tau: confidence below which a pixel may be purified.
        t_agree: probability from which the model confirms a pixel's class.
        t_relabel: probability from which it corrects a pixel's class to its own.
        margin: by which its own class must lead the pixel's.
        c_relabel: confidence below which a pixel may be corrected; 0.3 as released.
        veto: let it take confident pixels out of the loss. Only regions that hold such pixels can (source "label" or
            regions that are given).
        t_veto_own: probability of a pixel's class up to which a veto is possible ...
        t_veto_best: ... where that of the model's class is at least this.
        admission: "weight" admits confirmed and corrected pixels whatever their confidence; "threshold" leaves it to
            their new confidence, as the paper's text has it.
        agree_weight: factor on the loss of confirmed pixels, next to their new confidence.
        relabel_weight: the same for corrected pixels.
        lambda_peak: weight of all admitted pixels after the ramp, see `admission_weight`.
        start_step: optimizer step at which the ramp starts.
        ramp_steps: its length.
        background: ids of classes that may be confirmed, but neither correct nor veto another; see `background_ids`.
        barred: ids of classes for which the model's word does not count, as the calibration found.
    """

    source: RegionSource = "boundary"
    boundary_radius_px: int = 8
    min_area_px: int = 64
    max_regions: int = 32
    tau: float = 0.7
    t_agree: float = 0.6
    t_relabel: float = 0.7
    margin: float = 0.3
    c_relabel: float = 0.5
    veto: bool = False
    t_veto_own: float = 0.05
    t_veto_best: float = 0.9
    admission: Admission = "weight"
    agree_weight: float = 1.0
    relabel_weight: float = 1.0
    lambda_peak: float = 0.5
    start_step: int = 0
    ramp_steps: int = 0
    background: tuple[int, ...] = ()
    barred: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse settings that make no sense together or alone."""
        for name, kind in (("source", RegionSource), ("admission", Admission)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}; got '{getattr(self, name)}'")
        for name in ("tau", "t_agree", "t_relabel", "margin", "c_relabel", "t_veto_own", "t_veto_best"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability in [0, 1]")
        if self.tau == 0 or self.t_veto_own >= self.t_veto_best:
            raise ValueError(
                f"tau is {self.tau}, t_veto_own {self.t_veto_own} and t_veto_best {self.t_veto_best}; expected a tau "
                "above 0, and t_veto_own below t_veto_best"
            )
        at_least_0 = ("agree_weight", "relabel_weight", "lambda_peak", "start_step", "ramp_steps", "boundary_radius_px")
        for name, least in (*((name, 0) for name in at_least_0), ("min_area_px", 1), ("max_regions", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} or more")
        if min((0, *self.background, *self.barred)) < 0:
            raise ValueError(f"background is {self.background} and barred {self.barred}, expected class ids from 0")


def background_ids(class_names: tuple[str, ...] | list[str]) -> tuple[int, ...]:
    """Find the ids of the classes that are what is left over, by name.

    >>> background_ids(["Building", "Background", "clutter"])
    (1, 2)
    """
    return tuple(i for i, name in enumerate(class_names) if name.strip().lower() in BACKGROUND_NAMES)


def admission_weight(step: int, *, peak: float = 0.5, start_step: int = 0, ramp_steps: int = 0) -> float:
    """Weight of all admitted pixels: 0 up to `start_step`, then rises to `peak` and stays there.

    lambda(t) = peak min(1, (t - start) / ramp) for t >= start, else 0

    Args:
        step: optimizer step t, from 0.
        peak: final weight, reached at step start + ramp.
        start_step: first step of the ramp.
        ramp_steps: length of the ramp; 0 for `peak` from `start_step` on.

    >>> [admission_weight(step, start_step=2, ramp_steps=4) for step in (0, 2, 4, 6, 100)]
    [0.0, 0.0, 0.25, 0.5, 0.5]
    """
    if step < start_step:
        return 0.0
    return peak if ramp_steps == 0 else peak * min(1.0, (step - start_step) / ramp_steps)


def purify(
    pseudo: PseudoLabels,
    regions: Tensor,
    scores: Tensor,
    *,
    settings: PurifierSettings,
    threshold: float,
    admission_weight: float,
) -> tuple[PseudoLabels, dict[str, Tensor]]:
    """Confirm, correct or doubt the uncertain pseudo-labels of the regions that the model has an opinion on.

    With c the confidence of a pixel, k its class, q the probabilities of its region, k* = argmax q and a = c / tau:
      abstain  q is nan, or k* barred                                     unchanged
      agree    k* = k, q_k >= t_agree                                      c' = a c + (1 - a) q_k, admitted
      relabel  k* != k, q_k* >= t_relabel, q_k* - q_k >= margin, c < c_relabel   k' = k*, c' = q_k*, admitted
      doubt    otherwise                                                   c' = a c + (1 - a) q_k
      veto     c >= threshold, q_k <= t_veto_own, q_k* >= t_veto_best      weight 0
    for c < tau, apart from the veto; where `threshold` is lower than tau it takes its place, because what counts in the
    loss already is not uncertain. An admitted pixel leaves with confidence 1, so that the loss counts it, and with the
    weight lambda w c', where w is `agree_weight` or `relabel_weight`; a doubted one never crosses the threshold.

    With an admission weight of 0, or where everything abstains, every loss is the same to the last bit as without.

    Args:
        pseudo: pseudo-labels (B, H, W) of the weak views.
        regions: (B, H, W) int64 rows of `scores`, -1 for none.
        scores: (B, R, K) float32 probabilities of the K classes; rows of nan where the model abstains.
        settings: which answers count.
        threshold: confidence from which the loss counts a pixel, the same as there.
        admission_weight: lambda of this step, see the function of that name; with 0 nothing is changed.

    Returns:
        The purified pseudo-labels, and shares of the valid pixels as scalars: `low` (c < tau), `asked` (of them, in a
        region), `abstained`, `agreed`, `relabelled`, `doubted`, `vetoed`, and `admitted` to the loss.

    Raises:
        ValueError: the shapes do not belong together, or a class id of the settings is none of the K.
    """
    _check(pseudo, regions, scores, settings)
    confidence, tau = pseudo.confidence, min(settings.tau, threshold)
    own, best, best_class = _opinions(pseudo.label, regions, scores)

    # Comparisons with nan are false.
    opinion = ~best.isnan() & ~_is_one_of(best_class, settings.barred)
    low = pseudo.valid & (confidence < tau)
    asked = low & (regions >= 0)
    same = best_class == pseudo.label
    agree = asked & opinion & same & (own >= settings.t_agree)
    relabel = asked & opinion & ~same & (best >= settings.t_relabel) & (best - own >= settings.margin)
    relabel = relabel & (confidence < settings.c_relabel) & ~_is_one_of(best_class, settings.background)
    doubt = asked & opinion & ~agree & ~relabel
    veto = pseudo.valid & (confidence >= threshold) & opinion & (best >= settings.t_veto_best)
    veto = veto & (own <= settings.t_veto_own) & ~_is_one_of(best_class, settings.background) & settings.veto

    share = confidence / tau
    blended = share * confidence + (1 - share) * own
    if admission_weight == 0:
        purified, admitted = pseudo, torch.zeros_like(agree)
    elif settings.admission == "threshold":
        changed = torch.where(relabel, best, torch.where(agree | doubt, blended, confidence))
        purified = replace(pseudo, label=torch.where(relabel, best_class, pseudo.label), confidence=changed)
        admitted = low & (changed >= threshold)
    else:
        admitted = agree | relabel
        kept = torch.where(doubt & (blended < threshold), blended, confidence)
        weight = torch.ones_like(confidence) if pseudo.weight is None else pseudo.weight
        weight = torch.where(agree, weight * (admission_weight * settings.agree_weight * blended), weight)
        weight = torch.where(relabel, weight * (admission_weight * settings.relabel_weight * best), weight)
        purified = PseudoLabels(
            label=torch.where(relabel, best_class, pseudo.label),
            confidence=torch.where(admitted, 1.0, kept),
            valid=pseudo.valid,
            weight=weight,
        )
    if settings.veto and admission_weight != 0:
        weight = torch.ones_like(confidence) if purified.weight is None else purified.weight
        purified = replace(purified, weight=torch.where(veto, 0.0, weight))

    counted = {
        "low": low,
        "asked": asked,
        "abstained": asked & ~opinion,
        "agreed": agree,
        "relabelled": relabel,
        "doubted": doubt,
        "vetoed": veto,
        "admitted": admitted,
    }
    pixels = pseudo.valid.sum().clamp(min=1)
    return purified, {name: marked.sum() / pixels for name, marked in counted.items()}


def _opinions(label: Tensor, regions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, W) probabilities of the pixels' own classes, highest probabilities, and their classes; nan for none."""
    nothing = scores.new_full((len(scores), 1, scores.shape[2]), torch.nan)
    table = torch.cat((scores, nothing), dim=1)  # (B, R + 1, K), the last row for pixels of no region
    picture = torch.arange(len(table), device=table.device)[:, None, None]
    row = torch.where(regions >= 0, regions, scores.shape[1])
    best, best_class = table.max(dim=2)  # max passes nan on
    return table[picture, row, label], best[picture, row], best_class[picture, row]


def _is_one_of(classes: Tensor, ids: tuple[int, ...]) -> Tensor:
    return torch.isin(classes, torch.tensor(ids, dtype=classes.dtype, device=classes.device))


def _check(pseudo: PseudoLabels, regions: Tensor, scores: Tensor, settings: PurifierSettings) -> None:
    if regions.shape != pseudo.label.shape:
        raise ValueError(f"regions must be {tuple(pseudo.label.shape)} as the labels, got {tuple(regions.shape)}")
    if scores.ndim != 3 or len(scores) != len(regions):
        raise ValueError(f"scores must be (B, R, K) with B = {len(regions)}, got {tuple(scores.shape)}")
    unknown = [class_id for class_id in settings.background + settings.barred if class_id >= scores.shape[2]]
    if unknown:
        raise ValueError(f"background or barred names class {unknown[0]}, but there are {scores.shape[2]} classes")
