import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from co2s_hf.data.folders import DataError, DataSplit, Sample, find_split
from co2s_hf.data.lists import read_list
from co2s_hf.data.splits import Blocks, class_shares, draw_split, leaks, write_split
from co2s_hf.raster.write import write_image, write_mask

GRID = Blocks(r"(?P<scene>\w+)/(?P<column>\d+)_(?P<row>\d+)", tiles=2)
ROOT = Path("/data/images")


def _grid(scenes=2, columns=6, rows=4, root=ROOT):
    return [
        Sample(root / f"s{s}" / f"{x}_{y}.png", root.parent / "labels" / f"s{s}" / f"{x}_{y}.png", f"s{s}")
        for s in range(scenes)
        for x in range(columns)
        for y in range(rows)
    ]


@st.composite
def _pools(draw):
    """Scenes of a few tiles on grids, with pixel counts of three classes; some tiles have no mask."""
    samples, pixels = [], {}
    for scene in string.ascii_lowercase[: draw(st.integers(1, 5))]:
        positions = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8))
        for x, y in sorted(positions):
            image = ROOT / scene / f"{x}_{y}.png"
            mask = ROOT.parent / "labels" / scene / f"{x}_{y}.png" if draw(st.integers(0, 9)) else None
            samples.append(Sample(image, mask, scene))
            if mask is not None:
                pixels[image] = draw(st.tuples(*[st.sampled_from([0, 0, 1, 50])] * 3))
    if not pixels:
        samples[0] = Sample(samples[0].image, ROOT.parent / "labels" / "x.png", samples[0].scene)
        pixels[samples[0].image] = (1, 0, 0)
    return samples, pixels


GROUPS = st.sampled_from(["tile", "scene", GRID])
DRAW = settings(max_examples=60, deadline=None, database=None)


def _draw(samples, pixels, **options):
    options = {"classes": ("a", "b", "c"), "seed": 0, "fraction": 0.5} | options
    return draw_split(samples, class_pixels=pixels, images_dir=ROOT, **options)


def _classes(samples, pixels):
    return {c for sample in samples for c, n in enumerate(pixels.get(sample.image, ())) if n}


# ---- properties ----


@DRAW
@given(_pools(), GROUPS, st.integers(0, 9), st.floats(0.05, 0.9))
def test_groups_are_never_torn_and_no_class_is_lost(pool, group, seed, share):
    samples, pixels = pool
    try:
        split = _draw(samples, pixels, group=group, seed=seed, validation_fraction=share)
    except DataError as error:
        assert "No validation images can be held out" in str(error)
        return
    found = leaks(split, group, images_dir=ROOT)
    assert not found and not found.shared
    parts = [*split.labelled, *split.unlabelled, *split.validation]
    images = [sample.image for sample in parts]
    assert len(images) == len(set(images)) and set(images) <= {sample.image for sample in samples}
    assert split.validation and split.labelled
    assert _classes(split.labelled + split.unlabelled, pixels) == _classes(samples, pixels)
    assert all(sample.mask is not None for sample in split.labelled + split.validation)
    if group == "scene":
        held_out = {sample.scene for sample in split.validation}
        assert {s.image for s in samples if s.scene not in held_out} == {
            s.image for s in split.labelled + split.unlabelled
        }


@DRAW
@given(_pools(), GROUPS, st.integers(0, 9), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_fraction_contains_a_smaller_one(pool, labels_by, seed, one, other):
    samples, pixels = pool
    small, large = (
        _draw(samples, pixels, labels_by=labels_by, seed=seed, fraction=fraction).labelled
        for fraction in sorted((one, other))
    )
    assert set(small) <= set(large)


@DRAW
@given(_pools(), st.sampled_from(["tile", "scene"]), st.integers(0, 9), st.integers(1, 12))
def test_as_many_labelled_units_as_classes_have_every_class(pool, labels_by, seed, count):
    samples, pixels = pool
    count = min(count, len(pixels))
    labelled = _draw(samples, pixels, labels_by=labels_by, seed=seed, fraction=None, count=count).labelled
    units = {sample.image if labels_by == "tile" else sample.scene for sample in labelled}
    if len(units) >= 3:
        assert _classes(labelled, pixels) == _classes(samples, pixels)
    assert len(labelled) == count if labels_by == "tile" else len(labelled) >= count


@DRAW
@given(_pools(), st.randoms(use_true_random=False))
def test_the_order_and_the_place_of_the_files_do_not_matter(pool, random):
    samples, pixels = pool
    moved = [Sample(Path("/else") / s.image.relative_to(ROOT), s.mask, s.scene) for s in samples]
    random.shuffle(moved)
    there = {Path("/else") / image.relative_to(ROOT): counts for image, counts in pixels.items()}
    ours = _draw(samples, pixels, group="tile")
    theirs = draw_split(
        moved, classes=("a", "b", "c"), seed=0, fraction=0.5, class_pixels=there, group="tile", images_dir="/else"
    )
    assert [s.image.relative_to(ROOT) for s in ours.labelled] == [s.image.relative_to("/else") for s in theirs.labelled]


# ---- numbers ----


def test_counts_and_shares():
    samples = _grid()  # 48 tiles
    split = draw_split(samples, classes=("a",), fraction=1 / 32, seed=3, validation_fraction=0.5)
    assert len(split.validation) == 24 and len({s.scene for s in split.validation}) == 1
    assert len(split.labelled) == 1 and len(split.unlabelled) == 23
    assert all(sample.mask is None for sample in split.unlabelled)
    assert len(draw_split(samples, classes=("a",), fraction=0.29, seed=0).labelled) == 13  # floor of 13.92
    by_scene = draw_split(samples, classes=("a",), count=1, seed=0, labels_by="scene")
    assert len(by_scene.labelled) == 24 and len({s.scene for s in by_scene.labelled}) == 1
    drawn = {draw_split(samples, classes=("a",), count=1, seed=seed).labelled for seed in range(8)}
    assert len(drawn) > 1


def test_the_rarest_class_is_labelled_first():
    samples = _grid(scenes=1)
    pixels = {sample.image: (64, 0) for sample in samples} | {samples[7].image: (0, 64)}
    for seed in range(5):
        split = draw_split(samples, classes=("a", "b"), count=1, seed=seed, class_pixels=pixels)
        assert split.labelled == (samples[7],)


@pytest.mark.parametrize("seed", range(5))
def test_few_labels_have_the_classes_of_the_pool(seed):
    """Of 300 tiles, a class of 5 % lies in a tenth of them: eight labelled ones must not miss it, nor hold it alone."""
    rng = np.random.default_rng(seed)
    samples = _grid(scenes=1, columns=20, rows=15)
    pixels = {}
    for sample in samples:
        rare = 500 if rng.random() < 0.1 else 0
        field = int(rng.integers(0, 1001 - rare))
        pixels[sample.image] = (field, 1000 - rare - field, rare)
    pool = np.sum(list(pixels.values()), axis=0) / (1000 * len(samples))
    split = draw_split(samples, classes=("a", "b", "c"), count=8, seed=seed, class_pixels=pixels)
    drawn = np.sum([pixels[s.image] for s in split.labelled], axis=0) / 8000
    assert abs(drawn - pool).max() < 0.03
    shares = class_shares(split, pixels)
    assert shares[0].split() == ["class", "labelled", "validation"]
    assert shares[3].split() == ["c", f"{100 * drawn[2]:.2f}", "%", "0.00", "%"]


def test_tiles_next_to_a_validation_block_are_left_out():
    samples = _grid(scenes=1, columns=8, rows=2)  # a strip of four blocks of 2x2
    split = draw_split(samples, classes=("a",), fraction=0.5, seed=0, group=GRID, validation_fraction=0.2,
                       images_dir=ROOT)  # fmt: skip
    held_out = {int(s.image.stem[0]) for s in split.validation}
    training = {int(s.image.stem[0]) for s in split.labelled + split.unlabelled}
    assert len(split.validation) == 4 and len(held_out) == 2
    assert training == {x for x in range(8) if min(abs(x - v) for v in held_out) > 1}


def test_windows_that_are_shifted_back_are_neighbours():
    # As Co2S cuts Potsdam: the last window of 512 px starts at 5488 instead of 5632 and overlaps the one before.
    blocks = Blocks(r"^(?P<scene>\d+_\d+)_(?P<x>\d+)_(?P<y>\d+)_", tiles=1, step=512)
    starts = (4608, 5120, 5488)
    last, before, away = (Sample(ROOT / f"6_14_{x}_0_{x + 512}_512.png", None, "6_14") for x in reversed(starts))
    other = Sample(ROOT / "6_15_5120_0_5632_512.png", None, "6_15")
    found = leaks(DataSplit(("a",), (before,), (away, other), (last,)), blocks)
    assert found.leaking_images == 1 and found.training_images == 3


def test_leaks_counts_as_the_published_splits_do():
    a, b, c, d = _grid(scenes=2, columns=1, rows=2)
    found = leaks(DataSplit(("a",), (a,), (c,), (b, d)))
    assert (found.shared, found.training_units, found.validation_units) == (("s0", "s1"), 2, 2)
    assert (found.leaking_images, found.training_images) == (2, 2)
    assert "2 of 2 validation scenes" in str(found) and "2 of 2 training images" in str(found)
    clean = leaks(DataSplit(("a",), (a,), (b,), (c, d)))
    assert not clean and "flatters" not in str(clean)
    assert leaks(DataSplit(("a",), (a,), (c,), (b, d)), GRID, images_dir=ROOT).shared == ("s0 0 0", "s1 0 0")


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": None}, "exactly one of the two"),
        ({"count": 3}, "exactly one of the two"),
        ({"fraction": 0.0}, "share above 0"),
        ({"fraction": None, "count": 49}, "expected 1 to 48"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"class_pixels": {}}, "s0/0_0.png are of none classes; expected 1"),
        ({"group": Blocks(r"(?P<x>\d+)-(?P<y>\d+)", tiles=1)}, "finds no whole-numbered position in s0/0_0.png"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(DataError, match=message):
        draw_split(_grid(), **({"classes": ("a",), "fraction": 0.5, "seed": 0} | options))


def test_refuses_pools_that_cannot_be_split():
    with pytest.raises(DataError, match="form 1 groups"):
        draw_split(_grid(scenes=1), classes=("a",), fraction=0.5, seed=0, validation_fraction=0.2)
    with pytest.raises(DataError, match="None of the 2 images has a mask"):
        unlabelled = [Sample(ROOT / "a.png", None, "a"), Sample(ROOT / "b.png", ROOT / "b.*", "b")]
        draw_split(unlabelled, classes=("a",), fraction=0.5, seed=0)
    with pytest.raises(DataError, match="expected at least one"):
        draw_split([], classes=("a",), fraction=0.5, seed=0)
    with pytest.raises(DataError, match="expected x and y, or column and row"):
        Blocks(r"(\d+)_(\d+)", tiles=2)
    with pytest.raises(DataError, match="Blocks of 0 tiles"):
        Blocks(GRID.pattern, tiles=0)


# ---- write_split ----


def test_written_lists_are_found_again(tmp_path):
    samples = _grid(scenes=2, columns=2, rows=2, root=tmp_path / "images")
    for sample in samples:
        for path in (sample.image, sample.mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_image(sample.image, _zeros((4, 4, 3)))
        write_mask(sample.mask, _zeros((4, 4)))
    split = draw_split(samples, classes=("a",), count=2, seed=0, validation_fraction=0.5)
    paths = write_split(split, tmp_path / "lists" / "half", tmp_path)
    assert [path.name for path in paths] == ["labelled.txt", "unlabelled.txt", "val.txt"]
    assert sorted(path.name for path in (tmp_path / "lists" / "half").iterdir()) == sorted(p.name for p in paths)
    again = find_split(
        tmp_path,
        classes=("a",),
        labelled=["lists/half/labelled.txt"],
        unlabelled=["lists/half/unlabelled.txt"],
        validation=["lists/half/val.txt"],
        scene_pattern=r"(s\d)",
    )
    assert again == split
    assert all(line.mask is None for line in read_list(paths[1]))
    with pytest.raises(DataError, match="labelled.txt.* exists"):
        write_split(split, tmp_path / "lists" / "half", tmp_path)
    without = draw_split(samples, classes=("a",), count=1, seed=0)
    with pytest.raises(DataError, match="val.txt exists"):
        write_split(without, tmp_path / "lists" / "half", tmp_path)
    assert [path.name for path in write_split(without, tmp_path / "lists" / "half", tmp_path, force=True)] == [
        "labelled.txt",
        "unlabelled.txt",
    ]
    assert not paths[2].exists() and len(read_list(paths[0])) == 1


def _zeros(shape):
    return np.zeros(shape, np.uint8)
