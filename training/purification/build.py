"""From names to a scorer."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from training.purification.answering import AnsweringModel
from training.purification.class_bank import ClassBank
from training.purification.crops import CropOptions
from training.purification.dense import DenseScorer
from training.purification.dual_encoder import DualEncoderScorer
from training.purification.generative import GenerativeScorer, Reading
from training.purification.grounding import BoxSegmenter, Frame, GroundingScorer
from training.purification.scorers import Scorer
from training.purification.towers import load_towers

ScorerKind = Literal["dual_encoder", "dense", "generative", "grounding"]


def build_scorer(
    kind: ScorerKind,
    vlm: str,
    bank: ClassBank,
    *,
    revision: str | None = None,
    open_clip_model: str | None = None,
    sam: str | None = None,
    crops: CropOptions | None = None,
    reading: Reading = "logits",
    orderings: int = 2,
    frame: Frame | None = None,
    background: Sequence[int] = (),
    max_side_px: int = 1024,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> Scorer:
    """Load a vision-language model and what asks it.

    Args:
        kind: "dual_encoder" compares crops with texts, "dense" patches with texts, "generative" asks for the class of
            every region, "grounding" for the boxes of every class.
        vlm: folder or Hub id in transformers format; for "dual_encoder" also a checkpoint file of open_clip.
        bank: the classes in words.
        revision: of the Hub id.
        open_clip_model: architecture of a checkpoint file.
        sam: folder or Hub id of the SAM that makes masks of boxes; None for the boxes themselves. "grounding" only.
        crops: how regions are shown. Not for "dense" and "grounding".
        reading: of the answers, see `GenerativeScorer`.
        orderings: of the options, see there.
        frame: of the coordinates, see `GroundingScorer`.
        background: ids of classes that are not asked to be boxed.
        max_side_px: for "dense", see `DenseScorer`.
        batch_size: regions at a time.
        device: where the models compute.

    Raises:
        ValueError: the kind is unknown, or a model is missing or of another kind.
    """
    if kind not in get_args(ScorerKind):
        raise ValueError(f"the scorer must be one of {', '.join(get_args(ScorerKind))}; got '{kind}'")
    if kind in ("dual_encoder", "dense"):
        towers = load_towers(vlm, revision, open_clip_model=open_clip_model, device=device)
        if kind == "dense":
            return DenseScorer(towers, bank, max_side_px=max_side_px)
        return DualEncoderScorer(towers, bank, crops=crops, batch_size=batch_size)
    model = AnsweringModel(vlm, revision, device)
    if kind == "generative":
        return GenerativeScorer(model, bank, crops=crops, reading=reading, orderings=orderings, batch_size=batch_size)
    segmenter = None if sam is None else BoxSegmenter(sam, device=device)
    return GroundingScorer(model, segmenter, bank, frame=frame, skipped=background)
