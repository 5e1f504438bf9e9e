"""The check of a described data set, and its one report: text, HTML and JSON of the same findings."""

import hashlib
import html
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.image import FileWindow, Raster
from .band_statistics import BandStatistics, significant
from .description import DatasetDescription, DescriptionError, rewrite_statistics
from .inspect import Finding, Inspection, PartSummary, from_error
from .label_map import show_value
from .samples import DataError, Sample
from .wording import SHOWN

_TOLERANCE = 0.05
"""How far mean and deviation of a description may be from the measured ones, in measured deviations."""


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
        warnings = sum(finding.severity == "warning" for finding in self.findings)
        unsplit = self.parts and not self.parts["unlabelled"].images
        state = "not fit for training" if self.errors else "fit to be split" if unsplit else "fit for training"
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
                    "hidden_pixels": part.hidden_pixels,
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
        report.findings = [from_error("split", str(path), error)]
        return report
    images = _Images(description)
    inspection = Inspection(split, description.reading, name=str(path), visit=images.visit)
    report.parts, report.bands, report.value_types = inspection.parts, images.bands, images.value_types
    report.classes = [(one.name, None if one.colour is None else show_value(one.colour)) for one in description.classes]
    if not split.unlabelled:
        fix = "Draw which ones stay labelled: `co2s data split`. Or train with --method supervised."
        inspection.find("note", "no unlabelled image", path, "every image has a mask", fix)
    report.findings = [*inspection.findings, *images.findings(str(path), inspection.parts_of)]
    report.findings.sort(key=lambda finding: ("error", "warning", "note").index(finding.severity))
    return report


class _Images:
    """What the report says of images beyond what training must know: their statistics, types and duplicates."""

    def __init__(self, description: DatasetDescription) -> None:
        self.described = description.bands
        self.statistics = BandStatistics(description.bands.count)
        self.value_types: Counter[str] = Counter()
        self.images_of: dict[bytes, list[Path | FileWindow]] = defaultdict(list)
        self.others: list[Finding] = []

    def visit(self, sample: Sample, raster: Raster) -> None:
        """Count one image."""
        image = np.moveaxis(raster.colours, 0, 2)
        self.images_of[_fingerprint(image)].append(sample.image)
        self.value_types[str(image.dtype)] += 1
        if image.shape[2] == self.described.count:
            self.statistics.update(image, raster.valid)
        if image.dtype.name != self.described.dtype:
            finding = f"{image.dtype} values; expected {self.described.dtype}, as bands.dtype says"
            fix = "Convert the image, or correct the description."
            self.others.append(Finding("error", "bands of an image", str(sample.image), finding, fix))

    @property
    def bands(self) -> list[dict[str, Any]]:
        """For each band its name and statistics, once there is an image."""
        if not self.statistics.pixels:
            return []
        keys = ("minimum", "maximum", "mean", "std")
        columns = zip(*(getattr(self.statistics, key) for key in keys), strict=True)
        return [
            {"name": name, **{key: float(value) for key, value in zip(keys, numbers, strict=True)}}
            for name, numbers in zip(self.described.names, columns, strict=True)
        ]

    def findings(self, name: str, parts_of: dict[Path | FileWindow, list[str]]) -> list[Finding]:
        """All findings, once every image was visited."""
        return [*self.others, *self._duplicates(parts_of), *self._statistics(name)]

    def _duplicates(self, parts_of: dict[Path | FileWindow, list[str]]) -> Iterable[Finding]:
        for paths in self.images_of.values():
            if len(paths) < 2:
                continue
            parts = sorted({part for path in paths for part in parts_of[path]})
            leaks = "validation" in parts and len(parts) > 1
            others = ", ".join(f"{path} ({' and '.join(parts_of[path])})" for path in paths[1 : SHOWN + 1])
            finding = f"({' and '.join(parts_of[paths[0]])}) has the same pixels as {others}"
            fix = "Keep one of them" + (", on one side of the split." if leaks else ".")
            kind = "duplicate across validation and training" if leaks else "duplicate image"
            yield Finding("error" if leaks else "warning", kind, str(paths[0]), finding, fix)

    def _statistics(self, name: str) -> Iterable[Finding]:
        measured, described = self.statistics, self.described
        if not measured.pixels or described.mean is None or described.std is None:
            return
        off = np.maximum(np.abs(measured.mean - described.mean), np.abs(measured.std - described.std))
        wrong = [one for one, differs in zip(described.names, off > _TOLERANCE * measured.std, strict=True) if differs]
        if wrong:
            mean, std = measured.rounded()
            finding = (
                f"mean and std of {', '.join(wrong)} are not those of the pixels that hold data; measured mean: "
                f"{mean}, std: {std}"
            )
            fix = "Write these numbers, or let `co2s data check --update_statistics` do it."
            yield Finding("warning", "statistics of the bands", name, finding, fix)


def update_statistics(path: str | Path, bands: Sequence[dict[str, Any]]) -> None:
    """Write mean and std of the bands of a report into the dataset.yaml at `path`; the rest of it stays as it is.

    Raises:
        DataError: Nothing was measured, or the file is written in a way that this does not understand.
    """
    if not bands:
        raise DataError(f"There is nothing to write to {path}: no image could be read. See the findings of the check.")
    mean, std = ([significant(band[key]) for band in bands] for key in ("mean", "std"))
    rewrite_statistics(path, mean, std)


def _fingerprint(image: NDArray[Any]) -> bytes:
    """Hash the pixels, not the file: a copy in another format or with other tags is the same image."""
    header = f"{image.dtype}{image.shape}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


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
    rows.append(("(labelled, but without data)", *(str(sum(part.lost_pixels)) for part in columns)))
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
