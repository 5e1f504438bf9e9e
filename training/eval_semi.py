"""Evaluate a saved model on images with masks: IoU of its students and their fusion, and how good pseudo-labels are.

accelerate launch training/eval_semi.py runs/quickstart/model --data_dir … --validation …
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import AutoModelForSemanticSegmentation

from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import DataError, Sample, check_labelled, find_split
from co2s_hf.publish.folder import CHECKSUMS, verify_checksums
from co2s_hf.raster.image import ImageFile, NoData, Reading
from co2s_hf.raster.read import open_image, read_raster
from co2s_hf.segmentation import SegmentationPreTrainedModel
from training.arguments import add_reading_arguments, complete_values, plain_refusals, values_of
from training.batches import EvaluationDataset
from training.metrics import MeanIoU, PseudoLabelQuality
from training.purification.pictures import show
from training.records import LOOKED_AT
from training.report import TITLES, class_table, draw_panel, write_metrics

WHOLE_PX = 2**20  # pixels of labels up to which the logits of an image within one window are resized in one piece

Strips = Iterator[tuple[slice, dict[str, Tensor]]]
"""Rows of an image from its top to its bottom, and there the logits (1, N, rows, width) of each prediction."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: EvaluationDataset,
    accelerator: Accelerator,
    *,
    threshold: float,
    align_corners: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, dict[str, Any]]:
    """Measure a model on whole images; call it on every process, each takes a share of the images.

    Logits of an image above a window are measured strip by strip, so that they never are in memory as a whole.

    Args:
        model: the model itself, not a distributed wrapper: processes see different numbers of windows.
        dataset: whole images with labels.
        accelerator: gives device, precision and the sum over processes.
        threshold: confidence from which a prediction would have become a pseudo-label.
        align_corners: how logits are resized where labels have another size; True as the papers' code does.
        stopped: asked behind every image; where it says so, the rest is left out and the numbers are of no use.

    Returns:
        By prediction of the model, the numbers of `MeanIoU` and `PseudoLabelQuality`; all of them nan, with a warning,
        where its logits are not finite: the largest of them would be a class, and wrong.
    """
    num_classes, device = model.config.num_labels, accelerator.device
    scores = {name: MeanIoU(num_classes, device) for name in model.predictions}
    qualities = {name: PseudoLabelQuality(threshold, device) for name in model.predictions}
    lost = {name: torch.zeros((), dtype=torch.int64, device=device) for name in model.predictions}  # images
    share = Subset(dataset, range(accelerator.process_index, len(dataset), accelerator.num_processes))
    images = DataLoader(share, batch_size=None, generator=torch.Generator())
    was_training = model.training
    model.eval()
    for pixel_values, labels, _ in tqdm(images, "evaluate", leave=False, disable=not accelerator.is_main_process):
        finite = {name: torch.ones((), dtype=torch.bool, device=device) for name in model.predictions}
        for rows, predictions in predict_strips(model, pixel_values, labels.shape, accelerator, align_corners):
            truth = labels[rows].to(device)
            for name, logits in predictions.items():
                # On whole images max takes a sixth of the time of argmax (CPU, torch 2.15).
                largest = logits.max(1)
                finite[name] &= largest.values.isfinite().all()
                scores[name].add(prediction=largest.indices[0], reference=truth)
                qualities[name].update(logits, truth[None])
        for name, flag in finite.items():
            lost[name] += ~flag
        if stopped():
            break
    model.train(was_training)
    total = partial(accelerator.reduce, reduction="sum")
    results = {
        name: {**scores[name].merge(total).compute(), **qualities[name].merge(total).summary()}
        for name in model.predictions
    }
    for name, images in ((name, int(total(count))) for name, count in lost.items()):
        if images:
            accelerator.print(f"warning: {TITLES[name]} gives {images} images no finite logits, and so has no scores")
            results[name] = {key: _undefined(value) for key, value in results[name].items()}
    return results


def _undefined(value: float | list[float]) -> float | list[float]:
    return [math.nan] * len(value) if isinstance(value, list) else math.nan


@torch.no_grad()
def predict(
    model: nn.Module, pixel_values: Tensor, size: Sequence[int], accelerator: Accelerator, align_corners: bool = False
) -> dict[str, Tensor]:
    """Logits (1, N, *size) of each prediction for one image (C, H, W), in one piece."""
    with accelerator.autocast():
        output = model(pixel_values[None].to(accelerator.device))
    logits = {name: output[key].float() for name, key in model.predictions.items()}
    if tuple(pixel_values.shape[-2:]) == tuple(size):
        return logits
    return {
        name: F.interpolate(values, tuple(size), mode="bilinear", align_corners=align_corners)
        for name, values in logits.items()
    }


@torch.no_grad()
def predict_strips(
    model: nn.Module, pixel_values: Tensor, size: Sequence[int], accelerator: Accelerator, align_corners: bool = False
) -> Strips:
    """Logits as of `predict` in strips, so that memory grows with the width of the image and not with its height.

    An image within one window whose labels have up to `WHOLE_PX` pixels is one strip, and so is any image for a model
    without a window.
    """
    slides = isinstance(model, SegmentationPreTrainedModel) and max(pixel_values.shape[-2:]) > model.config.window_px
    resizes = tuple(pixel_values.shape[-2:]) != tuple(size)
    if not slides and not (resizes and math.prod(size) > WHOLE_PX):
        yield slice(0, size[0]), predict(model, pixel_values, size, accelerator, align_corners)
        return
    if slides:
        strips = _slide(model, pixel_values, accelerator)
    else:
        height, width = pixel_values.shape[-2:]
        strips = iter([(slice(0, height), predict(model, pixel_values, (height, width), accelerator))])
    yield from resize_strips(strips, pixel_values.shape[-2], size, align_corners) if resizes else strips


def _slide(model: SegmentationPreTrainedModel, pixel_values: Tensor, accelerator: Accelerator) -> Strips:
    strips = model.strips(pixel_values[None])
    while True:
        with accelerator.autocast():
            strip = next(strips, None)
        if strip is None:
            return
        _, rows, found = strip
        yield rows, {name: logits[None].float() for name, logits in zip(model.predictions, found, strict=True)}


def resize_strips(strips: Strips, height: int, size: Sequence[int], align_corners: bool = False) -> Strips:
    """Resize an image's strips bilinearly, as `F.interpolate` resizes the whole.

    Args:
        strips: of the image, without gaps.
        height: of the image.
        size: (height, width) to which it is resized.
        align_corners: see `F.interpolate`.
    """
    new_height, new_width = size
    at = torch.arange(new_height, dtype=torch.float32)
    if align_corners:
        at *= torch.tensor(float(height - 1)) / max(new_height - 1, 1)
    else:
        at = ((at + 0.5) * (torch.tensor(float(height)) / new_height) - 0.5).clamp(min=0)
    # Each new row lies between two rows of the image, the second of which is the first one again at the border.
    upper = at.long().clamp(max=height - 1)
    lower = (upper + 1).clamp(max=height - 1)
    share = (at - upper)[:, None]
    done, last = 0, {}  # new rows that are done; the row above the strip
    for rows, found in strips:
        wide = {
            name: F.interpolate(values, (values.shape[2], new_width), mode="bilinear", align_corners=align_corners)
            for name, values in found.items()
        }
        first = rows.start - bool(last)
        wide = {name: torch.cat([last[name], values], 2) for name, values in wide.items()} if last else wide
        last = {name: values[:, :, -1:].clone() for name, values in wide.items()}
        ready = int((lower < rows.stop).sum())
        step = max(WHOLE_PX // new_width, 1)
        for start in range(done, ready, step):
            new = slice(start, min(start + step, ready))
            yield new, {name: _between(wide[name], upper[new] - first, lower[new] - first, share[new]) for name in wide}
        done = ready


def _between(values: Tensor, upper: Tensor, lower: Tensor, share: Tensor) -> Tensor:
    share = share.to(values.device)
    return values[:, :, upper.to(values.device)] * (1 - share) + values[:, :, lower.to(values.device)] * share


def draw_examples(
    model: nn.Module,
    dataset: EvaluationDataset,
    accelerator: Accelerator,
    path: Path,
    *,
    count: int = 4,
    palette: np.ndarray | None = None,
) -> None:
    """Draw `count` images, evenly chosen, with truth and predictions as a panel."""
    model.eval()
    rows = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        pixel_values, labels, _ = dataset[int(index)]
        maps = {name: np.empty(tuple(labels.shape), np.uint8) for name in model.predictions}
        for strip, predictions in predict_strips(model, pixel_values, labels.shape, accelerator):
            for name, logits in predictions.items():
                maps[name][strip] = logits.argmax(1)[0].byte().cpu().numpy()
        rows.append(
            {
                "image": _displayed(dataset.samples[index].image, dataset.read.reading, model.config.bands),
                "truth": labels.byte().numpy(),
                **maps,
            }
        )
    draw_panel(rows, tuple(model.config.id2label.values()), palette, path)


def _displayed(file: ImageFile, reading: Reading, bands: Sequence[str] | None = None) -> np.ndarray:
    """An image (H, W, 3) as 8 bit for the eye; see `show`."""
    return show(read_raster(file, reading), bands)


def find_samples(arguments: argparse.Namespace, classes: tuple[str, ...]) -> tuple[Sample, ...]:
    """Images with masks of the classes of a model: as described, or of the user's folder."""
    if arguments.dataset is not None:
        description = DatasetDescription.load(arguments.dataset)
        if description.class_names != classes:
            raise DataError(
                f"{arguments.dataset} has the classes {', '.join(description.class_names)}; the model was trained with "
                f"{', '.join(classes)}. Describe the data set with these, in this order."
            )
        if arguments.validation:
            description = replace(description, validation=tuple(arguments.validation))
        return description.find_split().validation
    return find_split(
        arguments.data_dir,
        classes=classes,
        images=arguments.images,
        masks=arguments.masks,
        labelled=arguments.validation,
        unlabelled=[],
        validation=[],
    ).labelled


def find_reading(
    arguments: argparse.Namespace, samples: Sequence[Sample], config: Any, say: Callable[[str], None]
) -> Reading:
    """How the images are read: as the command line says, else their description, the files, and at last the model."""
    bands = Reading.for_model(config)
    if arguments.dataset is not None:
        described = DatasetDescription.load(arguments.dataset).reading
        complete_values(arguments, described)
        bands = Reading(names=described.names)
    trained = config.training_images or {}
    value, scale, offset = (trained.get(name) for name in ("nodata", "scale", "offset"))
    if scale is not None and _says_scale(samples, bands):
        scale = offset = None
    nodata = None if value is None else NoData(value, trained.get("nodata_within") or 0.0)
    filled = complete_values(arguments, Reading(nodata=nodata, scale=scale, offset=offset))
    if filled:
        values = ", ".join(f"--{name} {getattr(arguments, name):g}" for name in filled)
        say(f"as the model was trained: {values}")
    return replace(bands, **values_of(arguments))


def _says_scale(samples: Sequence[Sample], reading: Reading) -> bool:
    """Whether files say themselves how their values become physical ones."""
    for sample in samples[:: max(1, len(samples) // LOOKED_AT)]:
        with open_image(sample.image, reading) as file:
            if any(band.is_scaled for band in file.bands):
                return True
    return False


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Evaluate from the command line and print the table."""
    parser = argparse.ArgumentParser(prog="eval_semi.py", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id of a saved model")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--dataset", help="dataset.yaml of `co2s data init`: its validation images")
    data.add_argument("--data_dir", help="folder of the images and masks")
    parser.add_argument("--images", default="images", help="folder of the images in data_dir")
    parser.add_argument("--masks", default="labels", help="folder of the masks in data_dir")
    parser.add_argument(
        "--validation", nargs="+", help="globs, folders or .txt lists; default: of --data_dir every image with a mask"
    )
    parser.add_argument("--image_scale", type=float, default=1.0, help="factor on the size of every image, as trained")
    add_reading_arguments(parser)
    parser.add_argument("--threshold", type=float, default=0.95, help="confidence of a pseudo-label")
    parser.add_argument("--official", action="store_true", help="resize logits to the labels as the papers' code does")
    parser.add_argument("--output_dir", help="also write metrics.json and panel.png here")
    arguments = parser.parse_args(argv)

    accelerator = Accelerator()
    with plain_refusals("eval_semi.py"):
        if (Path(arguments.model) / CHECKSUMS).is_file():
            verify_checksums(Path(arguments.model))  # from_pretrained looks at no checksum
        model = (
            AutoModelForSemanticSegmentation.from_pretrained(arguments.model, trust_remote_code=False)
            .to(accelerator.device)
            .eval()
        )
        config, classes = model.config, tuple(model.config.id2label.values())
        samples = find_samples(arguments, classes)
        reading = find_reading(arguments, samples, config, accelerator.print)
        warnings = check_labelled(samples, classes, reading)
    for warning in warnings:
        accelerator.print(f"warning: {warning}")
    dataset = EvaluationDataset(
        samples,
        mean=config.image_mean,
        std=config.image_std,
        image_scale=arguments.image_scale,
        reading=reading,
    )
    results = evaluate(model, dataset, accelerator, threshold=arguments.threshold, align_corners=arguments.official)
    if accelerator.is_main_process:
        print(class_table(results, classes))
        if arguments.output_dir:
            folder = Path(arguments.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_metrics(folder / "metrics.json", results)
            draw_examples(model, dataset, accelerator, folder / "panel.png")
    return results


if __name__ == "__main__":
    main()
