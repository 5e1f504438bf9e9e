"""dataset.yaml: what is written is read back, and every problem of a file is named at once."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from co2s_hf.data.description import (
    Bands,
    DatasetDescription,
    DescriptionError,
    LandCoverClass,
    parse_colour,
    write_text,
)
from co2s_hf.data.label_map import LabelMap
from co2s_hf.raster.image import NoData


@pytest.fixture
def description(tmp_path):
    return DatasetDescription(
        root=tmp_path,
        classes=(LandCoverClass("water", (0, 0, 255), ("sea", "a lake")), LandCoverClass("straße")),
        label_map=LabelMap(((0, 0), (9, 1), ((0, 128, 255), 1), (255, 255))),
        bands=Bands(("red", "green", "blue", "nir"), "uint16", (0, 1, 2), (1.0, 2.5, 3.0, 4.0), (0.5, 0.5, 0.5, 0.0)),
        images="data/*_sat.png",
        masks="data/*_mask.png",
        nodata=NoData(0),
        scene_pattern=r"(tile\d+)_",
        labelled=("tile1_*",),
        unlabelled=("more", "list.txt"),
        validation=("#odd: name*",),
        seed=3,
    )


@pytest.fixture
def changed(description, tmp_path):
    """Write the description with changes to its content and read it back."""

    def load(change):
        content = description.to_dict(tmp_path / "dataset.yaml")
        change(content)
        path = tmp_path / "dataset.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return DatasetDescription.load(path)

    return load


def refused(changed, change):
    with pytest.raises(DescriptionError) as refusal:
        changed(change)
    assert str(refusal.value.path) in str(refusal.value)
    return {problem.key: problem for problem in refusal.value.problems}


def test_round_trip(description, tmp_path):
    path = tmp_path / "dataset.yaml"
    description.save(path)
    assert DatasetDescription.load(path) == description
    other = replace(
        description, nodata=None, scene_pattern=None, labelled=None, validation=None, validation_fraction=0.25
    )
    other.save(path, force=True)
    assert DatasetDescription.load(path) == other
    assert path.read_text(encoding="utf-8").startswith("# What this data set is.")


def test_the_root_moves_with_a_file_inside_and_stays_with_one_outside(description, tmp_path):
    inside, outside = tmp_path / "dataset.yaml", tmp_path / "elsewhere" / "dataset.yaml"
    description.save(inside)
    description.save(outside)
    moved = tmp_path / "moved.yaml"
    (tmp_path / "copy").mkdir()
    moved = inside.rename(tmp_path / "copy" / "dataset.yaml")
    assert DatasetDescription.load(moved).root == tmp_path / "copy"
    assert DatasetDescription.load(outside).root == tmp_path


def test_nothing_is_overwritten_and_nothing_half_written(description, tmp_path):
    path = tmp_path / "dataset.yaml"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"dataset\.yaml exists already .*--force"):
        description.save(path)
    assert path.read_text() == "mine"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800", force=True)
    assert path.read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["dataset.yaml"]


def test_a_problem_names_file_key_expectation_finding_and_fix(changed):
    with pytest.raises(DescriptionError) as refusal:
        changed(lambda content: content["bands"].update(rgb=[0, 1]))
    message = str(refusal.value)
    assert "dataset.yaml is not a usable description:" in message
    assert "bands.rgb: expected null or the places, from 0, of red, green and blue, found [0, 1]. Write" in message


@pytest.mark.parametrize(
    ("change", "key", "found"),
    [
        (lambda c: c.pop("nodata"), "nodata", "nothing"),
        (lambda c: c.update(colours=1), "colours", "the key 'colours'"),
        (lambda c: c.update(version=2), "version", "2"),
        (lambda c: c.update(scene_pattern="tile"), "scene_pattern", "'tile'"),
        (lambda c: c.update(scene_pattern="(tile"), "scene_pattern", "'(tile'"),
        (lambda c: c.update(label_map={}), "label_map", "{}"),
        (lambda c: c["label_map"].update({3: "sea"}), "label_map.3", "'sea'"),
        (lambda c: c["label_map"].update({"red": "water"}), "label_map.red", "'red'"),
        (lambda c: c["label_map"].update({0: "straße"}), "label_map", "none"),
        (lambda c: c["label_map"].update({"#0080fF": "water"}), "label_map", "The label map names #0080FF twice"),
        (lambda c: c["classes"][0].update(colour="blue"), "classes[0].colour", "'blue'"),
        (lambda c: c["classes"][1].update(name="ignore"), "classes[1].name", "'ignore'"),
        (lambda c: c["classes"].append(c["classes"][0]), "classes", "'water' 2 times"),
        (lambda c: c["classes"][0].update(concepts="sea"), "classes[0].concepts", "'sea'"),
        (lambda c: c["bands"].update(std=[1, 2, 3]), "bands.std", "3"),
        (lambda c: c["bands"].update(rgb=[0, 1, 4]), "bands.rgb", "[0, 1, 4]"),
        (lambda c: c["bands"].update(dtype="complex64"), "bands.dtype", "'complex64'"),
        (lambda c: c["splits"].update(labelled="a.png"), "splits.labelled", "'a.png'"),
        (lambda c: c["splits"].update(validation_fraction=1), "splits.validation_fraction", "1"),
        (lambda c: c["splits"].update(validation=None), "splits.validation", "neither"),
        (lambda c: c["splits"].update(labelled=["TODO: which"]), "splits.labelled[0]", "'TODO: which'"),
        (lambda c: c["label_map"].update({"TODO": "water"}), "label_map.TODO", "'TODO'"),
    ],
)
def test_schema(changed, change, key, found):
    problems = refused(changed, change)
    assert list(problems) == [key]
    assert found in problems[key].found and problems[key].expected and problems[key].fix.endswith(".")


def test_all_problems_of_a_file_come_at_once(changed):
    def change(content):
        content["bands"]["count"] = "four"
        content["classes"][0]["colour"] = "#12"
        del content["splits"]["seed"]

    assert set(refused(changed, change)) == {"bands.count", "classes[0].colour", "splits.seed"}


def test_files_that_are_no_description(tmp_path):
    path = tmp_path / "dataset.yaml"
    for text, message in ((None, "found no file"), ("a: [", "expected YAML"), ("- 1", r"found \[1\]")):
        if text is not None:
            path.write_text(text)
        with pytest.raises(DescriptionError, match=message):
            DatasetDescription.load(path)


def test_colours():
    assert parse_colour("#E2a929") == (226, 169, 41)
    assert [parse_colour(text) for text in ("E2A929", "#E2A92", "#E2A9291", "")] == [None] * 4


def test_paths_of_root_are_normal(changed, tmp_path):
    assert changed(lambda content: content.update(root="a/..")).root == Path(tmp_path)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BOMB, "aliases stand for more than 1000000 values"),
        ("&a [*a]", "aliases stand for more than"),
        ("[" * 100_000, "more than 20 brackets deep"),
        ("- " * 5000, "recursion"),
        ("x: 0x" + "f" * 5000, "a number of more than 64 bits"),
        ("x: 2024-99-99", "month"),
        ("x: !!timestamp y", "groupdict"),
        ("x: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_yaml_that_means_harm_is_named(tmp_path, text, found):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(DescriptionError, match=f"dataset.yaml(.|\\n)*{found}"):
        DatasetDescription.load(tmp_path / "dataset.yaml")


def test_a_target_that_is_a_list_is_a_problem_like_others(changed):
    problems = refused(changed, lambda c: c["label_map"].update({77: ["water"]}))
    assert problems["label_map.77"].found == "['water']"


@pytest.mark.parametrize(
    ("written", "nodata"),
    [
        (None, None),
        (0, NoData(0.0)),
        (-32768, NoData(-32768.0)),
        ({"value": 0, "within": 12}, NoData(0.0, 12.0)),
        (0.5, NoData(0.5)),
    ],
)
def test_values_without_data(changed, tmp_path, written, nodata):
    loaded = changed(lambda c: c.update(nodata=written))
    assert loaded.nodata == nodata == loaded.reading.nodata
    assert loaded.to_dict(tmp_path / "dataset.yaml")["nodata"] == written


def test_scale_and_offset_reach_the_reading(changed):
    reading = changed(lambda c: c["bands"].update(scale=1e-4, offset=-0.1, dtype="int16")).reading
    assert (reading.scale, reading.offset, reading.count) == (1e-4, -0.1, 4)

    def older(content):
        del content["bands"]["scale"], content["bands"]["offset"]

    assert changed(older).reading.scale is None
    assert set(refused(changed, lambda c: c["bands"].update(scale=0))) == {"bands.scale"}
    assert set(refused(changed, lambda c: c.update(nodata={"value": 0, "near": 3}))) == {"nodata"}


def test_names_that_are_numbers_stay_names(tmp_path):
    description = DatasetDescription(
        tmp_path, (LandCoverClass("1"), LandCoverClass("2")), LabelMap(((0, 0), (1, 1))), Bands(("grey",)),
        validation=("a.png",),
    )  # fmt: skip
    description.save(tmp_path / "dataset.yaml")
    assert DatasetDescription.load(tmp_path / "dataset.yaml") == description
