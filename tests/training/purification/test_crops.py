import pytest
import torch

from training.purification.crops import CropOptions, crop_boxes, hidden_outside, outlined_crop, region_views


def boxes_of(regions, **options):
    return crop_boxes(regions, CropOptions(**options))


def test_crops_are_square_have_context_and_stay_inside(regions):
    boxes = boxes_of(regions, context=0.5, min_crop_px=4)
    assert list(boxes) == [0, 2, 3]
    assert boxes[0] == (0, 0, 15, 15)  # 10 px times 1.5, moved inside
    assert boxes[2] == (0, 0, 40, 40)  # 45 px do not fit: cut to the picture
    assert boxes[3] == (32, 32, 40, 40)  # 5 px times 1.5


def test_small_regions_get_the_smallest_crop(regions):
    assert boxes_of(regions, min_crop_px=20)[3] == (20, 20, 40, 40)
    assert boxes_of(torch.full((8, 8), -1)) == {}


def test_views_show_the_region_and_hide_the_rest(picture, regions):
    options = CropOptions(outside="mean")
    boxes = {3: (30, 30, 40, 40)}
    plain, hidden = region_views(picture, hidden_outside(picture, options), regions, boxes, 10)[0]
    torch.testing.assert_close(plain, picture[:, 30:, 30:])
    torch.testing.assert_close(hidden[:, 5:, 5:], picture[:, 35:, 35:])
    torch.testing.assert_close(hidden[:, 0, 0], picture.mean((1, 2)))
    assert hidden_outside(picture, CropOptions(outside="none")) is None
    assert region_views(picture, None, regions, boxes, 7).shape == (1, 1, 3, 7, 7)


def test_the_blurred_outside_has_less_contrast(picture, regions):
    blurred = hidden_outside(picture, CropOptions(outside="blur"))
    assert blurred[:, 20:, 20:].std() < 0.2 * picture[:, 20:, 20:].std()


def test_the_outline_runs_around_the_region(picture, regions):
    shown = outlined_crop(picture, regions, 0, (0, 0, 40, 40), 40)
    red = (shown == torch.tensor([1.0, 0, 0])[:, None, None]).all(0)
    assert red[:12, 10:12].all() and red[10:12, :12].all() and not red[:10, :10].any() and red.sum() == 44


def test_refuses_what_makes_no_crop():
    with pytest.raises(ValueError, match="blur, mean, none"):
        CropOptions(outside="black")
