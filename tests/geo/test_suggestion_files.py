"""The sheet of pictures: every tile, every student, and what the colours mean."""

import numpy as np
import pytest
from PIL import Image

from co2s_hf.geo.suggest import StudentTiles, SuggestSettings, suggest
from co2s_hf.geo.suggestion_files import HEAT, fields_of, write_sheet
from co2s_hf.raster.colours import class_colours
from tests.geo.pixel_model import NAMES, PixelModel, pixel_processor


def sheet(path, folder, model, count):
    settings, processor = SuggestSettings(tile_px=10, count=count), pixel_processor(model.config.num_channels)
    found = suggest([str(path)], model, processor, settings)
    students = StudentTiles(model, processor)
    write_sheet(folder / "sheet.png", found.chosen, students, settings)
    with Image.open(folder / "sheet.png") as image:
        return found, image.size, {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}


@pytest.fixture
def scene(write_scene):
    """Tiles of two classes; a third one without data below."""
    pixels = np.full((3, 20, 20), 0.2, np.float32)
    pixels[0, :, :10], pixels[1, :, 10:] = 1, 1
    pixels[:, 16:] = np.nan
    return write_scene("a.tif", pixels)


def test_two_students_and_where_they_disagree(scene, tmp_path):
    found, size, colours = sheet(scene, tmp_path, PixelModel().eval(), 4)
    assert set(class_colours(NAMES)) <= colours and tuple(HEAT[-1].astype(int)) in colours
    # Two strips of four pictures of 150 px in two lines, and two lines of legend.
    assert size == (2 * (4 * 154 - 4 + 32), 34 + 2 * (150 + 34) + 2 * 22)
    values = fields_of(found.chosen[0], NAMES)
    assert list(values)[:6] == ["rank", "file", "row", "column", "height", "width"] and values["differing"] == 1


def test_one_student_and_how_sure_it_is(scene, tmp_path):
    model = PixelModel().eval()
    model.students = model.predictions = {"dino": "logits"}
    found, size, _ = sheet(scene, tmp_path, model, 1)
    assert size[0] == 3 * 154 - 4 + 32 and len(found.chosen) == 1


def test_many_tiles_and_many_classes(write_scene, tmp_path, monkeypatch):
    monkeypatch.setattr("co2s_hf.geo.suggestion_files.MAX_PICTURES", 3)
    pixels = np.random.default_rng(0).random((16, 20, 30)).astype(np.float32)
    names = [f"a long name of class {index}" for index in range(16)]
    found, size, colours = sheet(write_scene("a.tif", pixels), tmp_path, PixelModel(16, names=names).eval(), 6)
    assert len(found.chosen) == 6 and size[1] < 34 + 3 * (150 + 34)
    assert set(class_colours(names)) <= colours
