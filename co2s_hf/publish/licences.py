"""Under which terms weights may be shared: those of the weights they started from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DINOV3_LICENSE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license"

# Only where the makers state it for every model whose name on the Hub starts like this.
_KNOWN = {"openai/clip-": ("mit", "MIT"), "facebook/dinov2-": ("apache-2.0", "Apache-2.0")}
_DINOV3 = "DINOv3 License"


@dataclass(frozen=True)
class Parent:
    """A model whose weights are part of this one.

    Attributes:
        name: its name on the Hub, or a local path, of which the card shows the last part only.
        model_type: as in its config.json, e.g. "clip" or "dinov3_vit"; decides on the licence.
        licence_text: of the licence file that came with it; None where there is none.
    """

    name: str
    model_type: str
    licence_text: str | None = None

    @property
    def is_on_hub(self) -> bool:
        """Whether the name is one on the Hub."""
        return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", self.name) is not None and not Path(self.name).exists()

    @property
    def shown(self) -> str:
        """The name without what it tells about a machine."""
        return self.name if self.is_on_hub else Path(self.name).name

    @property
    def licence(self) -> tuple[str, str] | None:
        """Its licence, as the Hub and as people write it; None where nobody stated it."""
        if self.model_type.startswith("dinov3"):
            return "dinov3-license", _DINOV3
        return next((known for start, known in _KNOWN.items() if self.name.startswith(start)), None)


def licence_fields(parents: tuple[Parent, ...]) -> dict[str, Any]:
    """Fields `license`, `license_name` and `license_link` of the metadata of a card."""
    licences = [parent.licence for parent in parents]
    names = {one[0] for one in licences if one is not None}
    if "dinov3-license" in names:
        return {"license": "other", "license_name": "dinov3-license", "license_link": DINOV3_LICENSE}
    if None in licences:
        return {"license": "other"}
    return {"license": "mit" if names == {"mit"} else "apache-2.0"}


def licence_section(parents: tuple[Parent, ...]) -> str:
    """What a card says about its licence."""
    if not parents:
        return "Apache-2.0, weights and code: no pretrained weights went into this model."
    lines = [f"The weights derive from {', '.join(f'`{parent.shown}`' for parent in parents)}.", ""]
    for parent in parents:
        terms = parent.licence[1] if parent.licence else "check its licence before you use or share these weights"
        lines.append(f"- `{parent.shown}`: {terms}")
    if any(parent.licence and parent.licence[1] == _DINOV3 for parent in parents):
        lines += [
            "",
            f"Its DINOv3 parts and what was trained on them fall under the [DINOv3 License]({DINOV3_LICENSE}), see "
            "[LICENSE.md](LICENSE.md); the other parts keep their own licence.",
        ]
    return "\n".join([*lines, "", "The code is Apache-2.0."])


def licence_file(parents: tuple[Parent, ...]) -> str | None:
    """LICENSE.md of a descendant of DINOv3, whose licence wants to be handed on; None for others."""
    bound = [parent for parent in parents if parent.licence and parent.licence[1] == _DINOV3]
    if not bound:
        return None
    text = (
        "# Licence of these weights\n\n"
        f"These weights derive from {', '.join(f'`{parent.shown}`' for parent in bound)}, which fall under the DINOv3 "
        f"License: {DINOV3_LICENSE}\n\nThat agreement binds everybody who uses or shares these weights, and asks that "
        "a copy of it goes with them.\n"
    )
    copies = dict.fromkeys(parent.licence_text for parent in bound if parent.licence_text)
    if not copies:
        return f"{text}No copy came with the weights that the training started from: the link above leads to it.\n"
    return "\n---\n\n".join([text, *copies])


def find_licence_text(name: str) -> str | None:
    """The licence file of a model in a folder, or of one that was loaded from the Hub; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("LICENSE.md", "LICENSE", "LICENSE.txt"):
        path = Path(name) / file
        if not path.is_file() and not Path(name).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            cached = try_to_load_from_cache(name, file)
            path = Path(cached) if isinstance(cached, str) else path
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


__all__ = ["DINOV3_LICENSE", "Parent", "find_licence_text", "licence_fields", "licence_file", "licence_section"]
