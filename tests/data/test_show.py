import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from co2s_hf.__main__ import main
from co2s_hf.data import show
from co2s_hf.data.description import Bands, DatasetDescription, LandCoverClass
from co2s_hf.data.label_map import LabelMap
from co2s_hf.data.show import Shown
from co2s_hf.raster.image import Reading
from co2s_hf.raster.read import quiet

PLACE = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def geotiff(path, values, *, mask=None, names=None, scaled=None, **options):
    bands = np.asarray(values)
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with quiet(), rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        if names:
            file.descriptions = names
        if scaled:
            file.scales, file.offsets = [scaled[0]] * len(bands), [scaled[1]] * len(bands)
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return path


def reflectances(path):
    """Blue, green, red; nodata, a mask, scale and offset."""
    pixels = np.random.default_rng(0).integers(1000, 5000, (3, 6, 5), np.uint16)
    pixels[:, 0] = 0
    mask = np.ones((6, 5), bool)
    mask[:, 1] = False
    geotiff(
        path, pixels, mask=mask, names=("blue", "green", "red"), scaled=(1e-4, -0.1), nodata=0,
        crs="EPSG:32633", transform=PLACE,
    )  # fmt: skip
    return pixels, mask & (pixels[0] != 0)


def description(tmp_path, **known):
    told = {
        "bands": Bands(names=("red", "green", "blue")),
        "label_map": LabelMap(((0, 0), (3, 1), (9, 255))),
        **known,
    }
    path = tmp_path / "dataset.yaml"
    classes = (LandCoverClass("water"), LandCoverClass("forest"))
    DatasetDescription(root=tmp_path, classes=classes, validation_fraction=0.5, **told).save(path, force=True)
    return path


def shown(capsys, *arguments):
    """What is printed as JSON."""
    assert main(["data", "show", *map(str, arguments), "--json"]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_everything_that_is_read_is_said(tmp_path, capsys):
    pixels, valid = reflectances(tmp_path / "a.tif")
    facts = shown(capsys, tmp_path / "a.tif")
    assert (facts["driver"], facts["height"], facts["width"], facts["dtype"]) == ("GTiff", 6, 5, "uint16")
    assert facts["nodata"] == {"pixels": 10, "share": 1 / 3, "reasons": {"mask": 6, "nodata value": 5}}
    assert [(band["meaning"], band["found_by"], band["place"]) for band in facts["bands"]] == [
        ("blue", "description", 2), ("green", "description", 1), ("red", "description", 0),
    ]  # fmt: skip
    for band, values in zip(facts["bands"], pixels, strict=True):
        found, right = band["statistics"], values[valid]
        assert (found["min"], found["max"]) == (right.min(), right.max())
        assert (found["mean"], found["std"]) == (pytest.approx(right.mean()), pytest.approx(right.std()))
        assert (band["scale"], band["offset"], band["nodata"]) == (1e-4, -0.1, 0)
    assert (
        facts["grid"]["crs"] == "EPSG:32633 (WGS 84 / UTM zone 33N)" and facts["grid"]["transform"] == list(PLACE)[:6]
    )
    assert facts["grid"]["metres_per_pixel"] == pytest.approx(10, rel=1e-3)
    assert facts["training"]["accepted"] and facts["mapping"]["accepted"]

    assert main(["data", "show", str(tmp_path / "a.tif")]) == 0
    text = capsys.readouterr().out
    for said in (
        "GTiff, 5 x 6 px (width x height), uint16",
        "band 1: blue (by its description), read as number 3",
        "scale 0.0001 and offset -0.1 in the file",
        "Networks get the values times 0.0001 - 0.1.",
        "No data: 10 pixels, 33.33%. Why: mask 6, nodata value 5.",
        "EPSG:32633 (WGS 84 / UTM zone 33N); 10 m per pixel",
        "Training takes it.\nMapping takes it.",
    ):
        assert said in text


def test_stripes_count_what_the_whole_holds(tmp_path, monkeypatch):
    reflectances(tmp_path / "a.tif")
    whole = Shown.of(tmp_path / "a.tif").facts()
    monkeypatch.setattr(show, "_STRIPE_PX", 11)  # two rows
    parts = Shown.of(tmp_path / "a.tif").facts()
    for one, other in zip(whole.pop("bands"), parts.pop("bands"), strict=True):
        assert one.pop("statistics") == pytest.approx(other.pop("statistics")) and one == other
    assert whole == parts
    geotiff(tmp_path / "m.tif", np.arange(30, dtype=np.uint8).reshape(1, 6, 5) // 7, nodata=1)
    assert Shown.of(tmp_path / "m.tif", is_mask=True).facts()["mask"]["values"] == [
        {"value": value, "pixels": count, "becomes": f"class {value}"}
        for value, count in ((0, 7), (2, 7), (3, 7), (4, 2))
    ]


def test_npz_holds_pixels_validity_and_what_a_processor_gets(tmp_path):
    pixels, valid = reflectances(tmp_path / "a.tif")
    assert main(["data", "show", str(tmp_path / "a.tif"), "--npz", str(tmp_path / "a.npz")]) == 0
    found = np.load(tmp_path / "a.npz")
    assert set(found) == {"pixels", "valid", "unit"}
    np.testing.assert_array_equal(found["pixels"], pixels)
    np.testing.assert_array_equal(found["valid"], valid)
    right = np.where(valid, pixels[::-1] * 1e-4 - 0.1, 0)
    np.testing.assert_allclose(found["unit"], right, rtol=1e-5, atol=1e-6)
    assert found["unit"].dtype == np.float32


def test_what_is_given_overrides_the_file(tmp_path):
    pixels, valid = reflectances(tmp_path / "a.tif")
    arguments = ["--bands", "1", "3", "--scale", "1e-3", "--offset", "0", "--nodata", str(pixels[0, 3, 3])]
    geotiff(tmp_path / "b.tif", pixels[:1], nodata=0)
    assert main(["data", "show", str(tmp_path / "a.tif"), *arguments[:7], "--npz", str(tmp_path / "a.npz")]) == 0
    found = np.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["pixels"], pixels)  # all of them, as they are stored
    np.testing.assert_allclose(found["unit"], np.where(valid, pixels[[0, 2]] * 1e-3, 0), rtol=1e-5)
    assert main(["data", "show", str(tmp_path / "b.tif"), *arguments[-2:], "--npz", str(tmp_path / "b.npz")]) == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "b.npz")["valid"], (pixels[0] != 0) & (pixels[0] != pixels[0, 3, 3])
    )


def test_values_without_a_meaning_are_shown_all_the_same(tmp_path, capsys):
    values = np.array([[[-5, 7]]], np.int16)
    path = geotiff(tmp_path / "a.tif", values)
    assert main(["data", "show", str(path), "--npz", str(tmp_path / "a.npz"), "--output", str(tmp_path / "a.png")]) == 0
    text = capsys.readouterr().out
    for who in ("Training", "Mapping"):
        assert f"{who} would refuse it: {path} holds int16 values, and does not say what they mean" in text
    found = np.load(tmp_path / "a.npz")
    assert set(found) == {"pixels", "valid"} and np.array_equal(found["pixels"], values)


def test_alpha_is_no_band_and_a_description_may_need_it(tmp_path, capsys):
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    pixels[3, 0, 0] = 0
    path = geotiff(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    arrays = Shown.of(path).arrays()
    assert np.array_equal(arrays["pixels"], pixels[:3]) and arrays["valid"].tolist() == [[False, True], [True, True]]
    assert shown(capsys, path)["nodata"]["reasons"] == {"alpha": 1}
    four = description(tmp_path, bands=Bands(names=("red", "green", "blue", "nir")))
    facts = shown(capsys, path, "--dataset", four)
    assert [band["meaning"] for band in facts["bands"]] == ["red", "green", "blue", "nir"]
    assert facts["nodata"]["pixels"] == 0
    assert len(Shown.of(path, description=DatasetDescription.load(four)).arrays()["unit"]) == 4


def test_a_description_that_does_not_fit_is_a_reason_to_refuse(tmp_path, capsys):
    path = geotiff(tmp_path / "a.tif", np.ones((2, 2, 2), np.uint8))
    facts = shown(capsys, path, "--dataset", description(tmp_path))
    assert not facts["training"]["accepted"] and "a.tif has 2 bands; expected 3" in facts["training"]["why_not"][0]
    assert Shown.of(path, description=DatasetDescription.load(tmp_path / "dataset.yaml")).arrays()["valid"].all()


def test_other_formats_may_be_mapped_but_not_trained_on(tmp_path, capsys):
    geotiff(tmp_path / "a.tif", np.ones((1, 2, 2), np.uint8))
    with quiet():
        rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    facts = shown(capsys, tmp_path / "a.vrt")
    assert facts["mapping"]["accepted"] and "expected one of" in facts["training"]["why_not"][0]


def test_what_ids_become_is_said(tmp_path, capsys):
    ids = np.array([[[0, 0, 3, 9], [-32768, -32768, -9999, 3]]], np.int16)
    path = geotiff(tmp_path / "m.tif", ids, nodata=-32768)
    dataset = description(tmp_path)
    facts = shown(capsys, path, "--mask", "--dataset", dataset, "--npz", tmp_path / "m.npz")
    assert facts["mask"] == {
        "values": [
            {"value": 0, "pixels": 2, "becomes": "water"},
            {"value": 3, "pixels": 2, "becomes": "forest"},
            {"value": -9999, "pixels": 1, "becomes": None},
            {"value": 9, "pixels": 1, "becomes": "no label"},
        ],
        "no_label_by_the_file": 2,
    }
    assert "m.tif holds -9999 (1 px), which the label map does not name" in facts["training"]["why_not"][0]
    found = np.load(tmp_path / "m.npz")
    assert found["ids"].dtype == np.int64 and np.array_equal(found["ids"], ids[0]) and "labels" not in found

    geotiff(tmp_path / "m.tif", np.where(ids == -9999, 0, ids), nodata=-32768)
    arguments = ["--mask", "--dataset", str(dataset), "--npz", str(tmp_path / "m.npz"), "--force"]
    assert main(["data", "show", str(path), *arguments]) == 0
    assert (
        "no label, as the file itself says: 2 px" in (text := capsys.readouterr().out) and "Training takes it" in text
    )
    labels = np.load(tmp_path / "m.npz")["labels"]
    assert labels.dtype == np.uint8 and labels.tolist() == [[0, 0, 1, 255], [255, 255, 0, 1]]


def test_colours_of_masks(tmp_path, capsys):
    Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)).save(tmp_path / "m.png")
    dataset = description(tmp_path, label_map=LabelMap((((255, 0, 0), 0), ((0, 0, 255), 1))))
    facts = shown(capsys, tmp_path / "m.png", "--mask", "--dataset", dataset, "--npz", tmp_path / "m.npz")
    assert {one["value"]: one["becomes"] for one in facts["mask"]["values"]} == {
        "#FF0000": "water",
        "#0000FF": "forest",
    }
    found = np.load(tmp_path / "m.npz")
    assert found["ids"].shape == (1, 2, 3) and found["labels"].tolist() == [[0, 1]]


def test_masks_without_labels_or_with_fractions_are_refused(tmp_path, capsys):
    empty = geotiff(tmp_path / "empty.tif", np.full((1, 2, 2), 255, np.uint8))
    assert "holds no label at all" in shown(capsys, empty, "--mask")["training"]["why_not"][0]
    halves = geotiff(tmp_path / "halves.tif", np.full((1, 2, 2), 0.5, np.float32))
    facts = shown(capsys, halves, "--mask")
    assert facts["mask"] is None and "holds 0.5; expected whole numbers" in facts["training"]["why_not"][0]


def test_palettes_show_colours_and_keep_indices(tmp_path, capsys):
    image = Image.fromarray(np.uint8([[0, 1]]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "p.png", transparency=1)
    arrays = Shown.of(tmp_path / "p.png").arrays()
    assert arrays["pixels"].tolist() == [[[0, 1]]] and arrays["valid"].tolist() == [[True, False]]
    np.testing.assert_allclose(arrays["unit"][:, 0, 0], np.array([10, 20, 30]) / 255, rtol=1e-6)
    assert shown(capsys, tmp_path / "p.png")["palette"] == {"colours": 2, "grey": False}


def test_orientation_and_not_finite_values_are_said(tmp_path, capsys):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert main(["data", "show", str(tmp_path / "a.jpg")]) == 0
    text = capsys.readouterr().out
    assert "JPEG, 2 x 3 px" in text and "Orientation 6: turned by 90 degrees clockwise, as the file says." in text
    path = geotiff(tmp_path / "a.tif", np.array([[[np.nan, np.inf, 0.5]]], np.float32), nodata=np.nan)
    facts = shown(capsys, path)
    assert facts["nodata"]["reasons"] == {"nodata value": 1, "not finite": 2} and facts["bands"][0]["nodata"] == "nan"
    geotiff(path, np.full((1, 2, 2), np.nan, np.float32))
    assert shown(capsys, path)["bands"][0]["statistics"] is None


def test_previews_show_where_there_is_no_data(tmp_path):
    pixels = np.full((3, 8, 10), 100, np.uint8)
    pixels[:, :, :4] = 0
    path = geotiff(tmp_path / "a.tif", pixels, nodata=0)
    assert main(["data", "show", str(path), "--output", str(tmp_path / "a.png")]) == 0
    with Image.open(tmp_path / "a.png") as image:
        picture = np.asarray(image)
    left, right = picture[:, :10], picture[:, -10:]
    assert (left[:, :4] == 255).all() and (left[:, 4:] == 100).all()
    assert (right[:, :4] == (255, 0, 255)).all() and not (right[:, 4:] == (255, 0, 255)).all(axis=2).any()
    ids = geotiff(tmp_path / "m.tif", np.repeat(np.uint8([[[0, 0, 3, 9]]]), 8, axis=1))
    dataset = DatasetDescription.load(description(tmp_path))
    picture = Shown.of(ids, is_mask=True, description=dataset).preview()
    water, forest = picture[0, 0], picture[0, 2]
    assert water[2] > water[0] and forest[1] > forest[2]  # blue and green, as classes are drawn everywhere
    assert (picture[0, -4:-1] == picture[0, :3]).all() and (picture[0, -1] == 40).all()


def test_large_files_are_previewed_from_some_of_their_pixels(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.ones((1, 2000, 4000), np.uint8), compress="deflate")
    assert Shown.of(path).preview().shape == (512, 2 * 1024 + 20, 3)


def test_failures_are_one_sentence_and_status_2(tmp_path, capsys, monkeypatch):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (tmp_path / "text.tif").write_text("no image")
    whole = geotiff(tmp_path / "whole.tif", np.ones((1, 4, 4), np.uint8))
    (tmp_path / "there.npz").write_text("precious")
    for arguments, message in (
        (["none.tif"], "none.tif does not exist"),
        (["broken.png"], "broken.png cannot be read"),
        (["text.tif"], "text.tif cannot be read"),
        (["whole.tif", "--npz", tmp_path / "there.npz"], "there.npz exists already and is left as it is"),
        (["whole.tif", "--nodata_within", "3"], "--nodata_within needs --nodata"),
        (["whole.tif", "--dataset", tmp_path / "no.yaml"], "no.yaml is not a usable description"),
    ):
        assert main(["data", "show", str(tmp_path / arguments[0]), *map(str, arguments[1:])]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and "Traceback" not in printed.err and not printed.out
    assert (tmp_path / "there.npz").read_text() == "precious"
    monkeypatch.setenv("CO2S_MAX_PIXELS", "15")
    monkeypatch.setattr(show, "_STRIPE_PX", 8)
    assert main(["data", "show", str(whole), "--npz", str(tmp_path / "new.npz")]) == 2
    printed = capsys.readouterr()
    assert "Training would refuse it: " in printed.out and "4x4 pixels; expected at most 15" in printed.err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["broken.png", "text.tif", "there.npz", "whole.tif"]


def test_bands_that_are_asked_for_and_are_not_there_are_a_reason_to_refuse(tmp_path):
    path = geotiff(tmp_path / "a.tif", np.ones((3, 2, 2), np.uint8))
    facts = Shown.of(path, Reading(numbers=(4,))).facts()
    assert "--bands names 4" in facts["training"]["why_not"][0] and not facts["mapping"]["accepted"]


def test_it_needs_neither_torch_nor_transformers():
    code = (
        "import sys, types, importlib.util as u\n"
        "package = types.ModuleType('co2s_hf')\n"
        "package.__path__ = list(u.find_spec('co2s_hf').submodule_search_locations)\n"
        "sys.modules['co2s_hf'] = package\n"
        "import co2s_hf.data.show\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
