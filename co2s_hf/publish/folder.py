"""What may go to the Hub: a saved model folder that is complete, readable and holds nothing else."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

CHECKSUMS = "SHA256SUMS"
"""What a training wrote, for `sha256sum -c`: weights, configurations, code; not the card, which is completed later."""

NEEDED = ("config.json", "preprocessor_config.json", "README.md")
BELONGS = (
    r"config\.json|preprocessor_config\.json|README\.md|(LICENSE|NOTICE)(\.\w+)?|SHA256SUMS",
    r"model\.safetensors(\.index\.json)?|model-\d+-of-\d+\.safetensors",
    r"[\w-]+\.(png|jpg|svg)|\.eval_results/[\w.-]+\.yaml|\.gitattributes",
    r"onnx/[\w.-]+\.(onnx|onnx_data|onnx\.data|json)",
)
NEVER_SENT = (".git/", ".cache/huggingface/")  # what git and huggingface_hub keep beside a download

_UNSAFE = {".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
_METADATA = ("library_name", "license", "pipeline_tag")
_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import", re.MULTILINE)


class FolderError(ValueError):
    """A folder that cannot be pushed; the message names it, what is wrong, and the way out."""


def check_folder(folder: Path) -> list[str]:
    """Refuse a folder that users could not load, or that holds what does not belong to a model.

    Args:
        folder: of `save_pretrained`, with its card. Nothing in it is changed, and no weights are loaded.

    Returns:
        The files to send, relative, with forward slashes, sorted.

    Raises:
        FolderError: a file is missing, unreadable or too much; the message says which.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is no folder; expected a saved model, such as runs/quickstart/best.")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(NEVER_SENT)]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise FolderError(
            f"{folder} lacks {', '.join(missing)}; expected the folder of a saved model with its card. Save model and "
            "processor there, or name the folder that a training left."
        )
    code = _code(folder)
    absent = sorted(code - set(names))
    if absent:
        raise FolderError(
            f"{folder} lacks {', '.join(absent)}, which its configuration names: nobody could load it. Import co2s_hf "
            "before save_pretrained: that copies the files."
        )
    _check_weights(folder, names)
    if CHECKSUMS in names:
        verify_checksums(folder)
    _check_card(folder)
    _refuse_strangers(folder, names, code)
    return names


def write_checksums(folder: Path) -> None:
    """Note the SHA-256 of every file of a model folder in `SHA256SUMS`, but of its card, which is completed later."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    text = "".join(f"{_digest(folder / name)}  {name}\n" for name in names if name not in (CHECKSUMS, "README.md"))
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")


def verify_checksums(folder: Path) -> None:
    """Hold a model folder against its `SHA256SUMS`.

    Raises:
        FolderError: a file is missing or has changed, or there are no checksums.
    """
    path = folder / CHECKSUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise FolderError(f"{path} cannot be read ({error}); expected a line `digest  name` for every file.") from error
    for needed in ("config.json", *(file.name for file in folder.glob("*.safetensors"))):
        if needed not in expected:
            raise FolderError(f"{path} lacks {needed}: it is damaged, or of another folder.")
    for name, digest in expected.items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            raise FolderError(
                f"{folder / name} is not what {path} says: it is damaged. Save the model again, or remove "
                f"{CHECKSUMS} if you changed the file yourself."
            )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_strangers(folder: Path, names: Iterable[str], code: set[str]) -> None:
    strangers = [name for name in names if name not in code and not any(re.fullmatch(one, name) for one in BELONGS)]
    if strangers:
        unsafe = [name for name in strangers if Path(name).suffix in _UNSAFE]
        why = f"; {unsafe[0]} may hold a pickle, which runs code when it is opened" if unsafe else ""
        raise FolderError(
            f"{folder} holds {', '.join(strangers[:5])}{' and more' if len(strangers) > 5 else ''}, which is no part "
            f"of a model{why}. Move it elsewhere; checkpoints and optimizer states stay at home."
        )


def _code(folder: Path) -> set[str]:
    """The Python files that loading the folder needs, by the configurations and by their imports."""
    named = {
        f"{entry.rpartition('--')[2].partition('.')[0]}.py"
        for file in ("config.json", "preprocessor_config.json")
        for entry in _strings(folder / file)
    }
    found: set[str] = set()
    while named:
        name = named.pop()
        found.add(name)
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            named |= {f"{module}.py" for module in _IMPORT.findall(text)} - found
    return found


def _strings(path: Path) -> list[str]:
    """What the `auto_map` of a configuration names."""
    auto_map = _read_json(path).get("auto_map") or {}
    found = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    entries = [one for value in found for one in (value if isinstance(value, list) else [value]) if one is not None]
    if not all(isinstance(one, str) for one in entries) or not isinstance(auto_map, dict):
        raise FolderError(f"{path} has an auto_map that names no classes: save the model again.")
    return entries


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path} is no JSON ({error}): save the model again.") from error
    if not isinstance(content, dict):
        raise FolderError(f"{path} holds no JSON object: save the model again.")
    return content


def _check_weights(folder: Path, names: Iterable[str]) -> None:
    """The weights are there, and each file is whole: safetensors holds its header against the size of the file."""
    if (folder / "model.safetensors.index.json").is_file():
        index = folder / "model.safetensors.index.json"
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(one, str) for one in weight_map.values()):
            raise FolderError(f"{index} names no files of weights: save the model again.")
        shards = set(weight_map.values())
    else:
        shards = {"model.safetensors"}
    missing = sorted(shards - set(names))
    if missing:
        raise FolderError(f"{folder} lacks {', '.join(missing)}: save the model with save_pretrained.")
    for shard in sorted(shards):
        try:
            with safe_open(folder / shard, "np"):
                pass
        except SafetensorError as error:
            raise FolderError(f"{folder / shard} is damaged or truncated ({error}): save the model again.") from error


def _check_card(folder: Path) -> None:
    path = folder / "README.md"
    try:
        data = ModelCard(path.read_text(encoding="utf-8")).data
    except Exception as error:  # of a YAML parser or of huggingface_hub's checks, by version
        reason = " ".join(str(error).split())
        raise FolderError(f"{path} starts with metadata that cannot be read ({reason}): mend or remove it.") from error
    missing = [name for name in _METADATA if not data.get(name)]
    if missing:
        raise FolderError(f"{path} states no {', '.join(missing)} in the metadata between its first two --- lines.")
    if data.get("license_name") and not data.get("license_link"):
        raise FolderError(f"{path} names the licence {data.get('license_name')}, but no license_link to it.")
    if data.get("license_name") == "dinov3-license" and not any(folder.glob("LICENSE*")):
        raise FolderError(
            f"{folder} holds a descendant of DINOv3 without LICENSE.md; its licence asks to go with the weights. Put "
            f"the text of {data.get('license_link')} there."
        )


__all__ = ["CHECKSUMS", "FolderError", "check_folder", "verify_checksums", "write_checksums"]
