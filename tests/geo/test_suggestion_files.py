"""The sheet of pictures: every tile, every student, and what the colours mean."""

import numpy as np
import pytest
from PIL import Image

from co2s_hf.geo.quicklook import class_colours
from co2s_hf.geo.suggest import StudentTiles, SuggestSettings, suggest
from co2s_hf.geo.suggestion_files import HEAT, MAX_PICTURES, fields_of, write_sheet
from tests.geo.pixel_model import NAMES, PixelModel, pixel_processor


def sheet(path, folder, model, count):
    settings, processor = SuggestSettings(tile_px=10, count=count), pixel_processor(model.config.num_channels)
    found = suggest([str(path)], model, processor, settings)
    students = StudentTiles(model, processor)
    write_sheet(folder / "sheet.png", found.chosen, students, settings)
    with Image.open(folder / "sheet.png") as image:
        return found, np.asarray(image.convert("RGB"))


def has(pixels, colour):
    return bool((pixels == colour).all(axis=-1).any())


@pytest.fixture
def scene(write_scene):
    """Tiles of two classes; a third one without data below."""
    pixels = np.full((3, 20, 20), 0.2, np.float32)
    pixels[0, :, :10], pixels[1, :, 10:] = 1, 1
    pixels[:, 16:] = np.nan
    return write_scene("a.tif", pixels)


def test_two_students_and_where_they_disagree(scene, tmp_path):
    found, pixels = sheet(scene, tmp_path, PixelModel().eval(), 4)
    water, road, tree = class_colours(NAMES)
    assert all(has(pixels, colour) for colour in (water, road, tree)) and has(pixels, HEAT[-1])
    # 2 columns of 4 panels of 150 px, on white: the last row of panels is white where there is no data.
    assert pixels.shape[1] == 2 * (4 * 154 - 4 + 32)
    values = fields_of(found.chosen[0], NAMES)
    assert list(values)[:6] == ["rank", "file", "row", "column", "height", "width"] and values["differing"] == 1


def test_one_student_and_how_sure_it_is(scene, tmp_path):
    model = PixelModel().eval()
    model.students = model.predictions = {"dino": "logits"}
    found, pixels = sheet(scene, tmp_path, model, 1)
    assert pixels.shape[1] == 3 * 154 - 4 + 32 and len(found.chosen) == 1


def test_many_tiles_and_many_classes(write_scene, tmp_path):
    pixels = np.random.default_rng(0).random((40, 70, 100)).astype(np.float32)
    names = [f"a long name of class {index}" for index in range(40)]
    found, drawn = sheet(write_scene("a.tif", pixels), tmp_path, PixelModel(40, names=names).eval(), 70)
    assert len(found.chosen) == 70 and MAX_PICTURES == 60
    assert all(has(drawn, colour) for colour in class_colours(names))
