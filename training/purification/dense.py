"""Scores by similarity of patches: one pass of CLIP's image tower for all regions of a picture."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import CLIPModel

from training.purification.class_bank import ClassBank
from training.purification.regions import count_regions
from training.purification.scorers import Audit, empty_scores
from training.purification.towers import Towers, TransformersTowers


class DenseScorer:
    """Score a region by the mean cosine of its patches with the best word of each class.

    The last block's attention mixes places; its values alone do not, and lie in the joint space as well (MaskCLIP,
    arXiv:2112.01071).

    Args:
        towers: a CLIP in transformers format.
        bank: the classes in words.
        max_side_px: a picture with a larger side is shrunk to it.

    Raises:
        ValueError: the towers are no CLIP in transformers format.
    """

    def __init__(self, towers: Towers, bank: ClassBank, *, max_side_px: int = 1024) -> None:
        """Embed the texts, once."""
        if not isinstance(towers, TransformersTowers) or not isinstance(towers.model, CLIPModel):
            raise ValueError(
                f"{towers.identity['model']} is no CLIP in transformers format, whose last block the dense scorer "
                "reads. Take the dual_encoder scorer, or convert the model."
            )
        self.towers, self.bank, self.max_side_px = towers, bank, max_side_px
        self.model: Any = towers.model
        self.patch_px = int(self.model.config.vision_config.patch_size)
        self.texts = bank.embed(towers.embed_texts)
        self.audit = Audit()

    def parameters(self) -> dict[str, Any]:
        """Give what the scores depend on."""
        return {
            "scorer": "dense",
            **self.towers.identity,
            **self.bank.parameters(),
            "max_side_px": self.max_side_px,
        }

    @torch.no_grad()
    def score(self, image: Tensor, regions: Tensor) -> Tensor:
        """Score the regions (H, W) of a picture (3, H, W); see `Scorer`."""
        self.audit.calls += 1
        count, flat = count_regions(regions), regions.flatten().cpu() + 1
        pixels = flat.bincount(minlength=count + 1)[1:]
        cosines = torch.einsum("pe,ehw->phw", self.texts.rows, self.patch_embeddings(image)).cpu()
        means = []
        for cosine in cosines:  # one word at a time: a large picture times all words would not fit everywhere
            whole = interpolate(cosine[None, None], tuple(image.shape[1:]), mode="bilinear")[0, 0]
            # In float64 and on the CPU the sum is the same every time.
            sums = flat.bincount(weights=whole.flatten().double(), minlength=count + 1)[1:]
            means.append((sums / pixels.clamp(min=1)).float())
        present = pixels > 0
        scores = empty_scores(count, len(self.bank.names))
        if count:
            scores[present] = self.towers.scale * self.texts.class_scores(torch.stack(means, dim=1)[present])
        return scores

    def patch_embeddings(self, image: Tensor) -> Tensor:
        """Embed the patches of a picture (3, H, W) in [0, 1] -> (E, h, w) float32 of length 1."""
        factor = min(1.0, self.max_side_px / max(image.shape[1:]))
        height, width = (max(1, round(side * factor / self.patch_px)) for side in image.shape[1:])
        size = height * self.patch_px, width * self.patch_px
        picture = interpolate(image[None].to(self.towers.device), size, mode="bicubic", antialias=True).clamp(0, 1)
        vision = self.model.vision_model
        tokens = vision.embeddings(self.towers.normalised(picture), interpolate_pos_encoding=True)
        tokens = vision.pre_layrnorm(tokens)
        *blocks, last = vision.encoder.layers
        for block in blocks:
            tokens = block(tokens, attention_mask=None)
        values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(tokens)))
        joint = self.model.visual_projection(vision.post_layernorm(values))[0, 1:]  # (1 + h w, E) -> (h w, E)
        return normalize(joint.float(), dim=1).T.unflatten(1, (height, width))
