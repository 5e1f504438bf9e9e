"""How messages name many things at once."""

from collections.abc import Sequence
from typing import Any

SHOWN = 5
"""Names, values or findings in one message."""


def some(items: Sequence[Any], shown: int = SHOWN) -> str:
    """Name the first few and count the rest.

    >>> some(range(7))
    '0, 1, 2, 3, 4 and 2 more'
    """
    named = ", ".join(str(item) for item in items[:shown])
    return f"{named} and {len(items) - shown} more" if len(items) > shown else named
