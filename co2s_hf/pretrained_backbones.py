"""Pretrained backbones: which are accepted, and how they take bands and statistics they were not trained with."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

RGB = ("red", "green", "blue")
DINO_MODEL_TYPES = ("dinov3_vit", "dinov2", "dinov2_with_registers")

# What no network here comes near. A configuration may be a stranger's, and a wrong number must not fill the memory.
LARGEST = {"num_hidden_layers": 1000, "num_labels": 10_000}
LARGEST_NUMBER = 2**20  # of any other field
LARGEST_BACKBONE = 2**35  # weights; the largest DINOv3 has less than 2^33


def check_accepted(accepted: bool, found: str, expected: Sequence[str]) -> None:
    """ValueError that says what was found and expected, unless a backbone is accepted."""
    if not accepted:
        raise ValueError(f"{found}, expected one of {', '.join(expected)} in transformers format.")


def read_backbone_config(source: str | PathLike[str], model_types: Sequence[str]) -> PreTrainedConfig:
    """Configuration of a folder or Hub id; ValueError where it holds a model of none of these types."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    check_accepted(config.model_type in model_types, f"{source} holds a {config.model_type!r} model", model_types)
    config.dtype = None  # how the file stores its numbers is not how a student computes
    return config


def read_dino_config(source: str | PathLike[str]) -> PreTrainedConfig:
    """Configuration of a DINOv3 or DINOv2 folder or Hub id; ValueError where it holds another kind of model."""
    return without_rope_augmentation(read_backbone_config(source, DINO_MODEL_TYPES))


def without_rope_augmentation(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration without DINOv3's pretraining augmentation of the positions.

    transformers switches it on in train(); no system here trains with it.
    """
    if config.model_type == "dinov3_vit":
        config.pos_embed_shift = config.pos_embed_jitter = config.pos_embed_rescale = None
    return config


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names as a list; ValueError unless there are two or more and no two are alike."""
    if isinstance(class_names, str):
        raise ValueError(f"expected a list of class names, found the string {class_names!r}.")
    names = list(class_names)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"expected at least two different class names, found {names}.")
    return names


@contextmanager
def checked_fields(model_type: str, fields: Mapping[str, Any]) -> Iterator[None]:
    """ValueError with one sentence where the fields of a `config.json` cannot be those of a model, whatever they are.

    Numbers are looked at first: transformers makes lists that are as long as some of them say.
    """
    for name, value in _numbers(fields, ""):
        largest = LARGEST.get(name.rpartition(".")[2], LARGEST_NUMBER)
        if abs(value) > largest:
            raise ValueError(f"{name} is {value:.3g}, expected at most {largest}: no {model_type} is that large.")
    names = fields.get("id2label") or {}
    if not isinstance(names, Mapping) or not all(str(key).isdecimal() for key in names):
        raise ValueError(f"id2label is {str(names)[:100]}, expected the class names by their ids: {{'0': 'water'}}.")
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # strict fields have errors of their own, and what is no dictionary fails in many ways
        found = " ".join(str(error).split())
        raise ValueError(
            f"the configuration is not one of a {model_type} ({type(error).__name__}: {found}): correct the field, or "
            "get config.json again."
        ) from error


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int):
        yield name, float(min(max(value, -(2**1000)), 2**1000))


def check_backbone_size(config: PreTrainedConfig, name: str) -> None:
    """ValueError unless a vision transformer of this configuration exists, or could, before any of it is allocated."""
    width, depth = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or width * getattr(config, "mlp_ratio", 4)
    sides = [side if isinstance(side, (list, tuple)) else [side] for side in (config.image_size, config.patch_size)]
    if min(width, depth, inner, config.num_channels, config.num_attention_heads, *sides[0], *sides[1]) < 1:
        raise ValueError(f"{name} has a size below 1, expected positive sizes: {width} wide, {depth} blocks and so on.")
    weights = depth * width * (4 * width + 3 * inner)
    weights += width * (config.num_channels * max(sides[1]) ** 2 + (max(sides[0]) // min(sides[1])) ** 2)
    if weights > LARGEST_BACKBONE:
        raise ValueError(
            f"{name} has about {weights:.2g} weights, expected at most {LARGEST_BACKBONE:.2g}: its hidden_size is "
            f"{width} and its num_hidden_layers {depth}."
        )


def check_bands(bands: Sequence[str] | None, num_channels: int, counted_by: str) -> None:
    """ValueError unless `bands` names each of `num_channels`, which stands in the field `counted_by`, once."""
    if bands is not None and (len(bands) != num_channels or len(set(bands)) != num_channels):
        raise ValueError(
            f"bands is {list(bands)} but {counted_by} is {num_channels}: give each band one name, "
            "in the order of the bands."
        )


def check_statistics(config: PreTrainedConfig, images: Sequence[str], num_channels: int, counted_by: str) -> None:
    """ValueError unless the fields `<image>_mean` and `<image>_std` of a configuration have a value for each band."""
    for name in images:
        for statistic in ("mean", "std"):
            values = getattr(config, f"{name}_{statistic}")
            if len(values) != num_channels:
                raise ValueError(
                    f"{name}_{statistic} has {len(values)} values but {counted_by} is {num_channels}: "
                    f"give one value for each band."
                )


def has_own_statistics(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether images are normalised with other numbers than ImageNet's for red, green and blue.

    Such numbers were measured on the images: normalised with them, and with nothing else, these have about mean 0 and
    deviation 1, as any pretrained backbone expects. What its own pretraining images had says nothing there.
    """
    return (tuple(mean), tuple(std)) != (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))


def band_fields(
    default: int,
    pretrained: Sequence[PreTrainedConfig],
    num_channels: int | None,
    bands: Sequence[str] | None,
    given: dict[str, Any],
    students: Sequence[str],
) -> dict[str, Any]:
    """Fields of a model's configuration that follow from the bands of the images and their statistics.

    Backbones get images with statistics of their own as they come in, see `has_own_statistics`.

    Args:
        default: how many bands the backbones take.
        pretrained: configurations of those backbones that bring weights.
        num_channels: number of bands of the images; None for the number of `bands`.
        bands: their names, or None.
        given: the fields that the user named.
        students: prefixes of the fields that hold what each student's weights expect.

    Raises:
        ValueError: other bands than RGB came without their statistics.
    """
    names = None if bands is None else [str(name).lower() for name in bands]
    count = num_channels or (default if names is None else len(names))
    fields: dict[str, Any] = {"bands": names}
    is_rgb = count == 3 and names in (None, list(RGB))
    if not is_rgb:
        missing = sorted({"image_mean", "image_std"} - given.keys())
        if missing:
            raise ValueError(
                f"The images have {count} bands{'' if names is None else ': ' + ', '.join(names)}; expected "
                f"{' and '.join(missing)}, one number for each band of images in [0, 1]: the default is that of RGB."
            )
    statistics = {
        "image_mean": given.get("image_mean", IMAGENET_DEFAULT_MEAN),
        "image_std": given.get("image_std", IMAGENET_DEFAULT_STD),
    }
    if not is_rgb or has_own_statistics(*statistics.values()):
        fields |= {f"{student}_{name}": values for student in students for name, values in statistics.items()}
    if any(config.num_channels != count or (count == 3 and not is_rgb) for config in pretrained):
        fields["band_adaptation"] = "rgb_and_mean" if set(RGB) <= set(names or ()) else "mean"
    return fields


class Renormalize(nn.Module):
    """From the normalisation of the incoming image to the one that a student's weights were trained with.

    A student trained with the incoming statistics gets scale 1 and shift 0 exactly.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], new_mean: Sequence[float], new_std: Sequence[float]
    ):
        """Keep the statistics; a model's `_init_weights` calls `reset` to make buffers of them."""
        super().__init__()
        self.scale_values = [old / new for old, new in zip(std, new_std, strict=True)]
        self.shift_values = [(old - new) / unit for old, new, unit in zip(mean, new_mean, new_std, strict=True)]
        self.register_buffer("scale", torch.empty(len(mean), 1, 1, dtype=torch.float32), persistent=False)
        self.register_buffer("shift", torch.empty(len(mean), 1, 1, dtype=torch.float32), persistent=False)

    def reset(self) -> None:
        """Fill the buffers."""
        init.copy_(self.scale, torch.tensor(self.scale_values).view(-1, 1, 1))
        init.copy_(self.shift, torch.tensor(self.shift_values).view(-1, 1, 1))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Images (batch_size, num_channels, height, width), normalised otherwise."""
        return pixel_values * self.scale + self.shift


def adapt_bands(weight: torch.Tensor, num_channels: int, bands: Sequence[str] | None = None) -> torch.Tensor:
    """Patch embedding for N bands from one for C, such that a picture that is grey over all bands looks the same.

    W'_n = (C / N) V_n,    V_n = W_c if C = 3 and band n is called what band c is: red, green or blue
                           V_n = mean_c W_c otherwise

    The sum over the bands stays: sum_n W'_n = sum_c W_c. Therefore filters are kept by name only where all three names
    occur; were just two of them there, the sum would change. Without names, as many bands as before stay as they are.

    Args:
        weight: (hidden_size, C, height, width).
        num_channels: N.
        bands: N names, or None.

    Returns:
        (hidden_size, N, height, width)

    >>> adapt_bands(torch.tensor([3.0, 6.0, 9.0]).view(1, 3, 1, 1), 4, ["blue", "green", "red", "nir"]).flatten()
    tensor([6.7500, 4.5000, 2.2500, 4.5000])
    """
    pretrained = weight.shape[1]
    if pretrained == num_channels and (bands is None or pretrained != len(RGB)):
        return weight
    filters = dict(zip(RGB, weight.unbind(1), strict=True)) if pretrained == len(RGB) else {}
    if bands is None or not set(RGB) <= set(bands):
        filters = {}
    mean = weight.mean(1)
    chosen = [filters.get(name, mean) for name in (bands or [""] * num_channels)]
    return torch.stack(chosen, dim=1) * (pretrained / num_channels)


def load_backbone(
    backbone: PreTrainedModel, source: str | PathLike[str], num_channels: int, bands: Sequence[str] | None
) -> None:
    """Copy the weights of `source`, made for `num_channels` bands, into a backbone made for `bands`.

    Raises:
        ValueError: `source` lacks weights of the backbone.
    """
    backbone_class: Any = type(backbone)  # transformers does not declare the pair that output_loading_info gives
    config = copy.deepcopy(backbone.config)
    config.num_channels = num_channels
    with _expecting_unused_weights():
        loaded, report = backbone_class.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{source} lacks {len(missing)} weights of its {backbone_class.__name__}, the first is {missing[0]!r}: "
            f"expected a complete model in transformers format."
        )
    weights = loaded.state_dict()
    for name, weight in weights.items():
        if "patch_embedding" in name and weight.ndim == 4:  # each family nests and names this layer a little otherwise
            weights[name] = adapt_bands(weight, backbone.config.num_channels, bands)
    backbone.load_state_dict(weights)


@contextmanager
def _expecting_unused_weights() -> Iterator[None]:
    # A whole CLIP is read for one of its towers; a table of the other tower's weights is no news.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


__all__ = [
    "RGB",
    "Renormalize",
    "adapt_bands",
    "band_fields",
    "check_accepted",
    "check_backbone_size",
    "check_bands",
    "check_class_names",
    "check_statistics",
    "checked_fields",
    "has_own_statistics",
    "load_backbone",
    "read_backbone_config",
]
