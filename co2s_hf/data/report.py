"""The check of a described data set, and its one report: text, HTML and JSON of the same findings."""

import hashlib
import html
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..raster.errors import RasterError
from ..raster.ids import read_ids
from ..raster.read import open_image, read_raster
from .band_statistics import BandStatistics
from .description import DatasetDescription, DescriptionError
from .label_map import IGNORE, LabelMapError, Value, show_counts, show_value, value_counts
from .samples import DataError, DataSplit, Sample
from .wording import SHOWN

PARTS = ("labelled", "unlabelled", "validation")


@dataclass(frozen=True)
class Finding:
    """One thing found wrong.

    Attributes:
        severity: An error must be put right before training; a warning should be understood.
        kind: What it is, the same words for all findings of a kind.
        file: The file, or the description for what concerns the whole.
        finding: What was expected and found.
        fix: What to do.
    """

    severity: Literal["error", "warning"]
    kind: str
    file: str
    finding: str
    fix: str


@dataclass
class PartSummary:
    """What one part of the split holds.

    Attributes:
        images: Number of images, readable or not.
        scenes: Number of scenes.
        sizes: Number of images of each (height, width) in pixels.
        pixels: Pixels of the readable images; `nodata_pixels` of them show nothing.
        class_pixels: Mask pixels of each class; empty for unlabelled images.
        ignored_pixels: Mask pixels mapped to ignore; `unmapped_pixels`: those with values that the map does not name.
    """

    images: int = 0
    scenes: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: int = 0
    nodata_pixels: int = 0
    class_pixels: list[int] = field(default_factory=list)
    ignored_pixels: int = 0
    unmapped_pixels: int = 0

    @property
    def class_shares(self) -> list[float]:
        """Share of each class among the pixels with a label; zeros where there are none."""
        total = max(sum(self.class_pixels), 1)
        return [pixels / total for pixels in self.class_pixels]

    @property
    def nodata_share(self) -> float:
        """Share of the pixels that show nothing."""
        return self.nodata_pixels / max(self.pixels, 1)


@dataclass
class Report:
    """Everything that `check_dataset` found; without a usable description, or a split, there are findings alone.

    Attributes:
        dataset: The description.
        classes: Names and colours (`#RRGGBB` or None) in the order of the training ids.
        parts: By the names in `PARTS`.
        bands: For each band its name, and the minimum, maximum, mean and standard deviation in the values of the files.
        value_types: Number of images of each type of values, such as uint8.
        findings: Errors first.
    """

    dataset: str
    classes: list[tuple[str, str | None]] = field(default_factory=list)
    parts: dict[str, PartSummary] = field(default_factory=dict)
    bands: list[dict[str, Any]] = field(default_factory=list)
    value_types: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Say in one line whether one can train."""
        warnings = len(self.findings) - self.errors
        state = "not fit for training" if self.errors else "fit for training"
        return f"{state}: {self.errors} error{'s' * (self.errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"

    def to_dict(self) -> dict[str, Any]:
        """Give the report as values that JSON can hold."""
        return {
            "dataset": self.dataset,
            "verdict": self.verdict,
            "errors": self.errors,
            "classes": [{"name": name, "colour": colour} for name, colour in self.classes],
            "parts": {
                name: {
                    "images": part.images,
                    "scenes": part.scenes,
                    "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in part.sizes.most_common()],
                    "pixels": part.pixels,
                    "nodata_share": part.nodata_share,
                    "class_pixels": part.class_pixels,
                    "class_shares": part.class_shares,
                    "ignored_pixels": part.ignored_pixels,
                    "unmapped_pixels": part.unmapped_pixels,
                }
                for name, part in self.parts.items()
            },
            "bands": self.bands,
            "value_types": dict(self.value_types),
            "findings": [vars(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """Write the report for programs."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """Write the report for a terminal."""
        lines = [f"{self.dataset}: {self.verdict}", ""]
        if self.parts:
            lines += [*_columns([_PART_TITLES, *map(list, _part_rows(self))]), ""]
            lines += [*_columns([_BAND_TITLES, *map(list, _band_rows(self))]), ""]
            lines += [*_columns([_CLASS_TITLES, *map(list, _class_rows(self))]), ""]
        for (severity, kind), findings in _by_kind(self.findings).items():
            lines.append(f"{severity}: {kind} ({len(findings)})")
            for one in findings[:SHOWN]:
                lines += [f"  {one.file}", f"    {one.finding}", f"    -> {one.fix}"]
            if len(findings) > SHOWN:
                lines.append(f"  and {len(findings) - SHOWN} more; --json lists all")
        return "\n".join(lines).rstrip() + "\n"

    def to_html(self) -> str:
        """Write the report as one page without anything to load; the shares of the classes are drawn as bars."""
        body = [f"<h1>{_text(self.dataset)}</h1>", _verdict_line(self)]
        if self.parts:
            body += ["<h2>Images</h2>", _table(_PART_TITLES, _part_rows(self))]
            body += ["<h2>Bands</h2>", _table(_BAND_TITLES, _band_rows(self))]
            body += ["<h2>Classes: share of the labelled pixels</h2>", _bars(self)]
        if self.findings:
            body.append("<h2>Findings</h2>")
        for (severity, kind), findings in _by_kind(self.findings).items():
            rows = [(one.file, one.finding, one.fix) for one in findings]
            body.append(
                f'<details open><summary class="{severity}">{severity}: {_text(kind)} ({len(findings)})</summary>'
                + _table(["File", "Finding", "Fix"], rows)
                + "</details>"
            )
        return _PAGE.replace("{title}", _text(self.dataset)).replace("{body}", "\n".join(body))


# ---------------------------------------------------------------------------------------------------------------------
# Check
# ---------------------------------------------------------------------------------------------------------------------


def check_dataset(path: str | Path) -> Report:
    """Check the data set that a dataset.yaml describes, all of it, whatever is found on the way.

    Every image and every mask of the split is decoded once, under a progress bar; one at a time is in memory.
    """
    report = Report(str(path))
    try:
        description = DatasetDescription.load(path)
    except DescriptionError as error:
        report.findings = [
            Finding("error", "description", f"{path}: {p.key}", f"expected {p.expected}, found {p.found}", p.fix)
            for p in error.problems
        ]
        return report
    try:
        split = description.find_split()
    except DataError as error:
        report.findings = [_from_error("split", str(path), error)]
        return report
    _Check(description, report).run(
        split, [path for path in split.unused if path not in split.lone_masks], split.lone_masks
    )
    report.findings.sort(key=lambda finding: finding.severity != "error")
    return report


class _Check:
    """The state of one check: what was seen so far."""

    def __init__(self, description: DatasetDescription, report: Report) -> None:
        self.description, self.report = description, report
        self.statistics = BandStatistics(description.bands.count)
        self.values: Counter[Value] = Counter()
        self.images_of: dict[bytes, list[Path]] = defaultdict(list)
        self.brightest = 0

    def run(self, split: DataSplit, listed: Sequence[Path], orphans: Sequence[Path]) -> None:
        """Decode everything, then compare what is known only at the end."""
        members = {name: tuple(getattr(split, name)) for name in PARTS}
        parts_of: dict[Path, list[str]] = defaultdict(list)
        samples: dict[Path, Sample] = {}
        for name, part in members.items():
            for sample in part:
                parts_of[sample.image].append(name)
                if sample.image not in samples or sample.mask is not None:
                    samples[sample.image] = sample
        self.report.parts = {name: _new_part(part, len(split.classes)) for name, part in members.items()}
        self.report.classes = [
            (one.name, None if one.colour is None else show_value(one.colour)) for one in self.description.classes
        ]
        for image, sample in tqdm(samples.items(), desc="Checking", unit="image", disable=None):
            size = self._image(image, parts_of[image])
            if sample.mask is not None:
                self._mask(sample, size, [name for name in parts_of[image] if name != "unlabelled"])
        self._bands()
        self._parts(parts_of)
        self._duplicates(parts_of)
        self._classes()
        self._scenes(members)
        for mask in orphans:
            fix = "Name it as its image, add the image, or move the mask away."
            self._find("warning", "mask without an image", mask, "no image has this name; expected one", fix)
        self._unused([path for path in listed if path not in samples])

    def _image(self, path: Path, parts: Sequence[str]) -> tuple[int, int] | None:
        """Decode and count one image; returns its (height, width), None if it cannot be used."""
        try:
            raster = read_raster(path, self.description.reading)
            image, valid = np.moveaxis(raster.colours, 0, 2), raster.valid
        except RasterError as error:
            self.report.findings.append(_from_error("unreadable image", str(path), error))
            return None
        height, width, bands = image.shape
        self.images_of[_fingerprint(image)].append(path)
        self.report.value_types[str(image.dtype)] += 1
        if image.dtype == np.uint16:
            self.brightest = max(self.brightest, int(image.max()))
        for name in parts:
            part = self.report.parts[name]
            part.sizes[height, width] += 1
            part.pixels += height * width
            part.nodata_pixels += int((~valid).sum())
        if bands == self.description.bands.count:
            self.statistics.update(image, valid)
        expected = (self.description.bands.count, self.description.bands.dtype)
        if (bands, image.dtype.name) != expected:
            finding = f"{bands} bands of {image.dtype}; expected {expected[0]} of {expected[1]}, as bands says"
            self._find("error", "bands of an image", path, finding, "Convert the image, or correct the description.")
        if valid is not None and not valid.any():
            fix = "Take it out of the data set, or correct nodata."
            self._find("warning", "image without data", path, "no pixel holds data", fix)
        return height, width

    def _mask(self, sample: Sample, size: tuple[int, int] | None, parts: Sequence[str]) -> None:
        path = sample.mask
        assert path is not None and sample.label_map is not None  # both of a description
        if not path.is_file():
            fix = "Add the mask, or list the image as unlabelled."
            self._find("error", "image without a mask", sample.image, f"expected its mask at {path}; found none", fix)
            return
        try:
            with open_image(sample.image) as file:
                ids = read_ids(path, onto=file.grid)
            mask, counts = ids.values, value_counts(ids.values, ids.known)
        except (RasterError, LabelMapError) as error:
            self.report.findings.append(_from_error("unreadable mask", str(path), error))
            return
        self.values.update(counts)
        pixels = sample.label_map.class_pixels(counts)
        unmapped = sample.label_map.unmapped(counts)
        for name in parts:
            part = self.report.parts[name]
            part.class_pixels = [a + int(b) for a, b in zip(part.class_pixels, pixels, strict=False)]
            part.ignored_pixels += int(pixels[IGNORE])
            part.unmapped_pixels += sum(unmapped.values())
        if unmapped:
            finding = f"label_map does not name {show_counts(unmapped)}"
            fix = "Add each value to label_map: with its class, or with ignore."
            self._find("error", "value not in the label map", path, finding, fix)
        if size is not None and mask.shape[:2] != size:
            finding = f"{mask.shape[1]}x{mask.shape[0]} (width x height); its image is {size[1]}x{size[0]}"
            self._find("error", "size of a mask", path, finding, "Export the mask on the grid of its image.")
        if not pixels[: len(self.description.classes)].any():
            fix = "List the image as unlabelled if nothing in it is labelled."
            self._find("warning", "mask without a label", path, "no pixel has a class", fix)

    def _bands(self) -> None:
        measured, names = self.statistics, self.description.bands.names
        if measured.pixels:
            rows = zip(names, measured.minimum, measured.maximum, measured.mean, measured.std, strict=True)
            keys = ("name", "minimum", "maximum", "mean", "std")
            self.report.bands = [
                {"name": name, **{key: float(value) for key, value in zip(keys[1:], numbers, strict=True)}}
                for name, *numbers in rows
            ]
        if 0 < self.brightest < 2**14:
            finding = f"no 16-bit image is brighter than {self.brightest} of 65535: a model sees them nearly black"
            fix = "Stretch the values to the whole range."
            self._find("warning", "dark images", self.report.dataset, finding, fix)

    def _parts(self, parts_of: Mapping[Path, Sequence[str]]) -> None:
        for name, part in self.report.parts.items():
            if not part.images:
                fix = f"Check splits.{name}."
                if name == "unlabelled" and self.description.labelled is None:
                    fix = "Name fewer images in splits.labelled (null takes every image with a mask), or add images."
                self._find("error", "empty part", self.report.dataset, f"no {name} image; expected at least one", fix)
        for path, parts in parts_of.items():
            if "validation" in parts and len(parts) > 1:
                fix = "Take it out of one of them: training must not see what is measured."
                self._find("error", "validation image in training", path, f"listed as {' and '.join(parts)}", fix)

    def _duplicates(self, parts_of: Mapping[Path, Sequence[str]]) -> None:
        for paths in self.images_of.values():
            if len(paths) < 2:
                continue
            parts = sorted({part for path in paths for part in parts_of[path]})
            leaks = "validation" in parts and len(parts) > 1
            others = ", ".join(f"{path} ({' and '.join(parts_of[path])})" for path in paths[1 : SHOWN + 1])
            finding = f"({' and '.join(parts_of[paths[0]])}) has the same pixels as {others}"
            fix = "Keep one of them" + (", on one side of the split." if leaks else ".")
            kind = "duplicate across validation and training" if leaks else "duplicate image"
            self._find("error" if leaks else "warning", kind, paths[0], finding, fix)

    def _classes(self) -> None:
        names = self.description.class_names
        for part_name, effect in (("labelled", "never learned"), ("validation", "never measured")):
            part = self.report.parts[part_name]
            for name, pixels in zip(names, part.class_pixels, strict=True):
                if part.images and not pixels:
                    finding = f"no {part_name} pixel of {name}: {effect}"
                    fix = "Move an image with this class into the part, or correct label_map."
                    self._find("warning", f"class absent from {part_name}", self.report.dataset, finding, fix)
        for finding, fix in self.description.label_map.suspicions(self.values, names):
            self._find("error", "suspicious label map", self.report.dataset, finding, fix)

    def _scenes(self, members: Mapping[str, Sequence[Sample]]) -> None:
        measured = {sample.scene for sample in members["validation"]}
        training = {sample.image: sample for sample in (*members["labelled"], *members["unlabelled"])}
        leaking = [sample for sample in training.values() if sample.scene in measured]
        if leaking:
            scenes = sorted({sample.scene for sample in leaking})
            finding = (
                f"{len(scenes)} of {len(measured)} validation scenes ({', '.join(scenes[:SHOWN])}) are in training as "
                f"well: {len(leaking)} of {len(training)} training images are neighbours of validation images"
            )
            fix = "Hold out whole scenes, or read the validation numbers as too good."
            self._find("warning", "scenes on both sides", self.report.dataset, finding, fix)

    def _unused(self, images: Sequence[Path]) -> None:
        if images:
            finding = f"{len(images)} images are in no part, such as {images[0]}"
            fix = "Add them to splits.unlabelled, unless they are held out on purpose."
            self._find("warning", "unused images", self.report.dataset, finding, fix)

    def _find(self, severity: Literal["error", "warning"], kind: str, file: str | Path, finding: str, fix: str) -> None:
        self.report.findings.append(Finding(severity, kind, str(file), finding, fix))


def _new_part(samples: Sequence[Sample], num_classes: int) -> PartSummary:
    return PartSummary(
        images=len(samples), scenes=len({sample.scene for sample in samples}), class_pixels=[0] * num_classes
    )


def _fingerprint(image: NDArray[Any]) -> bytes:
    """Hash the pixels, not the file: a copy in another format or with other tags is the same image."""
    header = f"{image.dtype}{image.shape}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def _from_error(kind: str, file: str, error: Exception) -> Finding:
    """Make a finding of a message of this package: its last sentence is the way out."""
    finding, _, fix = str(error).rpartition(". ")
    return Finding("error", kind, file, finding or fix, fix if finding else "Correct the description.")


# ---------------------------------------------------------------------------------------------------------------------
# Tables for text and HTML
# ---------------------------------------------------------------------------------------------------------------------

_PART_TITLES = ["Part", "Images", "Scenes", "Width x height (images)", "No data"]
_BAND_TITLES = ["Band", "Minimum", "Maximum", "Mean", "Deviation"]
_CLASS_TITLES = ["Class", "Labelled", "Validation"]


def _part_rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (name, str(part.images), str(part.scenes), _sizes(part.sizes), f"{100 * part.nodata_share:.2f} %")
        for name, part in report.parts.items()
    ]


def _band_rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (band["name"], *(f"{band[key]:.5g}" for key in ("minimum", "maximum", "mean", "std"))) for band in report.bands
    ]


def _class_rows(report: Report) -> list[tuple[str, ...]]:
    columns = [report.parts[name] for name in ("labelled", "validation")]
    rows = [
        (name, *(f"{100 * part.class_shares[i]:.2f} %" for part in columns))
        for i, (name, _) in enumerate(report.classes)
    ]
    for title, key in (("(ignored pixels)", "ignored_pixels"), ("(pixels not in the map)", "unmapped_pixels")):
        rows.append((title, *(str(getattr(part, key)) for part in columns)))
    return rows


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    shown = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(SHOWN))
    return f"{shown} and {len(sizes) - SHOWN} more sizes" if len(sizes) > SHOWN else shown


def _by_kind(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.kind].append(finding)
    return groups


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _bars(report: Report) -> str:
    """Draw two bars for each class: the upper one of the labelled pixels, the lower one of validation."""
    labelled, validation = (report.parts[name].class_shares for name in ("labelled", "validation"))
    longest = max(*labelled, *validation, 1e-9)
    rows = []
    for i, (name, colour) in enumerate(report.classes):
        lines = "".join(
            f'<div class="bar"><i class="{part}" style="width:{70 * shares[i] / longest:.2f}%;'
            f'background:{colour or "#78909C"}"></i><span>{100 * shares[i]:.2f} % {part}</span></div>'
            for part, shares in (("labelled", labelled), ("validation", validation))
        )
        rows.append(f"<tr><td>{_text(name)}</td><td>{lines}</td></tr>")
    counts = _table(_CLASS_TITLES, _class_rows(report)[len(report.classes) :])
    return f'<table class="shares">{"".join(rows)}</table>\n{counts}'


def _verdict_line(report: Report) -> str:
    return (
        f'<p class="{"error" if report.errors else "good"}">{_text(report.verdict[0].upper() + report.verdict[1:])}</p>'
    )


def _text(value: str) -> str:
    return html.escape(value)


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Check of {title}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; }
th { font-weight: 600; border-bottom: 1px solid #bbb; } td { overflow-wrap: anywhere; border-bottom: 1px solid #eee; }
.shares { width: 100%; table-layout: fixed; } .shares td:first-child { width: 12rem; }
.bar { display: flex; align-items: center; height: 1.15rem; font-size: .8rem; color: #555; }
.bar i { display: block; height: .8rem; min-width: 1px; margin-right: .5rem; outline: 1px solid #0003; }
.bar i.validation { opacity: .55; }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; }
.error { color: #B71C1C; } .warning { color: #8A5A00; } .good { color: #1B5E20; } p { font-weight: 600; }
</style>
</head>
<body>
{body}
</body>
</html>
"""
