"""Bands and statistics by hand; with real backbones they are tested in tests/test_modeling_*.py."""

import doctest
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from co2s_hf import (
    Co2SForSemanticSegmentation,
    Co2SImageProcessor,
    Dinov2DPTForSemanticSegmentation,
    pretrained_backbones,
)
from co2s_hf.pretrained_backbones import Renormalize, adapt_bands, band_fields, check_accepted, has_own_statistics

WITH_RGB = ["coastal", "blue", "green", "red", "nir", "swir"]
WITHOUT_BLUE = ["swir1", "nir", "red", "green"]


def test_docstring_examples():
    results = doctest.testmod(pretrained_backbones)
    assert results.attempted > 0 and results.failed == 0


def test_adapted_filters_by_hand():
    weight = torch.tensor([3.0, 6.0, 12.0]).view(1, 3, 1, 1)

    def adapted(*arguments):
        return adapt_bands(weight, *arguments).flatten().tolist()

    assert adapted(3) == adapted(3, ["red", "green", "blue"]) == [3, 6, 12]
    assert adapted(3, ["blue", "green", "red"]) == [12, 6, 3]
    assert adapted(3, ["nir", "red", "green"]) == [7, 7, 7]
    assert adapted(1) == [21]
    assert adapted(4, WITHOUT_BLUE) == [5.25] * 4
    assert adapted(6, WITH_RGB) == [3.5, 6, 3, 1.5, 3.5, 3.5]
    assert adapt_bands(torch.ones(1, 13, 1, 1), 13, list("abcdefghijklm")).flatten().tolist() == [1] * 13
    assert adapt_bands(torch.ones(1, 13, 1, 1), 1).flatten().tolist() == [13]


def test_renormalising_by_hand():
    mean, std, new_mean, new_std = [0.5, 0.2], [0.25, 0.5], [0.25, 0.2], [0.5, 0.5]
    renormalize = Renormalize(mean, std, new_mean, new_std)
    renormalize.reset()
    values = torch.tensor([0.75, 0.7]).view(1, 2, 1, 1)  # one pixel of two bands
    given = (values - torch.tensor(mean).view(2, 1, 1)) / torch.tensor(std).view(2, 1, 1)
    assert renormalize(given).flatten().tolist() == pytest.approx([(0.75 - 0.25) / 0.5, (0.7 - 0.2) / 0.5])
    assert renormalize.state_dict() == {}, "the configuration holds these numbers"


def test_the_same_statistics_change_no_bit():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    renormalize = Renormalize(mean, std, mean, std)
    renormalize.reset()
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(renormalize(image), image)


def test_fields_of_bands_name_each_student():
    given = {"image_mean": [0.1], "image_std": [0.2]}
    assert band_fields(3, [], 1, None, given, ("a",)) == {"bands": None, "a_image_mean": [0.1], "a_image_std": [0.2]}
    assert band_fields(3, [], None, ["Red", "Green", "Blue"], {}, ("a",)) == {"bands": ["red", "green", "blue"]}


def test_statistics_are_own_ones_unless_they_are_those_of_imagenet():
    mean, std = [0.485, 0.456, 0.406], (0.229, 0.224, 0.225)
    assert not has_own_statistics(mean, std) and not has_own_statistics(tuple(mean), list(std))
    assert has_own_statistics(mean, [0.2] * 3) and has_own_statistics([0.03] * 3, std)
    assert has_own_statistics([*mean, 0.3], [*std, 0.2]) and has_own_statistics(mean[:1], std[:1])


# ---- what backbones really get, from files of 16 bits to their patch embeddings --------------------------------------

TRANSLATORS = [{"teacher_width": 12, "hidden_width": 16, "input_px": 56}]
KINDS = {
    "co2s": lambda **fields: Co2SForSemanticSegmentation.from_backbones(None, None, ["a", "b"], **fields),
    "co2s_official": lambda **fields: Co2SForSemanticSegmentation.from_backbones(
        None, None, ["a", "b"], numerics="official", **fields
    ),
    "dinov2_dpt": lambda **fields: Dinov2DPTForSemanticSegmentation.from_backbones(None, ["a", "b"], **fields),
    "rs_mtdf": lambda **fields: Dinov2DPTForSemanticSegmentation.from_backbones(
        None, ["a", "b"], translators=TRANSLATORS, **fields
    ),
}


def seen_by_backbones(model, pixel_values):
    """What every patch embedding gets when a model runs: (batch, bands, height, width) by the layer's name."""
    found = {}

    def keep(layer, given):
        found.setdefault(names[layer], given[0])

    with ExitStack() as stack:
        names = {layer: name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)}
        for layer in [layer for layer, name in names.items() if "patch_embedding" in name]:
            stack.callback(layer.register_forward_pre_hook(keep).remove)
        with torch.no_grad():
            model(pixel_values)
    return found


def statistics(images):
    return images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist()


@pytest.mark.filterwarnings("ignore:.*carry no meaning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bands", [None, ["red", "green", "blue"], ["nir", "red", "green"], 4, 1])
def test_images_with_statistics_of_their_own_have_mean_0_and_deviation_1(kind, bands, tmp_path):
    count = bands if isinstance(bands, int) else 3
    rng = np.random.default_rng(0)
    scene = rng.normal(800 + 600 * np.arange(count)[:, None, None], 250, (count, 64, 64)).clip(1, 9000)
    scene = scene.astype(np.uint16)
    unit = scene.astype(np.float64).reshape(count, -1) / 65535
    mean, std = unit.mean(1).tolist(), unit.std(1).tolist()
    named = {"num_channels": bands} if isinstance(bands, int) else {"bands": bands}
    KINDS[kind](image_mean=mean, image_std=std, **named).save_pretrained(tmp_path)
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path).eval()
    processor = Co2SImageProcessor(image_mean=mean, image_std=std)
    pixel_values = processor(scene, input_data_format="channels_first", return_tensors="pt")["pixel_values"]
    found = seen_by_backbones(model, pixel_values)
    assert len(found) == (2 if "co2s" in kind else 1)
    for seen in found.values():
        means, deviations = statistics(seen)
        assert means == pytest.approx([0] * count, abs=0.02) and deviations == pytest.approx([1] * count, abs=0.02)


@pytest.mark.filterwarnings("ignore:.*carry no meaning")
@pytest.mark.parametrize("kind", KINDS)
def test_images_without_have_the_statistics_of_each_pretraining(kind):
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = KINDS[kind]().eval()
    found = seen_by_backbones(model, Co2SImageProcessor()(photo, return_tensors="pt")["pixel_values"])
    for name, seen in found.items():
        of_clip = kind == "co2s" and name.startswith("clip")
        mean = (0.48145466, 0.4578275, 0.40821073) if of_clip else (0.485, 0.456, 0.406)
        std = (0.26862954, 0.26130258, 0.27577711) if of_clip else (0.229, 0.224, 0.225)
        expected = (photo - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)


def test_refuses_what_is_not_accepted():
    check_accepted(True, "", ())
    with pytest.raises(ValueError, match="a folder holds a 'vit' model, expected one of x, y in transformers format"):
        check_accepted(False, "a folder holds a 'vit' model", ("x", "y"))
