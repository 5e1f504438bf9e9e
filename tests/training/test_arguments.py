"""The command line and the recipe underneath."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from co2s_hf.data.description import Bands, DatasetDescription, LandCoverClass
from co2s_hf.data.label_map import LabelMap
from co2s_hf.raster.image import NoData
from training import train_semi
from training.arguments import FREE, QUICKSTART, build_parser, parse_arguments

RECIPES = sorted(Path(train_semi.__file__).parent.joinpath("recipes").glob("*.yaml"))
DATA = ["--data_dir", "here", "--classes", "a", "b"]


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refused(argv, capsys):
    with pytest.raises(SystemExit) as refusal:
        parse_arguments(argv)
    assert refusal.value.code == 2
    return capsys.readouterr().err


# ---- values ----------------------------------------------------------------------------------------------------------


def test_without_arguments_the_quick_start_runs():
    arguments = parse_arguments([])
    values = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    assert arguments.recipe == QUICKSTART.name
    assert {name: getattr(arguments, name) for name in values} == values


def test_data_of_the_user_start_from_the_defaults():
    arguments = parse_arguments(DATA)
    assert (arguments.recipe, arguments.scenes, arguments.crop_px, arguments.max_steps) == (None, None, 512, 40000)
    assert arguments.classes == ["a", "b"] and arguments.validation is None


def test_the_recipe_stands_above_the_defaults_and_below_the_command_line(recipe):
    path = recipe("lr: 3e-4\nbatch_size: 8\nscale_range: [0.5, 1]\nofficial: false\nlabelled: a.png")
    arguments = parse_arguments(["--recipe", path, *DATA, "--batch_size", "3"])
    assert (arguments.lr, arguments.batch_size, arguments.scale_range) == (3e-4, 3, [0.5, 1.0])
    assert arguments.labelled == ["a.png"] and arguments.official is False and arguments.recipe == "my.yaml"
    # YAML reads 3e-4 as text; an argument is converted all the same
    assert isinstance(arguments.lr, float)


def test_the_command_line_wins_where_it_repeats_a_default(recipe):
    path = recipe("batch_size: 8\nmethod: supervised")
    arguments = parse_arguments(["--recipe", path, *DATA, "--batch_size", "2", "--method", "co2s"])
    assert (arguments.batch_size, arguments.method) == (2, "co2s")


def test_structured_values_come_from_both_places(recipe):
    path = recipe("concepts: {a: [grass, hay], b: [sea]}\nconfig: {head_channels: 32}")
    arguments = parse_arguments(["--recipe", path, *DATA, "--config", "{head_channels: 16, fusion: mean}"])
    assert arguments.concepts == {"a": ["grass", "hay"], "b": ["sea"]}
    assert arguments.config == {"head_channels": 16, "fusion": "mean"}
    assert parse_arguments([*DATA, "--concepts", "loveda"]).concepts == "loveda"


def test_official_brings_what_the_released_code_does():
    arguments = parse_arguments([*DATA, "--official", "--trainable", "all"])
    assert arguments.discard_dinov3_prior and arguments.trainable == "attention"
    assert not parse_arguments(DATA).discard_dinov3_prior


def test_flags_of_a_recipe(recipe):
    arguments = parse_arguments(["--recipe", recipe("absent_as_zero: true\ncut_stability_gradient: true"), *DATA])
    assert arguments.absent_as_zero and arguments.cut_stability_gradient and not arguments.official


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = parse_arguments(["--recipe", str(path), *([] if "scenes" in values else ["--data_dir", "here"])])
    for name in values.keys() - {"lr"}:
        assert getattr(arguments, name) == values[name], name


def test_there_are_recipes_and_every_free_argument_exists():
    assert QUICKSTART in RECIPES and len(RECIPES) >= 2
    assert set(FREE) - {"command"} <= {action.dest for action in build_parser()._actions}


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop: 64\nclases: [a]", "my.yaml names unknown arguments: clases, crop."),
        ("recipe: other.yaml", "my.yaml names unknown arguments: recipe."),
        ("batch_size: four", "my.yaml: batch_size is 'four', expected int."),
        ("batch_size: [4]", r"my.yaml: batch_size is [4], expected int."),
        ("lr: fast", "my.yaml: lr is 'fast', expected float."),
        ("official: 'no'", "my.yaml: official is 'no', expected true or false."),
        ("scale_range: [0.5]", "my.yaml: scale_range has 1 values, expected 2."),
        ("scale_range: [0.5, large]", "my.yaml: scale_range is 'large', expected float."),
        ("method: fixmatch2", "my.yaml: method is 'fixmatch2', expected one of co2s, fixmatch,"),
        ("- lr", "my.yaml must hold `argument: value` lines."),
        ("", "my.yaml must hold `argument: value` lines."),
        ("lr: [1", "my.yaml is not valid YAML:"),
    ],
)
def test_refuses_recipes(text, message, recipe, capsys):
    assert message in refused(["--recipe", recipe(text), *DATA], capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--data_dir", "here"], "--data_dir needs --classes: the class names in the order of the ids in the masks."),
        (["--recipe", "nowhere.yaml"], "no recipe at nowhere.yaml; the recipes of this project lie in recipes/."),
        ([*DATA, "--method", "other"], "argument --method: invalid choice: 'other'"),
        ([*DATA, "--max_step", "3", "--nonsense"], "unrecognized arguments: --nonsense"),
        ([*DATA, "--official", "--method", "supervised"], "--official reproduces a released step, but --method"),
        ([*DATA, "--official", "--nodata", "0"], "--official reproduces a step that knows no --nodata: train without"),
        (
            [*DATA, "--official", "--class_share", "0.5"],
            "--official reproduces a step with one threshold for all classes",
        ),
        (
            [*DATA, "--official", "--class_weights", "balanced"],
            "--official reproduces a step that treats all classes alike: leave out --class_weights.",
        ),
        ([*DATA, "--method", "unimatch_v2"], "--method unimatch_v2 needs --model dinov2_dpt, but it is co2s."),
        ([*DATA, "--model", "dinov2_dpt"], "--method co2s needs --model co2s, but it is dinov2_dpt."),
        ([*DATA, "--method", "rs_mtdf", "--model", "dinov2_dpt"], "--teachers are what --method rs_mtdf imitates"),
        ([*DATA, "--teachers", "a"], "--teachers are what --method rs_mtdf imitates: give both or none."),
        ([*DATA, "--method", "semiearth"], "--method semiearth purifies pseudo-labels: make scores with training/pur"),
        ([*DATA, "--method", "supervised", "--purify", "a"], "--method supervised has no pseudo-labels to --purify"),
        ([*DATA, "--purify", "a", "--unlabelled_stream", "b.tar"], "--purify has scores of listed images, none of"),
        ([*DATA, "--purifier", "{tau: 0.5}"], "--purifier says how to use scores: name their folder with --purify."),
        ([*DATA, "--official", "--purify", "a"], "--official reproduces a purification that changes no loss"),
        ([*DATA, "--class_weights", "1", "-2"], "--class_weights is 1 -2, expected a positive number for each class"),
        ([*DATA, "--class_weights", "balance"], "--class_weights is balance, expected a positive number for each"),
        ([*DATA, "--rare_class_temperature", "0"], "--rare_class_temperature is 0.0, expected a positive number."),
        ([*DATA, "--unlabelled_stream", "a.tar", "--unlabelled", "b.png"], "--unlabelled_stream comes instead of"),
        (
            [*DATA, "--unlabelled_stream", "a.tar", "--batch_size", "3"],
            "--unlabelled_stream pairs the images of a batch",
        ),
        ([*DATA, "--class_share", "50"], "--class_share is 50.0, expected a share from 0 to 1."),
        ([*DATA, "--class_share", "0.5", "--threshold", "1"], "--class_share needs a --threshold between 0 and 1, not"),
        ([*DATA, "--batch_size", "0"], "--batch_size is 0, expected at least 1."),
        ([*DATA, "--tile_cache_gb", "0"], "--tile_cache_gb is 0.0, expected a positive number."),
        ([*DATA, "--tile_cache_gb", "inf"], "--tile_cache_gb is inf, expected a positive number."),
        ([*DATA, "--lr", "nan"], "--lr is nan, expected a number from 0 on."),
        ([*DATA, "--log_every", "0"], "--log_every is 0, expected at least 1."),
        ([*DATA, "--num_workers", "-1"], "--num_workers is -1, expected a number from 0 on."),
        ([*DATA, "--feature_dropout", "1.5"], "--feature_dropout is 1.5, expected a share from 0 to 1."),
        ([*DATA, "--scale", "0"], "--scale is 0.0, expected a positive number."),
        ([*DATA, "--nodata", "nan"], "--nodata is nan, expected finite numbers."),
        ([*DATA, "--nodata_within", "3"], "--nodata_within says how far values may lie from --nodata: give both."),
        ([*DATA, "--image_std", "0.2", "0", "0.2"], "--image_std is 0.0, expected a positive number."),
        ([*DATA, "--scale_range", "2", "0.5"], "--scale_range is [2.0, 0.5], expected two increasing positive numbers"),
    ],
)
def test_refuses_arguments(argv, message, capsys):
    assert message in refused(argv, capsys)


def test_refuses_a_recipe_without_data(recipe, capsys):
    assert "give --dataset or --data_dir, or a recipe that draws `scenes`." in refused(
        ["--recipe", recipe("lr: 1")], capsys
    )


# ---- dataset.yaml ----------------------------------------------------------------------------------------------------


@pytest.fixture
def described(tmp_path):
    """A description of two classes, one with concepts, in masks of the ids 4 and 7."""
    description = DatasetDescription(
        root=tmp_path,
        classes=(LandCoverClass("a", None, ("grass", "hay")), LandCoverClass("b")),
        label_map=LabelMap(((4, 0), (7, 1), (9, 255))),
        bands=Bands(("red", "green", "blue")),
        validation=("v.png",),
    )
    description.save(tmp_path / "dataset.yaml")
    return str(tmp_path / "dataset.yaml")


def test_a_description_says_what_the_data_arguments_say(described, tmp_path):
    arguments = parse_arguments(["--dataset", described])
    assert (arguments.recipe, arguments.data_dir, arguments.classes) == (None, str(tmp_path), ["a", "b"])
    assert arguments.concepts == {"a": ["grass", "hay"]}
    assert arguments.label_map == {"4": "a", "7": "b", "9": "ignore"}
    assert parse_arguments(["--dataset", described, "--concepts", "{b: [sea]}"]).concepts == {"b": ["sea"]}


def test_a_description_and_other_words_about_the_data_are_refused(described, capsys):
    message = refused(["--dataset", described, "--classes", "a", "--labelled", "x"], capsys)
    assert "--dataset says it already: leave out --classes, --labelled." in message


def test_a_description_that_breaks_its_schema_is_refused(described, capsys):
    path = Path(described)
    path.write_text(path.read_text().replace("7: b", "7: TODO"))
    assert "label_map.7: expected a value, found 'TODO'. Fill it in" in refused(["--dataset", described], capsys)


def test_a_description_fills_in_bands_statistics_and_nodata(described):
    plain = parse_arguments(["--dataset", described])
    assert plain.bands is plain.image_mean is plain.image_std is plain.nodata is None
    bands = Bands(("nir", "r", "g", "b"), "uint16", rgb=(1, 2, 3), mean=(65535.0, 0.0, 0.0, 6553.5), std=(655.35,) * 4)
    replace(DatasetDescription.load(described), bands=bands, nodata=NoData(0, within=2)).save(described, force=True)
    filled = parse_arguments(["--dataset", described])
    assert filled.bands == ["nir", "red", "green", "blue"] and filled.file_bands == ["nir", "r", "g", "b"]
    assert (filled.nodata, filled.nodata_within) == (0, 2)
    assert filled.image_mean == pytest.approx([1, 0, 0, 0.1]) and filled.image_std == pytest.approx([0.01] * 4)
    own = parse_arguments(["--dataset", described, "--image_std", "1", "1", "1", "1", "--nodata", "7"])
    assert own.image_std == [1] * 4 and own.nodata == 7
    assert parse_arguments(["--dataset", described, "--official"]).nodata is None


@pytest.mark.parametrize(
    ("bands", "argv", "mean", "std"),
    [
        ({"dtype": "uint8"}, (), [100 / 255, 200 / 255, 50 / 255], [10 / 255] * 3),
        ({"dtype": "uint16"}, (), [100 / 65535, 200 / 65535, 50 / 65535], [10 / 65535] * 3),
        ({"dtype": "float32"}, (), [100, 200, 50], [10] * 3),
        ({"dtype": "int16", "scale": 1e-3, "offset": -0.1}, (), [0, 0.1, -0.05], [0.01] * 3),
        ({"dtype": "int16", "scale": 1e-3, "offset": -0.1}, ("--scale", "0.01"), [1, 2, 0.5], [0.1] * 3),
        ({"dtype": "uint16"}, ("--scale", "0.01", "--offset", "1"), [2, 3, 1.5], [0.1] * 3),
        ({"dtype": "int16"}, (), None, None),  # refused by the check of the files, which names one
        ({"dtype": "uint8"}, ("--official",), None, None),
        ({"dtype": "uint8"}, ("--image_mean", "1", "2", "3"), [1, 2, 3], [10 / 255] * 3),
    ],
)
def test_colours_are_normalised_with_their_own_statistics(bands, argv, mean, std, described):
    bands = Bands(("red", "green", "blue"), mean=(100.0, 200.0, 50.0), std=(10.0,) * 3, **bands)
    replace(DatasetDescription.load(described), bands=bands).save(described, force=True)
    found = parse_arguments(["--dataset", described, *argv])
    assert found.bands is None
    assert found.image_mean == (None if mean is None else pytest.approx(mean))
    assert found.image_std == (None if std is None else pytest.approx(std))


@pytest.mark.parametrize(("tags", "bits", "white"), [((1e-4, -0.1), {}, None), (None, {"nbits": 12}, 4095)])
def test_statistics_become_what_the_first_file_says(tags, bits, white, described):
    bands = Bands(("red", "green", "blue"), "uint16", mean=(1000.0,) * 3, std=(500.0,) * 3)
    replace(DatasetDescription.load(described), bands=bands).save(described, force=True)
    root = Path(described).parent
    for name in ("images", "labels"):
        (root / name).mkdir()
        for place in ("a", "v"):
            count, dtype = (3, "uint16") if name == "images" else (1, "uint8")
            profile = dict(driver="GTiff", width=4, height=4, count=count, dtype=dtype)
            profile |= {"transform": rasterio.Affine(1, 0, 0, 0, -1, 9)} | (bits if name == "images" else {})
            with rasterio.open(root / name / f"{place}.tif", "w", **profile) as file:
                file.write(np.full((count, 4, 4), 4, dtype))
                if name == "images" and tags is not None:
                    file.scales, file.offsets = [tags[0]] * 3, [tags[1]] * 3
    replace(DatasetDescription.load(described), validation=("v.tif",)).save(described, force=True)
    found = parse_arguments(["--dataset", described])
    assert found.image_mean == pytest.approx([1000 / white if tags is None else 1000 * tags[0] + tags[1]] * 3)
    assert found.image_std == pytest.approx([500 / white if tags is None else 500 * tags[0]] * 3)
