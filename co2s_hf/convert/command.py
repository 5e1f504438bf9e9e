"""The `co2s convert` commands: released checkpoint files to folders that Auto classes and our training load."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from co2s_hf.convert.folders import (
    TOLERANCE,
    Target,
    convert_clip_file,
    convert_co2s_files,
    convert_dino_file,
    convert_dpt_file,
)
from co2s_hf.convert.proof import Proof

if TYPE_CHECKING:
    from argparse import _SubParsersAction

DPT_KINDS = {
    "rs-mtdf": "a file of RS-MTDF; its teachers are left behind",
    "semiearth": "a file of SemiEarth, UniMatch V2 or FixMatch",
}


def add_commands(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `convert` and its kinds of files to the `co2s` command."""
    kinds = commands.add_parser("convert", help="turn released checkpoints into model folders").add_subparsers(
        required=True, metavar="co2s|rs-mtdf|semiearth|clip|dino"
    )
    _add_co2s(kinds)
    for kind, text in DPT_KINDS.items():
        _add_dpt(kinds, kind, text)

    clip = kinds.add_parser("clip", help="a CLIP file of OpenAI (its archive is read, not run) or open_clip")
    clip.add_argument("file", type=Path)
    clip.add_argument(
        "--activation",
        choices=["quick_gelu", "gelu"],
        help="no tensor tells it; default: quick_gelu for OpenAI's archives, gelu for other files",
    )
    clip.add_argument("--vision_num_attention_heads", type=int, help="default: width / 64; 16 for ViT-H and larger")
    clip.add_argument("--text_num_attention_heads", type=int, help="default: width / 64")
    _add_target(clip)
    clip.set_defaults(run=_clip)

    dino = kinds.add_parser("dino", help="a DINOv3 or DINOv2 file of Meta")
    dino.add_argument("file", type=Path)
    dino.add_argument("--num_attention_heads", type=int, help="default: as its positions tell, or width / 64")
    _add_target(dino)
    dino.set_defaults(run=_dino)


def _add_co2s(kinds: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    co2s = kinds.add_parser("co2s", help="the two files of a Co2S")
    co2s.add_argument("--clip", type=Path, required=True, metavar="FILE", help="best_clip.pth")
    co2s.add_argument("--dinov3", type=Path, required=True, metavar="FILE", help="best_dinov3.pth")
    _add_classes(co2s)
    co2s.add_argument("--clip_num_attention_heads", type=int, help="default: width / 64")
    co2s.add_argument("--dinov3_num_attention_heads", type=int, help="default: as its positions tell, or width / 64")
    co2s.add_argument("--clip_logits_size", type=int, help="px that its logits are squeezed through; default: 224")
    co2s.add_argument("--dinov3_logits_size", type=int, help="likewise; default: 256")
    _add_target(co2s)
    co2s.set_defaults(run=_co2s)


def _add_dpt(kinds: "_SubParsersAction[argparse.ArgumentParser]", kind: str, text: str) -> None:
    dpt = kinds.add_parser(kind, help=text)
    dpt.add_argument("file", type=Path)
    dpt.add_argument(
        "--weights",
        choices=["model", "ema"],
        default="model",
        help="student or its moving average; default: model, which RS-MTDF and SemiEarth evaluate; UniMatch V2 and "
        "FixMatch evaluate ema",
    )
    _add_classes(dpt)
    dpt.add_argument("--num_attention_heads", type=int, help="default: width / 64")
    dpt.add_argument("--feature_layers", type=int, nargs=4, help="four 0-based blocks; default: the released ones")
    _add_target(dpt)
    dpt.set_defaults(run=_dpt, kind=kind)


def _add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", nargs="+", help="class names in the order of their ids; default: LABEL_0 ...")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="safetensors file with pixel_values and outputs of the original under the names of the model's own "
        "(logits, clip_logits, dinov3_logits, image_embeds, last_hidden_state); prefixes tell several inputs apart",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"largest absolute difference to it; default: {TOLERANCE:g}. The released Co2S rounds DINOv3's rotary "
        "positions to bfloat16, which alone can make 0.05",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing model folder")


def _target(arguments: argparse.Namespace) -> Target:
    return Target(arguments.output, arguments.reference, arguments.tolerance, arguments.force)


def _finish(proof: Proof, output: Path) -> int:
    print(proof.to_text())
    print(f"Wrote {output}.")
    return 0


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, int]:
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def _co2s(arguments: argparse.Namespace) -> int:
    fields = ("clip_num_attention_heads", "dinov3_num_attention_heads", "clip_logits_size", "dinov3_logits_size")
    proof = convert_co2s_files(
        arguments.clip,
        arguments.dinov3,
        _target(arguments),
        class_names=arguments.classes,
        **_given(arguments, *fields),
    )
    return _finish(proof, arguments.output)


def _dpt(arguments: argparse.Namespace) -> int:
    proof = convert_dpt_file(
        arguments.file,
        _target(arguments),
        kind=arguments.kind,
        weights=arguments.weights,
        class_names=arguments.classes,
        **_given(arguments, "num_attention_heads", "feature_layers"),
    )
    return _finish(proof, arguments.output)


def _clip(arguments: argparse.Namespace) -> int:
    proof = convert_clip_file(
        arguments.file,
        _target(arguments),
        activation=arguments.activation,
        vision_num_attention_heads=arguments.vision_num_attention_heads,
        text_num_attention_heads=arguments.text_num_attention_heads,
    )
    return _finish(proof, arguments.output)


def _dino(arguments: argparse.Namespace) -> int:
    proof = convert_dino_file(arguments.file, _target(arguments), num_attention_heads=arguments.num_attention_heads)
    return _finish(proof, arguments.output)


__all__ = ["add_commands"]
