import colorsys
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from training.views import (
    StrongDraw,
    ViewNeeds,
    cutmix_box,
    draw_strong,
    gaussian_blur,
    random_crop,
    strong_view,
    turn_hue,
)


def _rng(seed=0):
    return np.random.default_rng(seed)


def _strong(image, seed, **options):
    return strong_view(image, draw_strong(_rng(seed), **options))


def _image(height, width, bands=3, seed=0):
    return torch.from_numpy(_rng(seed).integers(0, 256, (bands, height, width), dtype=np.uint8))


# ---- random_crop ----


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_at_scale_one_is_a_part_of_the_image(seed):
    image, mask = _image(20, 24), torch.arange(20 * 24).reshape(20, 24).remainder(250).to(torch.uint8)
    crop, labels, valid = random_crop(image, mask, crop_px=8, scale_range=(1, 1), rng=_rng(seed))
    assert valid.all() and crop.dtype == torch.uint8 and labels.dtype == torch.uint8
    parts = [
        (y, x, flip)
        for y in range(13)
        for x in range(17)
        for flip in (False, True)
        if torch.equal(crop.flip(-1) if flip else crop, image[:, y : y + 8, x : x + 8])
    ]
    assert len(parts) == 1
    y, x, flip = parts[0]
    assert torch.equal(labels.flip(-1) if flip else labels, mask[y : y + 8, x : x + 8])


def test_all_corners_and_both_directions_are_drawn():
    image = torch.arange(5 * 5, dtype=torch.uint8).reshape(1, 5, 5)
    rng = _rng()
    first = {
        tuple(random_crop(image, None, crop_px=4, scale_range=(1, 1), rng=rng)[0][0, 0, [0, 3]].tolist())
        for _ in range(200)
    }
    assert first == {(v, v + 3) for v in (0, 1, 5, 6)} | {(v + 3, v) for v in (0, 1, 5, 6)}


def test_small_images_are_padded_at_the_right_and_bottom():
    image, mask = torch.full((3, 6, 10), 200, dtype=torch.uint8), torch.full((6, 10), 4, dtype=torch.uint8)
    seen = set()
    for seed in range(8):
        crop, labels, valid = random_crop(image, mask, crop_px=8, scale_range=(0.5, 0.5), rng=_rng(seed))
        assert crop.shape == (3, 8, 8) and labels.shape == valid.shape == (8, 8)
        flipped = not valid[0, 0]
        seen.add(flipped)
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[:3, :5] = True
        assert torch.equal(valid, expected.flip(-1) if flipped else expected)
        assert (crop[:, valid] == 200).all() and (crop[:, ~valid] == 0).all()
        assert (labels[valid] == 4).all() and (labels[~valid] == 255).all()
    assert seen == {False, True}


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.7, 2.0])
def test_image_and_mask_stay_aligned(ratio):
    column = torch.arange(40).expand(40, 40)
    for plane in (column, column.T):
        image, mask = plane[None].float(), plane.to(torch.uint8)
        for seed in range(6):
            crop, labels, valid = random_crop(image, mask, crop_px=16, scale_range=(ratio, ratio), rng=_rng(seed))
            distance = (crop[0] - labels)[1:-1, 1:-1].abs().max()
            assert valid.all() and distance <= 0.51  # the nearest pixel may be half a pixel away


def test_scale_two_shows_half_of_the_image():
    image = torch.arange(32, dtype=torch.float32).expand(1, 32, 32) / 31
    spans = []
    for seed in range(10):
        crop, _, valid = random_crop(image, None, crop_px=32, scale_range=(2, 2), rng=_rng(seed))
        assert crop.dtype == torch.float32 and valid.all()
        spans.append(float(crop.max() - crop.min()) * 31)
    assert all(abs(span - 15) <= 1 for span in spans)


def test_crop_depends_on_the_generator_alone():
    image = _image(40, 30)
    crops = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.get_rng_state()
        crops.append(random_crop(image, None, crop_px=16, scale_range=(0.5, 2), rng=_rng(3))[0])
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*crops)


# ---- strong_view ----


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_strong_view_keeps_shape_and_range(bands):
    image = _image(16, 16, bands) / 255
    before = image.clone()
    views = [_strong(image, seed) for seed in range(20)]
    assert all(view.shape == image.shape and view.min() >= 0 and view.max() <= 1 for view in views)
    assert torch.equal(image, before)
    assert torch.equal(views[3], _strong(image, 3))
    unchanged = np.mean([torch.equal(view, image) for view in views])
    assert unchanged < 0.5


def test_shares_of_strong_views():
    image = _image(8, 8) / 255
    views = [_strong(image, seed) for seed in range(400)]
    grey = np.mean([torch.allclose(view[0], view[1], atol=1e-5) for view in views])
    unchanged = np.mean([torch.equal(view, image) for view in views])
    assert grey == pytest.approx(0.2, abs=0.06)
    assert unchanged == pytest.approx(0.2 * 0.8 * 0.5, abs=0.04)  # no jitter, no grey, no blur


def test_a_view_is_drawn_as_ever():
    """Recorded at 2dbb9bc: other draws, or one more, would train on other views than the runs in LOG.md."""
    rng = _rng(6)
    assert draw_strong(rng) == StrongDraw(
        jitter=(0, 2, 3, 1),
        brightness=0.8744967655878824,
        contrast=1.4874449901864666,
        saturation=1.132756272607146,
        hue=0.08716196525224679,
        grey=False,
        sigma_px=0.33364751228566103,
    )
    assert rng.random() == 0.051729231983775215
    rng = _rng(4)
    plain = draw_strong(rng, hue_range=0.0)
    assert (plain.jitter, plain.hue, plain.sigma_px, rng.random()) == ((), 0, None, 0.9022150797159884)


@pytest.mark.parametrize("seed", range(8))
def test_a_view_is_within_its_rounding_wherever_it_is_computed(seed):
    """Float64 stands for another device: the same draws, and no step that needs the first one."""
    image = _image(24, 24) / 255
    np.testing.assert_allclose(_strong(image, seed), _strong(image.double(), seed), rtol=0, atol=1e-6)
    assert torch.equal(_strong(image, seed), _strong(image[None].expand(2, -1, -1, -1)[1], seed))


@pytest.mark.parametrize("turns", [-0.5, -0.25, -0.1, 0.0, 0.07, 0.25, 0.5])
def test_turned_hue_is_that_of_hsv(turns):
    image = torch.cat([_image(6, 8) / 255, torch.full((3, 1, 8), 0.4), (_image(2, 8) / 255).round()], dim=1)
    expected = image.clone()
    for row, column in np.ndindex(*image.shape[1:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
        expected[:, row, column] = torch.tensor(colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value))
    torch.testing.assert_close(turn_hue(image, turns), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(turn_hue(image, turns), F.adjust_hue(image, turns), rtol=0, atol=2e-6)


def test_saturation_is_torchvisions():
    image = _image(16, 16) / 255
    drawn = StrongDraw((2,), 1.0, 1.0, 1.4, 0.0, False, None)
    torch.testing.assert_close(strong_view(image, drawn), F.adjust_saturation(image, 1.4), rtol=0, atol=1e-6)


def test_hue_turns_as_far_as_told():
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None].expand(3, 8, 8)

    def turned(hue_range):
        views = [_strong(red, seed, hue_range=hue_range)[:, 0, 0] for seed in range(60)]
        return sum(bool(view.argmax()) for view in views)  # another band than red is the brightest

    assert turned(0.0) == turned(0.1) == 0  # a sixth of the circle away red still leads
    assert turned(0.25) > 5


def test_bands_other_than_rgb_keep_their_proportions():
    image = torch.stack([torch.full((8, 8), v) for v in (0.1, 0.2, 0.3, 0.4)])
    for seed in range(30):
        view = _strong(image, seed)
        steps = view[1:] - view[:-1]
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))  # hue and saturation would break this


def test_blur_of_a_point_is_the_gaussian():
    image = torch.zeros(1, 15, 15)
    image[0, 7, 7] = 1
    blurred = gaussian_blur(image, 1.0)[0]
    weights = np.array([math.exp(-(d**2) / 2) for d in range(-3, 4)])
    weights /= weights.sum()
    np.testing.assert_allclose(blurred[4:11, 4:11].numpy(), np.outer(weights, weights), atol=1e-6)
    assert blurred.sum() == pytest.approx(1, abs=1e-5) and blurred[0].sum() == 0


def test_blur_keeps_flat_images_and_takes_small_ones():
    torch.testing.assert_close(gaussian_blur(torch.full((2, 4, 4), 0.3), 2.0), torch.full((2, 4, 4), 0.3))


# ---- cutmix_box ----


def test_boxes_follow_the_distribution_of_the_spec():
    size, areas, empty, ratios = 64, [], 0, []
    rng = _rng()
    for _ in range(600):
        box = cutmix_box(size, rng)
        assert box.shape == (size, size) and box.dtype == torch.bool
        if not box.any():
            empty += 1
            continue
        rows, columns = box.any(1).nonzero(), box.any(0).nonzero()
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert int(box.sum()) == height * width  # one rectangle
        areas.append(height * width / size**2)
        ratios.append(height / width)
    assert empty / 600 == pytest.approx(0.5, abs=0.06)
    assert 0.01 < min(areas) and max(areas) <= 0.4
    assert np.mean(areas) == pytest.approx(0.21, abs=0.03)
    assert 0.25 < min(ratios) and max(ratios) < 4


def test_boxes_are_reproducible():
    assert torch.equal(cutmix_box(32, _rng(7)), cutmix_box(32, _rng(7)))


# ---- ViewNeeds ----


def test_a_partner_needs_unlabelled_views():
    assert ViewNeeds(unlabelled=False).partner is None
    with pytest.raises(ValueError, match='partner is "other" but unlabelled is False'):
        ViewNeeds(unlabelled=False, partner="other")


def test_values_beyond_white_stay_in_strong_views():
    """Clouds and elevations: a view that changes nothing but its brightness by 1 shows what the weak one does."""
    image = torch.tensor([-0.1, 0.5, 1.3]).expand(4, 2, 3).contiguous()
    bounds = image.amin().clamp(max=0), image.amax().clamp(min=1)
    same = StrongDraw((0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0, grey=False, sigma_px=None)
    torch.testing.assert_close(strong_view(image, same, bounds), image)
    brighter = strong_view(image, replace(same, brightness=1.5), bounds)
    torch.testing.assert_close(brighter[0, 0], torch.tensor([-0.1, 0.75, 1.3]))
    colours = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = draw_strong(np.random.default_rng(1))
    bounds = colours.amin().clamp(max=0), colours.amax().clamp(min=1)
    assert torch.equal(strong_view(colours, drawn, bounds), strong_view(colours, drawn))
