"""Released files to model folders: read, convert, write, load again, prove."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel
from transformers.utils import logging

from co2s_hf.convert import clip as clip_files
from co2s_hf.convert import co2s as co2s_files
from co2s_hf.convert import dino as dino_files
from co2s_hf.convert import dinov2_dpt as dpt_files
from co2s_hf.convert import kinds
from co2s_hf.convert.cards import card
from co2s_hf.convert.clip_tokenizer import NUM_WORDS, clip_tokenizer
from co2s_hf.convert.files import Checkpoint, check_output, read_checkpoint, write_folder
from co2s_hf.convert.proof import FileUse, Proof, compare_outputs, compare_tensors, prove, trace
from co2s_hf.image_processing_co2s import Co2SImageProcessor

MODEL_PARTS = ("model", "state_dict", "student")
AVERAGE_PARTS = ("model_ema", "ema", "teacher")
DINO_PARTS = ("teacher", "model", "state_dict")  # Meta evaluates the teacher of its training
TOLERANCE = 1e-3  # of logits around 10, in float32
OPENAI_ACTIVATION, OPEN_CLIP_ACTIVATION = "quick_gelu", "gelu"
RELEASED_GRID = 14


@dataclass(frozen=True)
class Target:
    """Where a model folder goes and what it has to agree with.

    Attributes:
        output: the folder.
        reference: a file of recorded outputs, see `compare_outputs`.
        tolerance: how much outputs may differ from them.
        force: replace an existing model folder.
    """

    output: Path
    reference: Path | None = None
    tolerance: float = TOLERANCE
    force: bool = False


def convert_co2s_files(
    clip: Path, dinov3: Path, target: Target, *, class_names: Sequence[str] | None = None, **overrides: Any
) -> Proof:
    """One model folder from the two files of a released Co2S.

    Args:
        clip: file of the CLIP student.
        dinov3: file of the DINOv3 student.
        target: see there.
        class_names: in the order of the ids; default `LABEL_0`, ...
        overrides: see `co2s_hf.convert.co2s.convert_official`.

    Raises:
        ValueError: a file is damaged, another one, or holds more than data; the two do not fit together; a tensor is
            missing or has no place; the outputs differ from the reference. Nothing is written then.
    """
    check_output(target.output, force=target.force)
    first, second = (read_checkpoint(path, MODEL_PARTS) for path in (clip, dinov3))
    kinds.expect(first, kinds.CLIP_STUDENT)
    kinds.expect(second, kinds.DINOV3_STUDENT)
    with _naming(f"{clip} with {dinov3}"):
        model = co2s_files.convert_official(first.tensors, second.tensors, class_names=class_names, **overrides)
        uses = [
            trace(str(first), first.tensors, co2s_files.convert_clip_tensors, ()),
            trace(str(second), second.tensors, co2s_files.convert_dinov3_tensors, co2s_files.DINOV3_DROPPED),
        ]
    return _write(model, uses, _co2s_findings(model, second), "co2s", target)


def convert_dpt_file(
    file: Path,
    target: Target,
    *,
    kind: Literal["rs-mtdf", "semiearth"],
    weights: Literal["model", "ema"] = "model",
    class_names: Sequence[str] | None = None,
    **overrides: Any,
) -> Proof:
    """A model folder from the file of a released RS-MTDF, SemiEarth, UniMatch V2 or FixMatch.

    Args:
        file: a checkpoint of the training, or the state dict alone.
        target: see there.
        kind: RS-MTDF has translators, the others have none.
        weights: the student, which the papers of RS-MTDF and SemiEarth evaluate, or its moving average, which UniMatch
            V2 and FixMatch do.
        class_names: in the order of the ids; default `LABEL_0`, ...
        overrides: see `co2s_hf.convert.dinov2_dpt.convert_official`.

    Raises:
        ValueError: as for `convert_co2s_files`.
    """
    check_output(target.output, force=target.force)
    checkpoint = read_checkpoint(file, AVERAGE_PARTS if weights == "ema" else MODEL_PARTS)
    kinds.expect(checkpoint, kinds.RS_MTDF if kind == "rs-mtdf" else kinds.DPT)
    if weights == "ema" and not checkpoint.part:
        raise ValueError(f"{file} holds one set of weights and no moving average: leave out --weights ema.")
    with _naming(str(file)):
        model = dpt_files.convert_official(checkpoint.tensors, class_names=class_names, **overrides)
        use = trace(str(checkpoint), checkpoint.tensors, dpt_files.convert_tensors, dpt_files.DROPPED_BECAUSE)
    return _write(model, [use], _dpt_findings(model, checkpoint, weights), kind, target)


def convert_clip_file(
    file: Path, target: Target, *, activation: Literal["quick_gelu", "gelu"] | None = None, **heads: int | None
) -> Proof:
    """A folder of transformers' CLIP from a file of OpenAI or open_clip; of its vision tower alone if it has no other.

    Args:
        file: an archive of OpenAI, whose code is not run, or a state dict.
        target: see there.
        activation: default "quick_gelu" for OpenAI's archives and their state dicts, "gelu" for all others.
        heads: see `co2s_hf.convert.clip.convert_official`.

    Raises:
        ValueError: as for `convert_co2s_files`.
    """
    check_output(target.output, force=target.force)
    checkpoint = read_checkpoint(file, ("state_dict", "model"))
    kinds.expect(checkpoint, kinds.CLIP)
    by_openai = checkpoint.is_torchscript or clip_files.is_openai(checkpoint.tensors)
    used = activation or (OPENAI_ACTIVATION if by_openai else OPEN_CLIP_ACTIVATION)
    with _naming(str(file)):
        model = clip_files.convert_official(checkpoint.tensors, activation=used, **heads)
        use = trace(str(checkpoint), checkpoint.tensors, clip_files.convert_tensors, clip_files.DROPPED)
    by = "as you said" if activation else f"as in files of {'OpenAI' if by_openai else 'open_clip'}"
    other = "gelu" if used == "quick_gelu" else "quick_gelu"
    findings = [f"Activation: {used}, {by}; no tensor tells it, and --activation {other} computes something else."]
    if not clip_files.has_text_tower(checkpoint.tensors):
        findings.append("The file has no text tower: class texts need one from elsewhere.")
    elif model.config.text_config.vocab_size != NUM_WORDS:
        words = model.config.text_config.vocab_size
        findings.append(f"Its {words} words are not CLIP's: put its tokenizer.json into the folder for class texts.")
    return _write(model, [use], findings, "openai_clip" if by_openai else "open_clip", target)


def convert_dino_file(file: Path, target: Target, *, num_attention_heads: int | None = None) -> Proof:
    """A folder of transformers' DINOv3 or DINOv2 from a file of Meta.

    Args:
        file: a state dict, or a checkpoint of Meta's training, of which the teacher is taken.
        target: see there.
        num_attention_heads: see `co2s_hf.convert.dino.convert_official`.

    Raises:
        ValueError: as for `convert_co2s_files`.
    """
    check_output(target.output, force=target.force)
    checkpoint = read_checkpoint(file, DINO_PARTS)
    kinds.expect(checkpoint, kinds.DINOV3, kinds.DINOV2)
    with _naming(str(file)):
        model = dino_files.convert_official(checkpoint.tensors, num_attention_heads=num_attention_heads)
        use = trace(str(checkpoint), checkpoint.tensors, dino_files.convert_tensors, dino_files.DROPPED)
    config = model.config
    finding = (
        f"It is a {config.model_type} of width {config.hidden_size}, {config.num_hidden_layers} blocks, "
        f"{config.num_attention_heads} heads and {getattr(config, 'num_register_tokens', 0)} registers."
    )
    card_kind = "dinov3" if config.model_type == "dinov3_vit" else "dinov2"
    return _write(model, [use], [finding], card_kind, target)


def _write(
    model: PreTrainedModel, uses: Sequence[FileUse], findings: Sequence[str], card_kind: str, target: Target
) -> Proof:
    proof = prove(uses, model, findings)

    def write(folder: Path) -> None:
        nonlocal proof
        model.save_pretrained(folder)
        if card_kind in ("co2s", "rs-mtdf", "semiearth"):
            mean, std = model.config.image_mean, model.config.image_std
            Co2SImageProcessor(image_mean=mean, image_std=std).save_pretrained(folder)
        elif getattr(model.config, "text_config", None) and model.config.text_config.vocab_size == NUM_WORDS:
            clip_tokenizer().save_pretrained(folder)
        again = type(model).from_pretrained(folder).eval()
        proof = replace(proof, reloaded=compare_tensors(model, again))
        if target.reference is not None:
            proof = replace(proof, agreement=compare_outputs(again, target.reference, target.tolerance))
        (folder / "README.md").write_text(card(target.output.name, card_kind, proof), encoding="utf-8")

    with _quiet():
        write_folder(target.output, write, force=target.force)
    return proof


def _co2s_findings(model: PreTrainedModel, dinov3: Checkpoint) -> list[str]:
    scales = [value for name, value in dinov3.tensors.items() if name.endswith(".gamma")]
    low, high = min(float(value.min()) for value in scales), max(float(value.max()) for value in scales)
    if co2s_files.pretraining_overwritten(dinov3.tensors):
        carried = (
            "The DINOv3 student does NOT carry its pretraining: every value of its LayerScale is exactly 1e-5, as the "
            "released training leaves it where it overwrote the backbone with random weights."
        )
    else:
        carried = (
            f"The DINOv3 student still carries its pretraining: the values of its LayerScale lie between {low:.3g} and "
            f"{high:.3g}; the released training sets all to 1e-5 where it overwrites the backbone."
        )
    vision = model.config.clip_config
    grid = vision.image_size // vision.patch_size
    kept = "that of OpenAI's CLIP, kept because the released training skips its change to the crop"
    positions = (
        f"CLIP's positions are a grid of {grid} x {grid} patches ({vision.image_size} px)"
        f"{', ' + kept if grid == RELEASED_GRID else ''}; DINOv3 has none. "
        f"Logits pass through {model.config.clip_logits_size} px (CLIP) and {model.config.dinov3_logits_size} px "
        "(DINOv3): no tensor tells these two."
    )
    if grid != RELEASED_GRID:
        positions += (
            f" A training that did change the grid used its {vision.image_size} px there, too: --clip_logits_size and "
            "--dinov3_logits_size."
        )
    return [carried, positions]


def _dpt_findings(model: PreTrainedModel, checkpoint: Checkpoint, weights: str) -> list[str]:
    grid = model.config.backbone_config.image_size // model.config.backbone_config.patch_size
    positions = f"Its positions are a grid of {grid} x {grid} patches ({model.config.backbone_config.image_size} px)."
    if weights == "ema":
        return [positions, "Taken is the moving average, which UniMatch V2 and FixMatch evaluate."]
    if set(AVERAGE_PARTS) & set(checkpoint.left):
        taken = (
            "Taken is the student, which RS-MTDF and SemiEarth evaluate; the file also holds its moving average, which "
            "UniMatch V2 and FixMatch evaluate: --weights ema."
        )
        return [positions, taken]
    return [positions]


@contextmanager
def _naming(files: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{files}: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of loading and saving."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


__all__ = [
    "Target",
    "convert_clip_file",
    "convert_co2s_files",
    "convert_dino_file",
    "convert_dpt_file",
]
