"""Images of any size through windows of one, and the fusion of the two students' predictions."""

import pytest
import torch
from torch import nn

from co2s_hf.modeling_co2s import (
    Co2SOutput,
    fuse_logits,
)
from co2s_hf.segmentation import window_starts

from .tiny_co2s import build, labels, pixels


@pytest.fixture(scope="module")
def model():
    """Shared: never train or change it."""
    return build()


# ---------------------------------------------------------------------------------------------------------------------
# Sizes and windows
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (33, 130), (97, 96)])
def test_logits_have_the_size_of_the_image(size, official):
    fields = dict(clip_logits_size=28, dinov3_logits_size=32, dinov3_pads_input=False) if official else {}
    output = build(**fields)(pixels(2, 3, *size))
    for name in ("logits", "clip_logits", "dinov3_logits"):
        assert output[name].shape == (2, 3, *size) and output[name].isfinite().all()
    assert output.loss is None and output.clip_perturbed_logits is None


class Echo(nn.Module):
    """Stands for a student and answers with the pixels it sees, and counts them."""

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.anchor = nn.Parameter(torch.zeros(()))  # says on which device the model is

    def forward(self, pixel_values, perturbed_rows, feature_dropout):
        self.sizes += [tuple(pixel_values.shape[-2:])] * len(pixel_values)
        return pixel_values, pixel_values[:0]


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 40), (41, 97), (20, 100), (32, 33)])
def test_windows_return_to_their_places_and_cover_every_pixel(size):
    model = build(window_px=32, window_stride_px=23)
    model.clip, model.dinov3 = Echo(), Echo()
    image = pixels(3, 3, *size)
    assert torch.allclose(model(image).clip_logits.exp(), image.softmax(1), atol=1 / 65535)
    model.config.window_average = "logits"
    model.clip, model.dinov3 = Echo(), Echo()
    assert torch.allclose(model(image).clip_logits, image, atol=1e-6)
    assert set(model.clip.sizes) == {tuple(min(side, 32) for side in size)}
    count = len(window_starts(size[0], 32, 23)) * len(window_starts(size[1], 32, 23))
    assert len(model.clip.sizes) == len(model.dinov3.sizes) == 3 * count


def blended(left, right, overlap):
    """Two windows next to each other, averaged by weights that fall over the overlap; written down anew."""
    size = left.shape[-1]
    from_border = torch.arange(size).minimum(torch.arange(size).flip(0)).clamp(max=overlap) + 1
    weights = torch.ceil(32 * from_border / (overlap + 1)).double()
    total = weights[-overlap:] + weights[:overlap]
    shared = (left[..., -overlap:] * weights[-overlap:] + right[..., :overlap] * weights[:overlap]) / total
    return torch.cat([left[..., :-overlap], shared, right[..., overlap:]], dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["confidence", "mean", "clip", "dinov3"])
def test_probabilities_of_overlapping_windows_are_blended(fusion):
    model = build(window_px=32, window_stride_px=20, fusion=fusion)
    image = pixels(1, 3, 32, 52)
    left, right = (model(image[..., start : start + 32]) for start in (0, 20))
    whole = model(image)
    for name in ("clip_logits", "dinov3_logits", "logits"):
        expected = blended(*(one[name].double().softmax(1) for one in (left, right)), 12)
        assert torch.allclose(whole[name].softmax(1).double(), expected, atol=2 / 65535)
        assert torch.allclose(whole[name].exp().sum(1), torch.ones(1, 32, 52), atol=5 / 65535)
    assert not torch.allclose(whole.logits, build(window_px=32, window_stride_px=32)(image).logits, atol=1e-3)
    other = model(image, fusion="mean").logits
    assert torch.equal(other, build(window_px=32, window_stride_px=20, fusion="mean")(image).logits)


@torch.no_grad()
def test_the_released_numerics_average_logits_and_fuse_them_afterwards():
    model = build(window_px=32, window_stride_px=16, window_average="logits")
    image = pixels(1, 3, 32, 48)
    left, right = (model(image[..., start : start + 32]) for start in (0, 16))
    output = model(image)
    for name in ("clip_logits", "dinov3_logits"):
        one, other = left[name], right[name]
        expected = torch.cat([one[..., :16], (one[..., 16:] + other[..., :16]) / 2, other[..., 16:]], dim=-1)
        assert torch.allclose(output[name], expected, atol=1e-5)
    assert torch.equal(output.logits, fuse_logits(output.clip_logits, output.dinov3_logits, "confidence"))


@torch.no_grad()
def test_a_window_that_covers_the_image_changes_nothing(model):
    image = pixels(2, 3, 40, 56)
    output = model(image)
    slid = model._slide(image)
    model.config.window_average = "logits"
    as_released = model._slide(image)
    model.config.window_average = "probabilities"
    for name, field in model.predictions.items():
        index = list(model.predictions).index(name)
        assert torch.allclose(as_released[index], output[field], atol=1e-6)
        assert torch.allclose(slid[index].exp(), output[field].softmax(1), atol=1 / 65535)


@torch.no_grad()
def test_training_never_slides():
    model = build(window_px=32).train()
    image = pixels(1, 3, 40, 40)
    whole = build(window_px=64).train()
    assert torch.equal(model(image).logits, whole(image).logits)
    assert not torch.allclose(model.eval()(image).logits, whole(image).logits, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Fusion and refusals
# ---------------------------------------------------------------------------------------------------------------------


def at_one_pixel(*probabilities):
    return torch.tensor(probabilities).log().view(1, -1, 1, 1)


def test_fusion_by_hand():
    clip, dinov3 = at_one_pixel(0.7, 0.2, 0.1), at_one_pixel(0.1, 0.1, 0.8)
    assert torch.equal(fuse_logits(clip, dinov3, "clip"), clip)
    assert torch.equal(fuse_logits(clip, dinov3, "dinov3"), dinov3)
    assert torch.equal(fuse_logits(clip, dinov3, "confidence"), dinov3)
    assert torch.equal(fuse_logits(dinov3, clip, "confidence"), dinov3)
    mean = fuse_logits(clip, dinov3, "mean").exp().flatten()
    assert torch.allclose(mean, torch.tensor([0.4, 0.15, 0.45]))
    # Logits are known up to a constant only, so the constant must not decide.
    assert torch.equal(fuse_logits(clip + 100, dinov3, "confidence"), dinov3)
    assert torch.allclose(fuse_logits(clip + 100, dinov3 - 3, "mean").exp().flatten(), mean, atol=1e-5)


def test_ties_go_to_clip():
    clip, dinov3 = at_one_pixel(0.25, 0.75), at_one_pixel(0.75, 0.25)
    assert torch.equal(fuse_logits(clip, dinov3, "confidence"), clip)


def test_fusion_decides_for_each_pixel():
    clip = torch.tensor([[9.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    dinov3 = torch.tensor([[0.0, 9.0], [1.0, 0.0]]).view(1, 2, 1, 2)
    assert fuse_logits(clip, dinov3, "confidence").flatten().tolist() == [9.0, 9.0, 0.0, 0.0]


@torch.no_grad()
def test_fusion_of_a_call_overrides_the_configuration(model):
    output = model(pixels(1, 3, 32, 32), fusion="dinov3")
    assert torch.equal(output.logits, output.dinov3_logits)
    assert build(fusion="clip").config.fusion == "clip"


@torch.no_grad()
def test_refuses_unknown_fusion(model):
    with pytest.raises(ValueError, match="fusion is 'max', expected 'confidence', 'mean', 'clip' or 'dinov3'"):
        model(pixels(1, 3, 16, 16), fusion="max")


def test_refuses_another_number_of_bands(model):
    with pytest.raises(ValueError, match=r"pixel_values are \(1, 4, 16, 16\), expected \(batch_size, 3, .* 3 bands"):
        model(pixels(1, 4, 16, 16))
    with pytest.raises(ValueError, match=r"pixel_values are \(3, 16, 16\)"):
        model(pixels(3, 16, 16))


def test_refuses_labels_of_another_size(model):
    with pytest.raises(ValueError, match=r"labels are \(1, 16, 15\), expected \(1, 16, 16\), one id for each pixel"):
        model(pixels(1, 3, 16, 16), labels=labels(1, 16, 15))


def test_a_training_method_finds_students_and_predictions(model):
    with torch.no_grad():
        output = model(pixels(2, 3, 16, 16), perturbed_rows=(0, 1))
    assert set(model.students) == set(model.perturbed) == {"clip", "dinov3"} < set(model.predictions)
    assert {name: model.predictions[name] for name in model.students} == model.students
    assert torch.equal(output[model.predictions["fused"]], output.logits)
    for student in model.students:
        assert output[model.students[student]].shape == (2, 3, 16, 16)
        assert output[model.perturbed[student]].shape == (1, 3, 16, 16)


@torch.no_grad()
def test_tuple_output(model):
    output = model(pixels(1, 3, 16, 16), return_dict=False)
    assert isinstance(output, tuple) and [value.shape for value in output] == [(1, 3, 16, 16)] * 3
    assert isinstance(model(pixels(1, 3, 16, 16)), Co2SOutput)
