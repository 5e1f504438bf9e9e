"""A map against a reference, block by block: the same as all at once."""

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from co2s_hf.geo.boundaries import BoundaryCounts
from co2s_hf.geo.map_evaluation import assess, class_map, compare, confusion
from co2s_hf.geo.references import SamplePoints
from co2s_hf.raster.errors import RasterError

NAMES = ["water", "road", "tree"]


class ArrayReference:
    kind = "array"

    def __init__(self, classes):
        self.classes = classes

    def read(self, rows, columns, inner):
        return self.classes[rows, columns]


def classes(rng, size):
    found = rng.integers(0, 3, (-(-size[0] // 4), -(-size[1] // 4)), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    found = found[: size[0], : size[1]].copy()
    found[rng.random(size) < 0.1] = 255
    return found


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(5, 40), st.integers(5, 40)),
    block_px=st.integers(3, 50),
    boundary_px=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_blocks_change_nothing(size, block_px, boundary_px, seed, write_scene):
    rng = np.random.default_rng(seed)
    mapped, truth = classes(rng, size), classes(rng, size)
    path = write_scene(pixels=mapped[None], nodata=255)
    with class_map(str(path), NAMES) as the_map:
        found = compare(the_map, ArrayReference(truth), boundary_px, block_px=block_px)
    whole = BoundaryCounts(3, boundary_px)
    whole.add(mapped, truth, (slice(None), slice(None)))
    np.testing.assert_array_equal(found.boundaries.iou(), whole.iou())
    known = (mapped < 3) & (truth < 3)
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (mapped[known], truth[known]), 1)
    np.testing.assert_array_equal(found.scores.counts, expected)
    assert found.data == (mapped < 3).sum()


def test_confusion_has_the_map_in_rows():
    found = confusion(np.array([0, 0, 1, 255], np.uint8), np.array([0, 1, 255, 1], np.uint8), 2)
    np.testing.assert_array_equal(found, [[1, 1], [0, 0]])


def test_maps_that_are_none(write_scene):
    with pytest.raises(RasterError, match="has 3 bands of uint8; expected a class map with one band"):
        with class_map(str(write_scene())):
            pass
    path = str(write_scene(pixels=np.array([[[0, 4]]], np.uint8)))
    with pytest.raises(RasterError, match="does not name its classes.*--classes"):
        with class_map(path):
            pass
    with class_map(path, NAMES) as the_map, pytest.raises(RasterError, match="holds 4, but has 3 classes"):
        compare(the_map, ArrayReference(np.zeros((1, 2), np.uint8)), 1)
    with class_map(path, NAMES) as the_map, pytest.raises(RasterError, match="boundary width is 0 px"):
        compare(the_map, ArrayReference(np.zeros((1, 2), np.uint8)), 0)


@pytest.mark.parametrize("text", ["{", "[" * 20_000, '"water"', "[1, 2]", '{"a": 1}'])
def test_metadata_that_names_no_classes(write_scene, text):
    path = write_scene(pixels=np.zeros((1, 4, 4), np.uint8))
    with rasterio.open(path, "r+") as file:
        file.update_tags(classes=text)
    with pytest.raises(RasterError, match="scene.tif has the metadata classes=.*expected a JSON list of names"):
        with class_map(str(path)):
            pass
    with class_map(str(path), NAMES) as the_map:  # whoever names them does not need it
        assert the_map.classes == NAMES


def test_nothing_in_common_is_an_error(write_scene):
    path = str(write_scene(pixels=np.array([[[0, 255]]], np.uint8), nodata=255))
    with class_map(path, NAMES) as the_map, pytest.raises(RasterError, match="have no pixel in common"):
        compare(the_map, ArrayReference(np.array([[255, 1]], np.uint8)), 1)


def test_a_sample_weighs_by_the_areas_of_the_map(write_scene):
    mapped = np.zeros((1, 600, 10), np.uint8)
    mapped[:, 540:] = 1
    mapped[:, -1] = 9
    path = str(write_scene(pixels=mapped, nodata=9))
    rows = np.array([0, 100, 513, 530, 545, 590, 599])
    points = SamplePoints(rows, np.arange(7), np.array([0, 0, 0, 1, 1, 0, 1], np.uint8), outside=2)
    with class_map(path, ["a", "b"]) as the_map:
        found = assess(the_map, points)
    np.testing.assert_array_equal(found.counts, [[3, 1], [1, 1]])
    assert found.outside == 3 and [area.pixels for area in found.areas] == [5400, 590]
    assert found.areas[0].area_m2 == pytest.approx(5400 * 4)
    weight = 5400 / 5990
    assert found.estimates.overall_accuracy.value == pytest.approx(0.75 * weight + 0.5 * (1 - weight))
    with class_map(path, ["a", "b"]) as the_map, pytest.raises(RasterError, match="No point of the sample lies where"):
        assess(the_map, SamplePoints(*(one[-1:] for one in (rows, np.arange(7))), np.array([0], np.uint8), 0))
