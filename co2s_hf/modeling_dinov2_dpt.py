"""DINOv2 (or DINOv3) + DPT for semantic segmentation: the student of FixMatch, UniMatch V2, SemiEarth and RS-MTDF.

Read from the bottom: `Dinov2DPTForSemanticSegmentation` reads four feature maps off DINOv2 and puts them together from
the coarsest to the finest (DPT, arXiv 2103.13413). With translators (RS-MTDF, arXiv 2506.08772) the last map is also
regressed to the features of teachers that only training has, and what was found is blended back into it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersEmbeddings
from transformers.utils.generic import ModelOutput

from .configuration_dinov2_dpt import Dinov2DPTConfig
from .pretrained_backbones import Renormalize, load_backbone, read_dino_config
from .segmentation import SegmentationPreTrainedModel, cross_entropy, pad, padded_size

POSITION_OFFSET = 0.1  # what the released DINOv2 adds to each side of the grid before it divides

Levels = list[torch.Tensor]


@dataclass
class Dinov2DPTOutput(ModelOutput):
    """What `Dinov2DPTForSemanticSegmentation` returns; logits are (batch_size, num_labels, height, width).

    Attributes:
        loss: cross-entropy against `labels`; 255 is ignored.
        logits: the prediction.
        perturbed_logits: prediction for `perturbed_rows` under feature dropout.
        translated: for each translator (batch_size, tokens, teacher_width), the tokens row by row from the top left;
            None without translators and where a window slides.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    perturbed_logits: torch.Tensor | None = None
    translated: tuple[torch.Tensor, ...] | None = None


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    # The released systems align corners in every resize but that of the positions.
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


# ---------------------------------------------------------------------------------------------------------------------
# Positions as released
# ---------------------------------------------------------------------------------------------------------------------


class _ScaledPositions:
    """Samples the pretrained positions by a scale factor, where transformers samples them to a size."""

    position_embeddings: Any  # a parameter and an int, of the class that this is mixed into
    patch_size: Any

    def interpolate_pos_encoding(self, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(1, 1 + h * w, hidden_size) for an image of `height` x `width` pixels.

        The two differ although both give the same grid: the factor, a little above size / pretrained size, and not the
        size says where between the pretrained positions a new one lies.
        """
        class_position, positions = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        side = math.isqrt(positions.shape[1])
        grid = height // self.patch_size, width // self.patch_size
        if not torch.compiler.is_compiling() and grid == (side, side):
            return self.position_embeddings
        # (1, side * side, channels) -> (1, channels, side, side) -> (1, channels, h, w) -> (1, h * w, channels)
        maps = positions.transpose(1, 2).unflatten(2, (side, side))
        if torch.compiler.is_compiling():
            return torch.cat([class_position, _sampled_positions(maps, grid)], dim=1)
        factors = [(length + POSITION_OFFSET) / side for length in grid]
        maps = F.interpolate(maps.float(), scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([class_position, maps.to(positions.dtype).flatten(2).transpose(1, 2)], dim=1)


def _sampled_positions(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """What interpolation by the scale factor gives, written such that one graph holds for every grid.

    A compiled or exported `F.interpolate` takes its factor as a constant. Here it is data: new position i of n lies
    at i + 0.5 over n + 0.1 of the old side, and on the old grid itself at the old positions.
    """
    side = maps.shape[-1]
    lengths = torch.cat([maps.new_full((1,), length) for length in grid])
    offset = torch.where((lengths == side).all(), 0.0, POSITION_OFFSET)
    rows, columns = (
        2 * (torch.arange(length, device=maps.device) + 0.5) / (whole + offset) - 1
        for length, whole in zip(grid, lengths.float(), strict=True)
    )
    # (h, w, 2): grid_sample wants the column first
    points = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    sampled = F.grid_sample(maps.float(), points[None], "bicubic", "border", align_corners=False)
    return sampled.to(maps.dtype).flatten(2).transpose(1, 2)


class Dinov2DPTEmbeddings(_ScaledPositions, Dinov2Embeddings):
    """Embeddings of DINOv2."""

    @classmethod
    def of(cls, embeddings: Dinov2Embeddings) -> "Dinov2DPTEmbeddings":
        """The same weights with positions as released."""
        scaled = cls(embeddings.config)
        scaled.load_state_dict(embeddings.state_dict())
        return scaled.requires_grad_(embeddings.cls_token.requires_grad)


class Dinov2DPTRegisterEmbeddings(_ScaledPositions, Dinov2WithRegistersEmbeddings):
    """Embeddings of DINOv2 with registers."""


# ---------------------------------------------------------------------------------------------------------------------
# The parts
# ---------------------------------------------------------------------------------------------------------------------


class Dinov2DPTTranslator(nn.Module):
    """From the student's tokens to a teacher's features, and from these back to the student's width."""

    def __init__(self, student_width: int, teacher_width: int, hidden_width: int, input_px: int | None):
        """Make a translator that reads tokens of the image squeezed to `input_px` (None: of the image itself)."""
        super().__init__()
        self.input_px = input_px
        self.fc1 = nn.Linear(student_width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, teacher_width)
        self.project_back = nn.Linear(teacher_width, student_width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch_size, tokens, student_width) -> (batch_size, tokens, teacher_width)"""
        return self.fc2(F.relu(self.fc1(tokens)))

    def blend(self, translated: torch.Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> torch.Tensor:
        """Translated tokens of a grid (h, w) -> map (batch_size, student_width, new_h, new_w) for the fusion."""
        maps = translated.transpose(1, 2).unflatten(2, grid)
        if grid != new_grid:
            maps = _resize(maps, new_grid)
        # (batch, channels, h, w) -> (batch, h, w, channels) and back
        return self.project_back(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Dinov2DPTResidualUnit(nn.Module):
    """Two 3 x 3 convolutions around a residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(F.relu(self.conv1(F.relu(hidden_states))))


class Dinov2DPTFusionBlock(nn.Module):
    """Adds a level to what came from the coarser ones and brings the sum to the next finer size."""

    def __init__(self, channels: int, has_skip: bool):
        super().__init__()
        # The coarsest level has nothing to be added to; the released block holds a unit there that never trains.
        self.skip_unit = Dinov2DPTResidualUnit(channels) if has_skip else None
        self.unit = Dinov2DPTResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden_states: torch.Tensor, skip: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        if self.skip_unit is not None:
            hidden_states = hidden_states + self.skip_unit(skip)
        return self.project(_resize(self.unit(hidden_states), size))


class Dinov2DPTHead(nn.Module):
    """The DPT decoder: four maps of one resolution to logits at eight times that resolution."""

    def __init__(self, config: Dinov2DPTConfig):
        """Make a head for maps of the backbone's width."""
        super().__init__()
        assert config.dpt_out_channels is not None and config.dpt_channels is not None  # the configuration fills it in
        width, channels, out_channels = config.backbone_config.hidden_size, config.dpt_channels, config.dpt_out_channels
        first, second, _, last = out_channels
        self.projections = nn.ModuleList(nn.Conv2d(width, out, 1) for out in out_channels)
        self.resizes = nn.ModuleList(  # to 4, 2, 1 and 1/2 times the resolution of the backbone
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(last, last, 3, stride=2, padding=1),
            ]
        )
        self.reductions = nn.ModuleList(nn.Conv2d(out, channels, 3, padding=1, bias=False) for out in out_channels)
        self.fusions = nn.ModuleList(
            Dinov2DPTFusionBlock(channels, has_skip=level + 1 < len(out_channels)) for level in range(len(out_channels))
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.classifier = nn.Conv2d(channels, config.num_labels, 1)

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Four maps (batch_size, hidden_size, h, w), early to late -> logits (batch_size, num_labels, 8 h, 8 w)."""
        parts = zip(self.projections, self.resizes, self.reductions, levels, strict=True)
        maps = [reduce(resize(project(level))) for project, resize, reduce, level in parts]
        finest_height, finest_width = maps[0].shape[-2:]
        sizes = [(2 * finest_height, 2 * finest_width), *(level.shape[-2:] for level in maps[:-1])]
        hidden_states = maps[-1]
        for fusion, skip, size in reversed(list(zip(self.fusions, maps, sizes, strict=True))):
            hidden_states = fusion(hidden_states, skip, size)
        return self.classifier(F.relu(self.conv(hidden_states)))


# ---------------------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------------------


class Dinov2DPTPreTrainedModel(SegmentationPreTrainedModel):
    """Initialisation."""

    config: Dinov2DPTConfig
    config_class = Dinov2DPTConfig
    base_model_prefix = "dinov2_dpt"
    _no_split_modules = ["Dinov2DPTEmbeddings", "Dinov2DPTRegisterEmbeddings", "Dinov2DPTHead"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the head and the translators; the backbone initialises itself.

        Linear, Conv     torch default: kaiming uniform (a = sqrt 5), bias uniform(+-1/sqrt(fan in))
        renormalize      from the configuration
        """
        if isinstance(module, Renormalize):
            module.reset()
        elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)


class Dinov2DPTForSemanticSegmentation(Dinov2DPTPreTrainedModel):
    """One student: land cover for every pixel of an image of any size."""

    students = {"dino": "logits"}
    predictions = {"dino": "logits"}
    perturbed = {"dino": "perturbed_logits"}

    def __init__(self, config: Dinov2DPTConfig):
        """Build the student with random weights."""
        super().__init__(config)
        dino = config.backbone_config
        self.renormalize = Renormalize(
            config.image_mean, config.image_std, config.backbone_image_mean, config.backbone_image_std
        )
        self.backbone = AutoBackbone.from_config(dino)
        if config.position_interpolation == "scale_factor" and dino.model_type != "dinov3_vit":
            has_registers = dino.model_type == "dinov2_with_registers"
            embeddings = Dinov2DPTRegisterEmbeddings if has_registers else Dinov2DPTEmbeddings
            self.backbone.embeddings = embeddings(dino)
        self.translators = nn.ModuleList(
            Dinov2DPTTranslator(dino.hidden_size, one["teacher_width"], one["hidden_width"], one["input_px"])
            for one in config.translators or ()
        )
        self.fusion_weights = [one["fusion_weight"] for one in config.translators or ()]
        self.head = Dinov2DPTHead(config)
        self.post_init()
        self.freeze_unused()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding; quantisation asks."""
        return self.backbone.get_input_embeddings()

    def freeze_unused(self) -> None:
        """Freeze what can never get a gradient, so that distributed training need not search for it."""
        for name, parameter in self.backbone.embeddings.named_parameters():
            if name == "mask_token":  # some DINOv2 come without
                parameter.requires_grad_(False)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        perturbed_rows: tuple[int, int] | None = None,
        feature_dropout: float = 0.0,
        channel_masks: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Dinov2DPTOutput | tuple[Any, ...]:
        """Segment images.

        In eval mode an image larger than `config.window_px` is segmented by a sliding window, see
        `config.window_average`: logits are then the logarithm of averaged probabilities. In train mode never.

        Args:
            pixel_values: (batch_size, num_channels, height, width), normalised with `config.image_mean` and `_std`.
            labels: (batch_size, height, width) class ids, 255 is ignored; adds `loss`.
            perturbed_rows: rows [start, stop) of the batch that are also decoded under feature dropout.
            feature_dropout: probability of dropping a channel of each of the four feature maps of those rows.
            channel_masks: (batch_size, hidden_size) factors of the channels of all four feature maps.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: the image has another number of bands, or labels or masks another size.
        """
        self._check_input(pixel_values, labels)
        self._check_masks(pixel_values, channel_masks)
        is_plain = perturbed_rows is None and channel_masks is None
        if not self.training and is_plain and max(pixel_values.shape[-2:]) > self.config.window_px:
            (logits,), perturbed, translated = self._slide(pixel_values), None, None
        else:
            levels, translated = self.features(pixel_values)
            if channel_masks is not None:
                levels = [level * channel_masks[:, :, None, None].to(level.dtype) for level in levels]
            if perturbed_rows is not None:
                # Whole channels of each level are dropped in train() and eval() alike: the perturbation is a view.
                rows = slice(*perturbed_rows)
                levels = [torch.cat([level, F.dropout2d(level[rows], feature_dropout)]) for level in levels]
            decoded = self.decode(levels, pixel_values.shape[-2:])
            batch_size = pixel_values.shape[0]  # `len` would fix it when the model is exported
            logits, perturbed = decoded[:batch_size], decoded[batch_size:]
        output = Dinov2DPTOutput(
            loss=None if labels is None else cross_entropy(logits, labels),
            logits=logits,
            perturbed_logits=None if perturbed_rows is None else perturbed,
            translated=translated or None,
        )
        return output if return_dict else output.to_tuple()

    def _check_masks(self, pixel_values: torch.Tensor, channel_masks: torch.Tensor | None) -> None:
        expected = (pixel_values.shape[0], self.config.backbone_config.hidden_size)
        if channel_masks is not None and tuple(channel_masks.shape) != expected:
            raise ValueError(
                f"channel_masks are {tuple(channel_masks.shape)}, expected {expected}, one factor for each image and "
                f"channel of the backbone."
            )

    def features(self, pixel_values: torch.Tensor) -> tuple[Levels, tuple[torch.Tensor, ...]]:
        """What the decoder reads, and what the translators found.

        Args:
            pixel_values: (batch_size, num_channels, height, width) as the processor gives them.

        Returns:
            Four maps (batch_size, hidden_size, h, w), h and w in patches of the padded image, the last one fused with
            what the translators found; and for each translator (batch_size, tokens, teacher_width).
        """
        patch = self.config.backbone_config.patch_size
        height, width = pixel_values.shape[-2:]
        pixel_values = pad(self.renormalize(pixel_values), padded_size(height, width, patch)).to(self.dtype)
        levels = list(self.backbone(pixel_values).feature_maps)
        if not self.translators:
            return levels, ()
        fused, translated = self._fuse(levels[-1], pixel_values)
        return [*levels[:-1], fused], translated

    def _fuse(self, own: torch.Tensor, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The last map blended with what the translators found in it, or in passes of their own, and what that was."""
        last: dict[int | None, torch.Tensor] = {None: own}  # by the side of the square that the backbone saw
        fused, found = (1 - sum(self.fusion_weights)) * own, []
        translator: Any  # a ModuleList does not say what it holds
        for translator, weight in zip(self.translators, self.fusion_weights, strict=True):
            input_px = translator.input_px
            if input_px not in last:
                last[input_px] = self.backbone(_resize(pixel_values, (input_px, input_px))).feature_maps[-1]
            seen = last[input_px]
            found.append(translator(seen.flatten(2).transpose(1, 2)))  # (batch, channels, h, w) -> (batch, h * w, ...)
            fused = fused + weight * translator.blend(found[-1], seen.shape[-2:], own.shape[-2:])
        return fused, tuple(found)

    def decode(self, levels: Levels, size: Sequence[int]) -> torch.Tensor:
        """Logits (batch_size, num_labels, *size) from four feature maps of images of `size` (height, width)."""
        height, width = size
        padded = padded_size(height, width, self.config.backbone_config.patch_size)
        return _resize(self.head(levels), padded)[..., :height, :width]

    def student_logits(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Logits from one pass."""
        return [self.decode(self.features(pixel_values)[0], pixel_values.shape[-2:])]

    def all_predictions(self, student_logits: list[torch.Tensor], fusion: str | None = None) -> list[torch.Tensor]:
        """These logits: there is one student, and nothing to fuse."""
        return student_logits

    @classmethod
    def from_backbones(
        cls,
        dino: str | PathLike[str] | None,
        class_names: Sequence[str],
        *,
        translators: Sequence[dict[str, Any]] | None = None,
        **config_fields: Any,
    ) -> "Dinov2DPTForSemanticSegmentation":
        """A model that starts from a pretrained backbone; head and translators are random.

        For other bands than red, green and blue, patch embeddings are adapted: see `adapt_bands`.

        Args:
            dino: folder or Hub id of any DINOv2 or DINOv3; `None` for a tiny random one.
            class_names: the classes, in the order of their ids.
            translators: one dictionary for each teacher, see `Dinov2DPTConfig`; None for the plain student.
            config_fields: see `Dinov2DPTConfig.from_backbones`; `num_channels` and `bands` are among them.

        Raises:
            ValueError: the folder holds another model or lacks weights.
        """
        config = Dinov2DPTConfig.from_backbones(dino, class_names, translators=translators, **config_fields)
        model = cls(config)
        if dino is not None:
            load_backbone(model.backbone, dino, read_dino_config(dino).num_channels, config.bands)
        return model


__all__ = ["Dinov2DPTForSemanticSegmentation", "Dinov2DPTOutput", "Dinov2DPTPreTrainedModel"]
