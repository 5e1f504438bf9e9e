"""The evaluation of a map in words, as numbers, and as a picture."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.areas import M2_PER_HA
from .accuracy import Estimate
from .map_evaluation import Comparison, SampleAssessment

SAMPLE_METHOD = (
    "Olofsson et al. (2014): strata are the classes of the map; cells eq. 4, accuracies eq. 1-3, their standard errors "
    "eq. 5-7, areas eq. 9-11, intervals 1.96 standard errors"
)
STRATA_METHOD = (
    "Stehman (2014): strata are not the classes of the map; stratified means and ratios of them, intervals 1.96 "
    "standard errors; estimated areas are shares of the map's area, which the strata are taken to cover"
)
MAX_WRITTEN_CELLS = 20  # classes; with more, the numbers of a picture cannot be read


def comparison_metrics(found: Comparison, classes: Sequence[str], gsd_m: float | None) -> dict[str, Any]:
    """All numbers of a comparison; shares in [0, 1]."""
    scores, boundary = found.scores, found.boundaries.iou()
    compared = int(scores.counts.sum())
    width = found.boundaries.width_px
    return {
        "pixels_compared": compared,
        "share_of_data_compared": compared / found.data,
        "overall_accuracy": scores.overall_accuracy,
        "mean_iou": _mean(scores.iou),
        "mean_f1": _mean(scores.f1),
        "mean_boundary_iou": _mean(boundary),
        "boundary_width_px": width,
        "boundary_width_m": None if gsd_m is None else width * gsd_m,
        "classes": [
            {
                "class_id": index,
                "class": name,
                "map_pixels": int(scores.counts[index].sum()),
                "reference_pixels": int(scores.counts[:, index].sum()),
                "users_accuracy": float(scores.users_accuracy[index]),
                "producers_accuracy": float(scores.producers_accuracy[index]),
                "f1": float(scores.f1[index]),
                "iou": float(scores.iou[index]),
                "boundary_iou": float(boundary[index]),
            }
            for index, name in enumerate(classes)
        ],
    }


def comparison_text(metrics: dict[str, Any]) -> str:
    """The table of a comparison."""
    metres = metrics["boundary_width_m"]
    wide = f"{metrics['boundary_width_px']} px" + ("" if metres is None else f" ({metres:.3g} m)")
    head = ("class", "map px", "reference px", "user's", "producer's", "F1", "IoU", "boundary IoU")
    keys = ("users_accuracy", "producers_accuracy", "f1", "iou", "boundary_iou")
    rows = [
        (one["class"], f"{one['map_pixels']:,}", f"{one['reference_pixels']:,}", *(_percent(one[key]) for key in keys))
        for one in metrics["classes"]
    ]
    means = (metrics["mean_f1"], metrics["mean_iou"], metrics["mean_boundary_iou"])
    rows.append(("mean", "", "", "", "", *map(_percent, means)))
    return (
        f"{metrics['pixels_compared']:,} pixels compared, {_percent(metrics['share_of_data_compared'])} % of the map's "
        f"data; overall accuracy {_percent(metrics['overall_accuracy'])} %\n"
        f"in %; boundary IoU within {wide} of outlines\n{_table(head, rows)}"
    )


def sample_metrics(found: SampleAssessment, classes: Sequence[str]) -> dict[str, Any]:
    """All numbers of a sample; shares in [0, 1], areas in hectares, or in pixels without a CRS."""
    estimates, placed = found.estimates, found.areas[0].area_m2 is not None
    mapped = [float(one.pixels if one.area_m2 is None else one.area_m2 / M2_PER_HA) for one in found.areas]
    areas = estimates.area_share.times(sum(mapped) * estimates.sampled_share)
    strata = [{"stratum": one.name, "area": one.area, "points": one.points} for one in found.strata]
    return {
        "method": STRATA_METHOD if strata else SAMPLE_METHOD,
        **({"strata": strata} if strata else {}),
        "points": int(found.counts.sum()),
        "points_left_out": found.outside,
        "sampled_share": estimates.sampled_share,
        "unit_of_area": "ha" if placed else "px",
        "overall_accuracy": _interval(estimates.overall_accuracy, ()),
        "area_proportions": estimates.proportions.tolist(),
        "classes": [
            {
                "class_id": index,
                "class": name,
                "points_in_map_class": int(found.counts[index].sum()),
                "points_in_reference_class": int(found.counts[:, index].sum()),
                "users_accuracy": _interval(estimates.users_accuracy, index),
                "producers_accuracy": _interval(estimates.producers_accuracy, index),
                "mapped_area": mapped[index],
                "estimated_area": _interval(areas, index),
            }
            for index, name in enumerate(classes)
        ],
    }


def sample_text(metrics: dict[str, Any]) -> str:
    """The table of a sample, with what a reader must know of its limits."""
    unit = metrics["unit_of_area"]
    head = ("class", "points", "user's %", "producer's %", f"mapped {unit}", f"estimated {unit}")
    rows = [
        (
            one["class"],
            f"{one['points_in_map_class']:,}",
            _percents(one["users_accuracy"]),
            _percents(one["producers_accuracy"]),
            f"{one['mapped_area']:,.1f}",
            f"{one['estimated_area']['value']:,.1f} ± {_or_dash(one['estimated_area']['margin_95'], ',.1f')}",
        )
        for one in metrics["classes"]
    ]
    lines = [
        f"{metrics['points']:,} points, {metrics['points_left_out']:,} left out; overall accuracy "
        f"{_percents(metrics['overall_accuracy'])} % of the area (± 95 % confidence)",
        _table(head, rows),
        metrics["method"],
    ]
    if "strata" in metrics:
        where, drawn = "", [(one["stratum"], one["area"], one["points"]) for one in metrics["strata"]]
    else:
        rows_of = ((one["class"], one["mapped_area"], one["points_in_map_class"]) for one in metrics["classes"])
        where, drawn = " of the map", list(rows_of)
    empty = [name for name, area, points in drawn if area and not points]
    if empty:
        lines.append(
            f"note: no point in {', '.join(empty)}{where}: the estimates are of the other "
            f"{_percent(metrics['sampled_share'])} % of {'the area' if 'strata' in metrics else 'its area'}"
        )
    single = [name for name, _, points in drawn if points == 1]
    if single:
        lines.append(f"note: a single point in {', '.join(single)}{where} has no standard error; add one")
    return "\n".join(lines)


def _interval(estimate: Estimate, index: Any) -> dict[str, float]:
    value, error, margin = (
        float(one[index]) for one in (estimate.value, estimate.standard_error, np.asarray(estimate.margin))
    )
    return {
        "value": value,
        "standard_error": error,
        "margin_95": margin,
        "low_95": value - margin,
        "high_95": value + margin,
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))])  # noqa: B905  # same length
        for line in (head, *rows)
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _percent(share: float) -> str:
    return _or_dash(100 * share, ".1f")


def _percents(interval: dict[str, float]) -> str:
    return f"{_percent(interval['value'])} ± {_percent(interval['margin_95'])}"


def _or_dash(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "–"


def write_confusion(path: Path, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write counts as CSV: a row for each class of the map, a column for each of the reference."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["map \\ reference", *classes])
        writer.writerows([name, *line] for name, line in zip(classes, counts.tolist(), strict=True))


def draw_confusion(path: Path, counts: NDArray[np.int64], classes: Sequence[str], unit: str) -> None:
    """Draw counts as PNG; colours and percentages are shares of the row, the diagonal is the user's accuracy.

    Args:
        path: the file.
        counts: (N, N), rows = map, columns = reference.
        classes: N names.
        unit: of the counts: pixels or points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = len(classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(1.1 * size, 14) + 1.2
    figure = Figure(figsize=(side + 0.9, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the class of the map", shrink=0.8)
    names = [f"{name}\n{int(total):,}" for name, total in zip(classes, totals[:, 0], strict=True)]
    axes.set_yticks(range(size), names)
    axes.set_xticks(range(size), classes, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_ylabel(f"Map ({unit})")
    axes.set_xlabel("Reference")
    for row in range(size if size <= MAX_WRITTEN_CELLS else 0):
        for column in range(size):
            if counts[row, column]:
                axes.text(
                    column, row, f"{100 * shares[row, column]:.1f}\n{_short(int(counts[row, column]))}", ha="center",
                    va="center", fontsize=9, color="white" if shares[row, column] > 0.5 else "black",
                )  # fmt: skip
    FigureCanvasAgg(figure).print_png(path)


def _short(count: int) -> str:
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= 10 * factor:
            return f"{count / factor:.0f} {letter}"
    return f"{count:,}"


__all__ = [
    "SAMPLE_METHOD",
    "STRATA_METHOD",
    "comparison_metrics",
    "comparison_text",
    "draw_confusion",
    "sample_metrics",
    "sample_text",
    "write_confusion",
]
