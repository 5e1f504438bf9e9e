"""The picture for eyes: scene and map side by side."""

import numpy as np
from PIL import Image

from co2s_hf.geo.quicklook import write_quicklook
from co2s_hf.raster.areas import ClassArea
from co2s_hf.raster.colours import class_colours


def test_the_picture_shows_both(tmp_path):
    classes = np.zeros((100, 80), np.uint8)
    classes[:, 40:], classes[:50] = 1, 255
    areas = [ClassArea(0, "water", 2000, 2000.0), ClassArea(1, "tree", 2000, None)]
    write_quicklook(tmp_path / "q.png", np.full((100, 80, 3), 7, np.uint8), classes, areas)
    with Image.open(tmp_path / "q.png") as image:
        colours = {colour for _, colour in image.getcolors(10_000)}
    assert {(7, 7, 7), *class_colours(["water", "tree"]), (255, 255, 255)} <= colours
