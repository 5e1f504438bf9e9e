"""What a person looks at after a run: the table of classes, the curves, the panel of pictures, metrics.json.

One evaluation is one dictionary, everywhere in this file:

    {"step": 500, "clip": numbers, "dinov3": numbers, "fused": numbers}         of a model with two students
    {"step": 500, "dino": numbers}                                            of a model with one

where `numbers` is `{**ConfusionMatrix.summary(), **PseudoLabelQuality.summary()}`. Fractions become percent only here.
"""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from co2s_hf.geo.results import write_json

IGNORE = 255
TITLES = {"clip": "CLIP", "dinov3": "DINOv3", "dino": "DINO", "fused": "Fused"}
COLORS = {"clip": "#0072b2", "dinov3": "#e69f00", "dino": "#009e73", "fused": "#222222"}
NEITHER = "#cc1166"  # no student is right, or they differ and the truth is unknown

# Okabe and Ito's colours without black, told apart with any colour vision; further classes walk round the hue circle.
_FIRST_COLORS = (0x0072B2, 0xE69F00, 0x009E73, 0xCC79A7, 0xF0E442, 0x56B4E9, 0xD55E00)


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write JSON atomically: a reader sees the old file or the new one. Not finite numbers become null."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.tmp")
    write_json(unfinished, metrics)
    os.replace(unfinished, path)


def class_table(results: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Format the IoU of each class (percent) as a monospace table, one column per prediction.

    Args:
        results: one evaluation, see the top of this file; a prediction that is missing gets no column.
        classes: N class names in id order.

    Returns:
        Lines joined by newlines: header, N classes, the mean over classes that occur, and the mean in which a class
        without any pixel counts as 0. A class without a number is shown as "–".
    """
    keys = _predictions(results)
    for key in keys:
        if len(results[key]["per_category_iou"]) != len(classes):
            raise ValueError(
                f"{key} has the IoU of {len(results[key]['per_category_iou'])} classes, but {len(classes)} class names "
                "were given."
            )
    rows = [(name, [results[key]["per_category_iou"][index] for key in keys]) for index, name in enumerate(classes)]
    means = [
        ("mean of present classes", [results[key]["mean_iou"] for key in keys]),
        ("mean as the papers count", [results[key]["mean_iou_absent_zero"] for key in keys]),
    ]
    width = max(len(name) for name, _ in rows + means)
    header = f"{'IoU in %':<{width}}" + "".join(f"{TITLES[key]:>8}" for key in keys)
    rule = "-" * len(header)

    def line(name: str, values: Sequence[float | None]) -> str:
        return f"{name:<{width}}" + "".join(f"{percent(value):>8}" for value in values)

    return "\n".join([header, rule, *(line(*row) for row in rows), rule, *(line(*row) for row in means)])


def draw_curves(
    history: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    method: str,
    losses: Sequence[Mapping[str, float]] = (),
) -> None:
    """Draw mIoU, precision and coverage of the pseudo-labels over optimizer steps, and the training losses if given.

    Args:
        history: evaluations in order, see the top of this file.
        path: PNG to write.
        method: name for the title.
        losses: logged scalars, each {"step": ..., name: value, ...}.
    """
    panels = [
        ("mean_iou", "mIoU (%)"),
        ("pseudo_label_precision", "Pseudo-label\nprecision (%)"),
        ("pseudo_label_coverage", "Pseudo-label\ncoverage (%)"),
    ]
    figure = Figure(figsize=(8, 2.4 * (len(panels) + bool(losses)) + 0.6), dpi=130, layout="constrained")
    axes = figure.subplots(len(panels) + bool(losses), sharex=True)
    axes[0].set_title(f"{method}: validation", loc="left")
    for axis, (name, label) in zip(axes, panels, strict=False):
        _draw_predictions(axis, history, name)
        axis.set_ylabel(label)
    if axes[0].lines:
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(TITLES), frameon=False)
    if losses:
        _draw_losses(axes[-1], losses)
    for axis in axes:
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("Optimizer step")
    figure.align_ylabels(axes)
    _save(figure, path)


def draw_panel(
    rows: Sequence[Mapping[str, np.ndarray | None]],
    classes: Sequence[str],
    palette: np.ndarray | None,
    path: Path,
) -> None:
    """Draw one line per image: image, truth, the predictions, and where which student is right.

    Args:
        rows: one dictionary per image with "image" (H, W, C) uint8 and the class maps "truth" (255 = ignored; None =
            unknown) and of each prediction, all (H, W); the same predictions in every row.
        classes: N class names in id order.
        palette: (N, 3) uint8 colours, None for `default_palette(N)`.
        path: PNG to write.
    """
    if not rows:
        raise ValueError(f"No image to draw for {path}: give at least one row.")
    palette = default_palette(len(classes)) if palette is None else np.asarray(palette, dtype=np.uint8)
    if palette.shape != (len(classes), 3):
        raise ValueError(f"The palette must be ({len(classes)}, 3) for {len(classes)} classes, got {palette.shape}.")
    cell = 2.9  # inches per picture; all heights below are inches, so that nothing depends on the number of rows
    predictions = _predictions(rows[0])
    columns = len(predictions) + 3
    width = columns * cell
    heights = [cell * min(row["image"].shape[0] / row["image"].shape[1], 2.0) + 0.34 for row in rows]
    truths = {row["truth"] is not None for row in rows}
    legends = [
        _class_legend(classes, palette, width),
        _student_legend([key for key in predictions if key != "fused"], truths, width),
    ]
    bottom = sum(0.21 * lines + 0.12 for _, _, lines in legends)
    total = sum(heights) + bottom
    figure = Figure(figsize=(width, total), dpi=110)
    top = total
    for row, height in zip(rows, heights, strict=True):
        for column, (title, pixels) in enumerate(_pictures(row, palette)):
            box = ((column + 0.015) / columns, (top - height + 0.02) / total, 0.97 / columns, (height - 0.34) / total)
            axis = figure.add_axes(box)
            axis.imshow(pixels)
            axis.set_axis_off()
            axis.set_title(title, fontsize=10.5, pad=4)
        top -= height
    for handles, ncols, lines in legends:
        anchor = (0.5, (top - 0.06) / total)
        figure.legend(
            handles=handles, loc="upper center", bbox_to_anchor=anchor, ncols=ncols, fontsize=10.5, frameon=False,
            borderpad=0, borderaxespad=0, handlelength=1.4, labelspacing=0.35, columnspacing=1.6,
        )  # fmt: skip
        top -= 0.21 * lines + 0.12
    _save(figure, path)


def default_palette(num_classes: int) -> np.ndarray:
    """Colours for classes without any of their own, (N, 3) uint8, the same at every call."""
    first = [[value >> 16, value >> 8 & 255, value & 255] for value in _FIRST_COLORS[:num_classes]]
    more = np.arange(len(first), num_classes)
    hues = (more * (math.sqrt(5) - 1) / 2) % 1  # the golden ratio never repeats a hue
    hsv = np.stack([hues, np.where(more % 2, 0.55, 0.85), np.where(more % 3, 0.9, 0.6)], axis=-1)
    return np.concatenate([np.array(first).reshape(-1, 3), (hsv_to_rgb(hsv) * 255).round()]).astype(np.uint8)


def _predictions(results: Collection[str]) -> list[str]:
    """Names of predictions among some keys, in the order in which they are shown."""
    return [key for key in TITLES if key in results]


def percent(fraction: float | None) -> str:
    """A fraction in percent; a dash where there is none."""
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def _draw_predictions(axis: Axes, history: Sequence[Mapping[str, Any]], name: str) -> None:
    steps = [entry["step"] for entry in history]
    for key in _predictions({key for entry in history for key in entry}):
        values = [entry.get(key, {}).get(name) for entry in history]
        percent = [math.nan if value is None else 100 * value for value in values]
        axis.plot(steps, percent, marker="o", markersize=3.5, color=COLORS[key], label=TITLES[key])
    if not any(np.isfinite(line.get_ydata()).any() for line in axis.lines):  # e.g. no pixel was ever confident
        axis.set_yticks([])
        axis.text(0.5, 0.5, "no value recorded", transform=axis.transAxes, ha="center", va="center", color="0.4")


def _draw_losses(axis: Axes, losses: Sequence[Mapping[str, float]]) -> None:
    """One line per logged name; the total, called "loss", on top in black."""
    names = dict.fromkeys(name for entry in losses for name in entry if name != "step")
    for name in sorted(names, key=lambda name: name == "loss"):
        points = [(entry["step"], entry[name]) for entry in losses if entry.get(name) is not None]
        style = {"color": "black", "linewidth": 1.8} if name == "loss" else {"linewidth": 1.0}
        if points:
            axis.plot(*zip(*points, strict=True), label=name, **style)
    axis.set_ylabel("Training loss")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, fontsize=9, frameon=False)


def _pictures(row: Mapping[str, np.ndarray | None], palette: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Titles and (H, W, 3) uint8 pixels of one line of the panel."""
    image, truth = _rgb(row["image"]), row["truth"]
    blank = np.full_like(image, 255)
    pictures = [("Image", image)]
    pictures.append(("Truth unknown", blank) if truth is None else ("Truth", _paint(truth, palette)))
    predictions = _predictions(row)
    for key in predictions:
        score = "" if truth is None else f"   mIoU {percent(_mean_iou(row[key], truth, len(palette)))} %"
        pictures.append((TITLES[key] + score, _paint(row[key], palette)))
    students = {key: row[key] for key in predictions if key != "fused"}
    shown = "Which student is right" if len(students) > 1 else "Where it is wrong"
    pictures.append(("Where students differ" if truth is None else shown, _compare(image, truth, students)))
    return pictures


def _rgb(image: np.ndarray) -> np.ndarray:
    """First three bands, or the first one as gray."""
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"Images of the panel are (H, W, C) uint8, got {image.shape} {image.dtype}: stretch it first.")
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def _paint(classes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Class map (H, W) -> colours (H, W, 3); ignored pixels are hatched in gray."""
    height, width = classes.shape
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    painted = colors[classes]
    period = max(8, max(height, width) // 40)
    diagonal = (np.arange(height)[:, None] + np.arange(width)) % period < period // 4
    return np.where((classes == IGNORE)[..., None], np.where(diagonal, 170, 235)[..., None], painted).astype(np.uint8)


def _compare(image: np.ndarray, truth: np.ndarray | None, students: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pale gray image; coloured where one of two students or none is right; without truth, where they differ."""
    picture = np.repeat(image.mean(-1, keepdims=True) * 0.5 + 120, 3, axis=-1)
    maps = np.stack(list(students.values()))  # (students, H, W)
    if truth is None:
        marks = {NEITHER: (maps != maps[0]).any(0)}
    else:
        known, right = truth != IGNORE, maps == truth
        marks = {NEITHER: known & ~right.any(0)}
        if len(students) > 1:
            marks |= {COLORS[key]: known & right[i] & (right.sum(0) == 1) for i, key in enumerate(students)}
    for color, mask in marks.items():
        picture[mask] = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return picture.astype(np.uint8)


def _mean_iou(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> float:
    known = truth != IGNORE
    pairs = np.bincount(truth[known].astype(np.int64) * num_classes + prediction[known], minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    present = union > 0
    return float((counts.diagonal()[present] / union[present]).mean()) if present.any() else math.nan


Legend = tuple[list[Patch], int, int]  # handles, columns, lines


def _class_legend(classes: Sequence[str], palette: np.ndarray, width: float) -> Legend:
    handles = [Patch(alpha=0, label="Classes:")]
    for name, color in zip(classes, palette, strict=True):
        handles.append(Patch(facecolor=color / 255, edgecolor="0.5", label=name))
    handles.append(Patch(facecolor="0.92", edgecolor="0.6", hatch="////", label="ignored"))
    return _arrange(handles, width)


def _student_legend(students: Sequence[str], truths: set[bool], width: float) -> Legend:
    """`truths` says whether there are rows with (True) and without (False) truth."""
    handles = [Patch(alpha=0, label="Last column:")]
    if len(students) == 1:
        handles.append(Patch(facecolor=NEITHER, label="wrong"))
        return _arrange([*handles, Patch(facecolor="0.8", label="right, ignored or unknown")], width)
    if True in truths:
        handles += [Patch(facecolor=COLORS[key], label=f"only {TITLES[key]} right") for key in students]
    meanings = (
        (NEITHER, {True: "neither right", False: "students differ"}),
        ("0.8", {True: "both right or ignored", False: "same"}),
    )
    for color, labels in meanings:
        label = " / ".join(labels[known] for known in sorted(truths, reverse=True))
        handles.append(Patch(facecolor=color, label=label))
    return _arrange(handles, width)


def _arrange(handles: list[Patch], width: float) -> Legend:
    """As many columns as fit into `width` inches."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = min(len(handles), max(1, int(width / (0.085 * longest + 0.6))))
    return handles, columns, math.ceil(len(handles) / columns)


def _save(figure: Figure, path: Path) -> None:
    """PNG without the library's version in it: the same input gives the same bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
