"""The `co2s push` command: a saved model folder to the Hub."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .push import push_folder

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `push` to the `co2s` command."""
    push = commands.add_parser("push", help="send a saved model to the Hub; the same command goes on where it was")
    push.add_argument("folder", type=Path, help="saved model with its card, such as runs/quickstart/best; not changed")
    push.add_argument("repo_id", help="owner/name on the Hub; made where it does not exist")
    push.add_argument("--private", action="store_true", help="visible to its owner only")
    push.add_argument("--message", default="Upload model", help="of the commit")
    push.add_argument("--revision", help="branch; default: main, which users load")
    push.add_argument("--create_pr", action="store_true", help="propose the change instead of making it")
    push.set_defaults(run=_push, resumes=True)


def _push(arguments: argparse.Namespace) -> int:
    pushed = push_folder(
        arguments.folder,
        arguments.repo_id,
        private=arguments.private,
        message=arguments.message,
        revision=arguments.revision,
        create_pr=arguments.create_pr,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(f"{arguments.folder} is {pushed.repo_id}, {pushed.revision}: {pushed.url}")
    return 0


__all__ = ["add_commands"]
