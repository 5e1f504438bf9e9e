"""Every original layout as a miniature: the same folders, names and grids, with tiles of 8 px."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.errors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from co2s_hf.data.facts import FACTS, Tiling, dataset_facts
from co2s_hf.data.folders import DataError, find_split
from co2s_hf.data.lists import Line, Lists, write_list
from co2s_hf.data.prepare import prepare, prepare_protocol, windows
from co2s_hf.raster.ids import read_ids
from co2s_hf.raster.read import read_raster
from co2s_hf.raster.write import write_mask

SIDE = 8
MSS = "GF2_PMS1__L1A0001064454-MSS1"

# (data set, protocol, kind) -> (image, mask) files of the download, size (height, width), names of prepared tiles.
LAYOUTS = {
    ("whdld", "Co2S", "original"): (
        [("Images/wh0001.jpg", "ImagesPNG/wh0001.png"), ("Images/wh0002.jpg", "ImagesPNG/wh0002.png")],
        (8, 8),
        ["wh0001", "wh0002"],
    ),
    ("whdld", "Co2S", "packaged"): ([("images/wh3917.jpg", "labels/wh3917.png")], (8, 8), ["wh3917"]),
    ("loveda", "Co2S", "original"): (
        [
            ("Train/Rural/images_png/0.png", "Train/Rural/masks_png/0.png"),
            ("Val/Urban/images_png/4190.png", "Val/Urban/masks_png/4190.png"),
        ],
        (16, 16),
        ["0", "4190"],
    ),
    ("loveda", "Co2S", "packaged"): ([("images/154.png", "labels/154.png")], (16, 16), ["154"]),
    ("loveda", "RS-MTDF", "original"): (
        [("LoveDA/Train/Urban/images_png/1366.png", "LoveDA/Train/Urban/masks_png/1366.png")],
        (16, 16),
        [f"1366_{i}" for i in (1, 2, 3, 4)],
    ),
    ("loveda", "SemiEarth", "packaged"): (
        [("JPEGImages/10006.jpg", "SegmentationClass/10006.png")],
        (8, 8),
        ["10006"],
    ),
    ("potsdam", "Co2S", "original"): (
        [("2_Ortho_RGB/top_potsdam_6_14_RGB.tif", "5_Labels_all/top_potsdam_6_14_label.tif")],
        (94, 94),  # 6000 / 512 * 8: twelve tiles, the last one cut
        [f"6_14_{x}_{y}_{x + 8}_{y + 8}" for y in [*range(0, 88, 8), 86] for x in [*range(0, 88, 8), 86]],
    ),
    ("potsdam", "Co2S", "packaged"): (
        [("images/6_14_4608_512_5120_1024.png", "labels/6_14_4608_512_5120_1024.png")],
        (8, 8),
        ["6_14_4608_512_5120_1024"],
    ),
    ("potsdam", "RS-MTDF", "original"): (
        [("2_Ortho_RGB/top_potsdam_6_11_RGB.tif", "top_potsdam_6_11_label.tif")],
        (94, 94),
        [f"6_11_{i}" for i in range(1, 145)],
    ),
    ("potsdam", "RS-MTDF", "packaged"): (
        [("image/top_potsdam_6_11_28_RGB.tif", "label/top_potsdam_6_11_28_label.tif")],
        (8, 8),
        ["6_11_28"],
    ),
    ("potsdam", "SemiEarth", "packaged"): ([("JPEGImages/4889.jpg", "SegmentationClass/4889.png")], (8, 8), ["4889"]),
    ("vaihingen", "native", "original"): (
        [
            ("top/top_mosaic_09cm_area1.tif", "top_mosaic_09cm_area1.tif"),
            ("top/top_mosaic_09cm_area30.tif", "gt/top_mosaic_09cm_area30.tif"),
        ],
        (9, 20),
        [f"{s}_{x}_{y}_{x + 8}_{y + 8}" for s in (1, 30) for y in (0, 1) for x in (0, 8, 12)],
    ),
    ("gid15", "Co2S", "packaged"): ([(f"images/{MSS}_0_10.tif", f"labels/{MSS}_0_10.tif")], (8, 8), [f"{MSS}_0_10"]),
    ("gid15", "native", "original"): (
        [(f"image_RGB/{MSS}.tif", f"label_15classes/{MSS}_label.tif")],
        (142, 150),  # 6800 x 7200 / 384 * 8
        [f"{MSS}_{row}_{column}" for row in range(18) for column in range(19)],
    ),
    ("mer", "Co2S", "packaged"): (
        [("images/1P128287268EFF0000P2303L2M1.jpg", "labels/1P128287268EFF0000P2303L2M1.png")],
        (8, 12),
        ["1P128287268EFF0000P2303L2M1"],
    ),
    ("msl", "Co2S", "packaged"): ([("images/0.jpg", "labels/0.png")], (10, 8), ["0"]),
    ("deepglobe", "RS-MTDF", "original"): (
        [("train/384477_sat.jpg", "train/384477_mask.png")],
        (39, 39),  # 2448 / 512 * 8: five tiles, the last one cut
        [f"384477_{i}" for i in range(1, 26)],
    ),
    ("deepglobe", "RS-MTDF", "packaged"): (
        [("data_cropped/384477_sat_3.jpg", "data_cropped/384477_mask_3.png")],
        (8, 8),
        ["384477_3"],
    ),
}
CASES = pytest.mark.parametrize("case", LAYOUTS, ids="-".join)


def _miniature(case):
    """The record of a layout, with its geometry and number of images scaled down."""
    name, protocol_name, kind = case
    files, size, _ = LAYOUTS[case]
    facts = dataset_facts(name)
    protocol = facts.protocol(protocol_name)
    source = getattr(protocol, kind)
    if source.tiling:
        scene_px = source.tiling.scene_px and size
        source = replace(source, tiling=replace(source.tiling, scene_px=scene_px, tile_px=SIDE))
    source = replace(source, count=source.count and len(files))
    return facts, replace(protocol, **{kind: source}), source


def _write_replica(case, folder, seed=0):
    """Write noise images and masks of every raw value; give the masks as class ids, by the first image of each."""
    _, _, source = _miniature(case)
    files, size, _ = LAYOUTS[case]
    rng = np.random.default_rng(seed)
    labels = []
    for image, mask in files:
        for path in (folder / image, folder / mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / image)
        entries = source.encoding.entries
        drawn = rng.integers(0, len(entries), size)
        drawn.flat[: len(entries)] = range(len(entries))
        Image.fromarray(np.array([value for value, _ in entries], np.uint8)[drawn]).save(folder / mask)
        labels.append(np.array([target for _, target in entries], np.uint8)[drawn])
    return labels


@CASES
def test_replicas_become_images_and_labels(case, tmp_path):
    facts, protocol, source = _miniature(case)
    files, size, names = LAYOUTS[case]
    labels = _write_replica(case, tmp_path / "download")
    record = prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")
    for kind in ("images", "labels"):
        assert sorted(path.stem for path in (tmp_path / "made" / kind).iterdir()) == sorted(names)
    assert record == json.loads((tmp_path / "made" / "prepared.json").read_text())
    assert record["images"] == len(names) and record["protocol"] == protocol.name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "made"]
    # Whole scenes again, tile by tile in the order of their names.
    per_scene = len(names) // len(files)
    for scene, (image_file, _) in enumerate(files):
        image = _pixels(tmp_path / "download" / image_file)
        tiling = source.tiling or Tiling(None, max(size), "pad")
        for name, (top, left) in zip(
            names[scene * per_scene : (scene + 1) * per_scene], windows(tiling, *size), strict=True
        ):
            window = np.s_[top : top + tiling.tile_px, left : left + tiling.tile_px]
            made = _pixels(tmp_path / "made" / "images" / f"{name}.png")
            ids = _pixels(tmp_path / "made" / "labels" / f"{name}.png")
            height, width = labels[scene][window].shape
            np.testing.assert_array_equal(made[:height, :width], image[window])
            np.testing.assert_array_equal(ids[:height, :width], labels[scene][window])
            assert not made[height:].any() and not made[:, width:].any()
            assert set(ids[height:].ravel()) | set(ids[:, width:].ravel()) <= {tiling.pad_id}
            assert made.shape[:2] == ids.shape == ((SIDE, SIDE) if source.tiling else size)


def _pixels(path):
    """(H, W) or (H, W, 3) as GDAL decodes it: its JPEG differs from Pillow's in how chroma is interpolated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            return np.moveaxis(dataset.read(), 0, 2).squeeze()


def test_there_is_a_replica_of_every_layout():
    known = {
        (name, protocol.name, kind)
        for name, facts in FACTS.items()
        for protocol in facts.protocols
        for kind in ("original", "packaged")
        if getattr(protocol, kind)
    }
    assert set(LAYOUTS) == known


def test_grids_of_the_originals():
    def grid(name, protocol):
        tiling = dataset_facts(name).protocol(protocol).original.tiling
        return list(windows(tiling, *tiling.scene_px))

    padded, shifted = grid("potsdam", "RS-MTDF"), grid("potsdam", "Co2S")
    assert len(padded) == len(shifted) == 144
    assert padded[0] == (0, 0) and padded[1] == (0, 512) and padded[27] == (1024, 1536) and padded[-1] == (5632, 5632)
    assert shifted[11] == (0, 5488) and shifted[-1] == (5488, 5488)
    assert grid("loveda", "RS-MTDF") == [(0, 0), (0, 512), (512, 0), (512, 512)]
    assert len(grid("deepglobe", "RS-MTDF")) == 25 and len(grid("gid15", "native")) == 18 * 19


def test_padding_has_the_label_of_the_protocol(tmp_path):
    for case, tile, expected in (
        (("potsdam", "RS-MTDF", "original"), "6_11_12", 5),
        (("deepglobe", "RS-MTDF", "original"), "384477_5", 6),
    ):
        facts, protocol, _ = _miniature(case)
        _write_replica(case, tmp_path / case[0])
        prepare_protocol(facts, protocol, tmp_path / case[0], tmp_path / f"{case[0]}_made")
        ids = _pixels(tmp_path / f"{case[0]}_made" / "labels" / f"{tile}.png")
        assert (ids[:, 7] == expected).all()


def test_published_lists_find_the_prepared_tiles(tmp_path):
    case = ("deepglobe", "RS-MTDF", "original")
    facts, protocol, _ = _miniature(case)
    _write_replica(case, tmp_path / "download")
    prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")
    lines = [Line(f"data_cropped/384477_sat_{i}.jpg", f"data_cropped/384477_mask_{i}.png") for i in (1, 2, 25)]
    lists = protocol.prepared(Lists(*((line,) for line in lines)))
    for name in ("labelled", "unlabelled", "validation"):
        write_list(tmp_path / "made" / f"{name}.txt", getattr(lists, name))
    split = find_split(
        tmp_path / "made",
        classes=protocol.classes,
        labelled=["labelled.txt"],
        unlabelled=["unlabelled.txt"],
        validation=["validation.txt"],
        scene_pattern=protocol.name_pattern,
    )
    assert [s.image.stem for s in (*split.labelled, *split.unlabelled, *split.validation)] == [
        "384477_1",
        "384477_2",
        "384477_25",
    ]
    assert split.validation[0].scene == "384477" and split.labelled[0].mask.is_file()


# ---- refusals ----


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_that_the_encoding_does_not_know_are_named(data, tmp_path_factory):
    case = data.draw(st.sampled_from([case for case in LAYOUTS if LAYOUTS[case][1][0] < 20]))
    facts, protocol, source = _miniature(case)
    folder = tmp_path_factory.mktemp("replica")
    _write_replica(case, folder)
    known = [value for value, _ in source.encoding.entries]
    level = st.integers(0, 255)
    value = st.tuples(level, level, level) if isinstance(known[0], tuple) else level
    wrong = data.draw(value.filter(lambda v: v not in known))
    mask = folder / data.draw(st.sampled_from([mask for _, mask in LAYOUTS[case][0]]))
    pixels = np.array(Image.open(mask))
    pixels[3, 4] = wrong
    Image.fromarray(pixels).save(mask)
    shown = "#{:02X}{:02X}{:02X}".format(*wrong) if isinstance(wrong, tuple) else str(wrong)
    target = folder.with_name(folder.name + "_made")
    with pytest.raises(DataError) as error:
        prepare_protocol(facts, protocol, folder, target)
    assert f"{mask}: The mask holds {shown} (1 px)" in str(error.value)
    assert not target.exists() and not target.with_name(f".{target.name}.part").exists()


def test_every_wrong_file_is_in_one_error(tmp_path):
    case = ("loveda", "Co2S", "original")
    facts, protocol, _ = _miniature(case)
    _write_replica(case, tmp_path / "download")
    first, second = (tmp_path / "download" / mask for _, mask in LAYOUTS[case][0])
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(first)
    second.write_bytes(second.read_bytes()[:60])
    with pytest.raises(
        DataError, match=r"2 of 2 images do not fit(.|\n)*0.png: The mask holds 9 (.|\n)*4190.png cannot"
    ):
        prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")


def test_scenes_of_another_size_are_refused(tmp_path):
    case = ("potsdam", "Co2S", "original")
    facts, protocol, source = _miniature(case)
    _write_replica(case, tmp_path / "download")
    larger = replace(source, tiling=replace(source.tiling, scene_px=(94, 95)))
    with pytest.raises(DataError, match="_RGB.tif is 94x94; expected 95x94"):
        prepare_protocol(facts, replace(protocol, original=larger), tmp_path / "download", tmp_path / "made")
    mask = tmp_path / "download" / LAYOUTS[case][0][0][1]
    Image.fromarray(np.zeros((94, 90, 3), np.uint8) + np.uint8(255)).save(mask)
    with pytest.raises(DataError, match="_label.tif is 90x94; expected 94x94 as"):
        prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")
    with pytest.raises(DataError, match="at least the 8x8 of one tile"):
        list(windows(source.tiling, 7, 20))


def test_incomplete_downloads_are_refused(tmp_path):
    case = ("loveda", "Co2S", "original")
    facts, protocol, source = _miniature(case)
    download = tmp_path / "download"
    with pytest.raises(DataError, match="There is no folder"):
        prepare("LoveDA", "Co2S", download, tmp_path / "made")
    download.mkdir()
    with pytest.raises(DataError, match="holds no image of the protocol Co2S"):
        prepare("LoveDA", "Co2S", download, tmp_path / "made")
    _write_replica(case, download)
    with pytest.raises(DataError, match="holds 2 images; expected the 4191"):
        prepare("LoveDA", "Co2S", download, tmp_path / "made")
    (download / LAYOUTS[case][0][1][1]).unlink()
    with pytest.raises(DataError, match="lacks the masks of 1 of 2 images: Val/Urban/masks_png/4190.png"):
        prepare_protocol(facts, protocol, download, tmp_path / "made")
    _write_replica(case, download)
    _write_replica(("loveda", "Co2S", "packaged"), download)
    with pytest.raises(DataError, match="images of two layouts"):
        prepare_protocol(facts, protocol, download, tmp_path / "made")
    _write_replica(case, tmp_path / "twice" / "a")
    _write_replica(case, tmp_path / "twice" / "b")
    twice = replace(protocol, original=replace(source, count=4))
    with pytest.raises(DataError, match="would both become 0.png"):
        prepare_protocol(facts, twice, tmp_path / "twice", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_nothing_is_overwritten_and_nothing_half_written_looks_finished(tmp_path, monkeypatch):
    case = ("whdld", "Co2S", "original")
    facts, protocol, _ = _miniature(case)
    download, target = tmp_path / "download", tmp_path / "made"
    _write_replica(case, download)
    with pytest.raises(DataError, match="lies in the download"):
        prepare_protocol(facts, protocol, download, download / "made")

    def stop(path, mask):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("co2s_hf.data.prepare.write_mask", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_protocol(facts, protocol, download, target)
    assert not target.exists()
    (tmp_path / ".made.part" / "images").mkdir(parents=True)  # what a killed run leaves
    (tmp_path / ".made.part" / "images" / "wh9999.png").touch()
    prepare_protocol(facts, protocol, download, target)
    assert sorted(path.name for path in (target / "images").iterdir()) == ["wh0001.png", "wh0002.png"]
    before = (target / "labels" / "wh0001.png").read_bytes()
    with pytest.raises(DataError, match="made exists; expected a new folder"):
        prepare_protocol(facts, protocol, download, target)
    _write_replica(case, download, seed=1)
    prepare_protocol(facts, protocol, download, target, force=True)
    assert (target / "labels" / "wh0001.png").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "made"]
    (target / "prepared.json").unlink()
    with pytest.raises(DataError, match="was not made here"):
        prepare_protocol(facts, protocol, download, target, force=True)


# ---- interruptions ----


def _interrupted(monkeypatch, function, after, run):
    """Run until a function was called so many times; then a person presses a key."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise KeyboardInterrupt
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(f"co2s_hf.data.prepare.{function.__name__}", call)
        with pytest.raises(KeyboardInterrupt):
            run()


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("after", [1, 6, 7, 11])  # six tiles a scene: in the first, at its end, in the second
def test_an_interrupted_run_goes_on_and_makes_the_same_bytes(tmp_path, monkeypatch, capsys, after):
    case = ("vaihingen", "native", "original")
    facts, protocol, _ = _miniature(case)
    _write_replica(case, tmp_path / "download")
    whole = prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "whole")

    def run():
        return prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")

    _interrupted(monkeypatch, write_mask, after, run)
    assert not (tmp_path / "made").exists() and (tmp_path / ".made.part").exists() == (after >= 6)
    read, shown = [], []
    monkeypatch.setattr("co2s_hf.data.prepare.read_raster", lambda path: read.append(path.name) or read_raster(path))
    monkeypatch.setattr("co2s_hf.data.prepare.tqdm", lambda pairs, **bar: shown.append(bar) or pairs)
    assert run() == whole
    assert read == ["top_mosaic_09cm_area1.tif"] * (after < 6) + ["top_mosaic_09cm_area30.tif"]
    assert (shown[0]["desc"], shown[0]["initial"]) == (("Preparing, resumed", 1) if after >= 6 else ("Preparing", 0))
    assert _bytes(tmp_path / "made") == _bytes(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["download", "made", "whole"]


def test_a_download_that_has_changed_is_not_mixed_with_what_was_made_of_it(tmp_path, monkeypatch):
    case = ("vaihingen", "native", "original")
    facts, protocol, _ = _miniature(case)
    download, target = tmp_path / "download", tmp_path / "made"
    _write_replica(case, download)
    _interrupted(monkeypatch, write_mask, 6, lambda: prepare_protocol(facts, protocol, download, target))
    with pytest.raises(DataError, match=r"unfinished run of another task \(protocol native, not mine\)"):
        prepare_protocol(facts, replace(protocol, name="mine"), download, target)
    _write_replica(case, download, seed=1)
    with pytest.raises(DataError, match="unfinished run of another task .files .*, not .*force this one"):
        prepare_protocol(facts, protocol, download, target)
    prepare_protocol(facts, protocol, download, target, force=True)
    prepare_protocol(facts, protocol, download, tmp_path / "whole")
    assert _bytes(target) == _bytes(tmp_path / "whole")


def test_a_wrong_mask_behind_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    case = ("vaihingen", "native", "original")
    facts, protocol, _ = _miniature(case)
    _write_replica(case, tmp_path / "download")
    Image.fromarray(np.full((9, 20, 3), 9, np.uint8)).save(tmp_path / "download" / LAYOUTS[case][0][1][1])

    def run():
        prepare_protocol(facts, protocol, tmp_path / "download", tmp_path / "made")

    _interrupted(monkeypatch, read_ids, 1, run)
    assert (tmp_path / ".made.part").exists()
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 2 images do not fit the protocol(.|\n)*area30.tif: The mask holds"):
            run()
        assert [path.name for path in tmp_path.iterdir()] == ["download"]
