"""The picture for eyes: colours that differ, white without data."""

import numpy as np
from PIL import Image

from co2s_hf.geo.areas import ClassArea
from co2s_hf.geo.quicklook import NATURAL, OTHERS, class_colours, stretched, write_quicklook


def test_every_class_has_a_colour_of_its_own():
    names = ["water", "open water", "Low_Vegetation", "tree", "road", *(f"c{i}" for i in range(250))]
    colours = class_colours(names)
    assert len(set(colours)) == 255 and class_colours(names) == colours
    assert colours[0] == NATURAL["water"] and colours[1] in OTHERS and colours[2] == NATURAL["low vegetation"]


def test_the_stretch_leaves_out_what_holds_no_data():
    pixels = np.tile(np.arange(100, dtype=np.uint16) * 100, (1, 10, 1))
    valid = np.ones((10, 100), bool)
    valid[:, 0], pixels[:, :, 0] = False, 60000
    picture = stretched(pixels, valid)
    assert picture.shape == (10, 100, 3) and (picture[:, 0] == 255).all()
    assert (picture[:, 1] == 0).all() and (picture[:, -1] == 255).all() and 120 < picture[0, 50, 0] < 135
    assert (stretched(pixels, np.zeros_like(valid)) == 255).all()


def test_the_picture_shows_both(tmp_path):
    classes = np.zeros((100, 80), np.uint8)
    classes[:, 40:], classes[:50] = 1, 255
    areas = [ClassArea(0, "water", 2000, 2000.0), ClassArea(1, "tree", 2000, None)]
    write_quicklook(tmp_path / "q.png", np.full((100, 80, 3), 7, np.uint8), classes, areas)
    with Image.open(tmp_path / "q.png") as image:
        colours = {colour for _, colour in image.getcolors(10_000)}
    assert {(7, 7, 7), NATURAL["water"], NATURAL["tree"], (255, 255, 255)} <= colours
