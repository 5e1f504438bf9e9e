import doctest
import sys

import pytest
import torch

from training.purification import regions
from training.purification.regions import boundary_band, count_regions, find_regions, number_regions, segment_regions


def everywhere(*shape):
    return torch.ones(1, *shape, dtype=torch.bool)


def found(label, confidence=0.5, valid=None, **options):
    label = torch.tensor([label])
    confidence = torch.tensor([confidence]) if isinstance(confidence, list) else torch.full(label.shape, confidence)
    valid = torch.ones_like(label, dtype=torch.bool) if valid is None else torch.tensor([valid])
    options = {"source": "uncertain", "min_area_px": 1, **options}
    return find_regions(label, confidence, valid, **options)[0].tolist()


def test_docstring_examples():
    results = doctest.testmod(regions)
    assert results.attempted > 0 and results.failed == 0


def test_the_band_has_its_radius_on_both_sides_and_around_corners():
    label = torch.zeros(1, 7, 7, dtype=torch.int64)
    label[0, 3, 3] = 2
    expected = torch.zeros(1, 7, 7, dtype=torch.bool)
    expected[0, 1:6, 1:6] = True
    assert torch.equal(boundary_band(label, everywhere(7, 7), 2), expected)
    assert not boundary_band(label, everywhere(7, 7), 0).any()


def test_what_is_not_valid_makes_no_boundary():
    label, valid = torch.tensor([[[0, 0, 5, 0]]]), torch.tensor([[[True, True, False, True]]])
    assert not boundary_band(label, valid, 2).any()


def test_the_edge_of_the_picture_is_no_boundary():
    assert not boundary_band(torch.full((1, 4, 4), 3), everywhere(4, 4), 2).any()


def test_regions_are_of_one_class_and_touch_at_corners():
    label = [[0, 1, 1], [1, 0, 0], [2, 2, 0]]
    zero, one, two = found(label)[0][0], found(label)[0][1], found(label)[2][0]
    assert found(label) == [[zero, one, one], [one, zero, zero], [two, two, zero]]
    assert sorted([zero, one, two]) == [0, 1, 2]


def test_two_islands_of_a_class_are_two_regions():
    assert found([[0, 1, 0, 0]]) == [[1, 2, 0, 0]]


def test_regions_are_ranked_by_area_times_doubt():
    # three pixels at 0.6 are worth 1.2, two at 0.1 are worth 1.8
    assert found([[0, 0, 0, 1, 1]], [[0.6, 0.6, 0.6, 0.1, 0.1]]) == [[1, 1, 1, 0, 0]]
    assert found([[0, 0, 0, 1, 1]], [[0.6, 0.6, 0.6, 0.1, 0.1]], max_regions=1) == [[-1, -1, -1, 0, 0]]


def test_small_certain_and_invalid_places_are_no_regions():
    assert found([[0, 1, 1]], min_area_px=2) == [[-1, 0, 0]]
    assert found([[0, 1, 1]], [[0.7, 0.69, 0.9]], tau=0.7) == [[-1, 0, -1]]
    assert found([[0, 1, 1]], valid=[[False, True, False]]) == [[-1, 0, -1]]


def test_sources_differ_in_the_pixels_they_take():
    label, confidence = [[0, 0, 0, 1, 1]], [[0.1, 0.1, 0.9, 0.9, 0.1]]
    options = {"boundary_radius_px": 2}
    assert found(label, confidence, source="uncertain", **options) == [[0, 0, -1, -1, 1]]
    assert found(label, confidence, source="boundary", **options) == [[-1, 0, -1, -1, 1]]
    assert found(label, confidence, source="label", **options) == [[0, 0, 0, 1, 1]]


def test_pictures_of_a_batch_are_numbered_apart():
    label = torch.tensor([[[0, 1]], [[1, 1]]])
    ids = find_regions(label, torch.zeros(2, 1, 2), everywhere(1, 2).repeat(2, 1, 1), source="label", min_area_px=1)
    assert ids.dtype == torch.int64 and ids.tolist() == [[[0, 1]], [[0, 0]]]


def test_a_picture_without_uncertain_pixels_has_no_region():
    assert found([[0, 1]], 0.9) == [[-1, -1]]


def test_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="boundary, uncertain, label; got 'sam'"):
        found([[0]], source="sam")
    with pytest.raises(ValueError, match="max_regions 0"):
        found([[0]], max_regions=0)
    with pytest.raises(ValueError, match="radius_px is -1"):
        boundary_band(torch.zeros(1, 1, 1, dtype=torch.int64), everywhere(1, 1), -1)
    with pytest.raises(ValueError, match="region_px is 1"):
        segment_regions(torch.zeros(3, 4, 4), region_px=1)


def test_superpixels_follow_the_colours_and_leave_out_what_has_no_data():
    image = torch.zeros(3, 32, 32)
    image[0, :, 11:] = 1
    valid = torch.ones(32, 32, dtype=torch.bool)
    valid[:4] = False
    ids = segment_regions(image, valid, region_px=16)
    assert torch.equal(ids == -1, ~valid)
    assert count_regions(ids) >= 2 and sorted(ids.unique().tolist()) == list(range(-1, count_regions(ids)))
    assert not set(ids[4:, :11].unique().tolist()) & set(ids[4:, 11:].unique().tolist())
    assert torch.equal(ids, segment_regions(image, valid, region_px=16))


def test_superpixels_without_scikit_image_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"co2s_hf\[purify\]"):
        segment_regions(torch.zeros(3, 4, 4))


def test_numbers_of_a_map_are_counted():
    assert count_regions(number_regions(torch.tensor([[900, 3], [3, 7]]))) == 3
    assert count_regions(torch.full((2, 2), -1)) == 0
