"""Bands and statistics by hand; with real backbones they are tested in tests/test_modeling_*.py."""

import doctest

import pytest
import torch

from co2s_hf import pretrained_backbones
from co2s_hf.pretrained_backbones import Renormalize, adapt_bands, band_fields, check_accepted

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


def test_refuses_what_is_not_accepted():
    check_accepted(True, "", ())
    with pytest.raises(ValueError, match="a folder holds a 'vit' model, expected one of x, y in transformers format"):
        check_accepted(False, "a folder holds a 'vit' model", ("x", "y"))
