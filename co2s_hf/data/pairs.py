"""Which mask belongs to which image, where their names differ: in letter case, or by what stands before or behind."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TOKENS = 2  # of a head or tail: "_mask", "_gt_color"


@dataclass(frozen=True)
class Affix:
    """What all names of a kind have before (`head`) or behind (`tail`) what an image and its mask have in common."""

    head: str = ""
    tail: str = ""

    def strip(self, stem: str) -> str | None:
        """What is left of a name without suffix; None where the affix is not there."""
        if not (stem.startswith(self.head) and stem.endswith(self.tail)):
            return None
        return stem[len(self.head) : len(stem) - len(self.tail)] or None

    def glob(self, folder: str, suffix: str, *, nested: bool) -> str:
        """The glob of such files: `labels/*_color.png`."""
        return "/".join(
            [*([] if folder == "." else [folder]), *(["**"] if nested else []), f"{self.head}*{self.tail}{suffix}"]
        )


def common_affixes(images: Sequence[str], masks: Sequence[str]) -> list[tuple[Affix, Affix]]:
    """Affixes of images and of masks by which most names of the rarer kind find their twin.

    Args:
        images, masks: Places below their folders without suffixes.

    Returns:
        The best pair, of images and of masks; then others that fit as well and are of other masks. None where names
        have nothing in common.
    """
    found: Counter[tuple[Affix, Affix]] = Counter()
    for of_images in _candidates(images) if len(images) > 1 else [Affix()]:
        stripped = _stripped(images, of_images)
        for of_masks in _candidates(masks):
            found[of_images, of_masks] = len(stripped & _stripped(masks, of_masks))
    best = max(found.values(), default=0)
    if best < max(min(len(images), len(masks)) / 2, 1):
        return []
    chosen: list[tuple[Affix, Affix]] = []
    taken: set[str] = set()
    for pair in sorted((pair for pair, count in found.items() if count == best), key=_length):
        of_pair = {stem for stem in masks if pair[1].strip(stem.rpartition("/")[2]) is not None}
        if not of_pair & taken:
            chosen.append(pair)
            taken |= of_pair
    return chosen


def looks_like(stem: str, others: Iterable[str]) -> str | None:
    """Say how a place below a folder differs from the nearest of others; None where no other is near."""
    others = list(others)
    same = next((one for one in others if one.casefold() == stem.casefold() and one != stem), None)
    if same is not None:
        return f"{same} differs in letter case only"
    held = [one for one in others if re.search(rf"(?<![^\W_]){re.escape(one)}(?![^\W_])", stem) and one != stem]
    if held:
        return f"{max(held, key=len)} is part of the name: give a glob such as masks: labels/*_mask.png"
    return None


def _candidates(stems: Sequence[str]) -> list[Affix]:
    """No affix, and the heads and tails that at least a quarter of the names share."""
    heads: Counter[str] = Counter()
    tails: Counter[str] = Counter()
    for stem in stems:
        name = stem.rpartition("/")[2]
        cuts = [match.start() for match in re.finditer(r"[_.\- ]", name)]
        heads.update(name[: cut + 1] for cut in cuts[:_TOKENS] if cut)
        tails.update(name[cut:] for cut in cuts[-_TOKENS:] if cut < len(name) - 1)
    common = max(len(stems) / 4, 1)
    # A number behind a name counts tiles; it says nothing about what a file is.
    return [
        Affix(),
        *(Affix(head=head) for head, count in heads.items() if count >= common and not head[:-1].isdecimal()),
        *(Affix(tail=tail) for tail, count in tails.items() if count >= common and not tail[1:].isdecimal()),
    ]


def _stripped(stems: Sequence[str], affix: Affix) -> set[str]:
    places = (stem.rpartition("/") for stem in stems)
    return {f"{folder}/{left}" for folder, _, name in places if (left := affix.strip(name)) is not None}


def _length(pair: tuple[Affix, Affix]) -> int:
    return sum(len(affix.head) + len(affix.tail) for affix in pair)


__all__ = ["Affix", "common_affixes", "looks_like"]
