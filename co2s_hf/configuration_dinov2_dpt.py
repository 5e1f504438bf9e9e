"""Configuration of DINOv2 (or DINOv3) + DPT, the student of FixMatch, UniMatch V2, SemiEarth and RS-MTDF."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, Dinov2Config, PreTrainedConfig
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

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
)
from .segmentation import check_window, default_stride_px

NUM_LEVELS = 4  # feature maps that DPT puts together

# 0-based blocks after which the released systems read a feature map, by the backbone's depth.
RELEASED_LAYERS: dict[int, tuple[int, ...]] = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}

# Widths of the released decoder, by the backbone's width: `dpt_channels`, `dpt_out_channels`.
RELEASED_DPT: dict[int, tuple[int, tuple[int, ...]]] = {
    384: (64, (48, 96, 192, 384)),
    768: (128, (96, 192, 384, 768)),
    1024: (256, (256, 512, 1024, 1024)),
    1536: (384, (1536, 1536, 1536, 1536)),
}

# Where the papers begin: DINOv2 ViT-S/14, pretrained at 518 px.
PAPER_DINOV2: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518}

# What a translator is where its dictionary does not say it: that of RS-MTDF for a teacher that sees the same image.
TRANSLATOR: dict[str, Any] = {"hidden_width": 1024, "input_px": None, "fusion_weight": 0.1}

# Where the Auto classes find the code that lies next to a saved model.
AUTO_MAP = {
    "AutoConfig": "configuration_dinov2_dpt.Dinov2DPTConfig",
    "AutoImageProcessor": "image_processing_co2s.Co2SImageProcessor",
    "AutoModel": "modeling_dinov2_dpt.Dinov2DPTForSemanticSegmentation",
    "AutoModelForSemanticSegmentation": "modeling_dinov2_dpt.Dinov2DPTForSemanticSegmentation",
}

# Small enough to train from random weights on two CPU cores.
TINY_DINOV2: dict[str, Any] = {
    "hidden_size": 64,
    "mlp_ratio": 3,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 96,
}
TINY_DPT: dict[str, Any] = {"dpt_channels": 16, "dpt_out_channels": (8, 16, 32, 64)}


@strict
class Dinov2DPTConfig(PreTrainedConfig):
    """Everything that fixes the numbers `Dinov2DPTForSemanticSegmentation` computes.

    A translator maps the last feature map to the features of a teacher that only training has, and what it found goes
    back into that map. It is a dictionary:

        teacher_width   channels of the teacher's features, required
        hidden_width    channels of the layer between (released: 1024)
        input_px        side of the square that the image is squeezed to before the translator's own pass through the
                        backbone; None: it reads the pass that is there
        fusion_weight   share in the fused map (released: 0.1); the student keeps what the translators leave

    Raises:
        ValueError: fields contradict each other; the message names both sides.
    """

    model_type = "dinov2_dpt"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"backbone_config": Dinov2Config}
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults  # the name that transformers 5.17 reads

    backbone_config: Any = None  # a Dinov2Config, one with registers, a DINOv3ViTConfig, or its dict

    # Names of the image bands in their order; None: red, green, blue, or bands whose names do not matter.
    bands: list[str] | tuple[str, ...] | None = None
    # How pretrained patch embeddings were made to take these bands (see `adapt_bands`); None: they were not changed.
    band_adaptation: Literal["mean", "rgb_and_mean"] | None = None

    # What the pixel values handed to the model were normalised with, and what the backbone's weights expect.
    image_mean: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_MEAN)
    image_std: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_STD)
    backbone_image_mean: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_MEAN)
    backbone_image_std: list[float] | tuple[float, ...] = tuple(IMAGENET_DEFAULT_STD)

    feature_layers: list[int] | tuple[int, ...] | None = None  # four 0-based blocks; None: the released, or evenly
    # How pretrained positions reach other grids: by the released factor (h + 0.1) / h0, or to the size (transformers).
    # DINOv3 has no such positions.
    position_interpolation: Literal["scale_factor", "size"] = "scale_factor"

    dpt_channels: int | None = None  # width of the decoder; None: the released one for the backbone's width
    dpt_out_channels: list[int] | tuple[int, ...] | None = None  # width of each level on its way there; likewise

    translators: list[dict[str, Any]] | tuple[dict[str, Any], ...] | None = None  # see above; None: none

    window_px: int = 518  # larger images are segmented by a sliding window of this side
    window_stride_px: int | None = None  # None: 5/6 of the window
    # What overlapping windows are averaged by: probabilities, weighted towards a window's middle, as maps are made; or
    # logits, all alike, as the papers' code evaluates.
    window_average: Literal["probabilities", "logits"] = "probabilities"
    initializer_range: float = 0.02

    # What the images of training were, as far as it is known: gsd_m (metres per pixel), dtype, and mean and std of each
    # band on the scale [0, 1]. Changes nothing that the model computes; scenes are compared with it.
    training_images: dict[str, Any] | None = None

    if TYPE_CHECKING:
        num_labels: int  # transformers declares it as optional; here there always are classes

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then refuse contradictions."""
        if self.backbone_config is None:
            self.backbone_config = Dinov2Config(**PAPER_DINOV2)
        # The declared default is without registers; the other kind announces itself by its model_type.
        if isinstance(self.backbone_config, dict):
            model_type = self.backbone_config.get("model_type", "dinov2")
            check_accepted(model_type in DINO_MODEL_TYPES, f"backbone_config is a {model_type!r}", DINO_MODEL_TYPES)
            self.backbone_config = AutoConfig.for_model(**{**self.backbone_config, "model_type": model_type})
        super().__post_init__(**kwargs)
        depth = self.backbone_config.num_hidden_layers
        if self.feature_layers is None:
            evenly = [round((level + 1) * depth / NUM_LEVELS) - 1 for level in range(NUM_LEVELS)]
            self.feature_layers = list(RELEASED_LAYERS.get(depth, evenly))
        channels, out_channels = RELEASED_DPT.get(self.backbone_config.hidden_size, RELEASED_DPT[384])
        if self.dpt_channels is None:
            self.dpt_channels = channels
        if self.dpt_out_channels is None:
            self.dpt_out_channels = list(out_channels)
        if self.window_stride_px is None:
            self.window_stride_px = default_stride_px(self.window_px)
        if self.translators is not None:
            self.translators = [{**TRANSLATOR, **translator} for translator in self.translators]
        check_backbone_size(self.backbone_config, "backbone_config")
        check_bands(self.bands, self.num_channels, "backbone_config.num_channels")
        check_statistics(self, ("image", "backbone_image"), self.num_channels, "backbone_config.num_channels")
        check_window(self.window_px, self.window_stride_px)
        self._check_decoder()
        self._check_translators()
        self._set_backbone_outputs()

    def _set_backbone_outputs(self) -> None:
        assert self.feature_layers is not None  # __post_init__
        stages = [layer + 1 for layer in self.feature_layers]  # stage 0 is the stem
        self.backbone_config.set_output_features_output_indices(out_features=None, out_indices=stages)
        self.backbone_config.apply_layernorm = True
        self.backbone_config.reshape_hidden_states = True

    def _check_decoder(self) -> None:
        assert self.feature_layers is not None and self.dpt_out_channels is not None and self.dpt_channels is not None
        layers, depth = list(self.feature_layers), self.backbone_config.num_hidden_layers
        increasing = layers == sorted(set(layers)) and layers[:1] >= [0]
        if len(layers) != NUM_LEVELS or not increasing or layers[-1] != depth - 1:
            raise ValueError(
                f"feature_layers is {layers} but backbone_config.num_hidden_layers is {depth}: expected four "
                f"increasing 0-based blocks up to the last one, for blocks above would never train."
            )
        widths = [self.dpt_channels, *self.dpt_out_channels]
        if len(widths) != 1 + NUM_LEVELS or min(widths) < 1:
            raise ValueError(
                f"dpt_channels is {self.dpt_channels} and dpt_out_channels is {list(self.dpt_out_channels)}, expected "
                f"one positive width and four."
            )

    def _check_translators(self) -> None:
        patch = self.backbone_config.patch_size
        for index, translator in enumerate(self.translators or ()):
            found = f"translators[{index}] is {translator}"
            expected = {"teacher_width", *TRANSLATOR}
            if translator.keys() != expected:
                raise ValueError(f"{found}, expected the keys {sorted(expected)}, of which teacher_width is required.")
            if min(translator["teacher_width"], translator["hidden_width"]) < 1:
                raise ValueError(f"{found}, expected positive widths.")
            input_px = translator["input_px"]
            if input_px is not None and (input_px < patch or input_px % patch):
                raise ValueError(
                    f"{found} but backbone_config.patch_size is {patch}: expected an input_px that is a multiple of it."
                )
        weights = [translator["fusion_weight"] for translator in self.translators or ()]
        if any(weight < 0 for weight in weights) or sum(weights) >= 1:
            raise ValueError(
                f"the fusion_weight of the translators are {weights}, expected numbers from 0 whose sum is below 1: "
                f"the student keeps the rest."
            )

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
        return self.backbone_config.num_channels

    @classmethod
    def from_backbones(
        cls,
        dino: str | PathLike[str] | None,
        class_names: Sequence[str],
        *,
        translators: Sequence[dict[str, Any]] | None = None,
        num_channels: int | None = None,
        bands: Sequence[str] | None = None,
        **overrides: Any,
    ) -> "Dinov2DPTConfig":
        """Configuration for a backbone, read from its folder or Hub id.

        Images of other bands than red, green and blue, in this order, need their own `image_mean` and `image_std`; RGB
        images may have them. The backbone then gets images normalised with these: what its pretraining was normalised
        with says nothing there.

        Args:
            dino: any DINOv2 or DINOv3 in transformers format; `None` for a tiny random one.
            class_names: the classes, in the order of their ids.
            translators: one dictionary for each teacher, see the class; None for the plain student.
            num_channels: number of image bands; default the number of `bands`, or what the backbone takes.
            bands: names of the bands. Those called red, green and blue keep the filters of pretraining.
            overrides: further fields of the configuration.

        Raises:
            ValueError: the folder holds another kind of model, or the classes are unusable.
        """
        names = check_class_names(class_names)
        backbone = Dinov2Config(**TINY_DINOV2) if dino is None else read_dino_config(dino)
        fields: dict[str, Any] = dict(TINY_DPT) if dino is None else {}
        pretrained = [] if dino is None else [backbone]
        fields.update(band_fields(backbone.num_channels, pretrained, num_channels, bands, overrides, ("backbone",)))
        if num_channels is not None or bands is not None:
            backbone.num_channels = num_channels or len(bands or ())
        fields.update(overrides)
        return cls(
            backbone_config=backbone,
            translators=None if translators is None else list(translators),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            **fields,
        )


__all__ = ["Dinov2DPTConfig"]
