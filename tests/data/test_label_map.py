"""Label maps: every value is mapped or reported, and the usual mistakes are named."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from co2s_hf.data.label_map import IGNORE, LabelMap, LabelMapError, show_counts, show_value, value_counts

RED, BLUE = (255, 0, 0), (0, 0, 255)
ids = st.integers(0, 40) | st.sampled_from([255, 65535])
colours = st.tuples(*[st.sampled_from([0, 1, 128, 255])] * 3)
targets = st.integers(0, 6) | st.just(IGNORE)
quick = settings(max_examples=60, deadline=None)


def as_mask(values):
    """One row of pixels, of ids or of colours."""
    coloured = isinstance(values[0], tuple)
    return np.array([values], np.uint8 if coloured else np.int32)


def lowered(num_classes):
    """What `reduce_zero_label` does: 1 is the first class, 0 has no label."""
    return LabelMap(((0, IGNORE), *((i + 1, i) for i in range(num_classes))))


# ---- properties ------------------------------------------------------------------------------------------------------


@quick
@given(st.data(), st.sampled_from([ids, colours]))
def test_every_value_is_mapped_or_reported(data, values):
    table = data.draw(st.dictionaries(values, targets, max_size=8))
    pixels = data.draw(st.lists(values, min_size=1, max_size=30))
    label_map, mask = LabelMap(tuple(table.items())), as_mask(pixels)
    missing = {value: pixels.count(value) for value in pixels if value not in table}
    assert label_map.unmapped(value_counts(mask)) == missing
    if missing:
        with pytest.raises(LabelMapError) as refusal:
            label_map.apply(mask)
        assert refusal.value.unmapped == missing
        assert show_counts(missing) in str(refusal.value)
    else:
        applied = label_map.apply(mask)
        assert applied.dtype == np.uint8 and applied.tolist() == [[table[value] for value in pixels]]


@quick
@given(st.dictionaries(ids, targets, min_size=1, max_size=8), st.data())
def test_applying_twice_changes_nothing_only_if_the_map_says_so(table, data):
    label_map = LabelMap(tuple(table.items()))
    mask = as_mask(data.draw(st.lists(st.sampled_from(list(table)), min_size=1, max_size=20)))
    once = label_map.apply(mask)
    if all(table.get(target) == target for target in set(once.ravel().tolist())):
        np.testing.assert_array_equal(label_map.apply(once), once)
    else:
        try:
            assert (label_map.apply(once) != once).any()
        except LabelMapError as refusal:
            assert refusal.unmapped


@quick
@given(st.integers(2, 20), st.data())
def test_lowering_ids_twice_is_refused_or_named(num_classes, data):
    label_map = lowered(num_classes)
    stored = [0, 1, *data.draw(st.lists(st.integers(0, num_classes), max_size=20))]  # unlabelled, the first class, …
    classes = [f"c{i}" for i in range(num_classes)]
    assert label_map.suspicions(value_counts(as_mask(stored)), classes) == []
    twice = label_map.apply(as_mask(stored))
    with pytest.raises(LabelMapError) as refusal:
        label_map.apply(twice)
    assert refusal.value.unmapped == {IGNORE: stored.count(0)}
    ((finding, fix),) = label_map.suspicions(value_counts(twice), classes)
    assert "reduce_zero_label twice" in finding and "c0 would be ignored" in finding and fix.startswith("Map 0 to c0")


@quick
@given(st.integers(2, 20), st.lists(st.integers(1, 20), max_size=20))
def test_ids_that_were_never_lowered_are_named(num_classes, others):
    stored = [1, num_classes, *(i for i in others if i <= num_classes)]
    classes = [f"c{i}" for i in range(num_classes)]
    plain = LabelMap.identity(num_classes)
    ((finding, fix),) = plain.suspicions(value_counts(as_mask(stored)), classes)
    assert "ids look one too high" in finding and "c1 would be learned as c0" in finding and "0 to ignore" in fix
    assert plain.suspicions(value_counts(as_mask([0, *stored])), classes) == []


@quick
@given(st.integers(1, 20), st.data())
def test_ignore_trained_as_a_class_is_named(num_classes, data):
    background = data.draw(st.integers(0, num_classes - 1))
    classes = [f"c{i}" for i in range(num_classes)]
    own = tuple((i, i) for i in range(num_classes))
    label_map = LabelMap((*own, (IGNORE, background)))
    ((finding, fix),) = label_map.suspicions({IGNORE: 7, 0: 1}, classes)
    assert f"trained as c{background}" in finding and "(7 pixels)" in finding and f"Map {IGNORE} to ignore" in fix
    assert LabelMap((*own, (IGNORE, IGNORE))).suspicions({IGNORE: 7, 0: 1}, classes) == []


def test_a_mask_of_0_and_255_may_mean_two_classes():
    assert LabelMap(((0, 0), (IGNORE, 1))).suspicions({0: 5, IGNORE: 5}, ["ground", "building"]) == []


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_ids_and_colours_in_one_map():
    label_map = LabelMap(((0, 1), (7, IGNORE), (RED, 0), (BLUE, 1)))
    assert label_map.apply(np.array([[7, 0]], np.uint16)).tolist() == [[IGNORE, 1]]
    assert label_map.apply(np.array([[BLUE, RED]], np.uint8)).tolist() == [[1, 0]]
    assert label_map.class_pixels({0: 3, BLUE: 4, 7: 5, 9: 6})[[0, 1, IGNORE]].tolist() == [0, 7, 5]


def test_what_is_unmapped_is_shown_with_counts_and_a_way_out():
    message = r"holds #FF0000 \(2 px\), .*it names 0, 1, 255\. Add each of them to label_map"
    with pytest.raises(LabelMapError, match=message):
        LabelMap.identity(2).apply(np.array([[RED, RED]], np.uint8))
    assert show_counts({3: 1, 4: 9}) == "4 (9 px), 3 (1 px)" and show_value(BLUE) == "#0000FF"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (((0, 1), (0, 2)), "names 0 twice"),
        (((0, 256),), r"sends 0 to 256; expected 0\.\.254, or 255"),
        ((((0, 300, 0), 1),), r"names the colour \(0, 300, 0\); expected three levels"),
    ],
)
def test_maps_that_contradict_themselves_are_refused(entries, message):
    with pytest.raises(LabelMapError, match=message):
        LabelMap(entries)


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8)])
def test_other_arrays_are_refused(mask):
    with pytest.raises(LabelMapError, match=r"array of shape .*; expected \(H, W\) integer ids"):
        LabelMap.identity(2).apply(mask)


def test_a_map_goes_to_worker_processes():
    label_map = LabelMap(((5, 0), (RED, 1)))
    label_map.apply(np.array([[5]]))  # fills the tables
    copy = pickle.loads(pickle.dumps(label_map))
    assert copy == label_map and copy.apply(np.array([[5]])).tolist() == [[0]]


def test_ids_that_no_mask_holds_are_refused():
    with pytest.raises(LabelMapError, match="an id of 1329 bits; expected ids of 32 bits"):
        LabelMap(((10**400, 0),))
