import numpy as np
import pytest

from co2s_hf.raster.bands import choose_bands
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import COLOURS, Band, Reading

RGBN = (*COLOURS, "nir")


def bands(*said):
    """One band for each "description/colour"."""
    return [Band(i, *one.split("/"), "uint8", None, 255) for i, one in enumerate(said, 1)]


@pytest.mark.parametrize(
    ("said", "names", "numbers", "way"),
    [
        (["blue/", "green/", "red/"], COLOURS, [3, 2, 1], "description"),
        (["nir/", "blue/", "green/", "red/"], COLOURS, [4, 3, 2], "description"),
        (["Blue/red".lower(), "green/green", "red/blue"], COLOURS, [3, 2, 1], "description"),
        (["blue/", "green/", "red/", "nir/alpha"], RGBN, [3, 2, 1, 4], "description"),
        (["/red", "/green", "/blue", "nir/"], RGBN, [1, 2, 3, 4], "description"),
        (["/blue", "/green", "/red", "nir/alpha"], RGBN, [3, 2, 1, 4], "description"),
        (["red/", "green/", "blue/", "/"], RGBN, [1, 2, 3, 4], "description"),
        (["red/", "green/", "blue/", "/alpha"], RGBN, [1, 2, 3, 4], "description"),
        (["/blue", "/green", "/red"], COLOURS, [3, 2, 1], "colour"),
        (["b1/blue", "b2/green", "b3/red"], COLOURS, [3, 2, 1], "colour"),
        (["/blue", "/green", "/red", "/"], RGBN, [3, 2, 1, 4], "colour"),
        (["/blue", "/green", "/red", "/alpha"], RGBN, [3, 2, 1, 4], "colour"),
        (["/blue", "/green", "/red", "/alpha"], COLOURS, [3, 2, 1], "colour"),
        (["/nir", "/red", "/green"], ("red", "green", "nir"), [2, 3, 1], "colour"),
        (["/gray"], ("grey",), [1], "colour"),
        (["/red", "/green", "/blue"], ("nir", "red", "green"), [1, 2, 3], "order"),  # what GDAL calls any three bands
        (["/red", "/green", "/blue", "/alpha"], ("nir", "red", "green", "blue"), [1, 2, 3, 4], "order"),
        (["/grey", "/", "/"], COLOURS, [1, 2, 3], "order"),
        (["b1/", "b2/", "b3/"], COLOURS, [1, 2, 3], "order"),
    ],
)
def test_bands_are_found_by_description_else_colour_else_order(said, names, numbers, way):
    assert choose_bands("a.tif", bands(*said), Reading(names=names)) == (numbers, way)


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (["red/", "green/", "swir/"], COLOURS),
        (["red/", "green/", "nir/"], COLOURS),
        (["red/", "red/", "green/", "blue/"], COLOURS),
        (["blue/red", "/green", "/blue"], COLOURS),  # described as blue, and another one is called blue
        (["red/", "/", "/", "/"], COLOURS),
    ],
)
def test_descriptions_that_contradict_what_is_wanted_are_refused(said, names):
    with pytest.raises(RasterError, match=r"a\.tif describes its bands as .*; expected red, green, blue, each"):
        choose_bands("a.tif", bands(*said), Reading(names=names))


def test_without_names_the_order_decides_and_alpha_fills_up():
    rgba = bands("/red", "/green", "/blue", "/alpha")
    assert choose_bands("a", rgba, Reading()) == ([1, 2, 3], "order")
    assert choose_bands("a", rgba, Reading(count=4)) == ([1, 2, 3, 4], "order")
    assert choose_bands("a", bands("/red", "/green", "/blue", "nir/alpha"), Reading()) == ([1, 2, 3, 4], "order")
    assert choose_bands("a", rgba, Reading(numbers=(3, 1))) == ([3, 1], "number")
    for reading, message in (
        (Reading(count=2), "a has 3 bands and alpha; expected 2"),
        (Reading(numbers=(5,)), "a has bands 1 to 4; --bands names 5"),
        (Reading(numbers=(1, 2), count=3), "the model takes 3; --bands names 1, 2"),
        (Reading(names=("x", "y")), r"expected 2 \(x, y\)"),
    ):
        with pytest.raises(RasterError, match=message):
            choose_bands("a", rgba, reading)
    with pytest.raises(RasterError, match="a has 17 bands; expected 1 to 16"):
        choose_bands("a", bands(*["/"] * 17), Reading())


def test_palettes_have_the_bands_of_their_colours():
    colours, grey = np.array([[1, 2, 3, 255]], np.uint8), np.array([[5, 5, 5, 255]], np.uint8)
    indices = bands("/palette")
    assert choose_bands("a", indices, Reading(names=COLOURS), colours) == ([1], "colour")
    assert choose_bands("a", indices, Reading(count=1), grey) == ([1], "colour")
    with pytest.raises(RasterError, match="palette of 1 colours, which are read as red, green and blue; expected 4"):
        choose_bands("a", indices, Reading(names=RGBN), colours)
    with pytest.raises(RasterError, match="read as grey; expected 3 bands"):
        choose_bands("a", indices, Reading(names=COLOURS), grey)
