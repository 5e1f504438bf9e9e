import json
import math

import numpy as np
import pytest
from PIL import Image

from training import report
from training.report import class_table, default_palette, draw_curves, draw_panel, write_metrics

CLASSES = ("water", "unpaved land")


def numbers(value):
    return {
        "per_category_iou": [value, math.nan],
        "mean_iou": value,
        "mean_iou_absent_zero": value / 2,
        "pseudo_label_coverage": value,
        "pseudo_label_precision": None,
    }


def evaluation(step, value=0.5):
    return {"step": step, "clip": numbers(value), "dinov3": numbers(value + 0.125), "fused": numbers(1.0)}


def panel_row(height=12, width=16, truth=True):
    rng = np.random.default_rng(0)
    maps = {name: rng.integers(0, 2, (height, width), dtype=np.uint8) for name in ("clip", "dinov3", "fused", "truth")}
    maps["truth"][0] = 255
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {**maps, "image": image, "truth": maps["truth"] if truth else None}


def test_class_table():
    assert class_table(evaluation(1), CLASSES).split("\n") == [
        "IoU in %                    CLIP  DINOv3   Fused",
        "------------------------------------------------",
        "water                       50.0    62.5   100.0",
        "unpaved land                   –       –       –",
        "------------------------------------------------",
        "mean of present classes     50.0    62.5   100.0",
        "mean as the papers count    25.0    31.2    50.0",
    ]
    only_fused = class_table({"fused": numbers(0.0)}, CLASSES).split("\n")
    assert only_fused[0].split() == ["IoU", "in", "%", "Fused"] and only_fused[2].split() == ["water", "0.0"]


def test_class_table_refuses_other_classes():
    with pytest.raises(ValueError, match="clip has the IoU of 2 classes, but 1 class names were given"):
        class_table(evaluation(1), ["water"])


def test_write_metrics_replaces_nan_and_the_file_at_once(tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"a": math.nan, "b": [1.5, (math.inf, 2)], "c": {"d": "text", "e": None, "f": True}})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, [None, 2]], "c": {"d": "text", "e": None, "f": True}}
    with pytest.raises(TypeError):
        write_metrics(path, {"a": object()})
    assert json.loads(path.read_text())["b"][0] == 1.5 and [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_curves_are_written_deterministically(tmp_path):
    history = [evaluation(10), evaluation(20, 0.6)]
    losses = [{"step": 1, "loss": 2.0, "stability": 0.1}, {"step": 2, "loss": 1.0}, {"step": 3, "loss": math.nan}]
    for name in ("one.png", "two.png"):
        draw_curves(history, tmp_path / name, method="Co2S", losses=losses)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    draw_curves(history, tmp_path / "three.png", method="Co2S")
    heights = [Image.open(tmp_path / name).size[1] for name in ("one.png", "three.png")]
    assert heights[0] > heights[1]
    assert "Software" not in Image.open(tmp_path / "one.png").info


def test_curves_show_the_recorded_percentages(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    draw_curves(
        [evaluation(10), evaluation(20, 0.6)], tmp_path / "x.png", method="Co2S", losses=[{"step": 5, "loss": 2}]
    )
    iou, precision, coverage, loss = figures[0].axes
    assert [(line.get_label(), line.get_color()) for line in iou.lines] == [
        ("CLIP", report.COLORS["clip"]),
        ("DINOv3", report.COLORS["dinov3"]),
        ("Fused", report.COLORS["fused"]),
    ]
    assert iou.lines[0].get_xydata().tolist() == [[10, 50], [20, 60]]
    assert coverage.lines[1].get_ydata().tolist() == pytest.approx([62.5, 72.5])
    assert np.isnan(precision.lines[0].get_ydata()).all() and precision.texts[0].get_text() == "no value recorded"
    assert loss.lines[0].get_xydata().tolist() == [[5, 2]]
    assert (
        all("%" in axis.get_ylabel() for axis in (iou, precision, coverage)) and loss.get_xlabel() == "Optimizer step"
    )
    assert iou.get_title(loc="left").startswith("Co2S")


def test_panel_is_written_deterministically_and_grows_with_rows(tmp_path):
    rows = [panel_row(), panel_row(20, 8, truth=False)]
    for name in ("one.png", "two.png"):
        draw_panel(rows, CLASSES, None, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    draw_panel(rows[:1], CLASSES, np.array([[1, 2, 3], [250, 250, 250]]), tmp_path / "three.png")
    two, one = (Image.open(tmp_path / name).size for name in ("one.png", "three.png"))
    assert two[0] == one[0] >= 1800 and two[1] > one[1]


def test_panel_titles_and_legend(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    row = panel_row()
    row["fused"] = np.where(row["truth"] == 255, 1, row["truth"])
    draw_panel([row, panel_row(truth=False)], CLASSES, None, tmp_path / "x.png")
    titles = [axis.get_title() for axis in figures[0].axes]
    assert [title.split()[0] for title in titles[:6]] == ["Image", "Truth", "CLIP", "DINOv3", "Fused", "Which"]
    assert titles[4] == "Fused   mIoU 100.0 %"
    assert titles[6:] == ["Image", "Truth unknown", "CLIP", "DINOv3", "Fused", "Where students differ"]
    words = [[text.get_text() for text in legend.get_texts()] for legend in figures[0].legends]
    assert words[0] == ["Classes:", *CLASSES, "ignored"]
    assert words[1][1:4] == ["only CLIP right", "only DINOv3 right", "neither right / students differ"]


def test_legend_text_stays_inside_the_figure(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    draw_panel([panel_row()], [f"a rather long name of class {index}" for index in range(23)], None, tmp_path / "x.png")
    figure = figures[0]
    report.FigureCanvasAgg(figure).draw()
    boxes = [legend.get_window_extent() for legend in figure.legends]
    pictures = min(axis.get_window_extent().y0 for axis in figure.axes)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
    assert boxes[0].y1 < pictures and boxes[1].y1 < boxes[0].y0


def test_comparison_colours_by_who_is_right():
    truth = np.array([[0, 0, 0, 0, 255]], dtype=np.uint8)
    clip = np.array([[0, 0, 1, 1, 1]], dtype=np.uint8)
    dinov3 = np.array([[0, 1, 0, 1, 0]], dtype=np.uint8)
    image = np.zeros((1, 5, 3), dtype=np.uint8)
    gray, blue, orange, red = [120] * 3, [0x00, 0x72, 0xB2], [0xE6, 0x9F, 0x00], [0xCC, 0x11, 0x66]
    students = {"clip": clip, "dinov3": dinov3}
    assert report._compare(image, truth, students)[0].tolist() == [gray, blue, orange, red, gray]
    assert report._compare(image, None, students)[0].tolist() == [gray, red, red, gray, red]
    assert report._compare(image, truth, {"dino": clip})[0].tolist() == [gray, gray, red, red, gray]


def test_one_student_has_one_picture_and_one_curve(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    row = {key: value for key, value in panel_row().items() if key not in ("dinov3", "fused")}
    row["dino"] = row.pop("clip")
    draw_panel([row], CLASSES, None, tmp_path / "x.png")
    assert [axis.get_title().split()[0] for axis in figures[0].axes] == ["Image", "Truth", "DINO", "Where"]
    numbers = {"mean_iou": 0.5, "pseudo_label_precision": 0.5, "pseudo_label_coverage": 0.5}
    draw_curves([{"step": 1, "dino": numbers}], tmp_path / "y.png", method="fixmatch")
    assert [len(axis.lines) for axis in figures[1].axes] == [1, 1, 1]


def test_masks_are_painted_with_ignored_pixels_hatched():
    palette = default_palette(2)
    mask = np.full((40, 40), 255, dtype=np.uint8)
    mask[:20] = 1
    painted = report._paint(mask, palette)
    assert (painted[:20] == palette[1]).all()
    assert np.unique(painted[20:]).tolist() == [170, 235]


def test_one_band_is_gray_and_more_than_three_show_the_first():
    image = np.arange(8, dtype=np.uint8).reshape(1, 2, 4)
    assert report._rgb(image).tolist() == [[[0, 1, 2], [4, 5, 6]]]
    assert report._rgb(image[..., :1]).tolist() == [[[0, 0, 0], [4, 4, 4]]]


def test_default_palette_has_no_colour_twice():
    palette = default_palette(60)
    assert palette.shape == (60, 3) and palette.dtype == np.uint8
    assert len({tuple(color) for color in palette.tolist()}) == 60
    assert (default_palette(5) == palette[:5]).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rows": []}, "No image to draw for .*x.png"),
        ({"palette": np.zeros((3, 3))}, r"must be \(2, 3\) for 2 classes, got \(3, 3\)"),
        ({"rows": [{**panel_row(), "image": np.zeros((4, 4, 3), np.uint16)}]}, r"uint8, got \(4, 4, 3\) uint16"),
    ],
)
def test_panel_refuses(tmp_path, change, message):
    arguments = {"rows": [panel_row()], "classes": CLASSES, "palette": None, "path": tmp_path / "x.png"}
    with pytest.raises(ValueError, match=message):
        draw_panel(**{**arguments, **change})
