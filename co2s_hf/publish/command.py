"""The `co2s` commands that hand a trained model on: `push` to the Hub, `export` to other runtimes."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .export import BATCHES, SIZES, Export, benchmark, export_int8, export_onnx
from .push import push_folder

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `push` and `export` to the `co2s` command."""
    _add_push(commands)
    _add_export(commands)


def _add_push(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    push = commands.add_parser("push", help="send a saved model to the Hub; the same command goes on where it was")
    push.add_argument("folder", type=Path, help="saved model with its card, such as runs/quickstart/best; not changed")
    push.add_argument("repo_id", help="owner/name on the Hub; made where it does not exist")
    push.add_argument("--private", action="store_true", help="visible to its owner only")
    push.add_argument("--message", default="Upload model", help="of the commit")
    push.add_argument("--revision", help="branch; default: main, which users load")
    push.add_argument("--create_pr", action="store_true", help="propose the change instead of making it")
    push.set_defaults(run=_push, resumes=True)


def _add_export(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="write a model as ONNX, or with weights of 8 bits")
    export.add_argument("source", metavar="folder_or_id", help="a saved model, or its name on the Hub")
    export.add_argument("-o", "--output", type=Path, required=True, help="onnx: the file to write; int8: the folder")
    export.add_argument("--format", choices=["onnx", "int8"], required=True, help="what to write")
    export.add_argument("--opset", type=int, help="of ONNX; default: the newest that the exporter knows")
    export.add_argument("--benchmark", action="store_true", help="also time torch, ONNX and int8 on this machine")
    export.add_argument("--force", action="store_true", help="replace an existing output")
    export.set_defaults(run=_export)


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


def _export(arguments: argparse.Namespace) -> int:
    if arguments.format == "onnx":
        made = export_onnx(arguments.source, arguments.output, opset=arguments.opset, force=arguments.force)
    else:
        if arguments.opset is not None:
            raise ValueError("--opset is of --format onnx.")
        made = export_int8(arguments.source, arguments.output, force=arguments.force)
    _report(made)
    if arguments.format == "onnx":
        print("The graph is one pass for any batch, height and width; windows of larger images are the caller's.")
        print(f"Classes and preprocessing: {made.path.with_suffix('.json')}, and in the metadata of the graph.")
    else:
        print("It loads with from_pretrained where torchao is installed.")
    if arguments.benchmark:
        milliseconds = benchmark(arguments.source, onnx=made.path if arguments.format == "onnx" else None)
        for name, value in milliseconds.items():
            print(f"{name:>5}: {value:8.1f} ms for one window on the CPU, {value / milliseconds['torch']:.2f} of torch")
    return 0


def _report(made: Export) -> None:
    sizes = ", ".join(f"{height} x {width}" for height, width in SIZES)
    print(f"Wrote {made.path}: {made.megabytes:.1f} MB, {made.original_megabytes:.1f} MB as float32.")
    print(
        f"Against torch on noise of {sizes} px in batches of {' and '.join(map(str, BATCHES))}: logits differ by at "
        f"most {made.difference:.1e}, {100 * made.agreement:.2f} % of pixels have the same class."
    )


__all__ = ["add_commands"]
