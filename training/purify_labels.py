"""Ask a vision-language model about the regions of all unlabelled images, once, ahead of training.

accelerate launch training/purify_labels.py --dataset dataset.yaml --vlm openai/clip-vit-base-patch16 --output regions
accelerate launch training/purify_labels.py --help

The output is a cache of regions and scores that training only looks up. Finished images are skipped, so it may be
interrupted at any time and started again. With --teacher, a model that was trained before, the audit says what the
answers would do to its pseudo-labels.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm.auto import tqdm
from transformers import AutoModelForSemanticSegmentation

import co2s_hf  # noqa: F401  registers the models that a teacher can be
from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import DataError, DataSplit, check_split, find_split, read_labels
from co2s_hf.data.label_map import IGNORE
from co2s_hf.pretrained_backbones import RGB
from co2s_hf.raster.ids import read_ids
from co2s_hf.raster.image import FileWindow, Reading
from co2s_hf.raster.read import IMAGE_SUFFIXES, read_raster
from co2s_hf.text import concepts_for
from training.arguments import DESCRIBED, add_reading_arguments, complete_values, plain_refusals, values_of
from training.parts.pseudo_labels import PseudoLabels
from training.purification.build import ScorerKind, build_scorer
from training.purification.cache import RegionCache
from training.purification.calibration import Calibration, CalibrationError, fit_calibration, labelled_regions
from training.purification.class_bank import NEGATIVES, TEMPLATES, ClassBank
from training.purification.crops import CropOptions, Outside
from training.purification.decisions import PurifierSettings, background_ids, purify
from training.purification.generative import Reading as AnswerReading
from training.purification.grounding import Frame
from training.purification.pictures import read_natural_colours
from training.purification.quality import PurificationQuality
from training.purification.regions import RegionSource, count_regions, find_regions, number_regions, segment_regions
from training.purification.scorers import Audit, Scorer, model_identity

SUPERPIXELS = "superpixels"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Build the cache, print the audit and return it."""
    arguments = build_parser().parse_args(argv)
    accelerator = Accelerator()
    say = accelerator.on_main_process(tqdm.write)  # above the progress bar

    with plain_refusals("purify_labels.py"):
        split, bands, reading = find_data(arguments)
        bank = describe_classes(arguments, split)
        background = (
            background_ids(split.classes) if arguments.background is None else place(arguments.background, split)
        )
        settings = PurifierSettings(
            tau=arguments.tau,
            boundary_radius_px=arguments.boundary_radius_px,
            min_area_px=arguments.min_area_px,
            max_regions=arguments.max_regions,
            background=background,
            veto=arguments.veto,
        )
        maker = RegionMaker(arguments, settings, bands, reading, len(split.classes), accelerator.device)
        for warning in check_split(split, reading, decode_unlabelled=accelerator.is_main_process):
            say(f"warning: {warning}")
        images = [sample.image for sample in (*split.unlabelled, *split.labelled)]
        for image in images:
            maker.map_of(image)
        scorer = load_scorer(arguments, bank, background, accelerator)
        parameters = {**scorer.parameters(), **maker.parameters()}
        with accelerator.main_process_first():
            cache = RegionCache(arguments.output, parameters)
            known = RegionCache(Path(arguments.output) / "labelled", {**parameters, "of": "labelled regions"})

    # Calibration comes first: it is short, and it stops what would not be worth the time.
    started = time.perf_counter()
    with plain_refusals("purify_labels.py"):
        calibration = calibrate(accelerator, scorer, maker, known, split, arguments)
    cache.keep_calibration(calibration)
    say(describe_calibration(calibration, split.classes))

    score_images(accelerator, scorer, maker, cache, images)
    audit = total_audit(accelerator, scorer.audit, time.perf_counter() - started)
    audit["images"] = len(images)
    if maker.teacher is not None:
        score_images(accelerator, scorer, maker, cache, [sample.image for sample in split.validation])
        settings = PurifierSettings(**{**asdict(settings), "barred": calibration.barred})
        audit |= judge(accelerator, maker, cache, split, settings, arguments.threshold)
    if accelerator.is_main_process:
        known_numbers = {name: value if value == value else None for name, value in audit.items()}  # JSON has no nan
        text = json.dumps({**known_numbers, "calibration": calibration.to_dict()}, indent=1)
        (Path(arguments.output) / "audit.json").write_text(text, encoding="utf-8")
    say(describe_audit(audit))
    say(f"{arguments.output}/ holds the regions and scores of {len(images)} images, calibration.json and audit.json.")
    accelerator.end_training()
    return audit


# ---------------------------------------------------------------------------------------------------------------------
# Data and models
# ---------------------------------------------------------------------------------------------------------------------


def find_data(arguments: argparse.Namespace) -> tuple[DataSplit, list[str], Reading]:
    """The images of a training, the names of their bands, and how they are read."""
    if arguments.dataset is not None:
        described = [name for name in (*DESCRIBED[1:], "bands") if getattr(arguments, name) is not None]
        if described:
            raise DataError(f"--dataset says it already: leave out --{', --'.join(described)}.")
        description = DatasetDescription.load(arguments.dataset)
        bands = list(description.bands.names)
        for number, colour in zip(description.bands.rgb or (), RGB, strict=False):
            bands[number] = colour
        complete_values(arguments, description.reading)
        if arguments.concepts is None:
            own = {one.name: list(one.concepts) for one in description.classes if one.concepts is not None}
            arguments.concepts = own or None
        reading = Reading(names=description.bands.names, **values_of(arguments))
        return description.find_split(), bands, reading
    if not arguments.classes:
        raise DataError("--data_dir needs --classes: the class names in the order of the ids in the masks.")
    split = find_split(
        arguments.data_dir,
        classes=arguments.classes,
        images=arguments.images,
        masks=arguments.masks,
        labelled=arguments.labelled,
        unlabelled=arguments.unlabelled,
        validation=arguments.validation,
        scene_pattern=arguments.scene_pattern,
        validation_fraction=arguments.validation_fraction,
        seed=arguments.seed,
    )
    bands = arguments.bands or list(RGB)
    return split, bands, Reading(names=tuple(bands), **values_of(arguments))


def describe_classes(arguments: argparse.Namespace, split: DataSplit) -> ClassBank:
    """The classes in words: as given, of a known data set, or their names."""
    named = {"dataset": arguments.concepts} if isinstance(arguments.concepts, str) else {"concepts": arguments.concepts}
    synonyms = tuple(concepts_for(split.classes, **named))
    return ClassBank(tuple(split.classes), synonyms, tuple(arguments.templates), tuple(arguments.negatives))


def place(names: Sequence[str], split: DataSplit) -> tuple[int, ...]:
    """Ids of classes that are given by name."""
    unknown = [name for name in names if name not in split.classes]
    if unknown:
        raise DataError(f"--background names {', '.join(unknown)}; the classes are {', '.join(split.classes)}.")
    return tuple(split.classes.index(name) for name in names)


def load_scorer(
    arguments: argparse.Namespace, bank: ClassBank, background: tuple[int, ...], accelerator: Accelerator
) -> Scorer:
    """The vision-language model on the device of this process."""
    return build_scorer(
        arguments.scorer,
        arguments.vlm,
        bank,
        revision=arguments.revision,
        open_clip_model=arguments.open_clip_model,
        sam=arguments.sam,
        crops=CropOptions(arguments.context, arguments.min_crop_px, arguments.outside),
        reading=arguments.reading,
        orderings=arguments.orderings,
        frame=arguments.frame,
        background=background,
        max_side_px=arguments.max_side_px,
        batch_size=arguments.batch_size,
        device=accelerator.device,
    )


class RegionMaker:
    """Reads images, and finds their regions: superpixels, regions of a teacher's pseudo-labels, or maps of the user."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        settings: PurifierSettings,
        bands: Sequence[str],
        reading: Reading,
        num_classes: int,
        device: torch.device,
    ) -> None:
        """Load the teacher, if there is one. Raises ValueError where the source needs what is not given."""
        self.source, self.settings, self.bands, self.device = arguments.regions, settings, list(bands), device
        self.reading, self.region_px, self.image_scale = reading, arguments.region_px, arguments.image_scale
        self.of_teacher = self.source in get_args(RegionSource)
        self.folder = None if self.of_teacher or self.source == SUPERPIXELS else Path(self.source)
        if self.folder is not None and not self.folder.is_dir():
            raise DataError(
                f"--regions is {self.source}, which is no folder; expected {SUPERPIXELS}, "
                f"{', '.join(get_args(RegionSource))}, or a folder with a map of region ids for every image."
            )
        if self.of_teacher and arguments.teacher is None:
            raise DataError(
                f"--regions {self.source} are regions of pseudo-labels: give the --teacher that makes them."
            )
        self.teacher: nn.Module | None = None
        self.teacher_identity: dict[str, Any] = {}
        if arguments.teacher is not None:
            teacher: Any = AutoModelForSemanticSegmentation.from_pretrained(arguments.teacher, trust_remote_code=False)
            needed = ("num_channels", "image_mean", "image_std", "num_labels")
            if any(getattr(teacher.config, name, None) is None for name in needed):
                raise DataError(
                    f"the teacher {arguments.teacher} is no model of co2s_hf; expected a trained one of these."
                )
            if teacher.config.num_labels != num_classes:
                raise DataError(
                    f"the teacher {arguments.teacher} knows {teacher.config.num_labels} classes, the data set has "
                    f"{num_classes}; expected a model that was trained on these."
                )
            if teacher.config.num_channels != len(self.bands):
                raise DataError(
                    f"the teacher {arguments.teacher} takes {teacher.config.num_channels} bands, the images have "
                    f"{len(self.bands)}; expected a model that was trained on such images."
                )
            self.teacher = teacher.to(device).eval().requires_grad_(False)
            self.teacher_identity = model_identity(arguments.teacher)

    def parameters(self) -> dict[str, Any]:
        """Give what the regions depend on."""
        nodata = self.reading.nodata
        values: dict[str, Any] = {
            "regions": self.source,
            "nodata": None if nodata is None else nodata.value,
            "nodata_within": None if nodata is None else nodata.within or None,
            "bands": self.bands,
        }
        if self.source == SUPERPIXELS:
            values["region_px"] = self.region_px
        if self.of_teacher:
            values |= {"teacher": self.teacher_identity, "image_scale": self.image_scale}
            values |= {"scale": self.reading.scale, "offset": self.reading.offset}
            for name in ("tau", "boundary_radius_px", "min_area_px", "max_regions"):
                values[name] = getattr(self.settings, name)
        return values

    def picture(self, file: Path | FileWindow) -> tuple[Tensor, Tensor]:
        """Read what the vision-language model sees: (3, H, W) in [0, 1], and where there is data (H, W)."""
        return read_natural_colours(file, self.reading, self.bands)

    def regions(self, file: Path | FileWindow, image: Tensor, valid: Tensor) -> Tensor:
        """Find the regions of an image: (H, W) int64, -1 for none."""
        if self.of_teacher:
            pseudo = self.pseudo_labels(file, valid)
            return find_regions(
                pseudo.label,
                pseudo.confidence,
                pseudo.valid,
                source=self.source,
                tau=self.settings.tau,
                boundary_radius_px=self.settings.boundary_radius_px,
                min_area_px=self.settings.min_area_px,
                max_regions=self.settings.max_regions,
            )[0].cpu()
        segments = self.segments(file, image, valid)
        assert segments is not None
        return segments

    def segments(self, file: Path | FileWindow, image: Tensor, valid: Tensor) -> Tensor | None:
        """Find the regions that do not come from pseudo-labels; None where they do."""
        if self.of_teacher:
            return None
        path = self.map_of(file)
        if path is None:
            return segment_regions(image, valid, region_px=self.region_px)
        found = read_ids(path)
        if found.values.shape != valid.shape:
            raise DataError(
                f"{path} is of shape {found.values.shape}; expected {tuple(valid.shape)}, one region id for each pixel "
                f"of {file}."
            )
        return number_regions(torch.from_numpy(found.values), valid & torch.from_numpy(found.known))

    def map_of(self, file: Path | FileWindow) -> Path | None:
        """Find the user's map for an image; None where regions come from elsewhere. Raises DataError without one."""
        if self.folder is None:
            return None
        found = [path for path in sorted(self.folder.glob(f"{file.stem}.*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        if len(found) != 1:
            raise DataError(
                f"{self.folder} has {len(found)} maps for {file.name}; expected one image named {file.stem}.png or the "
                "like, with one region id per pixel."
            )
        return found[0]

    @torch.no_grad()
    def pseudo_labels(self, file: Path | FileWindow, valid: Tensor) -> PseudoLabels:
        """Give the teacher's pseudo-labels of an image, (1, H, W) on the device."""
        assert self.teacher is not None
        config: Any = self.teacher.config
        image = torch.from_numpy(read_raster(file, self.reading).unit)
        mean, std = (torch.tensor(values)[:, None, None] for values in (config.image_mean, config.image_std))
        size = [max(1, int(side * self.image_scale + 0.5)) for side in valid.shape]
        if self.image_scale != 1:
            image = interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        logits = self.teacher(((image - mean) / std)[None].to(self.device)).logits.float()
        if logits.shape[-2:] != valid.shape:
            logits = interpolate(logits, tuple(valid.shape), mode="bilinear")
        return PseudoLabels.from_logits(logits, valid[None].to(self.device))


# ---------------------------------------------------------------------------------------------------------------------
# Work
# ---------------------------------------------------------------------------------------------------------------------


def calibrate(
    accelerator: Accelerator,
    scorer: Scorer,
    maker: RegionMaker,
    cache: RegionCache,
    split: DataSplit,
    arguments: argparse.Namespace,
) -> Calibration:
    """Ask about regions whose class is known from the labelled images, and fit."""
    rows: list[tuple[Tensor, Tensor]] = []
    share = split.labelled[accelerator.process_index :: accelerator.num_processes]
    for sample in tqdm(share, "calibrate", unit="image", disable=not accelerator.is_main_process):
        image, valid = maker.picture(sample.image)
        label = torch.from_numpy(read_labels(sample)).masked_fill(~valid, IGNORE)
        regions, truth = labelled_regions(
            label,
            maker.segments(sample.image, image, valid),
            min_area_px=arguments.min_area_px,
            max_regions=arguments.calibration_regions,
        )
        if cache.has(sample.image):
            before, scores = cache.read(sample.image)
        if not cache.has(sample.image) or not torch.equal(before, regions):  # labels may have changed since
            scores = scorer.score(image.to(accelerator.device), regions.to(accelerator.device))
            cache.write(sample.image, regions, scores)
        rows.append((scores, truth))
    gathered = gather_object(rows)
    if not gathered or not sum(len(truth) for _, truth in gathered):
        raise CalibrationError("The labelled images have no region to calibrate on; expected some of --min_area_px.")
    scores, truth = (torch.cat(parts) for parts in zip(*gathered, strict=True))
    return fit_calibration(scores, truth, min_precision=arguments.min_precision)


def score_images(
    accelerator: Accelerator,
    scorer: Scorer,
    maker: RegionMaker,
    cache: RegionCache,
    files: Sequence[Path | FileWindow],
) -> None:
    """Score the regions of the images that are not finished; each process takes a share of them."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    todo = [file for file in files[rank::world_size] if not cache.has(file)]
    bar = tqdm(todo, "score regions", unit="image", disable=not accelerator.is_main_process)
    for file in bar:
        image, valid = maker.picture(file)
        regions = maker.regions(file, image, valid)
        cache.write(file, regions, scorer.score(image.to(accelerator.device), regions.to(accelerator.device)))
        bar.set_postfix(regions=count_regions(regions))
    accelerator.wait_for_everyone()


@torch.no_grad()
def judge(
    accelerator: Accelerator,
    maker: RegionMaker,
    cache: RegionCache,
    split: DataSplit,
    settings: PurifierSettings,
    threshold: float,
) -> dict[str, float]:
    """What the answers do to the teacher's pseudo-labels: shares on unlabelled, accuracy on validation images."""
    shares: dict[str, float] = {}
    quality = PurificationQuality(
        threshold, boundary_radius_px=settings.boundary_radius_px, device=accelerator.device, ignore=IGNORE
    )
    pixels = 0
    samples = (*split.unlabelled, *split.validation)[accelerator.process_index :: accelerator.num_processes]
    for sample in tqdm(samples, "audit", unit="image", disable=not accelerator.is_main_process):
        _, valid = maker.picture(sample.image)
        pseudo = maker.pseudo_labels(sample.image, valid)
        regions, scores = cache.lookup(sample.image)
        purified, counted = purify(
            pseudo,
            regions[None].to(accelerator.device),
            scores[None].to(accelerator.device),
            settings=settings,
            threshold=threshold,
            admission_weight=1.0,
        )
        if sample.mask is None:
            pixels += int(valid.sum())
            for name, value in counted.items():
                shares[name] = shares.get(name, 0.0) + float(value) * int(valid.sum())
        else:
            truth = torch.from_numpy(read_labels(sample)).long().masked_fill(~valid, IGNORE)[None]
            quality.update(pseudo, purified, truth.to(accelerator.device))
    quality.counts = accelerator.reduce(quality.counts, "sum")
    everywhere = gather_object([(pixels, shares)])
    total = max(1, sum(count for count, _ in everywhere))
    names = dict.fromkeys(name for _, part in everywhere for name in part)
    summed = {name: sum(part.get(name, 0.0) for _, part in everywhere) / total for name in names}
    return {**summed, **quality.summary()}


def total_audit(accelerator: Accelerator, audit: Audit, seconds: float) -> dict[str, float]:
    """What all processes did in this run."""
    parts = gather_object([(audit.calls, audit.answers, audit.parsed, seconds)])
    calls, answers, parsed, _ = (sum(column) for column in zip(*parts, strict=True))
    slowest = max(part[3] for part in parts)
    return {"vlm_calls": calls, "answers": answers, "parsed": parsed, "seconds": slowest}


# ---------------------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------------------


def describe_calibration(calibration: Calibration, classes: Sequence[str]) -> str:
    """What the labelled images say about the model."""
    rows = [
        f"    {name:<24}{'never named' if value != value else f'{100 * value:.0f} % right where it was named'}"
        f"{'  -> does not count' if number in calibration.barred else ''}"
        for number, (name, value) in enumerate(zip(classes, calibration.precision, strict=True))
    ]
    return "\n".join(
        [
            f"labelled regions: {100 * calibration.accuracy:.0f} % recognised on the mean of the classes, "
            f"{100 * calibration.answered:.0f} % answered, temperature {calibration.temperature:.3g}",
            *rows,
        ]
    )


def describe_audit(audit: dict[str, float]) -> str:
    """The audit for the terminal."""
    lines = [
        f"{audit['vlm_calls']:.0f} calls of the model, {1000 * audit['seconds'] / audit['images']:.0f} ms per image"
    ]
    if audit["answers"]:
        lines.append(
            f"{100 * audit['parsed'] / audit['answers']:.1f} % of {audit['answers']:.0f} answers were readable"
        )
    if "admitted" in audit:
        shares = {name: f"{100 * audit[name]:.1f} %" for name in ("low", "agreed", "relabelled", "vetoed", "admitted")}
        lines.append(
            f"pixels of the unlabelled images: {shares['low']} uncertain, {shares['agreed']} confirmed, "
            f"{shares['relabelled']} relabelled, {shares['vetoed']} vetoed, {shares['admitted']} admitted to the loss"
        )
        for kind, words in (
            ("counted", "pseudo-labels in the loss"),
            ("band", "of them near boundaries"),
            ("changed", "pixels that were relabelled"),
        ):
            before, after = (100 * audit[f"{kind}_accuracy_{time}"] for time in ("before", "after"))
            counts = (audit[f"{kind}_px_{time}"] for time in ("before", "after"))
            pixels = " -> ".join(f"{count:.0f}" for count in counts)
            lines.append(f"validation, {words}: {before:.1f} -> {after:.1f} % right of {pixels} pixels")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """Every argument with its default and its meaning."""
    parser = argparse.ArgumentParser(
        prog="purify_labels.py",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder of the cache")
    data = parser.add_argument_group("data, as for train_semi.py")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", help="dataset.yaml of `co2s data init`")
    source.add_argument("--data_dir", help="folder of the images and masks")
    data.add_argument("--images", default="images", help="folder of the images in data_dir")
    data.add_argument("--masks", default="labels", help="folder of the masks in data_dir")
    data.add_argument("--classes", nargs="+", help="class names in the order of their ids")
    for part in ("labelled", "unlabelled", "validation"):
        data.add_argument(f"--{part}", nargs="+", help="globs, folders or .txt lists")
    data.add_argument("--scene_pattern", help="regular expression whose first group is the scene")
    data.add_argument("--validation_fraction", type=float, help="share of labelled images held out, by whole scenes")
    data.add_argument("--seed", type=int, default=0, help="of the training: draws the validation scenes")
    data.add_argument("--bands", nargs="+", help="names of the image bands in their order; default: red green blue")
    add_reading_arguments(data)

    model = parser.add_argument_group("model")
    model.add_argument("--scorer", choices=get_args(ScorerKind), default="dual_encoder", help="how the model is asked")
    model.add_argument("--vlm", required=True, help="folder, Hub id, or checkpoint file of open_clip")
    model.add_argument("--revision", help="of the Hub id")
    model.add_argument("--open_clip_model", help="architecture of an open_clip file, e.g. ViT-B-32")
    model.add_argument("--sam", help="folder or Hub id of a SAM, for --scorer grounding; default: boxes are masks")
    model.add_argument(
        "--concepts", type=yaml.safe_load, help="class -> list of words, or the name of a known data set"
    )
    model.add_argument("--templates", nargs="+", default=list(TEMPLATES), help="sentences with {} for a word")
    model.add_argument("--negatives", nargs="*", default=list(NEGATIVES), help="words for what is no class")
    model.add_argument("--context", type=float, default=0.5, help="surroundings in a crop, as a share of the region")
    model.add_argument("--min_crop_px", type=int, default=64, help="side of the smallest crop")
    model.add_argument(
        "--outside", choices=get_args(Outside), default="blur", help="outside of a region in its 2nd view"
    )
    model.add_argument(
        "--reading", choices=get_args(AnswerReading), default="logits", help="of answers of --scorer generative"
    )
    model.add_argument("--orderings", type=int, default=2, help="orders of the options, for --scorer generative")
    model.add_argument("--frame", choices=get_args(Frame), help="of coordinates, for --scorer grounding")
    model.add_argument("--max_side_px", type=int, default=1024, help="of an image, for --scorer dense")
    model.add_argument("--batch_size", type=int, default=16, help="regions at a time")

    regions = parser.add_argument_group("regions")
    regions.add_argument(
        "--regions",
        default=SUPERPIXELS,
        help=f"{SUPERPIXELS}; {', '.join(get_args(RegionSource))}: of the pseudo-labels of --teacher; or a folder with "
        "a map of region ids for every image, named like it",
    )
    regions.add_argument("--region_px", type=int, default=24, help="side of a superpixel")
    regions.add_argument("--min_area_px", type=int, default=64, help="smaller regions are not asked about")
    regions.add_argument("--max_regions", type=int, default=32, help="of an image, for regions of a teacher")
    regions.add_argument("--boundary_radius_px", type=int, default=8, help="half the width of the band at boundaries")
    regions.add_argument("--tau", type=float, default=0.7, help="confidence below which a pixel is uncertain")

    trust = parser.add_argument_group("trust")
    trust.add_argument("--calibration_regions", type=int, default=64, help="at most, of a labelled image")
    trust.add_argument("--min_precision", type=float, default=0.6, help="classes with less do not count")
    trust.add_argument("--background", nargs="*", help="classes that nothing is relabelled to; default: by their names")
    trust.add_argument("--teacher", help="folder or Hub id of a trained model, for regions and for the audit")
    trust.add_argument("--image_scale", type=float, default=1.0, help="factor on the size of images, as it was trained")
    trust.add_argument("--threshold", type=float, default=0.95, help="confidence of a pseudo-label, for the audit")
    trust.add_argument("--veto", action="store_true", help="let the model take out confident pixels, for the audit")
    return parser


if __name__ == "__main__":
    main()
