"""What is generated at all: numbers, texts and nested junk; and what a target of it is."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.faults.judge import Row

Try = Callable[[Row, Any], None]


@dataclass(frozen=True)
class Target:
    """Inputs, and what takes them: `prepare` gets a folder and gives what tries one of the inputs."""

    inputs: st.SearchStrategy[Any]
    prepare: Callable[[Path], Try]
    weight: int


# ---------------------------------------------------------------------------------------------------------------------
# Anything
# ---------------------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([255, 256, 65535, 65536, 2**31, 2**63, 2**64, 10**12, 10**400, -1, 0]),
    st.floats(),
)
JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.text(max_size=12), st.sampled_from(["", "TODO", "\0", "../..", "/"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def shown(value: Any) -> str:
    return repr(value) if len(repr(value)) < 200 else f"{repr(value)[:100]}... ({len(repr(value))})"


def changed(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The document with one to three of its values, at any depth, replaced by junk, or removed, or new keys."""

    @st.composite
    def draw(give: Any) -> dict[str, Any]:
        made = json.loads(json.dumps(document))
        for _ in range(give(st.integers(1, 3))):
            place, parents = made, []
            while isinstance(place, (dict, list)) and place and (not parents or give(st.booleans())):
                key = give(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
                parents.append((place, key))
                place = place[key]
            holder, key = parents[-1]
            if isinstance(holder, dict) and give(st.integers(0, 5)) == 0:
                del holder[key]
            else:
                holder[key] = give(JUNK)
            if not made:
                break
        return made

    return draw()
