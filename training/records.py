"""What a run says about itself: who made the numbers, and the facts for the card of its model."""

import argparse
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from co2s_hf.data import hub, prepare
from co2s_hf.data.band_statistics import BandStatistics
from co2s_hf.data.folders import DataSplit, Sample
from co2s_hf.pretrained_backbones import RGB
from co2s_hf.publish.card import CardFacts, DataFacts
from co2s_hf.publish.licences import Parent, find_licence_text
from co2s_hf.raster.areas import ground_areas
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.image import Band, Reading
from co2s_hf.raster.read import open_image
from training.models import backbones, text_source

LOOKED_AT = 64  # images whose statistics stand for all
# Colours normalised as ImageNet's lie within 3 deviations, snow in reflectances within 10; reflectances in per cent, or
# stored as 10,000 times their value, lie beyond this.
MOST_DEVIATIONS = 30


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
            Parent(name, AutoConfig.from_pretrained(name, trust_remote_code=False).model_type, find_licence_text(name))
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
    samples: Sequence[Sample], reading: Reading, *, gsd_m: float | None, image_scale: float
) -> dict[str, Any]:
    """What images of training are, for the model's configuration: scenes to be mapped are compared with it.

    Args:
        samples: of which at most `LOOKED_AT` are read, evenly spread.
        reading: how they are read.
        gsd_m: metres per pixel that the data set is known to have; for files that do not say where they lie.
        image_scale: factor on the size of every image.

    Returns:
        gsd_m: metres per pixel as the model sees it, the median of the files; None if unknown.
        dtype: of the stored values; None if mixed.
        mean, std: of each band, as an image processor gets it, see `Raster.unit`.
        scale, offset: from stored to physical values; None where neither the files nor the reading say one, or where
            they say several.
        nodata, nodata_within: of the reading; None where it names no value.
        band_names: how the files describe their bands; scenes to be mapped are searched by them, too. None without.
        bands_found_by: see `RasterFile`; None if mixed.
    """
    statistics: BandStatistics | None = None
    found: dict[str, set[Any]] = {"dtype": set(), "factors": set(), "bands_found_by": set(), "band_names": set()}
    sizes_m = []
    for sample in samples[:: -(-len(samples) // LOOKED_AT)]:
        with open_image(sample.image, reading) as file:
            raster = file.read()
        values = np.moveaxis(raster.unit, 0, 2)  # (C, H, W) -> (H, W, C)
        statistics = statistics or BandStatistics(values.shape[2])
        statistics.update(values, raster.valid)
        found["dtype"].add(str(raster.pixels.dtype))
        found["bands_found_by"].add(file.bands_found_by)
        found["band_names"].add(tuple(band.description for band in raster.bands))
        found["factors"] |= {_said_factors(band, reading) for band in raster.bands}
        sizes_m.append(_gsd_m(raster.grid))
    assert statistics is not None
    known_m = [size for size in sizes_m if size is not None]
    gsd_m = median(known_m) if known_m else gsd_m
    only = {name: values.pop() if len(values) == 1 else None for name, values in found.items()}
    scale, offset = only["factors"] or (None, None)
    nodata = reading.nodata
    return {
        "gsd_m": None if gsd_m is None else gsd_m / image_scale,
        "dtype": only["dtype"],
        "mean": [round(float(value), 6) for value in statistics.mean],
        "std": [round(float(value), 6) for value in statistics.std],
        "scale": scale,
        "offset": offset,
        "nodata": None if nodata is None else nodata.value,
        "nodata_within": None if nodata is None else nodata.within,
        "band_names": list(names) if (names := only["band_names"]) is not None and all(names) else None,
        "bands_found_by": only["bands_found_by"],
    }


def require_plausible_values(config: Any) -> None:
    """Refuse images that reach a model as numbers of another order of magnitude than it can learn from.

    Raises:
        ValueError: their mean lies far from what pixels are normalised with, for instance as nobody scales them.
    """
    facts = config.training_images
    away = [
        (abs(mean - middle) / spread, mean)
        for mean, middle, spread in zip(facts["mean"], config.image_mean, config.image_std, strict=True)
    ]
    furthest, mean = max(away)
    if furthest > MOST_DEVIATIONS:
        scale = "no scale" if facts["scale"] is None else f"a scale of {facts['scale']:g}"
        raise ValueError(
            f"The labelled images hold {facts['dtype']} values with {scale}, whose mean in one band is {mean:.4g}, "
            f"{furthest:.0f} standard deviations from what the model's pixels are normalised with; expected about "
            f"0. Give --scale, 1e-4 for reflectances times 10,000, or --image_mean and --image_std of these values."
        )


def _said_factors(band: Band, reading: Reading) -> tuple[float, float] | None:
    """Scale and offset, where they are said and not implied by the type."""
    said = reading.scale is not None or reading.offset is not None or band.is_scaled
    return band.factors(reading) if said else None


def _gsd_m(grid: Grid) -> float | None:
    try:
        return ground_areas(grid).gsd_m
    except RasterError:  # rotated, or of no area: training needs no place
        return None


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
