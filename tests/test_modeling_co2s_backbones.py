"""Models that start from pretrained students, and heads that start from class texts."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTModel,
)

from co2s_hf.modeling_co2s import (
    Co2SForSemanticSegmentation,
)

from .tiny_co2s import HEAD, NAMES, SIZE, build, clip_config, dinov3_config, load_aligned, pixels


@pytest.fixture(scope="module")
def model():
    """Shared: never train or change it."""
    return build()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Folders of a CLIP vision tower and a DINOv3, and their weights. Read only."""
    torch.manual_seed(3)
    clip, dinov3 = CLIPVisionModelWithProjection(clip_config()), DINOv3ViTModel(dinov3_config())
    folders = [tmp_path_factory.mktemp(name) for name in ("clip", "dinov3")]
    for saved, path in zip((clip, dinov3), folders, strict=True):
        saved.save_pretrained(path)
    return *folders, clip.state_dict(), dinov3.state_dict()


def test_backbones_keep_their_weights(backbones):
    clip, dinov3, clip_weights, dinov3_weights = backbones
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    model = Co2SForSemanticSegmentation.from_backbones(clip, dinov3, NAMES, text_embeddings=text, **HEAD)
    assert torch.equal(model.clip.text_embeddings, text)
    assert [model.config.id2label[index] for index in range(3)] == list(NAMES)
    kept = model.clip.backbone.state_dict()
    assert kept.keys() == clip_weights.keys()
    assert all(torch.equal(value, clip_weights[name]) for name, value in kept.items())
    # The backbone class of DINOv3 nests its layers one level deeper than the plain model.
    kept = {name.removeprefix("model."): value for name, value in model.dinov3.backbone.state_dict().items()}
    plain = {name.removeprefix("model."): value for name, value in dinov3_weights.items()}
    assert kept.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in kept.items())
    with torch.no_grad():
        assert model(pixels(1, 3, 20, 20)).logits.shape == (1, 3, 20, 20)


SIX_BANDS = dict(image_mean=[0.05, 0.06, 0.07, 0.2, 0.1, 0.08], image_std=[0.02, 0.02, 0.03, 0.1, 0.05, 0.04])
WITH_RGB = ["coastal", "Blue", "green", "red", "nir", "swir"]


@pytest.mark.parametrize("bands", [None, WITH_RGB])
@pytest.mark.parametrize("second", ["dinov3", "dinov2"])
def test_a_grey_picture_of_six_bands_looks_as_one_of_three(backbones, tmp_path, bands, second):
    clip, dinov3, _, _ = backbones
    if second == "dinov2":
        torch.manual_seed(4)
        dinov3 = tmp_path
        Dinov2Model(Dinov2Config(**SIZE, patch_size=8, image_size=32)).save_pretrained(dinov3)
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    fields = dict(text_embeddings=text, **HEAD)
    same = {
        f"{student}{name}": [0.5] * 3 for student in ("", "clip_", "dinov3_") for name in ("image_mean", "image_std")
    }
    three = Co2SForSemanticSegmentation.from_backbones(clip, dinov3, NAMES, **fields, **same).eval()
    six = Co2SForSemanticSegmentation.from_backbones(
        clip, dinov3, NAMES, num_channels=6, bands=bands, **fields, **SIX_BANDS
    ).eval()
    assert six.config.num_channels == 6
    assert six.config.band_adaptation == ("mean" if bands is None else "rgb_and_mean")
    assert three.config.band_adaptation is None
    grey, colour = pixels(2, 1, 32, 40), pixels(2, 6, 32, 40)
    with torch.no_grad():
        for student in ("clip", "dinov3"):
            want, found = getattr(three, student), getattr(six, student)
            for one, other in zip(
                want.features(grey.expand(-1, 3, -1, -1)), found.features(grey.expand(-1, 6, -1, -1)), strict=True
            ):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
            assert not torch.allclose(found.features(colour)[0], found.features(colour.flip(1))[0]) or bands is None
            assert torch.equal(found.renormalize(colour), colour)


def test_six_bands_survive_saving(backbones, tmp_path):
    clip, dinov3, _, _ = backbones
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    model = Co2SForSemanticSegmentation.from_backbones(
        clip, dinov3, NAMES, bands=WITH_RGB, text_embeddings=text, **HEAD, **SIX_BANDS
    ).eval()
    model.save_pretrained(tmp_path)
    loaded = load_aligned(tmp_path)
    assert loaded.config.bands == [name.lower() for name in WITH_RGB]
    assert (loaded.config.num_channels, loaded.config.band_adaptation) == (6, "rgb_and_mean")
    image = pixels(1, 6, 24, 24)
    with torch.no_grad():
        assert torch.equal(loaded(image).logits, copy.deepcopy(model)(image).logits)
    with pytest.raises(ValueError, match="this model was built for 6 bands"):
        model(pixels(1, 3, 24, 24))


def test_a_backbone_that_takes_the_bands_already_keeps_its_weights(tmp_path):
    torch.manual_seed(3)
    clip, dinov3 = CLIPVisionModelWithProjection(clip_config(num_channels=6)), DINOv3ViTModel(dinov3_config())
    clip.save_pretrained(tmp_path / "clip")
    dinov3.save_pretrained(tmp_path / "dinov3")
    model = Co2SForSemanticSegmentation.from_backbones(
        tmp_path / "clip",
        tmp_path / "dinov3",
        NAMES,
        num_channels=6,
        text_embeddings=torch.nn.functional.normalize(pixels(3, 12), dim=1),
        **HEAD,
        **SIX_BANDS,
    )
    name = "vision_model.embeddings.patch_embedding.weight"
    assert torch.equal(model.clip.backbone.state_dict()[name], clip.state_dict()[name])


def test_refuses_a_folder_that_lacks_weights(backbones, tmp_path):
    clip, dinov3, _, weights = backbones
    model = DINOv3ViTModel(dinov3_config())
    incomplete = {name: value for name, value in weights.items() if not name.endswith("layer.1.norm1.weight")}
    assert len(incomplete) == len(weights) - 1
    model.save_pretrained(tmp_path, state_dict=incomplete)
    with pytest.raises(ValueError, match=r"lacks 1 weights of its .*norm1.weight.*expected a complete model"):
        Co2SForSemanticSegmentation.from_backbones(clip, tmp_path, NAMES, **HEAD)


def test_refuses_swapped_folders(backbones):
    clip, dinov3, _, _ = backbones
    with pytest.raises(ValueError, match="holds a 'dinov3_vit' model, expected one of clip"):
        Co2SForSemanticSegmentation.from_backbones(dinov3, clip, NAMES, **HEAD)


def test_refuses_text_embeddings_of_another_shape(model):
    with pytest.raises(ValueError, match=r"text_embeddings are \(3, 13\) but `num_labels` is 3 .* is 12"):
        model.set_text_embeddings(torch.zeros(3, 13))


@torch.no_grad()
def test_text_embeddings_guide_clip_alone():
    model, image = build(), pixels(1, 3, 32, 32)
    before = model(image)
    model.set_text_embeddings(model.clip.text_embeddings.flip(0))
    after = model(image)
    # Nothing in the head belongs to a class: exchanging the texts exchanges the logits.
    assert torch.allclose(after.clip_logits, before.clip_logits.flip(1), atol=1e-5)
    assert torch.equal(after.dinov3_logits, before.dinov3_logits)


@torch.no_grad()
def test_centred_class_texts_lose_only_what_they_share():
    image = pixels(1, 3, 32, 32)
    for centred in (True, False):
        model = build(clip_centers_text=centred)
        before = model(image).clip_logits
        texts = model.clip.text_embeddings.clone()
        model.set_text_embeddings(texts + 0.3)
        assert torch.allclose(model(image).clip_logits, before, atol=1e-4) == centred
        model.set_text_embeddings(texts)
        assert torch.equal(model(image).clip_logits, before)


@torch.no_grad()
def test_a_head_may_start_from_zero_shot_segmentation():
    image = pixels(1, 3, 32, 32)
    with_it, without = build(head_adds_similarity=True, head_similarity_scale=7.0), build(head_similarity_scale=7.0)
    without.load_state_dict(with_it.state_dict())
    for student, other in ((with_it.clip, without.clip), (with_it.dinov3, without.dinov3)):
        pyramid, guidance = student.features(image), student.guidance()
        added = student.head(pyramid, guidance) - other.head(pyramid, guidance)
        cosine = F.cosine_similarity(pyramid[-1][:, None], guidance[None, :, :, None, None], dim=2)
        expected = F.interpolate(7 * cosine, added.shape[-2:], mode="bilinear")
        torch.testing.assert_close(added, expected, atol=1e-4, rtol=1e-4)
        assert expected.std(1).min() > 0


def test_a_fresh_head_starts_from_what_classes_differ_in():
    fresh = build()
    for student in (fresh.clip, fresh.dinov3):
        # One bias for all classes as large as their similarities leaves training on a plateau without gradient.
        assert not student.head.similarity_conv.bias.any()
        assert not student.head.guidance_proj.bias.any()
        for layer in student.head.layers:
            weight = layer.attention.qkv_proj.weight
            bound = math.sqrt(6 / sum(weight.shape))  # xavier uniform, not torch's default for a linear layer
            assert 0.9 * bound < weight.abs().max() <= bound
            assert not layer.attention.qkv_proj.bias.any()
            assert not layer.attention.out_proj.bias.any()
        assert student.head.up1.upsample.bias.any()
