"""What a run says about itself: who made the numbers, and the facts for the card of its model."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from co2s_hf.data import hub, prepare
from co2s_hf.data.band_statistics import BandStatistics
from co2s_hf.data.folders import DataSplit, Sample
from co2s_hf.data.images import read_image_and_valid
from co2s_hf.pretrained_backbones import RGB
from co2s_hf.publish.card import CardFacts, DataFacts
from co2s_hf.publish.licences import Parent, find_licence_text
from training.models import backbones, text_source

LOOKED_AT = 64  # images whose statistics stand for all


def card_facts(
    arguments: argparse.Namespace, split: DataSplit, results: dict[str, Any], seconds: float | None
) -> CardFacts:
    """What the model card may say about this run, with the evaluation of the weights that it goes with."""
    source = text_source(arguments)
    return CardFacts(
        name=arguments.push_to_hub or Path(arguments.output_dir).name,
        method=arguments.method,
        model=arguments.model,
        classes=split.classes,
        training_command=arguments.command,
        versions=versions(),
        backbones=tuple(
            Parent(name, AutoConfig.from_pretrained(name).model_type, find_licence_text(name))
            for name in backbones(arguments)
        ),
        text_model=None if source is None else Parent(str(source), "clip", find_licence_text(str(source))),
        data=data_facts(arguments.data_dir),
        num_labelled=len(split.labelled),
        num_unlabelled=len(split.unlabelled) if arguments.unlabelled_stream is None else None,
        num_validation=len(split.validation),
        num_channels=len(arguments.bands or RGB),
        step=results["step"],
        results=results,
        machine=machine(),
        seconds=seconds,
    )


def data_facts(folder: str | None) -> DataFacts:
    """What the record that `co2s data prepare` or `fetch` left beside the images says; else the name of the folder."""
    if folder is None:
        return DataFacts("drawn scenes", note="Drawn by a program: scores tell nothing about real images.")
    record: dict[str, Any] = {}
    for name in (prepare.RECORD, hub.RECORD):
        path = Path(folder) / name
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
    source = str(record.get("data set", ""))
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None and not Path(source).exists()
    licence = record.get("licence")
    return DataFacts(
        record.get("dataset") or (source if on_hub else Path(folder).name),
        protocol=record.get("protocol"),
        gsd_m=record.get("gsd_m"),
        licence=None if licence == "not stated" else licence,
        citation=record.get("citation"),
        page=record.get("page"),
        hub_id=source if on_hub else None,
        revision=record.get("revision") if on_hub else None,
        note=record.get("note") or None,
    )


def training_images(
    samples: Sequence[Sample], *, num_bands: int, nodata: int | None, gsd_m: float | None, image_scale: float
) -> dict[str, Any]:
    """What images of training are, for the model's configuration: scenes to be mapped are compared with it.

    Args:
        samples: of which at most `LOOKED_AT` are read, evenly spread.
        num_bands: of an image.
        nodata: value of bands without data.
        gsd_m: metres per pixel of the files; None if unknown.
        image_scale: factor on the size of every image.

    Returns:
        gsd_m (as the model sees it) and dtype, None if unknown or mixed; mean and std of each band on the scale [0, 1].
    """
    statistics, dtypes = BandStatistics(num_bands), set()
    for sample in samples[:: -(-len(samples) // LOOKED_AT)]:
        image, valid = read_image_and_valid(sample.image, nodata, num_bands=num_bands)
        dtypes.add(str(image.dtype))
        full = np.float32(np.iinfo(image.dtype).max)
        statistics.update(image / full, valid)
    return {
        "gsd_m": None if gsd_m is None else gsd_m / image_scale,
        "dtype": dtypes.pop() if len(dtypes) == 1 else None,
        "mean": [round(float(value), 6) for value in statistics.mean],
        "std": [round(float(value), 6) for value in statistics.std],
    }


def describe_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Who made the numbers: arguments, library versions, machine."""
    return {
        "command": arguments.command,
        "arguments": {name: value for name, value in vars(arguments).items() if name != "command"},
        "versions": versions(),
        "machine": machine(),
    }


def machine() -> str:
    """What computed the numbers."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}"


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    packages = ("co2s_hf", "torch", "transformers", "accelerate")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
