"""README.md of a converted folder: where it is from, under which licence, and its proof."""

from typing import Any

from huggingface_hub import ModelCardData

from co2s_hf.convert.proof import Proof

DINOV3: dict[str, Any] = {
    "license": "other",
    "license_name": "dinov3-license",
    "license_link": "https://ai.meta.com/resources/models-and-libraries/dinov3-license",
}
SEGMENTATION = "image-segmentation"
CHECK = "Its makers' terms for what they trained apply: check them before you use or share it."

# Kind -> licence fields, task, and the sentence about the licence.
KINDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "co2s": (
        DINOV3,
        SEGMENTATION,
        "The DINOv3 student descends from Meta's DINOv3 and falls under the DINOv3 License; the CLIP student descends "
        f"from OpenAI's CLIP (MIT). {CHECK}",
    ),
    "rs-mtdf": ({"license": "other"}, SEGMENTATION, f"It descends from Meta's DINOv2 (Apache-2.0). {CHECK}"),
    "semiearth": ({"license": "other"}, SEGMENTATION, f"It descends from Meta's DINOv2 (Apache-2.0). {CHECK}"),
    "openai_clip": ({"license": "mit"}, "zero-shot-image-classification", "OpenAI's CLIP is MIT."),
    "open_clip": ({"license": "other"}, "zero-shot-image-classification", CHECK),
    "dinov3": (DINOV3, "image-feature-extraction", "Meta's DINOv3 falls under the DINOv3 License."),
    "dinov2": ({"license": "apache-2.0"}, "image-feature-extraction", "Meta's DINOv2 is Apache-2.0."),
}


def card(name: str, kind: str, proof: Proof) -> str:
    """The card of a folder called `name`; it states nothing but the licence and what the proof found."""
    fields, task, sentence = KINDS[kind]
    front_matter = ModelCardData(library_name="transformers", pipeline_tag=task, **fields).to_yaml().strip()
    return (
        f"---\n{front_matter}\n---\n\n# {name}\n\nConverted with co2s_hf.\n\n```\n{proof.to_text()}\n```\n\n"
        f"## License\n\n{sentence}\n"
    )


__all__ = ["card"]
