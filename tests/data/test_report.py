"""The check of a described data set: all findings in one report, each with file, finding and fix."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image

from co2s_hf.__main__ import main
from co2s_hf.data.description import Bands, DatasetDescription, LandCoverClass
from co2s_hf.data.label_map import LabelMap
from co2s_hf.data.report import check_dataset, update_statistics
from co2s_hf.raster.image import NoData
from co2s_hf.raster.write import write_image, write_mask


def draw(root, name, ids=(3, 7, 255)):
    """Write an image of 6 x 9 px that no other name has; with `ids` a mask."""
    (root / "images").mkdir(exist_ok=True), (root / "labels").mkdir(exist_ok=True)
    pixels = np.random.default_rng(list(name.encode())).integers(1, 256, (6, 9, 3), dtype=np.uint8)
    write_image(root / "images" / f"{name}.png", pixels)
    if ids is not None:
        write_mask(root / "labels" / f"{name}.png", np.resize(np.array(ids, np.uint8), (6, 9)))


@pytest.fixture
def described(tmp_path):
    """Two labelled images, one for validation, two without masks; the description, not yet saved."""
    for name in ("t1_a", "t2_a", "t3_a"):
        draw(tmp_path, name)
    for name in ("t1_u", "t2_u"):
        draw(tmp_path, name, ids=None)
    return DatasetDescription(
        root=tmp_path,
        classes=(LandCoverClass("sea & lake", (0, 0, 255)), LandCoverClass("land")),
        label_map=LabelMap(((3, 0), (7, 1), (255, 255))),
        bands=Bands(("red", "green", "blue"), rgb=(0, 1, 2)),
        scene_pattern=r"(t\d)_",
        labelled=("t[12]_a.png",),
        unlabelled=("*_u.png",),
        validation=("t3_a.png",),
    )


@pytest.fixture
def check(described):
    """Save the description with changes and check it."""

    def run(**changes):
        replace(described, **changes).save(described.root / "dataset.yaml", force=True)
        return check_dataset(described.root / "dataset.yaml")

    return run


def found(report):
    return sorted((finding.severity, finding.kind) for finding in report.findings)


def test_a_good_data_set(check):
    report = check()
    assert report.findings == [] and report.verdict == "fit for training: 0 errors, 0 warnings"
    labelled, unlabelled, validation = (report.parts[name] for name in ("labelled", "unlabelled", "validation"))
    assert (labelled.images, unlabelled.images, validation.images) == (2, 2, 1)
    assert (labelled.scenes, labelled.sizes, labelled.pixels) == (2, {(6, 9): 2}, 108)
    assert labelled.class_pixels == [36, 36] and labelled.ignored_pixels == 36
    assert validation.class_shares == [0.5, 0.5]
    assert [band["name"] for band in report.bands] == ["red", "green", "blue"]
    assert 1 <= report.bands[0]["minimum"] < report.bands[0]["mean"] < report.bands[0]["maximum"] <= 255


def test_everything_that_is_wrong_comes_in_one_report(check, tmp_path):
    draw(tmp_path, "t4_a", ids=(3, 9, 9, 12))  # ids that are not in the map
    draw(tmp_path, "t5_a", ids=None)  # no mask
    (tmp_path / "images" / "t6_u.png").write_bytes((tmp_path / "images" / "t3_a.png").read_bytes())  # a duplicate
    path = tmp_path / "images" / "t1_u.png"
    path.write_bytes(path.read_bytes()[:150])  # truncated
    write_mask(tmp_path / "labels" / "t2_a.png", np.full((3, 3), 3, np.uint8))  # another size
    write_mask(tmp_path / "labels" / "nobody.png", np.full((3, 3), 3, np.uint8))
    draw(tmp_path, "t7_rest", ids=None)
    report = check(labelled=("t[1245]_a.png",))
    assert found(report) == [
        ("error", "duplicate across validation and training"),
        ("error", "image without a mask"),
        ("error", "size of a mask"),
        ("error", "unreadable image"),
        ("error", "value not in the label map"),
        ("warning", "mask without an image"),
        ("warning", "unused images"),
    ]
    by_kind = {finding.kind: finding for finding in report.findings}
    unmapped = by_kind["value not in the label map"]
    assert unmapped.file.endswith("t4_a.png") and "9 (27 px), 12 (13 px)" in unmapped.finding
    assert report.parts["labelled"].unmapped_pixels == 40
    duplicate = by_kind["duplicate across validation and training"]
    assert duplicate.file.endswith("t6_u.png") and duplicate.finding.startswith("(unlabelled) has the same pixels as")
    assert duplicate.finding.endswith("t3_a.png (validation)")
    assert by_kind["unreadable image"].fix.startswith("Fetch or export it again")
    assert "t5_a.*" in by_kind["image without a mask"].finding
    assert all(finding.file and finding.finding and finding.fix.endswith(".") for finding in report.findings)
    assert report.verdict == "not fit for training: 5 errors, 2 warnings"


def test_leaks_absent_classes_and_masks_without_a_label(check, tmp_path):
    draw(tmp_path, "t3_a", ids=(255,))
    report = check(unlabelled=("*_u.png", "t3_a.png"))
    kinds = found(report)
    assert ("error", "validation image in training") in kinds and ("warning", "scenes on both sides") in kinds
    assert kinds.count(("warning", "class absent from validation")) == 2
    assert ("warning", "mask without a label") in kinds
    leak = next(finding for finding in report.findings if finding.kind == "scenes on both sides")
    assert "1 of 1 validation scenes (t3)" in leak.finding and "1 of 5 training images" in leak.finding


def test_pixels_without_data_are_counted_and_left_out(check, tmp_path):
    pixels = np.full((6, 9, 3), 50, np.uint8)
    pixels[:3] = 0
    pixels[3, 0, 1] = 0  # dark in one band, but not without data
    write_image(tmp_path / "images" / "t1_u.png", pixels)
    write_image(tmp_path / "images" / "t2_u.png", np.zeros((6, 9, 3), np.uint8))
    report = check(nodata=NoData(0))
    assert report.parts["unlabelled"].nodata_share == 0.75 and report.parts["labelled"].nodata_share == 0
    assert report.bands[0]["minimum"] > 0 and report.bands[1]["minimum"] == 0
    assert found(report) == [("warning", "image without data")]


def test_bands_that_are_not_as_described(check, tmp_path):
    write_image(tmp_path / "images" / "t1_u.png", np.full((6, 9, 1), 400, np.uint16))
    report = check()
    assert found(report) == [("error", "bands of an image")]
    assert "t1_u.png has 1 band; expected 3 (red, green, blue)" in report.findings[0].finding
    report = check(bands=Bands(("red", "green", "blue"), dtype="uint16"))
    assert [f.finding for f in report.findings[1:]] == ["uint8 values; expected uint16, as bands.dtype says"] * 4


def test_a_mistaken_encoding_is_an_error(check, described):
    for name in ("t1_a", "t2_a", "t3_a"):
        draw(described.root, name, ids=(0, 1, 255))
    report = check(label_map=LabelMap(((0, 255), (1, 0), (2, 1), (255, 255))))
    (error,) = [finding for finding in report.findings if finding.severity == "error"]
    assert error.kind == "suspicious label map" and "reduce_zero_label twice" in error.finding


def test_what_hinders_the_check_itself_is_a_finding(check, tmp_path):
    report = check(labelled=("none*.png",))
    assert found(report) == [("error", "split")] and 'entry "none*.png" matches no image' in report.findings[0].finding
    (tmp_path / "dataset.yaml").write_text("version: TODO\nroot: TODO\n")
    report = check_dataset(tmp_path / "dataset.yaml")
    assert [finding.file.rpartition(": ")[2] for finding in report.findings] == ["version", "root"]
    assert report.errors == 2 and "not fit for training" in report.to_text() and "<h1>" in report.to_html()


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.styles, self.loaded = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        attributes = dict(attributes)
        self.styles.append(attributes.get("style"))
        self.loaded += [attributes[name] for name in ("src", "href") if name in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_three_forms_say_the_same(check, tmp_path):
    draw(tmp_path, "t2_a", ids=(3, 3, 3, 7))
    for i in range(7):
        draw(tmp_path, f"t9_<{i}>", ids=(99,))
    report = check(labelled=("t[12]_a.png", "t9_*.png"))
    text, values, page = report.to_text(), json.loads(report.to_json()), Page(report.to_html())
    assert page.open == [] and page.loaded == []
    words = " ".join(page.words)
    assert "t9_<6>.png" in words and "sea & lake" in words
    bars = [style for style in page.styles if style]
    assert len(bars) == 4 and "background:#0000FF" in bars[0] and "width:70.00%" in bars[0]
    assert "and 2 more; --json lists all" in text and "-> Add each value to label_map" in text
    assert len(values["findings"]) == len(report.findings) and values["errors"] == 7
    assert values["parts"]["labelled"]["class_shares"] == report.parts["labelled"].class_shares
    for form in (text, words):
        assert "7 errors" in form and "99 (54 px)" in form and "9x6 (9)" in form


def test_a_fourth_band_called_alpha_is_a_band_where_four_are_described(check, described, tmp_path):
    for path in (tmp_path / "images").iterdir():
        pixels = np.random.default_rng(list(path.name.encode())).integers(1, 256, (6, 9, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    assert ("error", "bands of an image") not in found(check(bands=Bands(("red", "green", "blue", "nir"))))
    three = check()  # then it is alpha, and says where there is no data
    assert [band["name"] for band in three.bands] == ["red", "green", "blue"]


def test_a_fully_labelled_set_is_fit_to_be_split(check, described, tmp_path, capsys):
    for name in ("t1_u", "t2_u"):
        draw(tmp_path, name)
    report = check(labelled=None, unlabelled=None)
    assert report.verdict == "fit to be split: 0 errors, 0 warnings"
    assert found(report) == [("note", "no unlabelled image")] and "co2s data split" in report.findings[0].fix
    assert main(["data", "check", str(tmp_path)]) == 0
    assert main(["data", "split", str(tmp_path), str(tmp_path / "half"), "--fraction", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "2 labelled, 2 unlabelled, 1 validation images." in said
    assert re.search(r"sea & lake +50\.00 % +50\.00 %", said)
    assert main(["data", "check", str(tmp_path / "half")]) == 0
    assert "fit for training" in capsys.readouterr().out


def test_statistics_that_no_longer_hold_are_reported_and_rewritten(check, described, tmp_path, capsys):
    bands = Bands(("red", "green", "blue"), rgb=(0, 1, 2))
    pixels = {}
    for path in sorted((tmp_path / "images").iterdir()):
        image = np.array(Image.open(path))
        image[:2] = 0
        write_image(path, image)
        pixels[path] = image[2:].reshape(-1, 3).astype(np.float64)
    everything = np.concatenate(list(pixels.values()))
    with_borders = np.concatenate([everything, np.zeros((len(pixels) * 2 * 9, 3))])
    stale = replace(bands, mean=tuple(with_borders.mean(0).tolist()), std=tuple(with_borders.std(0).tolist()))
    assert found(check(bands=stale)) == []
    report = check(bands=stale, nodata=NoData(0))
    (finding,) = [one for one in report.findings if one.kind == "statistics of the bands"]
    assert f"{everything.mean(0)[0]:.6g}" in finding.finding
    path = tmp_path / "dataset.yaml"
    path.write_text(path.read_text().replace("nodata: 0", "nodata: 0  # as the borders are"))
    before = path.read_text()
    assert main(["data", "check", str(path), "--update_statistics"]) == 0
    loaded = DatasetDescription.load(path)
    np.testing.assert_allclose(loaded.bands.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(loaded.bands.std, everything.std(0), rtol=1e-5)
    assert loaded.nodata == NoData(0) and loaded.label_map == described.label_map
    others = [line for line in before.splitlines() if "mean: [" not in line and "std: [" not in line]
    assert [line for line in path.read_text().splitlines() if "mean: [" not in line and "std: [" not in line] == others
    assert "statistics of the bands" not in [one.kind for one in check_dataset(path).findings]


@pytest.mark.parametrize("form", ["  mean:\n  - 1\n  - 2\n  - 3\n", "  mean: null\n", "  mean:\n    [1,\n     2, 3]\n"])
def test_statistics_are_rewritten_however_they_are_written(check, tmp_path, form):
    check(bands=Bands(("red", "green", "blue"), mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)))
    path = tmp_path / "dataset.yaml"
    content = yaml.safe_load(path.read_text())
    bands = content.pop("bands")
    del bands["mean"]
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in bands.items())
    path.write_text(yaml.safe_dump(content) + f"bands:\n{form}{lines}")
    report = check_dataset(path)
    update_statistics(path, report.bands)
    mean = [float(f"{band['mean']:.6g}") for band in report.bands]
    assert list(DatasetDescription.load(path).bands.mean) == mean


def test_dark_borders_of_jpeg_are_no_data_as_far_as_they_reach(check, tmp_path):
    pixels = np.full((6, 9, 3), 120, np.uint8)
    pixels[:, :3] = np.random.default_rng(0).integers(0, 13, (6, 3, 3))
    pixels[3, 5] = 5  # a dark roof
    write_image(tmp_path / "images" / "t1_u.png", pixels)
    report = check(nodata=NoData(0.0, 12.0))
    assert report.parts["unlabelled"].nodata_pixels == 18
    assert check(nodata=NoData(5.0)).parts["unlabelled"].nodata_pixels == int((pixels == 5).all(2).sum())
