"""The `co2s` command: describe a data set, check it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .data.description import TODO, refuse_existing, root_as_seen_from, write_document, write_text
from .data.discover import discover
from .data.report import check_dataset


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (default: that of the process); returns the exit status, 2 where nothing could be done."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ValueError, OSError) as error:
        print(f"co2s: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="co2s", description="Land-cover maps from few masks and much imagery.")
    data = parser.add_subparsers(required=True, metavar="data").add_parser("data", help="describe and check data sets")
    actions = data.add_subparsers(required=True, metavar="init|check")

    init = actions.add_parser("init", help="write the dataset.yaml of a folder of images and masks")
    init.add_argument("folder", type=Path, help="folder of the data set; nothing in it is changed")
    init.add_argument("-o", "--output", type=Path, help="what to write; default: dataset.yaml in the folder")
    init.add_argument("--force", action="store_true", help="replace an existing file")
    init.set_defaults(run=_init)

    check = actions.add_parser("check", help="check a data set; status 1 if it is not fit for training")
    check.add_argument("description", type=Path, help="dataset.yaml")
    check.add_argument("--html", type=Path, help="also write the report as a page")
    check.add_argument("--json", type=Path, help="also write the report for programs, with every finding")
    check.add_argument("--force", action="store_true", help="replace existing reports")
    check.set_defaults(run=_check)
    return parser


def _init(arguments: argparse.Namespace) -> int:
    output = arguments.output or arguments.folder / "dataset.yaml"
    refuse_existing(output, force=arguments.force)
    found = discover(arguments.folder)
    found.document["root"] = root_as_seen_from(output, Path(found.document["root"]))
    write_document(output, found.document, force=arguments.force)
    for note in found.notes:
        print(note)
    todos = sum(TODO in line for line in output.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    print(f"Wrote {output}" + (f"; {todos} lines with {TODO} are for you to fill in." if todos else "."))
    print(f"Next: co2s data check {output}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    outputs = [path for path in (arguments.html, arguments.json) if path is not None]
    for path in outputs:
        refuse_existing(path, force=arguments.force)
    report = check_dataset(arguments.description)
    print(report.to_text(), end="")
    if arguments.html:
        write_text(arguments.html, report.to_html(), force=arguments.force)
    if arguments.json:
        write_text(arguments.json, report.to_json(), force=arguments.force)
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
