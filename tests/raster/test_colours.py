import numpy as np
import pytest

from co2s_hf.raster.colours import class_colours, natural_bands, stretched


def test_colours_say_what_the_names_say():
    water, forest, building = class_colours(["open_water", "Forest", "buildings"])
    assert max(water) == water[2] and max(forest) == forest[1] and max(building) == building[0]
    assert class_colours(["grass", "water"])[1] == water  # whatever its place


@pytest.mark.parametrize("names", [["water"] * 3 + ["x"] * 252, [f"class {i}" for i in range(255)]])
def test_every_class_has_a_colour_of_its_own(names):
    assert len(set(class_colours(names))) == len(names)


@pytest.mark.parametrize(
    ("names", "count", "expected"),
    [
        (["blue", "green", "red"], 3, [2, 1, 0]),
        (["NIR", "Red", "Green", "Blue"], 4, [1, 2, 3]),
        (["b1", "b2", "b3", "b4"], 4, [0, 1, 2]),
        (["grey"], 1, [0, 0, 0]),
        (["grey", "nir"], 2, [0, 0, 0]),
    ],
)
def test_natural_colours_go_by_name_else_by_place(names, count, expected):
    assert natural_bands(names, count) == expected


def test_a_picture_of_8_bits_stays_and_one_of_16_is_stretched_over_all_bands():
    valid = np.array([[True, True], [True, False]])
    eight = np.full((3, 2, 2), 7, np.uint8)
    assert stretched(eight, valid).tolist() == [[[7] * 3, [7] * 3], [[7] * 3, [255] * 3]]
    sixteen = np.stack([np.array([[100, 300], [200, 60000]], np.uint16)] * 2 + [np.full((2, 2), 200, np.uint16)])
    low, high = np.percentile([100, 300, 200] * 2 + [200] * 3, (2, 98))
    expected = np.round(np.clip((np.array([100, 300, 200]) - low) / (high - low), 0, 1) * 255)
    shown = stretched(sixteen, valid)
    assert shown[..., 0][valid].tolist() == expected.tolist() and shown[1, 1].tolist() == [255] * 3
    assert set(shown[..., 2][valid].tolist()) == {round(255 * (200 - low) / (high - low))}  # a grey band stays grey


def test_a_picture_without_data_is_white():
    assert (stretched(np.zeros((3, 2, 2), np.uint16), np.zeros((2, 2), bool)) == 255).all()
