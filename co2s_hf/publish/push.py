"""Send a saved model folder to the Hub: in one commit, again and again until it is there, or one sentence why not."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .folder import check_folder

ATTEMPTS = 4
FIRST_WAIT_S = 2.0
"""Doubles from attempt to attempt; inside an attempt huggingface_hub repeats most requests, too."""

_PASSING = (408, 425, 429, 500, 502, 503, 504)
# HTTPError of the HTTP library, which is another one in other versions of huggingface_hub.
_TRANSPORT = cast(type[Exception], HfHubHTTPError.__mro__[1])

T = TypeVar("T")
Say = Callable[[str], None]


class PushError(ValueError):
    """The Hub refused, or could not be reached; the message says why and what to do."""


@dataclass(frozen=True)
class Pushed:
    """What a push left on the Hub.

    Attributes:
        repo_id: with the name of its owner.
        revision: branch.
        commit: its number.
        url: page to look at: the commit's, or the pull request's.
    """

    repo_id: str
    revision: str
    commit: str
    url: str


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    message: str = "Upload model",
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    say: Say | None = None,
) -> Pushed:
    """Send a saved model to the Hub in one commit; what the Hub holds already is not sent again.

    Args:
        folder: of `save_pretrained`, with its card; checked before anything is sent, and never changed. In the copy of
            the card that is sent, the examples name `repo_id`.
        repo_id: "owner/name", or "name" for one's own; made where it does not exist.
        private: make it visible to its owner only; refused where it is public already.
        message: of the commit.
        revision: branch, made where it does not exist; default: main, which is what users load.
        create_pr: propose the change instead of making it.
        token: default: that of `hf auth login` or HF_TOKEN.
        endpoint: default: the Hub.
        say: called with a line before each new attempt.

    Returns:
        Where it is.

    Raises:
        FolderError: the folder is incomplete, or holds what is no part of a model.
        PushError: the Hub refused (401, 403, 404, 409, …), or is out of reach after every attempt.
    """
    folder = Path(folder)
    if create_pr and revision not in (None, "main"):
        raise PushError(f"a pull request is for the branch main: leave out the revision {revision}, or the request.")
    names = check_folder(folder)
    api = HfApi(endpoint=endpoint, token=token)

    def attempt() -> Pushed:
        full = _make_repository(api, repo_id, private=private, proposed=create_pr)
        if revision not in (None, "main"):
            api.create_branch(full, branch=str(revision), exist_ok=True)
        commit = api.create_commit(
            full,
            [CommitOperationAdd(name, _content(folder, name, full)) for name in names],
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
        )
        return Pushed(full, revision or "main", commit.oid, commit.pr_url or commit.commit_url)

    return _persist(attempt, f"{repo_id}{'' if revision is None else '@' + revision}", say)


def check_access(
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    say: Say | None = None,
) -> str:
    """Make sure, ahead of long work, that a push will be allowed; makes the repository where it does not exist.

    Returns:
        "owner/name".

    Raises:
        PushError: not logged in, no right to write, no valid name, or out of reach.
    """
    api = HfApi(endpoint=endpoint, token=token)

    def attempt() -> str:
        full = _make_repository(api, repo_id, private=private, proposed=False)
        api.auth_check(full, write=True)
        return full

    return _persist(attempt, repo_id, say)


def _make_repository(api: HfApi, repo_id: str, *, private: bool, proposed: bool) -> str:
    """The full name of a repository, made unless it exists or is only to be proposed to."""
    if proposed:
        return str(api.model_info(repo_id).id)
    full = str(api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id)
    if private and not api.model_info(full).private:
        raise PushError(
            f"{full} is public already, and --private does not change that: make it private in its settings, or "
            "choose another name."
        )
    return full


def _content(folder: Path, name: str, repo_id: str) -> Path | bytes:
    if name != "README.md":
        return folder / name
    return named_card((folder / name).read_text(encoding="utf-8"), repo_id).encode()


def named_card(card: str, repo_id: str) -> str:
    """A card whose examples load the model from the Hub instead of from a folder."""
    example = re.search(r'^folder = "(.*)"  # this folder, or its name on the Hub$', card, re.MULTILINE)
    if example is None:  # a card of somebody's own
        return card
    card = card.replace(example[0], f'folder = "{repo_id}"')
    return card.replace(f'model="{example[1]}"', f'model="{repo_id}"')


def _persist(attempt: Callable[[], T], target: str, say: Say | None) -> T:
    """Try until it works or cannot: what passes by itself (no connection, 429, 5xx) is tried again."""
    wait_s = FIRST_WAIT_S
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except PushError:
            raise
        except (OSError, RuntimeError, ValueError, _TRANSPORT) as error:
            if not _passes(error):
                raise PushError(_sentence(error, target)) from error
            if number == ATTEMPTS:
                raise PushError(
                    f"{target} was not reached in {ATTEMPTS} attempts ({_short(error)}). What is there stays there: "
                    "the same command goes on."
                ) from error
            if say is not None:
                say(f"{target}: {_short(error)}; again in {wait_s:.0f} s")
            time.sleep(wait_s)
            wait_s *= 2
    raise AssertionError("unreachable")


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from: huggingface_hub wraps what happens in its threads."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__
    return found


def _status(error: BaseException) -> int | None:
    codes = [one.response.status_code for one in _chain(error) if isinstance(one, HfHubHTTPError)]
    return codes[0] if codes else None


def _passes(error: BaseException) -> bool:
    """Whether the same may work in a moment."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = _status(error)
    if status is not None:
        return status in _PASSING
    # xet's own errors are plain ConnectionError and RuntimeError; files that cannot be read are other OSErrors.
    return any(isinstance(one, (_TRANSPORT, ConnectionError, TimeoutError)) for one in _chain(error)) or isinstance(
        error, RuntimeError
    )


def _sentence(error: BaseException, target: str) -> str:
    """What is wrong, and the way out."""
    status = _status(error)
    if isinstance(error, ValueError) and not isinstance(error, HFValidationError):  # of the card, by the Hub
        return f"the Hub refused {target}: {' '.join(str(error).split())}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{target} cannot be reached while HF_HUB_OFFLINE is set: unset it."
    if isinstance(error, HFValidationError):
        return f"{target} is no name on the Hub; expected owner/name of letters, digits, dashes, dots, underscores."
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return (
            f"the Hub does not know you (401 for {target}): log in with `hf auth login`, or set HF_TOKEN to a token "
            "that may write and is still valid."
        )
    ways = {
        403: "your token may not write there: take one with write access, a name of your own, or --create_pr.",
        404: "it is not on the Hub, or your token does not see it: check the spelling and the revision.",
        409: "somebody else changed it at the same moment: the same command goes on.",
        413: "a file is larger than the Hub takes: save the model in shards.",
    }
    if status in ways:
        return f"the Hub refused {target} ({status}): {ways[status]}"
    if status is not None:
        return f"the Hub refused {target} ({_short(error)})."
    return f"{target} was not pushed: {_short(error)}"


def _short(error: BaseException) -> str:
    """One line of an error: the status, or the innermost reason."""
    status = _status(error)
    if status is not None:
        return f"status {status}"
    reason = " ".join(str(_chain(error)[-1]).split())
    return reason[:200] or type(error).__name__


__all__ = ["PushError", "Pushed", "check_access", "named_card", "push_folder"]
