import numpy as np
import pytest

from co2s_hf.raster.areas import GroundAreas, ground_areas
from co2s_hf.raster.grid import Grid
from segmentation_view import (
    NO_DATA,
    class_shares,
    colour_layer,
    disagreement,
    disagreement_layer,
)

CLASS_MAP = np.array([[0, 0, 1], [1, 1, NO_DATA]], np.uint8)
COLOURS = [(1, 2, 3), (4, 5, 6)]
NOWHERE = ground_areas(Grid(2, 3))


def test_a_layer_is_opaque_where_there_is_data():
    layer = colour_layer(CLASS_MAP, COLOURS)
    assert layer[0, 0].tolist() == [1, 2, 3, 255]
    assert layer[1, 0].tolist() == [4, 5, 6, 255]
    assert layer[1, 2].tolist() == [0, 0, 0, 0]


def test_students_disagree_only_where_there_is_data():
    other = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)
    found = disagreement(CLASS_MAP, other)
    assert found.tolist() == [[False, True, False], [True, False, False]]
    layer = disagreement_layer(found, (9, 8, 7))
    assert layer[0, 1].tolist() == [9, 8, 7, 255] and layer[0, 0, 3] == 0


def test_shares_are_of_the_pixels_with_data():
    disputed = np.array([[True, False, False], [True, True, False]])
    road, water, absent = class_shares(CLASS_MAP, ["road", "water", "absent"], [*COLOURS, (7, 8, 9)], NOWHERE, disputed)
    assert (road.pixels, road.share, road.disputed) == (2, 0.4, 0.5)
    assert (water.pixels, water.share, water.disputed) == (3, 0.6, pytest.approx(2 / 3))
    assert (absent.pixels, absent.share, absent.disputed, absent.square_metres) == (0, 0.0, None, None)


def test_areas_are_those_of_the_ground():
    ground = GroundAreas("drawn", np.array([0.0, 2.0]), np.array([0.0, 3.0]), np.full((2, 2), 100.0))
    road, water = class_shares(CLASS_MAP, ["road", "water"], COLOURS, ground)
    assert road.square_metres == pytest.approx(200) and water.square_metres == pytest.approx(300)


def test_an_image_without_data_has_no_shares():
    (only,) = class_shares(np.full((2, 2), NO_DATA, np.uint8), ["a"], COLOURS[:1], NOWHERE)
    assert (only.pixels, only.share) == (0, 0.0)
