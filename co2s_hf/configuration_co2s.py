"""Configuration of Co2S (arXiv 2512.23035): two ViT students and the guidance head that both use."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPVisionConfig, DINOv3ViTConfig, PreTrainedConfig
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .pretrained_backbones import (
    DINO_MODEL_TYPES,
    band_fields,
    check_accepted,
    check_backbone_size,
    check_bands,
    check_class_names,
    check_statistics,
    checked_fields,
    read_dino_config,
    without_rope_augmentation,
)
from .segmentation import check_window, default_stride_px

# The backbones of the paper have 12 blocks; other depths take their skips at the same relative depth.
PAPER_DEPTH, PAPER_CLIP_SKIPS, PAPER_DINOV3_SKIPS = 12, (0, 4), (2, 7)

PAPER_DINOV3: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_register_tokens": 4,
}

# What the released code computes (the configuration's other fields do not differ from the paper's meaning).
OFFICIAL_NUMERICS: dict[str, Any] = {
    "clip_image_mean": IMAGENET_DEFAULT_MEAN,
    "clip_image_std": IMAGENET_DEFAULT_STD,
    "clip_skip_value_path": True,
    "clip_logits_size": 224,
    "dinov3_logits_size": 256,
    "dinov3_pads_input": False,
    "window_average": "logits",
}

# Where the Auto classes find the code that lies next to a saved model.
AUTO_MAP = {
    "AutoConfig": "configuration_co2s.Co2SConfig",
    "AutoImageProcessor": "image_processing_co2s.Co2SImageProcessor",
    "AutoModel": "modeling_co2s.Co2SForSemanticSegmentation",
    "AutoModelForSemanticSegmentation": "modeling_co2s.Co2SForSemanticSegmentation",
}

# Students small enough to train from random weights on two CPU cores.
TINY_CLIP: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 96,
    "projection_dim": 64,
}
TINY_DINOV3: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 96,
    "num_register_tokens": 4,
}
TINY_HEAD: dict[str, Any] = {
    "head_channels": 16,
    "head_text_channels": 16,
    "head_up_channels": (16, 16),
    "head_skip_channels": (8, 8),
}


@strict
class Co2SConfig(PreTrainedConfig):
    """Everything that fixes the numbers `Co2SForSemanticSegmentation` computes.

    The defaults are the *native* numerics, what the paper means. `from_backbones(..., numerics="official")` gives
    the *official* ones, what the released code computes (`OFFICIAL_NUMERICS`, plus exact GELU and layer norm
    epsilon 1e-6 in the sub-configurations), for released checkpoints.

    Raises:
        ValueError: fields contradict each other; the message names both sides.
    """

    model_type = "co2s"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"clip_config": CLIPVisionConfig, "dinov3_config": DINOv3ViTConfig}
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults  # the name that transformers 5.17 reads

    clip_config: Any = None  # a CLIPVisionConfig or its dict: the CLIP student's vision tower
    dinov3_config: Any = None  # a DINOv3ViTConfig, a DINOv2 one or its dict: the DINOv3 (or DINOv2) student's ViT

    # Folder or Hub id of the CLIP whose text tower embeds class texts for the CLIP student; None: not known.
    text_model: str | None = None
    # What the rows of the DINOv3 student's queries stand for; None: the classes. With classes among them that it was
    # never taught (`Co2SForSemanticSegmentation.set_classes`), that student abstains.
    dinov3_classes: list[str] | tuple[str, ...] | None = None

    # Names of the image bands in their order; None: red, green, blue, or bands whose names do not matter.
    bands: list[str] | tuple[str, ...] | None = None
    # How pretrained patch embeddings were made to take these bands (see `adapt_bands`); None: they were not changed.
    band_adaptation: Literal["mean", "rgb_and_mean"] | None = None

    # What the pixel values handed to the model were normalised with, and what each student's weights expect.
    image_mean: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_MEAN)
    image_std: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_STD)
    clip_image_mean: list[float] | tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    clip_image_std: list[float] | tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    dinov3_image_mean: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_MEAN)
    dinov3_image_std: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_STD)

    clip_skip_layers: list[int] | tuple[int, ...] | None = None  # two 0-based blocks; None: at the paper's depth
    clip_skip_value_path: bool = False  # skips without the attention of their own block
    clip_logits_size: int | None = None  # side of the square that logits are squeezed through; None: no squeeze
    clip_centers_text: bool = False  # class texts without what all of them share; the paper keeps it
    dinov3_skip_layers: list[int] | tuple[int, ...] | None = None
    dinov3_logits_size: int | None = None
    dinov3_pads_input: bool = True  # False: pixels beyond the last whole patch are dropped

    # The guidance head (VLG decoder); the same widths for both students.
    head_channels: int = 128
    head_text_channels: int = 128
    head_up_channels: list[int] | tuple[int, ...] = (64, 32)
    head_skip_channels: list[int] | tuple[int, ...] = (32, 16)
    head_num_layers: int = 2
    head_num_attention_heads: int = 4
    head_pool_size: int = 4
    head_kernel_size: int = 7
    head_similarity_scale: float = 1.0  # the paper has no temperature; a larger one lets short trainings start faster
    # Add the scaled similarities to the logits: a student then starts from them, as zero-shot segmentation does, and
    # not from a head that sees no difference between classes. The paper does not.
    head_adds_similarity: bool = False

    fusion: Literal["confidence", "mean", "clip", "dinov3"] = "confidence"
    window_px: int = 512  # larger images are segmented by a sliding window of this side
    window_stride_px: int | None = None  # None: 5/6 of the window, as the paper evaluates
    # What overlapping windows are averaged by: probabilities of each prediction, weighted towards a window's middle, as
    # maps are made; or logits of each student, all alike, which are then fused, as released. None: the latter where the
    # other fields say what was released (configurations from before this field), else the former.
    window_average: Literal["probabilities", "logits"] | None = None
    initializer_range: float = 0.02

    # What the images of training were, as far as it is known: gsd_m (metres per pixel), dtype, and mean and std of each
    # band on the scale [0, 1]. Changes nothing that the model computes; scenes are compared with it.
    training_images: dict[str, Any] | None = None

    if TYPE_CHECKING:
        num_labels: int  # transformers declares it as optional; here there always are classes

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then refuse contradictions."""
        if self.clip_config is None:
            self.clip_config = CLIPVisionConfig(patch_size=16)
        if isinstance(self.clip_config, dict):
            self.clip_config = CLIPVisionConfig.from_dict(self.clip_config)
        if self.dinov3_config is None:
            self.dinov3_config = without_rope_augmentation(DINOv3ViTConfig(**PAPER_DINOV3))
        # The declared default is DINOv3; another member of the family announces itself by its model_type.
        if isinstance(self.dinov3_config, dict):
            model_type = self.dinov3_config.get("model_type", "dinov3_vit")
            check_accepted(model_type in DINO_MODEL_TYPES, f"dinov3_config is a {model_type!r}", DINO_MODEL_TYPES)
            self.dinov3_config = AutoConfig.for_model(**{**self.dinov3_config, "model_type": model_type})
        super().__post_init__(**kwargs)
        if self.clip_skip_layers is None:
            self.clip_skip_layers = _at_relative_depth(PAPER_CLIP_SKIPS, self.clip_config.num_hidden_layers, 0)
        if self.dinov3_skip_layers is None:
            self.dinov3_skip_layers = _at_relative_depth(PAPER_DINOV3_SKIPS, self.dinov3_config.num_hidden_layers, 1)
        if self.window_stride_px is None:
            self.window_stride_px = default_stride_px(self.window_px)
        if self.window_average is None:
            squeezes = self.clip_logits_size is not None and self.dinov3_logits_size is not None
            as_released = squeezes and self.clip_skip_value_path and not self.dinov3_pads_input
            self.window_average = "logits" if as_released else "probabilities"
        check_backbone_size(self.clip_config, "clip_config")
        check_backbone_size(self.dinov3_config, "dinov3_config")
        self._check_channels()
        self._check_layers()
        self._check_students_know_the_classes()
        self._set_dinov3_outputs()

    def _set_dinov3_outputs(self) -> None:
        assert self.dinov3_skip_layers is not None  # __post_init__
        depth = self.dinov3_config.num_hidden_layers
        stages = [layer + 1 for layer in (*self.dinov3_skip_layers, depth - 1)]  # stage 0 is the stem
        self.dinov3_config.set_output_features_output_indices(out_features=None, out_indices=stages)
        self.dinov3_config.apply_layernorm = True
        self.dinov3_config.reshape_hidden_states = True

    def _check_channels(self) -> None:
        channels = self.clip_config.num_channels
        if self.dinov3_config.num_channels != channels:
            raise ValueError(
                f"clip_config.num_channels is {channels} but dinov3_config.num_channels is "
                f"{self.dinov3_config.num_channels}: both students see the same image."
            )
        check_bands(self.bands, channels, "clip_config.num_channels")
        check_statistics(self, ("image", "clip_image", "dinov3_image"), channels, "clip_config.num_channels")

    def _check_layers(self) -> None:
        assert self.clip_skip_layers is not None and self.dinov3_skip_layers is not None  # __post_init__
        assert self.window_stride_px is not None
        for name, layers, depth in (
            ("clip", self.clip_skip_layers, self.clip_config.num_hidden_layers),
            ("dinov3", self.dinov3_skip_layers, self.dinov3_config.num_hidden_layers),
        ):
            if len(layers) != 2 or not 0 <= layers[0] < layers[1] < depth:
                raise ValueError(
                    f"{name}_skip_layers is {list(layers)} but {name}_config.num_hidden_layers is {depth}: "
                    f"expected two increasing 0-based blocks below it."
                )
        for channels in (self.head_channels, *self.head_up_channels):
            if channels % 16:
                raise ValueError(f"head width {channels} is not a multiple of 16, the head's group norm size.")
        check_window(self.window_px, self.window_stride_px)

    def _check_students_know_the_classes(self) -> None:
        if self.dinov3_classes is not None and len(set(self.dinov3_classes)) != len(self.dinov3_classes):
            raise ValueError(f"dinov3_classes is {list(self.dinov3_classes)}: expected each class once.")
        unknown = self.unknown_to_dinov3(self.class_names)
        if unknown and self.fusion == "dinov3":
            raise ValueError(f"fusion is 'dinov3' but the DINOv3 student does not know the class {unknown[0]!r}.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See `PreTrainedConfig.from_dict`; whatever is wrong with the fields of a file is a ValueError."""
        with checked_fields(cls.model_type, config_dict):
            return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The fields and the complete `AUTO_MAP`.

        transformers enters one model class per save and keeps what an earlier folder said; a saved folder always
        holds this code, so that it is written here as a whole and nothing stale survives.
        """
        return {**super().to_dict(), "auto_map": dict(AUTO_MAP)}

    @property
    def num_channels(self) -> int:
        """Number of image bands."""
        return self.clip_config.num_channels

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their ids."""
        assert self.id2label is not None  # transformers fills it in
        return [str(name) for _, name in sorted(self.id2label.items())]

    @property
    def dinov3_rows(self) -> list[int] | None:
        """For each class the row of the DINOv3 student's queries; None where a class has none: the student abstains."""
        if self.dinov3_classes is None:
            return list(range(self.num_labels))
        if self.unknown_to_dinov3(self.class_names):
            return None
        return [list(self.dinov3_classes).index(name) for name in self.class_names]

    def unknown_to_dinov3(self, class_names: Sequence[str]) -> list[str]:
        """Those of `class_names` that the DINOv3 student has no query for."""
        known = self.class_names if self.dinov3_classes is None else self.dinov3_classes
        return [name for name in class_names if name not in known]

    @classmethod
    def from_backbones(
        cls,
        clip: str | PathLike[str] | None,
        dinov3: str | PathLike[str] | None,
        class_names: Sequence[str],
        *,
        numerics: Literal["native", "official"] = "native",
        num_channels: int | None = None,
        bands: Sequence[str] | None = None,
        **overrides: Any,
    ) -> "Co2SConfig":
        """Configuration for two backbones, read from their folders or Hub ids.

        Images of other bands than red, green and blue, in this order, need their own `image_mean` and `image_std`; RGB
        images may have them. Both students then get images normalised with these: what their pretraining was normalised
        with says nothing there.

        Args:
            clip: any CLIP in transformers format, whole or vision tower; `None` for a tiny random one.
            dinov3: any DINOv3 or DINOv2 ViT in transformers format; `None` for a tiny random one.
            class_names: the classes, in the order of their ids.
            numerics: "native" or "official", see the class.
            num_channels: number of image bands; default the number of `bands`, or what the backbones take.
            bands: names of the bands. Those called red, green and blue keep the filters of pretraining.
            overrides: further fields of the configuration.

        Raises:
            ValueError: a folder holds another kind of model, or the classes are unusable.
        """
        names = check_class_names(class_names)
        clip_config = CLIPVisionConfig(**TINY_CLIP) if clip is None else read_clip_config(clip)
        dinov3_config = _tiny_dinov3() if dinov3 is None else read_dino_config(dinov3)
        fields: dict[str, Any] = dict(TINY_HEAD) if clip is None and dinov3 is None else {}
        if numerics == "official":
            clip_config.hidden_act, clip_config.layer_norm_eps = "gelu", 1e-6
            dinov3_config.layer_norm_eps = 1e-6
            fields.update(OFFICIAL_NUMERICS)
        elif numerics != "native":
            raise ValueError(f"numerics is {numerics!r}, expected 'native' or 'official'.")
        pretrained = [config for config, source in ((clip_config, clip), (dinov3_config, dinov3)) if source is not None]
        fields.update(
            band_fields(clip_config.num_channels, pretrained, num_channels, bands, overrides, ("clip", "dinov3"))
        )
        if num_channels is not None or bands is not None:
            clip_config.num_channels = dinov3_config.num_channels = num_channels or len(bands or ())
        fields.update(overrides)
        return cls(
            clip_config=clip_config,
            dinov3_config=dinov3_config,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            **fields,
        )


def read_clip_config(source: str | PathLike[str]) -> CLIPVisionConfig:
    """Vision configuration of a CLIP folder or Hub id; ValueError where it holds another kind of model."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    check_accepted(
        config.model_type in ("clip", "clip_vision_model"), f"{source} holds a {config.model_type!r} model", ("clip",)
    )
    if config.model_type == "clip":
        # A whole CLIP states the width of the joint space at its top; the copy in vision_config may be stale.
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    config.dtype = None  # how the file stores its numbers is not how a student computes
    return config


def _tiny_dinov3() -> PreTrainedConfig:
    return without_rope_augmentation(DINOv3ViTConfig(**TINY_DINOV3))


def _at_relative_depth(layers: Sequence[int], depth: int, end: int) -> list[int]:
    """Blocks of a network of `depth` blocks that lie where `layers` lie in one of 12; `end` 1 counts from its end."""
    scaled = [max(0, round((layer + end) * depth / PAPER_DEPTH) - end) for layer in layers]
    return [min(scaled[0], depth - 2), max(scaled[1], scaled[0] + 1)]


__all__ = ["Co2SConfig"]
