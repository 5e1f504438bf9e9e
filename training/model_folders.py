"""Model folders that a run leaves: whole or not there, with checksums that pushes, evaluations and resumes look at."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from co2s_hf.data.folders import DataSplit
from co2s_hf.image_processing_co2s import Co2SImageProcessor
from co2s_hf.publish.card import write_card
from co2s_hf.publish.folder import FolderError, verify_checksums, write_checksums
from training.guards import writing
from training.records import card_facts


def save_model(
    accelerator: Accelerator,
    model: nn.Module,
    folder: Path,
    arguments: argparse.Namespace,
    split: DataSplit,
    state: dict[str, Any],
) -> None:
    """Write the model folder (weights, config, code, processor, card, checksums), whole or not at all.

    Raises:
        RunError: on every process, where the main one could not write.
    """
    state_dict = accelerator.get_state_dict(model)  # gathers shards, so every process takes part
    with writing(accelerator, str(folder)):
        if accelerator.is_main_process:
            unfinished, old = _beside(folder, "tmp"), _beside(folder, "old")
            for leftover in (unfinished, old):
                shutil.rmtree(leftover, ignore_errors=True)
            bare = accelerator.unwrap_model(model)
            bare.save_pretrained(unfinished, state_dict=state_dict)
            Co2SImageProcessor(image_mean=bare.config.image_mean, image_std=bare.config.image_std).save_pretrained(
                unfinished
            )
            write_card(unfinished, card_facts(arguments, split, state["history"][-1], state["seconds"]))
            write_checksums(unfinished)
            if folder.exists():
                folder.rename(old)
            unfinished.rename(folder)
            shutil.rmtree(old, ignore_errors=True)


def recover_model(folder: Path, say: Callable[[str], None]) -> bool:
    """Bring back a folder that was about to be replaced when its run was killed; say whether there is a whole one."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    try:
        verify_checksums(folder)
    except FolderError as error:
        say(f"warning: {error} The next evaluation writes another one.")
        return False
    return True


def complete_cards(output: Path, arguments: argparse.Namespace, split: DataSplit, state: dict[str, Any]) -> None:
    """Put the pictures of the finished run on the cards; the panel shows the last model, so only where it is."""
    curves, panel = {output / "curves.png": "Scores and losses of the run"}, {output / "panel.png": "Validation images"}
    last = state["history"][-1]
    write_card(output / "model", card_facts(arguments, split, last, state["seconds"]), {**panel, **curves})
    best = next((row for row in state["history"] if row["step"] == state.get("best_step")), None)
    if best is not None:
        pictures = {**panel, **curves} if best is last else curves
        write_card(output / "best", card_facts(arguments, split, best, state.get("best_seconds")), pictures)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


__all__ = ["complete_cards", "recover_model", "save_model"]
