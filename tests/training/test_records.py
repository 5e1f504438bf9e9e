"""What a run says about itself."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import rasterio

from co2s_hf.data.folders import Sample
from co2s_hf.publish.card import DataFacts
from co2s_hf.raster.image import NoData, Reading
from co2s_hf.raster.read import open_raster
from co2s_hf.raster.write import write_image
from training.records import data_facts, machine, training_images, versions


def test_prepared_data_are_described_by_their_record(tmp_path):
    record = {"dataset": "LoveDA", "protocol": "Co2S", "gsd_m": 0.3, "licence": "CC", "citation": "W", "page": "p"}
    (tmp_path / "prepared.json").write_text(json.dumps({**record, "note": "", "images": 4191}))
    expected = DataFacts("LoveDA", protocol="Co2S", gsd_m=0.3, licence="CC", citation="W", page="p")
    assert data_facts(str(tmp_path)) == expected


def test_data_of_the_hub_keep_its_name_and_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = {"data set": "user/fields", "revision": "abc", "licence": "not stated", "citation": None, "page": None}
    (tmp_path / "fetched.json").write_text(json.dumps(record))
    assert data_facts(str(tmp_path)) == DataFacts("user/fields", hub_id="user/fields", revision="abc")
    Path("user/fields").mkdir(parents=True)  # a folder, fetched from there
    assert data_facts(str(tmp_path)).hub_id is None


def test_other_data_are_known_by_their_folder(tmp_path):
    assert data_facts(str(tmp_path / "my_data")) == DataFacts("my_data")
    assert data_facts(None).title == "drawn scenes"


def test_images_of_training_are_recorded_as_the_model_sees_them(tmp_path):
    samples = []
    for index, value in enumerate((0, 51, 255)):
        path = tmp_path / f"{index}.png"
        write_image(path, np.full((4, 4, 3), value, np.uint8))
        samples.append(Sample(path, None, None))
    found = training_images(samples, Reading(count=3, nodata=NoData(0)), gsd_m=0.3, image_scale=0.5)
    assert found == {
        "gsd_m": 0.6,
        "dtype": "uint8",
        "mean": [0.6] * 3,
        "std": [0.4] * 3,
        "scale": None,
        "offset": None,
        "nodata": 0,
        "nodata_within": 0,
        "band_names": None,
        "bands_found_by": "order",
    }
    unknown = training_images(samples[2:], Reading(), gsd_m=None, image_scale=1)
    assert unknown["gsd_m"] is None and unknown["nodata"] is None


def test_who_made_the_numbers():
    assert {"python", "torch", "transformers", "accelerate", "co2s_hf"} == set(versions())
    assert " cores, " in machine()


def test_a_model_of_described_bands_finds_them_again_by_their_descriptions(tmp_path):
    """Bands called B2, B3, B4 and B8 in the files are blue, green, red and nir to the model."""
    pixels = np.arange(4 * 20 * 20, dtype=np.uint8).reshape(4, 20, 20)
    paths = {}
    for name, order in (("trained", [0, 1, 2, 3]), ("mapped", [3, 2, 1, 0])):
        paths[name] = tmp_path / f"{name}.tif"
        size = dict(count=4, height=20, width=20, dtype="uint8", transform=rasterio.Affine(1, 0, 0, 0, -1, 9))
        with rasterio.open(paths[name], "w", driver="GTiff", photometric="MINISBLACK", **size) as file:
            file.write(pixels[order])
            file.descriptions = [("B2", "B3", "B4", "B8")[i] for i in order]
    reading = Reading(names=("B2", "B3", "B4", "B8"))
    facts = training_images([Sample(paths["trained"], None, "a")], reading, gsd_m=None, image_scale=1)
    assert facts["band_names"] == ["b2", "b3", "b4", "b8"] and facts["bands_found_by"] == "description"
    config = SimpleNamespace(bands=["blue", "green", "red", "nir"], num_channels=4, training_images=facts)
    with open_raster(paths["mapped"], Reading.for_model(config)) as file:
        assert [band.number for band in file.bands] == [4, 3, 2, 1] and file.bands_found_by == "description"
        assert np.array_equal(file.read().pixels, pixels)
