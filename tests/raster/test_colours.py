"""Pixels for eyes: colours that differ, one stretch, white without data."""

import numpy as np
import pytest

from co2s_hf.raster.colours import class_colours, natural_bands, natural_picture, stretched
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.image import Band, Raster, Reading


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


def test_the_stretch_leaves_out_what_holds_no_data_and_keeps_hues():
    pixels = np.tile(np.arange(100, dtype=np.uint16) * 100, (3, 10, 1))
    pixels[2] //= 2
    valid = np.ones((10, 100), bool)
    valid[:, 0], pixels[:, :, 0] = False, 60000
    picture = stretched(pixels, valid)
    low, high = np.percentile(pixels[:, valid], (2, 98))
    expected = np.clip((np.moveaxis(pixels, 0, 2).astype(float) - low) / (high - low), 0, 1) * 255
    expected[:, 0] = 255
    np.testing.assert_array_equal(picture, expected.round())
    assert (stretched(pixels, np.zeros_like(valid)) == 255).all()


def test_colours_of_8_bits_stay():
    pixels = np.random.default_rng(0).integers(40, 60, (3, 5, 6), dtype=np.uint8)
    np.testing.assert_array_equal(stretched(pixels, np.ones((5, 6), bool)), np.moveaxis(pixels, 0, 2))


def raster(count, names=None, descriptions=("",) * 9, palette=None):
    bands = tuple(Band(i + 1, descriptions[i], "", "uint8", None, 255) for i in range(count))
    pixels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    return Raster("a", pixels, np.ones((2, 2), bool), bands, Reading(names=names), Grid(2, 2), palette)


def test_the_three_bands_that_are_shown():
    names = ("nir", "red", "green", "blue")
    assert natural_picture(raster(4, names))[0, 0].tolist() == [1, 2, 3], "what the bands were read as"
    assert natural_picture(raster(4, descriptions=("blue", "green", "red", "nir")))[0, 0].tolist() == [2, 1, 0]
    assert natural_picture(raster(4))[0, 0].tolist() == [0, 1, 2]
    assert natural_picture(raster(2))[0, 0].tolist() == [0, 0, 0]
    table = np.array([[9, 8, 7, 255]], np.uint8)
    assert natural_picture(raster(1, ("red", "green", "blue"), palette=table))[0, 0].tolist() == [9, 8, 7]
