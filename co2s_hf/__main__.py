"""The `co2s` command: every sub-folder with something to run adds its commands here."""

import argparse
import sys
from collections.abc import Sequence

from .convert import command as convert
from .data import command as data
from .geo import command as geo
from .publish import command as publish


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (default: that of the process); returns the exit status, 2 where nothing could be done."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError) as error:
        print(f"co2s: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"co2s: interrupted{'; the same command goes on' if arguments.resumes else ''}", file=sys.stderr)
        return 130  # as shells count it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="co2s", description="Land-cover maps from few masks and much imagery.")
    parser.set_defaults(resumes=False)
    commands = parser.add_subparsers(required=True, metavar="command")
    data.add_commands(commands)
    convert.add_commands(commands)
    geo.add_commands(commands)
    publish.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
