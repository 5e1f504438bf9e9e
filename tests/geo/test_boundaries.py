"""Boundary IoU: by hand, and by the definition of the paper, class by class."""

import numpy as np
import pytest
from scipy import ndimage

from co2s_hf.geo.boundaries import BoundaryCounts

EVERYTHING = (slice(None), slice(None))


def fields(seed, classes=4, size=(40, 50)):
    noise = np.random.default_rng(seed).random((classes, *size))
    return ndimage.gaussian_filter(noise, (0, 4, 4)).argmax(axis=0).astype(np.uint8)


def test_by_hand():
    reference = np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.uint8)
    mapped = np.array([[0, 0, 0, 1, 1, 1, 1, 1]], np.uint8)
    counts = BoundaryCounts(3, 1)
    counts.add(mapped, reference, EVERYTHING)
    # Bands of 1 px: columns 3 | 4 of the reference, 2 | 3 of the map; nothing in common but column 3, of two classes.
    np.testing.assert_allclose(counts.iou(), [0, 0, np.nan])
    counts = BoundaryCounts(3, 2)
    counts.add(mapped, reference, EVERYTHING)
    # Class 0: 2, 3 and 1, 2; class 1: 4, 5 and 3, 4.
    np.testing.assert_allclose(counts.iou(), [1 / 3, 1 / 3, np.nan])


@pytest.mark.parametrize("width_px", [1, 2, 5])
def test_it_is_the_definition_for_each_class(width_px):
    mapped, reference = fields(0), fields(0)
    mapped[fields(1) == 1] = 2
    counts = BoundaryCounts(4, width_px)
    counts.add(mapped, reference, EVERYTHING)
    square = np.ones((3, 3), bool)
    for class_id in range(4):
        bands = []
        for mask in (mapped == class_id, reference == class_id):
            bands.append(mask & ~ndimage.binary_erosion(mask, square, iterations=width_px, border_value=1))
        assert counts.iou()[class_id] == (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()


def test_what_is_not_known_has_no_outline():
    reference = np.zeros((9, 9), np.uint8)
    reference[:, 6:], reference[4:] = 1, 255
    mapped = np.where(np.arange(9) < 6, 0, 1).astype(np.uint8).repeat(9).reshape(9, 9).T.copy()
    mapped[6:] = 2
    counts = BoundaryCounts(3, 2)
    counts.add(mapped, reference, EVERYTHING)
    np.testing.assert_array_equal(counts.reference, [8, 8, 0])
    np.testing.assert_array_equal(counts.iou(), [1, 1, np.nan])
