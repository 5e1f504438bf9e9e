import numpy as np
import pytest

from segmentation_view import (
    NO_DATA,
    PixelAreas,
    class_colours,
    class_shares,
    colour_layer,
    disagreement,
    disagreement_layer,
    photo,
)

CLASS_MAP = np.array([[0, 0, 1], [1, 1, NO_DATA]], np.uint8)
COLOURS = [(1, 2, 3), (4, 5, 6)]


def test_colours_say_what_the_names_say():
    water, forest, building = class_colours(["open_water", "Forest", "buildings"])
    assert max(water) == water[2] and max(forest) == forest[1] and max(building) == building[0]
    assert class_colours(["grass", "water"])[1] == water  # whatever its place


@pytest.mark.parametrize("names", [["water"] * 3 + ["x"] * 252, [f"class {i}" for i in range(255)]])
def test_every_class_has_a_colour_of_its_own(names):
    assert len(set(class_colours(names))) == len(names)


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
    road, water, absent = class_shares(CLASS_MAP, ["road", "water", "absent"], [*COLOURS, (7, 8, 9)], disputed=disputed)
    assert (road.pixels, road.share, road.disputed) == (2, 0.4, 0.5)
    assert (water.pixels, water.share, water.disputed) == (3, 0.6, pytest.approx(2 / 3))
    assert (absent.pixels, absent.share, absent.disputed, absent.square_metres) == (0, 0.0, None, None)


def test_areas_differ_from_block_to_block():
    areas = PixelAreas([0, 1, 2], [0, 2, 3], np.array([[1.0, 10.0], [100.0, 1000.0]]), "")
    road, water = class_shares(CLASS_MAP, ["road", "water"], COLOURS, areas)
    assert road.square_metres == 2.0  # two pixels of the first block
    assert water.square_metres == 10.0 + 200.0


def test_an_image_without_data_has_no_shares():
    (only,) = class_shares(np.full((2, 2), NO_DATA, np.uint8), ["a"], COLOURS[:1])
    assert (only.pixels, only.share) == (0, 0.0)


def test_a_photo_of_8_bits_stays_and_one_of_16_is_stretched():
    valid = np.array([[True, True], [True, False]])
    eight = np.full((2, 2, 3), 7, np.uint8)
    assert photo(eight, valid).tolist() == [[[7] * 3, [7] * 3], [[7] * 3, [255] * 3]]
    sixteen = np.array([[100, 300], [200, 60000]], np.uint16)[..., None].repeat(3, axis=2)
    shown = photo(sixteen, valid)
    assert shown[0, 0, 0] == 0 and shown[0, 1, 0] == 255 and 120 < shown[1, 0, 0] < 135
