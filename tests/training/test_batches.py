import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from co2s_hf.data.folders import Sample
from co2s_hf.raster.image import NoData, Reading
from co2s_hf.raster.write import write_image, write_mask
from tests.training.tiny_runs import tensors_of
from training.batches import MAX_REGIONS, Batch, EvaluationDataset, SemiDataset, TimedBatches, collate, train_loader
from training.pools import FilePool, LabelledPool, find_partly_labelled
from training.purification.cache import RegionCache
from training.purification.calibration import Calibration
from training.views import ViewNeeds

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
NORMALISED = {"mean": MEAN, "std": STD}
PARTNER = ViewNeeds(unlabelled=True, partner="other")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Eight images of one grey value each (20 * index), four with a mask of their index; 20 x 24 px."""
    folder = tmp_path_factory.mktemp("samples")
    made = []
    for i in range(8):
        image, mask = folder / f"i{i}.png", folder / f"m{i}.png"
        write_image(image, np.full((20, 24, 3), 20 * i, np.uint8))
        write_mask(mask, np.full((20, 24), i, np.uint8))
        made.append(Sample(image, mask if i < 4 else None, str(i)))
    return made


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(0)
    made = []
    for i in range(5):
        image, mask = folder / f"i{i}.png", folder / f"m{i}.png"
        write_image(image, rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8))
        write_mask(mask, rng.integers(0, 3, (20 + i, 24), dtype=np.uint8))
        made.append(Sample(image, mask, str(i)))
    return made


def _dataset(labelled, unlabelled, views=PARTNER, partly_labelled=(), **changes):
    fields = {"crop_px": 16, "seed": 1, "views": views, **NORMALISED, **changes}
    any_pool = unlabelled or partly_labelled
    pool = FilePool(unlabelled, partly_labelled=partly_labelled, seed=fields["seed"]) if any_pool else None
    return SemiDataset(LabelledPool(labelled, seed=fields["seed"]), pool, **fields)


def _position(dataset, position):
    """The tensors of one position, named as in `Batch`, without the batch dimension."""
    return {name: tensor[0] for name, tensor in tensors_of(dataset.batch([position])).items()}


def _apart(dataset, positions):
    """A batch of positions that were made each for itself."""
    made = [_position(dataset, k) for k in positions]
    return Batch(**{name: torch.stack([one[name] for one in made]) for name in made[0]})


def _grey(image):
    """Grey value / 20 of a normalised crop without padding: the index of the sample."""
    return round(float(image[0].max() * STD[0] + MEAN[0]) * 255 / 20)


def _assert_equal(one, two):
    pairs = list(zip(tensors_of(one).items(), tensors_of(two).items(), strict=True))
    assert pairs and all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


# ---- SemiDataset ----


def test_shapes_and_types(noisy):
    batch = _apart(_dataset(noisy[:2], noisy[2:]), range(3))
    for name in ("x", "u_w", "u_s1", "u_s2", "p_w", "p_s1", "p_s2"):
        tensor = getattr(batch, name)
        assert tensor.shape == (3, 3, 16, 16) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    for name in ("u_valid", "p_valid", "box1", "box2"):
        assert getattr(batch, name).shape == (3, 16, 16) and getattr(batch, name).dtype == torch.bool
    assert batch.y.shape == (3, 16, 16) and batch.y.dtype == torch.int64


def test_what_is_not_needed_is_none(noisy):
    supervised = _dataset(noisy, [], ViewNeeds(unlabelled=False)).batch([0])
    assert list(tensors_of(supervised)) == ["x", "y"]
    alone = _dataset(noisy, noisy, ViewNeeds(unlabelled=True)).batch([0])
    assert alone.p_w is None and alone.p_valid is None and alone.box2 is not None
    full = _dataset(noisy, noisy).batch([0])
    for name in ("x", "y", "u_w", "u_s1", "u_s2", "u_valid", "box1", "box2"):  # a partner changes nothing else
        assert torch.equal(getattr(full, name), getattr(alone, name))
    assert torch.equal(full.x, supervised.x)


@pytest.fixture(scope="module")
def quadrants(tmp_path_factory):
    """Four images whose quadrants are grey in four values, with these quadrants as their regions; and their scores.

    Image k has the grey values 40 k + 10 q in quadrant q, whose most probable class is (k + q) % 3.
    """
    folder = tmp_path_factory.mktemp("quadrants")
    scores = RegionCache(folder / "scores", {"names": ["a", "b", "c"]})
    quadrant = np.kron(np.arange(4).reshape(2, 2), np.ones((16, 16), int))
    made = []
    for k in range(4):
        image, mask = folder / f"i{k}.png", folder / f"m{k}.png"
        write_image(image, np.repeat((40 * k + 10 * quadrant)[:, :, None], 3, axis=2).astype(np.uint8))
        write_mask(mask, np.where(quadrant == 0, 1, 255).astype(np.uint8))
        made.append(Sample(image, mask, str(k)))
        table = 5.0 * torch.eye(3)[[(k + q) % 3 for q in range(4)]]
        scores.write(image, torch.from_numpy(quadrant), table)
    scores.keep_calibration(Calibration(1.0, (0.0,) * 3, (1.0,) * 3, 1.0, 1.0, ()))
    return made, scores


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
def test_scores_go_with_the_pixels_that_they_are_of(quadrants, image_scale):
    samples, scores = quadrants
    views = ViewNeeds(unlabelled=True, partner="other", regions=True)
    changes = dict(scores=scores, crop_px=20, scale_range=(0.7, 1.5), image_scale=image_scale)
    dataset = _dataset(samples, samples, views, **changes)
    plain = _dataset(samples, samples, **{**changes, "scores": None})
    batch, same = (one.batch([0, 1, 2, 3]) for one in (dataset, plain))
    assert torch.equal(batch.u_s1, same.u_s1) and torch.equal(batch.u_valid, same.u_valid)
    assert batch.u_regions.shape == (4, 20, 20) and batch.u_scores.shape == (4, MAX_REGIONS, 3)
    assert torch.equal(batch.p_regions, batch.u_regions[batch.pairs])
    compared = 0
    for image, valid, regions, table in zip(batch.u_w, batch.u_valid, batch.u_regions, batch.u_scores, strict=True):
        assert (regions[~valid] == -1).all() and (regions[valid] >= 0).all()
        grey = (image[0] * STD[0] + MEAN[0]) * 255 / 10
        spread = torch.stack([F.max_pool2d(sign * grey[None], 5, 1, 2)[0] for sign in (1, -1)]).sum(0)
        pure = valid & (spread < 1e-3)  # away from where quadrants are mixed
        k, q = grey.round().long() // 4, grey.round().long() % 4
        assert torch.equal(table[regions[pure]].argmax(1), ((k + q) % 3)[pure])
        compared += int(pure.sum())
    assert compared > 300


def test_scores_do_not_bring_back_labelled_pixels(quadrants):
    samples, scores = quadrants
    views = ViewNeeds(unlabelled=True, regions=True)
    changes = dict(crop_px=32, scale_range=(1, 1), partly_labelled=[(sample, 1.0) for sample in samples])
    batch = _apart(_dataset(samples, [], views, scores=scores, **changes), range(4))
    plain = _apart(_dataset(samples, [], ViewNeeds(unlabelled=True), **changes), range(4))
    assert torch.equal(batch.u_valid, plain.u_valid) and 0 < batch.u_valid.float().mean() < 1


def test_refuses_regions_without_scores(samples):
    with pytest.raises(ValueError, match="There are no scores of regions; expected a cache"):
        _dataset(samples[:4], samples[4:], ViewNeeds(unlabelled=True, regions=True))


def test_padding_is_black_ignored_and_invalid(samples):
    dataset = _dataset(samples[3:4], samples[7:8], crop_px=32, scale_range=(1, 1))
    position = _position(dataset, 0)
    inside = position["y"] == 3
    assert int(inside.sum()) == int(position["u_valid"].sum()) == 20 * 24
    assert (position["y"][~inside] == 255).all()
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    grey = (60 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(position["x"][:, ~inside], black[:, None].expand(3, int((~inside).sum())))
    torch.testing.assert_close(position["x"][:, inside], grey[:, None].expand(3, 480))
    torch.testing.assert_close(position["u_w"][:, ~position["u_valid"]][:, 0], black)


def test_every_pass_shows_every_image_once_in_its_own_order(samples):
    dataset = _dataset(samples[:3], samples[4:], scale_range=(1, 1))
    labelled = [_grey(_position(dataset, k)["x"]) for k in range(12)]
    unlabelled = [_grey(_position(dataset, k)["u_w"]) for k in range(12)]
    assert all(sorted(labelled[i : i + 3]) == [0, 1, 2] for i in (0, 3, 6, 9))
    assert all(sorted(unlabelled[i : i + 4]) == [4, 5, 6, 7] for i in (0, 4, 8))
    assert len({tuple(unlabelled[i : i + 4]) for i in (0, 4, 8)}) > 1
    labels = [int(_position(dataset, k)["y"].max()) for k in range(12)]
    assert labels == labelled


def test_partners(samples):
    other = _dataset(samples[:1], samples[4:], scale_range=(1, 1))
    pairs = [(_grey(_position(other, k)["u_w"]), _grey(_position(other, k)["p_w"])) for k in range(40)]
    assert all(u != p for u, p in pairs) and len(set(pairs)) == 12
    same = _dataset(samples[:1], samples[4:], ViewNeeds(unlabelled=True, partner="same"), scale_range=(1, 1))
    assert all(_grey(_position(same, k)["u_w"]) == _grey(_position(same, k)["p_w"]) for k in range(12))
    only = _dataset(samples[:1], samples[4:5], scale_range=(1, 1))
    assert _grey(_position(only, 0)["p_w"]) == 4


def test_no_pair_has_one_image_twice_in_an_odd_pool(samples):
    odd = _dataset(samples[:1], samples[5:], scale_range=(1, 1))
    unlabelled = [_grey(_position(odd, k)["u_w"]) for k in range(80)]
    assert all(unlabelled[k] != unlabelled[k ^ 1] == _grey(_position(odd, k)["p_w"]) for k in range(80))
    assert all(set(unlabelled[k : k + 4]) == {5, 6, 7} for k in range(0, 80, 4))


def test_a_crop_shows_the_rare_class_it_was_drawn_for(tmp_path):
    write_image(tmp_path / "i.png", np.zeros((96, 96, 3), np.uint8))
    mask = np.zeros((96, 96), np.uint8)
    mask[40:48, 40:48] = 1
    write_mask(tmp_path / "m.png", mask)
    sample = Sample(tmp_path / "i.png", tmp_path / "m.png", "i")
    pixels = {sample.image: [96 * 96 - 64, 64]}
    shown = []
    for class_pixels in (None, pixels):
        labelled = LabelledPool([sample], seed=0, class_pixels=class_pixels, temperature=0.01)
        dataset = SemiDataset(labelled, None, crop_px=24, seed=0, views=ViewNeeds(unlabelled=False), **NORMALISED)
        shown.append(sum(bool((_position(dataset, k)["y"] == 1).any()) for k in range(60)) / 60)
    assert shown[0] < 0.4 and shown[1] > 0.8


def test_an_even_batch_holds_its_partners(noisy):
    dataset = _dataset(noisy[:2], noisy[2:])
    batch = dataset.batch([2, 3, 8, 9])
    assert batch.pairs.tolist() == [1, 0, 3, 2]
    for view in ("w", "s1", "s2", "valid"):
        assert torch.equal(getattr(batch, f"u_{view}")[batch.pairs], getattr(batch, f"p_{view}"))
    alone = _apart(dataset, (2, 3, 8, 9))
    assert alone.pairs is None
    batch.pairs = None
    _assert_equal(batch, alone)
    assert dataset.batch([2, 3, 4]).pairs is None


def test_the_first_positions_may_do_without_unlabelled_images(noisy):
    everywhere, later = (_dataset(noisy[:2], noisy[2:], first_unlabelled=k) for k in (0, 4))
    assert list(tensors_of(later.batch([2, 3]))) == ["x", "y"]
    _assert_equal(later.batch([4, 5]), everywhere.batch([4, 5]))
    assert torch.equal(_position(later, 3)["x"], _position(everywhere, 3)["x"])


def test_the_same_image_comes_with_another_augmentation(noisy):
    same = _dataset(noisy, noisy[:1], ViewNeeds(unlabelled=True, partner="same"))
    assert not torch.equal(_position(same, 0)["u_w"], _position(same, 0)["p_w"])
    assert not torch.equal(_position(same, 0)["u_s1"], _position(same, 0)["u_s2"]) or not torch.equal(
        _position(same, 1)["u_s1"], _position(same, 1)["u_s2"]
    )


def test_positions_depend_on_seed_and_position_alone(noisy):
    first = _dataset(noisy[:2], noisy[2:])
    later = _dataset(noisy[:2], noisy[2:], cache_bytes=0)
    torch.manual_seed(5)
    np.random.seed(5)
    _assert_equal(_apart(first, range(6)), _apart(later, range(6)))
    assert later.read.used_bytes == 0 and not later.read.cache
    assert not torch.equal(first[0]["x"], _dataset(noisy[:2], noisy[2:], seed=2)[0]["x"])


def test_the_cache_keeps_to_its_memory(noisy):
    dataset = _dataset(noisy[:2], noisy[2:], cache_bytes=4000)
    for k in range(6):
        dataset[k]
    assert 0 < dataset.read.used_bytes <= 4000


def test_image_scale_comes_first(samples):
    dataset = _dataset(samples[:1], samples[4:], crop_px=32, scale_range=(1, 1), image_scale=0.5)
    assert int((_position(dataset, 0)["y"] == 0).sum()) == int(_position(dataset, 0)["u_valid"].sum()) == 10 * 12


def test_16_bit_images_lie_between_0_and_1(tmp_path):
    write_image(tmp_path / "a.png", np.full((20, 20, 1), 13107, np.uint16))
    write_mask(tmp_path / "m.png", np.zeros((20, 20), np.uint8))
    sample = Sample(tmp_path / "a.png", tmp_path / "m.png", "a")
    dataset = _dataset([sample], [sample], mean=(0.0,), std=(1.0,), scale_range=(1, 1))
    torch.testing.assert_close(_position(dataset, 0)["x"], torch.full((1, 16, 16), 0.2))
    assert _position(dataset, 0)["u_s1"].shape == (1, 16, 16)


def test_images_of_8_and_16_bits_share_a_batch(tmp_path):
    samples = []
    for name, pixels in (("8", np.full((20, 20, 1), 51, np.uint8)), ("16", np.full((20, 20, 1), 13107, np.uint16))):
        write_image(tmp_path / f"{name}.png", pixels)
        samples.append(Sample(tmp_path / f"{name}.png", tmp_path / "m.png", name))
    write_mask(tmp_path / "m.png", np.zeros((20, 20), np.uint8))
    batch = _dataset(samples, samples, mean=(0.0,), std=(1.0,), scale_range=(1, 1)).batch([0, 1])
    for crops in (batch.x, batch.u_w, batch.p_w):
        torch.testing.assert_close(crops, torch.full((2, 1, 16, 16), 0.2))


def test_datasets_refuse(samples, noisy):
    with pytest.raises(ValueError, match="There are 0 labelled images"):
        _dataset([], noisy)
    with pytest.raises(ValueError, match="There is no pool of unlabelled images"):
        _dataset(noisy, [])
    with pytest.raises(ValueError, match=r"1 samples have no mask, such as i4\.png"):
        _dataset(samples[:5], noisy)
    with pytest.raises(ValueError, match=r"i\d\.png has 3 bands; expected 1"):
        _dataset(noisy, noisy, mean=(0.5,), std=(0.5,))[0]


# ---- nodata ----


def without(value):
    """Three bands, and a value that means no data."""
    return Reading(count=3, nodata=NoData(value))


@pytest.fixture(scope="module")
def holey(tmp_path_factory):
    """Images of 20 x 24 px without data in their left third, twice: alpha over 0, and alpha over other values."""
    folder = tmp_path_factory.mktemp("holey")
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(3):
        rgba = np.dstack([rng.integers(1, 256, (20, 24, 3)), np.full((20, 24), 255)]).astype(np.uint8)
        rgba[:, :8] = 0
        other = rgba.copy()
        other[:, :8, :3] = 250
        mask = folder / f"m{i}.png"
        write_mask(mask, rng.integers(0, 3, (20, 24), dtype=np.uint8))
        for name, pixels in (("a", rgba), ("b", other)):
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
        pairs.append([Sample(folder / f"{name}{i}.png", mask, f"{name}{i}") for name in "ab"])
    return [list(samples) for samples in zip(*pairs, strict=True)]


@pytest.mark.parametrize("image_scale", [1.0, 0.6])
def test_what_a_file_holds_where_there_is_no_data_changes_nothing(holey, image_scale):
    one, two = (_dataset(samples, samples, image_scale=image_scale) for samples in holey)
    for k in range(6):
        _assert_equal(one.batch([k]), two.batch([k]))


@pytest.mark.parametrize("image_scale", [1.0, 0.6])
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_pixels_without_data_are_ignored_and_invalid(holey, image_scale, cache_bytes):
    fields = dict(scale_range=(0.5, 1.7), image_scale=image_scale, cache_bytes=cache_bytes)
    dataset = _dataset(holey[0], holey[0], **fields)
    covered = 0
    for k in range(12):
        position = _position(dataset, k)
        for image, counts in (
            (position["x"], position["y"] != 255),
            (position["u_w"], position["u_valid"]),
            (position["p_w"], position["p_valid"]),
        ):
            raw = image * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
            assert not counts[(raw < 1e-6).all(0)].any()
            covered += int(counts.sum())
    assert covered > 1000


def test_a_pixel_that_mixes_data_with_none_does_not_count(tmp_path):
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels[:, :7] = 9
    write_image(tmp_path / "a.png", pixels)
    write_mask(tmp_path / "m.png", np.zeros((16, 16), np.uint8))
    sample = Sample(tmp_path / "a.png", tmp_path / "m.png", "a")
    for ratio, first in ((1, 7), (2, 15), (0.5, 4)):  # the border pixel at 2 and at 0.5 is a mixture
        fields = dict(crop_px=32, scale_range=(ratio, ratio), reading=without(9))
        position = _position(_dataset([sample], [sample], **fields), 0)
        image, inside = position["u_w"], position["u_valid"]
        side = int(16 * ratio)
        assert int(inside.sum()) == side * (side - first)
        full = (200 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        torch.testing.assert_close(image[:, inside], full[:, None].expand(3, int(inside.sum())))
        assert int((position["y"] == 0).sum()) == side * (side - first)


def test_evaluation_ignores_pixels_without_data(holey, tmp_path):
    for image_scale in (1.0, 0.5):
        pixel_values, labels, _ = EvaluationDataset(holey[1], image_scale=image_scale, **NORMALISED)[0]
        assert (labels[:, :8] == 255).all() and (labels[:, 8:] < 3).all() and labels.shape == (20, 24)
        assert torch.equal(pixel_values, EvaluationDataset(holey[0], image_scale=image_scale, **NORMALISED)[0][0])
    write_image(tmp_path / "a.png", np.dstack([np.arange(4, dtype=np.uint8)[None]] * 3))
    write_mask(tmp_path / "m.png", np.zeros((1, 4), np.uint8))
    sample = Sample(tmp_path / "a.png", tmp_path / "m.png", "a")
    assert EvaluationDataset([sample], reading=without(2), **NORMALISED)[0][1].tolist() == [[0, 0, 255, 0]]
    assert EvaluationDataset([sample], **NORMALISED)[0][1].tolist() == [[0, 0, 0, 0]]


# ---- sparse labels ----


@pytest.fixture(scope="module")
def scribbled(tmp_path_factory):
    """An image of grey value 100 with a quarter of its pixels labelled, 32 x 32 px."""
    folder = tmp_path_factory.mktemp("scribbled")
    write_image(folder / "i.png", np.full((32, 32, 3), 100, np.uint8))
    mask = np.full((32, 32), 255, np.uint8)
    mask[:, :8] = 1
    write_mask(folder / "m.png", mask)
    return Sample(folder / "i.png", folder / "m.png", "s")


def test_partly_labelled_samples_are_found_with_their_unlabelled_share(scribbled, noisy, tmp_path):
    assert find_partly_labelled([*noisy, scribbled], Reading(count=3)) == [(scribbled, 0.75)]
    pixels = np.full((32, 32, 3), 100, np.uint8)
    pixels[:, 8:24] = 0
    write_image(tmp_path / "i.png", pixels)
    holey = Sample(tmp_path / "i.png", scribbled.mask, "h")
    assert find_partly_labelled([holey], without(0)) == [(holey, 0.5)]
    pixels[:, 8:] = 0
    write_image(tmp_path / "i.png", pixels)
    assert find_partly_labelled([holey], without(0)) == []


def test_only_unlabelled_pixels_of_a_labelled_image_join_the_pool(scribbled, samples):
    dataset = _dataset([scribbled], samples[4:], partly_labelled=[(scribbled, 1.0)], crop_px=32, scale_range=(1, 1))
    seen = 0
    for k in range(10):
        position = _position(dataset, k)
        for name in ("u", "p"):
            if _grey(position[f"{name}_w"]) == 5 and position[f"{name}_valid"].sum() == 32 * 24:
                seen += 1
                labelled = position[f"{name}_valid"] == 0
                assert labelled[:, :8].all() or labelled[:, 24:].all()  # flipped
    assert seen >= 2
    assert (_position(dataset, 0)["y"] != 255).sum() == 32 * 8


def test_an_image_stands_back_as_often_as_it_is_labelled(scribbled, samples):
    fields = dict(crop_px=16, scale_range=(1, 1))
    rare = _dataset([scribbled], samples[4:5], partly_labelled=[(scribbled, 0.25)], **fields)
    greys = [_grey(_position(rare, k)["u_w"]) for k in range(200)]
    assert set(greys) == {4, 5} and 10 <= greys.count(5) <= 45  # 100 positions x 0.25


# ---- train_loader ----


def test_workers_pass_on_crops_and_draws_alone(noisy):
    """Views are twelve times as large as what they are made of, and copies between processes cost more than they do."""
    dataset = _dataset(noisy[:2], noisy[2:])
    paired, alone = (collate(dataset.__getitems__(positions)) for positions in ([2, 3], [2, 4]))
    kinds = {name: tensor.dtype for name, tensor in paired.tensors.items()}
    assert kinds.pop("pairs") == torch.int64 and kinds == {
        **dict.fromkeys(("x", "y", "u_crop"), torch.uint8),
        **dict.fromkeys(("u_valid", "box1", "box2"), torch.bool),
    }
    assert {name: len(draws) for name, draws in paired.draws.items()} == {"u": 2}
    assert alone.tensors.keys() - paired.tensors.keys() == {"p_crop", "p_valid"} and alone.draws.keys() == {"u", "p"}


def test_views_are_made_where_the_batch_is_wanted(noisy, quadrants):
    """On the device `meta` nothing has a value: whatever waited for one would fail."""
    samples, scores = quadrants
    views = ViewNeeds(unlabelled=True, partner="other", regions=True)
    for dataset in (_dataset(noisy[:2], noisy[2:]), _dataset(samples, samples, views, scores=scores)):
        expected = dataset.batch([0, 1])
        batch = next(iter(train_loader(dataset, batch_size=2, start_step=0, total_steps=1, device="meta")))
        for (name, tensor), (also, other) in zip(tensors_of(batch).items(), tensors_of(expected).items(), strict=True):
            assert name == also and (tensor.shape, tensor.dtype) == (other.shape, other.dtype)
            assert tensor.device.type == "meta"


def test_resumed_batches_equal_those_of_an_uninterrupted_run(noisy):
    whole = list(
        train_loader(_dataset(noisy[:2], noisy[2:]), batch_size=2, start_step=0, total_steps=5, accumulation=2)
    )
    rest = list(train_loader(_dataset(noisy[:2], noisy[2:]), batch_size=2, start_step=3, total_steps=5, accumulation=2))
    assert (len(whole), len(rest)) == (10, 4)
    for one, two in zip(whole[6:], rest, strict=True):
        _assert_equal(one, two)


def test_two_processes_share_the_batches_of_one(noisy):
    dataset = _dataset(noisy[:2], noisy[2:])
    whole = train_loader(dataset, batch_size=4, start_step=0, total_steps=3)
    parts = [train_loader(dataset, batch_size=2, start_step=0, total_steps=3, rank=r, world_size=2) for r in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch.x, torch.cat([first.x, second.x]))
        assert torch.equal(batch.p_s2, torch.cat([first.p_s2, second.p_s2]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_global_random_state(noisy, num_workers):
    dataset = _dataset(noisy[:2], noisy[2:])
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    loader = train_loader(dataset, batch_size=2, start_step=1, total_steps=4, num_workers=num_workers)
    batches = list(loader)
    assert torch.equal(state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    assert len(batches) == len(loader) == 3
    _assert_equal(batches[0], dataset.batch([2, 3]))


def test_the_share_of_waiting_is_measured_without_pauses(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("training.batches.time.perf_counter", lambda: clock[0])

    def slow():
        while True:
            clock[0] += 1
            yield None

    batches = TimedBatches(slow())
    assert batches.waiting_share == 0
    for _ in range(3):
        next(batches)
        clock[0] += 3
    batches.pause()
    clock[0] += 1000
    next(batches)
    assert batches.waiting_share == pytest.approx(4 / (4 + 6))  # the third step was not measured to its end


# ---- EvaluationDataset ----


def test_evaluation_gives_whole_images_and_native_labels(noisy):
    dataset = EvaluationDataset(noisy, **NORMALISED)
    pixel_values, labels, name = dataset[2]
    assert len(dataset) == 5 and name == "i2.png"
    assert pixel_values.shape == (3, 22, 24) and pixel_values.dtype == torch.float32
    assert labels.shape == (22, 24) and labels.dtype == torch.int64 and int(labels.max()) == 2
    half, labels, _ = EvaluationDataset(noisy, **NORMALISED, image_scale=0.5)[2]
    assert half.shape == (3, 11, 12) and labels.shape == (22, 24)


def test_evaluation_normalises_and_needs_masks(samples):
    pixel_values, labels, _ = EvaluationDataset(samples[1:2], **NORMALISED)[0]
    expected = (20 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(pixel_values, expected[:, None, None].expand(3, 20, 24))
    assert (labels == 1).all()
    with pytest.raises(ValueError, match=r"4 samples have no mask, such as i4\.png; expected a mask for each"):
        EvaluationDataset(samples, **NORMALISED)
