"""Data sets laid out as on the Hub, small and on the disk, become folders of images and masks."""

import json
import tarfile
from io import BytesIO
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import yaml
from PIL import Image

from co2s_hf.__main__ import main
from co2s_hf.data.description import DatasetDescription, write_document
from co2s_hf.data.folders import DataError
from co2s_hf.data.hub import _usable, fetch, read_named
from co2s_hf.raster.ids import read_ids

datasets.disable_progress_bars()


def encode(pixels, form="PNG", palette=None):
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(palette)
    with BytesIO() as file:
        image.save(file, form)
        return file.getvalue()


def picture(i, form="PNG"):
    return encode(np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8), form)


def mask(i, mask_form="PNG", dtype=np.uint8, palette=None):
    return encode(np.random.default_rng(i).integers(0, 3, (6, 8)).astype(dtype), mask_form, palette)


def row(i, form="PNG", **mask_options):
    return {
        "image": {"path": f"sea {i}.jpg", "bytes": picture(i, form)},
        "label": {"path": None, "bytes": mask(i, **mask_options)},
    }


def write_parquet(folder, rows, split="train", shard=0):
    folder.mkdir(exist_ok=True)
    features = datasets.Features({name: datasets.Image() for name in rows[0]})
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(folder / f"{split}-{shard:05d}.parquet")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_bytes_stay_as_they_are_and_endings_tell_the_format(tmp_path):
    rows = [
        row(0, "JPEG"),
        row(1, mask_form="TIFF"),
        row(2, "WEBP", dtype=np.uint16),
        row(3, "TIFF", palette=[255, 0, 0, 0, 255, 0, 0, 0, 255]),
    ]
    write_parquet(tmp_path / "hub", rows[:2])
    write_parquet(tmp_path / "hub", rows[2:], shard=1)
    record = fetch(str(tmp_path / "hub"), tmp_path / "made")
    made = contents(tmp_path / "made")
    assert json.loads(made.pop("fetched.json")) == record
    assert made == {
        "images/sea_0.jpg": rows[0]["image"]["bytes"],
        "images/sea_1.png": rows[1]["image"]["bytes"],
        "images/sea_2.webp": rows[2]["image"]["bytes"],
        "images/sea_3.tif": rows[3]["image"]["bytes"],
        "labels/sea_0.png": rows[0]["label"]["bytes"],
        "labels/sea_1.tif": rows[1]["label"]["bytes"],
        "labels/sea_2.png": rows[2]["label"]["bytes"],
        "labels/sea_3.png": rows[3]["label"]["bytes"],
    }
    expected = np.random.default_rng(3).integers(0, 3, (6, 8))
    np.testing.assert_array_equal(read_ids(tmp_path / "made" / "labels" / "sea_3.png").values, expected)  # no colours
    assert record["counts"] == {"train": {"images": 4, "masks": 4}} and record["licence"] == "not stated"
    assert record["columns"] == ["image", "label"] and record["left_out"] == []


def test_names_are_safe_and_no_two_are_alike(tmp_path):
    paths = ["../../etc/tile.v1_2.PNG", "b/a b.png", None, "c/a_b.png", "A_B.tif", "..", "train_0000004.png", "x" * 300]
    rows = [row(i) | {"image": {"path": path, "bytes": picture(i)}} for i, path in enumerate(paths)]
    write_parquet(tmp_path / "hub", rows)
    fetch(str(tmp_path / "hub"), tmp_path / "made")
    names = ["tile.v1_2", "a_b", "train_0000003", "train_0000004", "train_0000005", "train_0000006"]
    names += ["train_0000007", "x" * 100]
    images, labels = (
        {path.stem: path for path in (tmp_path / "made" / kind).iterdir()} for kind in ("images", "labels")
    )
    assert set(images) == set(labels) == set(names)
    for i, name in enumerate(names):
        assert images[name].read_bytes() == picture(i) and labels[name].read_bytes() == mask(i)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "made"]


def test_rows_without_a_mask_are_unlabelled_images_and_splits_have_lists(tmp_path):
    rows = [row(i) for i in range(6)]
    rows[1]["label"] = rows[4]["label"] = None
    write_parquet(tmp_path / "hub", rows[:3])
    write_parquet(tmp_path / "hub", rows[3:], split="validation")
    write_parquet(tmp_path / "hub", rows[:1], split="test")
    record = fetch(str(tmp_path / "hub"), tmp_path / "made", splits=["train", "validation", "test"])
    assert record["counts"]["validation"] == {"images": 3, "masks": 2} and record["images"] == 7
    lists = {path.name: path.read_text() for path in (tmp_path / "made").glob("*.txt")}
    assert lists == {
        "train.txt": "images/train_sea_0.png labels/train_sea_0.png\nimages/train_sea_2.png labels/train_sea_2.png\n",
        "train_unlabelled.txt": "images/train_sea_1.png\n",
        "validation.txt": "images/validation_sea_3.png labels/validation_sea_3.png\n"
        "images/validation_sea_5.png labels/validation_sea_5.png\n",
        "validation_unlabelled.txt": "images/validation_sea_4.png\n",
        "test.txt": "images/test_sea_0.png labels/test_sea_0.png\n",
    }
    assert record["lists"] == {
        "labelled": ["train.txt"],
        "unlabelled": ["train_unlabelled.txt"],
        "validation": ["validation.txt"],
    }
    fetch(str(tmp_path / "hub"), tmp_path / "one")
    assert not list((tmp_path / "one").glob("*.txt")) and (tmp_path / "one" / "images" / "sea_1.png").is_file()


def test_folders_of_images_with_metadata_are_read_from_their_files(tmp_path):
    folder = tmp_path / "hub" / "train"
    folder.mkdir(parents=True)
    lines = []
    for i in range(2):
        (folder / f"a{i}.jpg").write_bytes(picture(i, "JPEG"))
        (folder / f"m{i}.png").write_bytes(mask(i))
        lines.append(json.dumps({"file_name": f"a{i}.jpg", "mask_file_name": f"m{i}.png"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    fetch(str(tmp_path / "hub"), tmp_path / "made")
    made = contents(tmp_path / "made")
    assert made["images/a1.jpg"] == picture(1, "JPEG") and made["labels/a1.png"] == mask(1) and len(made) == 5


def test_shards_name_their_rows_and_some_have_no_mask(tmp_path):
    (tmp_path / "hub").mkdir()
    with tarfile.open(tmp_path / "hub" / "train-000.tar", "w") as tar:
        for i in range(7):
            for suffix, data in (("jpg", picture(i, "JPEG")), ("png", mask(i)))[: 1 if i == 6 else 2]:
                entry = tarfile.TarInfo(f"bay{i}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, BytesIO(data))
    options = {"image_column": "jpg", "mask_column": "png"}
    assert fetch(str(tmp_path / "hub"), tmp_path / "made", **options)["counts"]["train"] == {"images": 7, "masks": 6}
    made = contents(tmp_path / "made")
    assert made["images/bay6.jpg"] == picture(6, "JPEG") and made["labels/bay5.png"] == mask(5)


def test_the_hub_is_asked_for_the_commit_and_the_licence(tmp_path, monkeypatch):
    write_parquet(tmp_path / "hub", [row(0)])
    asked = []
    load = datasets.load_dataset

    def dataset_info(self, name, revision=None):
        asked.append((name, revision))
        return SimpleNamespace(sha="0a1b", card_data=SimpleNamespace(license="cc-by-4.0"))

    def load_dataset(name, config, *, revision, streaming):
        asked.append((name, config, revision, streaming))
        return load(str(tmp_path / "hub"), streaming=True)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)  # where a folder may be called like the data set
    record = fetch("nobody/seas", "nobody/seas", config="small", revision="main")
    assert asked == [("nobody/seas", "main"), ("nobody/seas", "small", "0a1b", True)]
    assert (record["data set"], record["revision"], record["licence"]) == ("nobody/seas", "0a1b", "cc-by-4.0")


# ---- columns ----


@pytest.mark.parametrize(
    ("names", "options", "found"),
    [
        (["picture", "annotation"], {}, ["picture", "annotation"]),
        (["scene", "Mask"], {}, ["scene", "Mask"]),
        (["depth", "image", "mask"], {}, ["image", "mask"]),
        (["a", "b"], {"mask_column": "a"}, ["b", "a"]),
        (["a", "mask", "label"], {"image_column": "a", "mask_column": "label"}, ["a", "label"]),
        (["label", "mask"], {"image_column": "label"}, ["label", "mask"]),
    ],
)
def test_columns_are_found_by_what_they_are_called(tmp_path, names, options, found):
    write_parquet(tmp_path / "hub", [{name: {"path": None, "bytes": mask(0)} for name in names}])
    assert fetch(str(tmp_path / "hub"), tmp_path / "made", **options)["columns"] == found


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["image"], {}, "columns image, and image could be masks.*--mask_column.*--unlabelled_stream"),
        (["a", "b"], {}, "and a, b could be masks.*--mask_column"),
        (["image", "mask", "label"], {}, "image, mask, label could be masks.*--mask_column"),
        (["a", "b", "mask"], {}, r"could be images; expected one besides the masks \(mask\).*--image_column"),
        (["a", "mask"], {"image_column": "c"}, "--image_column names c. Name one of them"),
        (["a", "mask"], {"image_column": "a", "mask_column": "a"}, "a is named for both"),
    ],
)
def test_nothing_is_guessed_about_columns(tmp_path, names, options, message):
    write_parquet(tmp_path / "hub", [{name: {"path": None, "bytes": mask(0)} for name in names}])
    with pytest.raises(DataError, match=message):
        fetch(str(tmp_path / "hub"), tmp_path / "made", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


# ---- refusals ----


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_masks_are_refused(tmp_path, form):
    write_parquet(tmp_path / "hub", [row(0, mask_form=form)])
    with pytest.raises(DataError, match=r"row 1 of train, column label, is a mask with lossy .*smears.*expected PNG"):
        fetch(str(tmp_path / "hub"), tmp_path / "made")
    with pytest.raises(DataError, match="has no usable row in train; expected some. row 1"):
        fetch(str(tmp_path / "hub"), tmp_path / "made", skip_broken=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_broken_rows_stop_it_until_they_are_to_be_left_out(tmp_path):
    rows = [row(i) for i in range(5)]
    rows[1]["image"] = None
    rows[2]["label"]["bytes"] = mask(2)[:60]
    rows[3]["image"]["bytes"] = encode(np.zeros((6, 8), np.uint8), "GIF")
    write_parquet(tmp_path / "hub", rows)
    with pytest.raises(DataError, match="row 2 of train has no image in the column image.*--skip_broken"):
        fetch(str(tmp_path / "hub"), tmp_path / "made")
    assert not (tmp_path / "made").exists()
    record = fetch(str(tmp_path / "hub"), tmp_path / "made", skip_broken=True)
    assert sorted(contents(tmp_path / "made")) == [
        *("fetched.json", "images/sea_0.png", "images/sea_4.png", "labels/sea_0.png", "labels/sea_4.png")
    ]
    assert ["no image", "column label, cannot be read", "cannot be read as an image; expected one of GTiff, PNG"] == [
        part
        for part, text in zip(
            ["no image", "column label, cannot be read", "cannot be read as an image; expected one of GTiff, PNG"],
            record["left_out"],
            strict=True,
        )
        if part in text
    ]


def test_sources_that_cannot_be_opened_are_named(tmp_path, monkeypatch):
    def dataset_info(self, name, revision=None):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(
        DataError, match=r"nobody/seas cannot be opened \(ConnectionError: no network\); expected the id"
    ):
        fetch("nobody/seas", tmp_path / "made")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty cannot be opened"):
        fetch(str(tmp_path / "empty"), tmp_path / "made")
    write_parquet(tmp_path / "hub", [row(0)])
    with pytest.raises(DataError, match="has the splits train; expected test. Name others with --split"):
        fetch(str(tmp_path / "hub"), tmp_path / "made", splits=["train", "test"])
    with pytest.raises(DataError, match="is a folder, which has no revision v1"):
        fetch(str(tmp_path / "hub"), tmp_path / "made", revision="v1")
    with pytest.raises(DataError, match="lies in the download"):
        fetch(str(tmp_path / "hub"), tmp_path / "hub" / "made")
    fetch(str(tmp_path / "hub"), tmp_path / "made")
    with pytest.raises(DataError, match="made exists; expected a new folder"):
        fetch(str(tmp_path / "hub"), tmp_path / "made")
    fetch(str(tmp_path / "hub"), tmp_path / "made", force=True)


# ---- interruptions ----


@pytest.mark.parametrize("stop", [1, 3, 4, 8, 10])  # in either shard, at a kept state, in the second split
def test_an_interrupted_run_goes_on_and_makes_the_same_bytes(tmp_path, monkeypatch, stop):
    rows = [row(i) for i in range(12)]
    rows[2]["image"] = None
    rows[5]["image"]["path"] = rows[6]["image"]["path"] = rows[3]["image"]["path"]
    rows[7]["label"] = None
    write_parquet(tmp_path / "hub", rows[:5])
    write_parquet(tmp_path / "hub", rows[5:9], shard=1)
    write_parquet(tmp_path / "hub", rows[9:], split="validation")
    options = {"splits": ["train", "validation"], "skip_broken": True}
    monkeypatch.setattr("co2s_hf.data.hub._STATE_EVERY", 2)
    whole = fetch(str(tmp_path / "hub"), tmp_path / "whole", **options)
    seen, stop_at = [], stop

    def usable(row, columns, place, source):
        seen.append(place)
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return _usable(row, columns, place, source)

    monkeypatch.setattr("co2s_hf.data.hub._usable", usable)
    with pytest.raises(KeyboardInterrupt):
        fetch(str(tmp_path / "hub"), tmp_path / "made", **options)
    assert not (tmp_path / "made").exists() and (tmp_path / ".made.part").exists() == (stop > 1)
    seen, stop_at, bars = [], None, []
    monkeypatch.setattr("co2s_hf.data.hub.tqdm", lambda rows, **bar: bars.append(bar) or rows)
    assert fetch(str(tmp_path / "hub"), tmp_path / "made", **options) == whole
    assert len(seen) == 12 - (stop - 1)  # nothing is done again
    resumed = ", resumed" if stop > 1 else ""
    assert [(bar["desc"], bar["initial"]) for bar in bars] == [
        (f"Fetching train{resumed}", min(stop - 1, 9)),
        (f"Fetching validation{resumed}", max(stop - 10, 0)),
    ]
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "made", "whole"]


def test_a_stream_that_breaks_off_is_continued(tmp_path, monkeypatch):
    write_parquet(tmp_path / "hub", [row(i) for i in range(4)])
    read = datasets.IterableDataset.__iter__

    def breaks(self):
        for i, one in enumerate(read(self)):
            if i == 2:
                raise ConnectionError("gone")
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(datasets.IterableDataset, "__iter__", breaks)
        with pytest.raises(DataError, match=r"train, cannot be read \(ConnectionError: gone\).*same command goes on"):
            fetch(str(tmp_path / "hub"), tmp_path / "made")
    write_parquet(tmp_path / "other", [row(9)])
    with pytest.raises(DataError, match="unfinished run of another task .data set .*hub, not .*other"):
        fetch(str(tmp_path / "other"), tmp_path / "made")
    assert fetch(str(tmp_path / "hub"), tmp_path / "made")["images"] == 4


# ---- the folder, at the other doors ----


def test_init_and_check_take_the_folder(tmp_path, capsys):
    rows = [row(i) for i in range(7)]
    rows[1]["label"] = rows[6]["label"] = None
    write_parquet(tmp_path / "hub", rows[:4])
    write_parquet(tmp_path / "hub", rows[4:], split="validation")
    made = tmp_path / "made"
    assert main(["data", "fetch", str(tmp_path / "hub"), str(made), "--split", "train", "validation"]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 images, 3 of them with a mask." in printed and f"Next: co2s data init {made}" in printed
    assert main(["data", "init", str(made)]) == 0
    path = made / "dataset.yaml"
    document = yaml.safe_load(path.read_text())
    assert document["splits"]["labelled"] == ["train.txt"] and document["splits"]["validation"] == ["validation.txt"]
    names = ("sea", "land", "ice")
    for one, name in zip(document["classes"], names, strict=True):
        one["name"] = name
    document |= {"label_map": dict(enumerate(names)), "scene_pattern": None}
    write_document(path, document, force=True)
    assert main(["data", "check", str(path)]) == 0, capsys.readouterr().out
    split = DatasetDescription.load(path).find_split()
    assert (len(split.labelled), len(split.unlabelled), len(split.validation)) == (3, 1, 2)
    assert {sample.image.stem for sample in split.validation} == {"validation_sea_4", "validation_sea_5"}
    assert main(["data", "split", str(path), str(tmp_path / "few"), "--count", "1"]) == 0
    assert main(["data", "check", str(tmp_path / "few" / "dataset.yaml")]) == 0, capsys.readouterr().out


def test_refusals_are_one_line_and_an_interruption_is_no_traceback(tmp_path, capsys, monkeypatch):
    command = ["data", "fetch", str(tmp_path / "hub"), str(tmp_path / "made")]
    write_parquet(tmp_path / "hub", [row(0, mask_form="JPEG")])
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("co2s: error: row 1 of train") and error.count("\n") == 1

    def interrupt(image):
        raise KeyboardInterrupt

    monkeypatch.setattr("co2s_hf.data.hub.read_raster", interrupt)
    assert main(command) == 130
    assert capsys.readouterr().err.endswith("co2s: interrupted; the same command goes on\n")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://127.0.0.1:9/a.png", "zip://a::http://127.0.0.1:9/a", "x::hf://a"]
)
def test_rows_name_files_of_their_own_only(tmp_path, path):
    (tmp_path / "a.png").write_bytes(b"a")
    assert read_named(str(tmp_path / "a.png"), str(tmp_path)) == b"a"
    with pytest.raises(DataError, match="Nothing was opened"):
        read_named(path, str(tmp_path))
