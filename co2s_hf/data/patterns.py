"""Regular expressions of strangers, such as the `scene_pattern` of a downloaded `dataset.yaml`.

Python's engine tries one way after the other: a few characters can keep it busy for years, and nothing in the process
can stop it. So a pattern is compiled and searched for in a process of its own, which has a time and a memory.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

MAX_CHARACTERS = 500
LIMIT_S = 10.0
LIMIT_S_PER_NAME = 1e-4  # sensible patterns take a hundredth of it

_SEARCH = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass  # not on this system: time is bounded all the same
pattern, names = json.load(sys.stdin)
try:
    compiled = re.compile(pattern)
except (re.error, OverflowError, RecursionError) as error:
    sys.exit(f"it is no regular expression: {error}")
if not compiled.groups:
    sys.exit("it has no group")
found = (compiled.search(name) for name in names)
json.dump([match and match[1] for match in found], sys.stdout)
"""


class PatternError(ValueError):
    """A pattern that cannot be searched for; the message says why."""


def first_groups(pattern: str, names: Sequence[str]) -> list[str | None]:
    """Search for a pattern in names, within bounded time and memory.

    Args:
        pattern: a regular expression as of `re`.
        names: to search in; none at all checks the pattern.

    Returns:
        For each name what the first group holds; None where the pattern or the group is not found.

    Raises:
        PatternError: it is too long, no regular expression, without a group, or takes too long.
    """
    if len(pattern) > MAX_CHARACTERS:
        raise PatternError(f"it has {len(pattern)} characters, more than {MAX_CHARACTERS}")
    limit_s = LIMIT_S + LIMIT_S_PER_NAME * len(names)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],  # nothing of the user's, so that it starts in no time
            input=json.dumps([pattern, list(names)]),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise PatternError(
            f"it takes more than {limit_s:.0f} s; write it without repetitions inside of repetitions"
        ) from None
    if done.returncode:
        raise PatternError((done.stderr.strip().splitlines() or ["it takes too much memory"])[-1])
    groups: list[str | None] = json.loads(done.stdout)
    return groups


__all__ = ["LIMIT_S", "MAX_CHARACTERS", "PatternError", "first_groups"]
