"""What a state dict is, by its names: so that a mixed-up file is called by its name and sent to its command."""

import re

from co2s_hf.convert.files import Checkpoint

CLIP_STUDENT = "the CLIP student of a Co2S"
DINOV3_STUDENT = "the DINOv3 student of a Co2S"
RS_MTDF = "an RS-MTDF"
DPT = "a DINOv2 with DPT and no translators (FixMatch, UniMatch V2, SemiEarth)"
CLIP = "a CLIP"
DINOV3 = "a DINOv3"
DINOV2 = "a DINOv2"
HUB = "a model that is in transformers format already"
UNKNOWN = "no checkpoint that is known here"

# Kind, a name that only it has, and what reads it. The first match decides.
SIGNS = (
    (RS_MTDF, r"feature_translator_for_.*", "use `co2s convert rs-mtdf`"),
    (CLIP_STUDENT, r"_cached_text|backbone\.layers\.\d+\.attn\.attn\..*", "use `co2s convert co2s --clip`"),
    (DINOV3_STUDENT, r"(text_provider|decode_head)\..*", "use `co2s convert co2s --dinov3`"),
    (DPT, r"head\.(scratch|projects)\..*", "use `co2s convert semiearth`"),
    (HUB, r"(\w+\.)?(vision_model|text_model|embeddings|encoder)\..*", "name its folder where it is needed"),
    (CLIP, r"visual\..*", "use `co2s convert clip`"),
    (DINOV3, r"(backbone\.)?(storage_tokens|rope_embed\..*)", "use `co2s convert dino`"),
    (DINOV2, r"(backbone\.)?blocks\..*", "use `co2s convert dino`"),
)


def recognise(checkpoint: Checkpoint) -> str:
    """The kind of model in a checkpoint."""
    for kind, sign, _ in SIGNS:
        if any(re.fullmatch(sign, name) for name in checkpoint.tensors):
            return kind
    return UNKNOWN


def expect(checkpoint: Checkpoint, *kinds: str) -> str:
    """The kind of model in a checkpoint, one of `kinds`.

    Raises:
        ValueError: it is another one; says which, and what reads it.
    """
    found = recognise(checkpoint)
    if found in kinds:
        return found
    if {found, *kinds} == {CLIP_STUDENT, DINOV3_STUDENT}:
        way_out = "exchange --clip and --dinov3"
    else:
        ways = {kind: way for kind, _, way in SIGNS}
        way_out = ways.get(found, f"its first tensor is {next(iter(checkpoint.tensors))!r}; name another file")
    raise ValueError(f"{checkpoint.path} holds {found}, expected {' or '.join(kinds)}: {way_out}.")


__all__ = ["expect", "recognise"]
