"""Co2S (arXiv 2512.23035) for semantic segmentation: a CLIP and a DINOv3 student and their fusion.

Read from the bottom: `Co2SForSemanticSegmentation` runs two students of the same shape. A student is a backbone that
gives three feature maps and a guidance head that turns them, with one guidance vector per class, into logits. The CLIP
student is guided explicitly, by embeddings of class texts; the DINOv3 student implicitly, by learnable queries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoBackbone, CLIPVisionModelWithProjection
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from .class_texts_co2s import class_prompts, encode_class_texts, has_text_tower, stand_in_embeddings
from .configuration_co2s import Co2SConfig, read_clip_config
from .guidance_head_co2s import Co2SFusedLinear, Co2SGuidanceHead, Co2SZeroBiasConv2d, Co2SZeroBiasLinear, Pyramid
from .pretrained_backbones import Renormalize, check_class_names, load_backbone, read_dino_config
from .segmentation import SegmentationPreTrainedModel, cross_entropy, pad, padded_size


@dataclass
class Co2SOutput(ModelOutput):
    """What `Co2SForSemanticSegmentation` returns; logits are (batch_size, num_labels, height, width).

    Attributes:
        loss: cross-entropy of the students against `labels`, summed; 255 is ignored.
        logits: the fused prediction.
        clip_logits: prediction of the CLIP student.
        dinov3_logits: prediction of the DINOv3 student; None where it abstains, see `set_classes`.
        clip_perturbed_logits: prediction for `perturbed_rows` under feature dropout, CLIP student.
        dinov3_perturbed_logits: the same, DINOv3 student.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    clip_logits: torch.Tensor | None = None
    dinov3_logits: torch.Tensor | None = None
    clip_perturbed_logits: torch.Tensor | None = None
    dinov3_perturbed_logits: torch.Tensor | None = None


# ---------------------------------------------------------------------------------------------------------------------
# The students
# ---------------------------------------------------------------------------------------------------------------------


class Co2SStudent(nn.Module):
    """A backbone, its guidance vectors and its guidance head; subclasses give `pyramid` and `guidance`."""

    renormalize: Renormalize
    head: Co2SGuidanceHead
    logits_size: int | None
    pad_multiple: int
    min_size: int

    def pyramid(self, pixel_values: torch.Tensor) -> Pyramid:
        """Early, middle and final feature maps of padded, renormalised images."""
        raise NotImplementedError

    def guidance(self) -> torch.Tensor:
        """(num_labels, guidance_size)"""
        raise NotImplementedError

    def features(self, pixel_values: torch.Tensor) -> Pyramid:
        """Early, middle and final feature maps (batch_size, channels, h, w) of images as the processor gives them."""
        return self.pyramid(self._pad(self.renormalize(pixel_values)).to(self.head.classifier.weight.dtype))

    def forward(
        self, pixel_values: torch.Tensor, perturbed_rows: tuple[int, int] | None, feature_dropout: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (batch_size, num_labels, height, width) and those of `perturbed_rows` under feature dropout."""
        height, width = pixel_values.shape[-2:]
        pyramid = self.features(pixel_values)
        if perturbed_rows is not None:
            # Whole channels of each level are dropped in train() and eval() alike: the perturbation is a view.
            rows = slice(*perturbed_rows)
            early, middle, final = (torch.cat([level, F.dropout2d(level[rows], feature_dropout)]) for level in pyramid)
            pyramid = early, middle, final
        logits = self.head(pyramid, self.guidance())
        if self.logits_size is None:
            size = self._padded_size(height, width)
            logits = F.interpolate(logits, size, mode="bilinear")[..., :height, :width]
        else:
            logits = F.interpolate(logits, (self.logits_size, self.logits_size), mode="bilinear")
            logits = F.interpolate(logits, (height, width), mode="bilinear")
        batch_size = pixel_values.shape[0]  # `len` would fix it when the model is exported
        return logits[:batch_size], logits[batch_size:]

    def _padded_size(self, height: int, width: int) -> tuple[int, int]:
        return padded_size(height, width, self.pad_multiple, self.min_size)

    def _pad(self, pixel_values: torch.Tensor) -> torch.Tensor:
        height, width = pixel_values.shape[-2:]
        return pad(pixel_values, self._padded_size(height, width))


class Co2SClipStudent(Co2SStudent):
    """CLIP guided explicitly: dense features in CLIP's joint space against embeddings of the class texts."""

    text_embeddings: torch.Tensor

    def __init__(self, config: Co2SConfig):
        super().__init__()
        assert config.clip_skip_layers is not None  # the configuration fills it in
        clip = config.clip_config
        self.skip_layers = tuple(config.clip_skip_layers)
        self.skip_value_path = config.clip_skip_value_path
        self.centers_text = config.clip_centers_text
        self.logits_size = config.clip_logits_size
        self.pad_multiple = clip.patch_size
        self.min_size = config.head_pool_size * clip.patch_size  # the head pools its grid once
        self.renormalize = Renormalize(
            config.image_mean, config.image_std, config.clip_image_mean, config.clip_image_std
        )
        self.backbone = CLIPVisionModelWithProjection._from_config(clip)
        self.register_buffer("text_embeddings", torch.empty(config.num_labels, clip.projection_dim))
        self.head = Co2SGuidanceHead(config, clip.hidden_size, clip.projection_dim)

    def guidance(self) -> torch.Tensor:
        # Every prompt says "a photo of a …": embeddings of class texts share most of their direction, and what is the
        # same for all classes gives the head nothing to tell them apart by.
        return self.text_embeddings - self.text_embeddings.mean(0) if self.centers_text else self.text_embeddings

    def pyramid(self, pixel_values: torch.Tensor) -> Pyramid:
        vision = self.backbone.vision_model
        grid = [side // self.pad_multiple for side in pixel_values.shape[-2:]]
        hidden_states = vision.pre_layrnorm(vision.embeddings(pixel_values, interpolate_pos_encoding=True))
        *layers, last_layer = vision.encoder.layers
        skips = []
        for index, layer in enumerate(layers):
            layer_input, hidden_states = hidden_states, layer(hidden_states, None)
            if index in self.skip_layers:
                skips.append(_value_path(layer, layer_input) if self.skip_value_path else hidden_states)
        # In the joint space the value path keeps places apart; the attention of the last block would mix them.
        hidden_states = vision.post_layernorm(_value_path(last_layer, hidden_states))
        final = F.normalize(self.backbone.visual_projection(hidden_states), dim=-1)
        # (batch, 1 + h * w, channels) -> (batch, channels, h, w)
        early, middle, final = (level[:, 1:].transpose(1, 2).unflatten(2, grid) for level in (*skips, final))
        return early, middle, final


def _value_path(layer: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """A CLIP block in which each token attends to itself alone (MaskCLIP, arXiv 2112.01071)."""
    attention = layer.self_attn
    hidden_states = hidden_states + attention.out_proj(attention.v_proj(layer.layer_norm1(hidden_states)))
    return hidden_states + layer.mlp(layer.layer_norm2(hidden_states))


class Co2SDinov3Student(Co2SStudent):
    """DINOv3 (or DINOv2) guided implicitly: its dense features against one learnable query for each class."""

    def __init__(self, config: Co2SConfig):
        super().__init__()
        dinov3 = config.dinov3_config
        self.logits_size = config.dinov3_logits_size
        self.pad_multiple = dinov3.patch_size if config.dinov3_pads_input else 1
        self.min_size = config.head_pool_size * dinov3.patch_size
        self.renormalize = Renormalize(
            config.image_mean, config.image_std, config.dinov3_image_mean, config.dinov3_image_std
        )
        self.backbone = AutoBackbone.from_config(dinov3)
        self.queries = nn.Parameter(torch.empty(len(config.dinov3_classes or config.class_names), dinov3.hidden_size))
        self.rows: list[int] | None = None  # of the queries, one for each class; None: this student abstains
        self.head = Co2SGuidanceHead(config, dinov3.hidden_size, dinov3.hidden_size)

    def guidance(self) -> torch.Tensor:
        return self.queries if self.rows == list(range(len(self.queries))) else self.queries[self.rows]

    def pyramid(self, pixel_values: torch.Tensor) -> Pyramid:
        return tuple(self.backbone(pixel_values).feature_maps)


# ---------------------------------------------------------------------------------------------------------------------
# Fusion and the model
# ---------------------------------------------------------------------------------------------------------------------


def fuse_logits(clip_logits: torch.Tensor, dinov3_logits: torch.Tensor | None, fusion: str) -> torch.Tensor:
    """Global-local fusion of the two students' logits (batch_size, num_labels, height, width).

    "confidence": at each pixel the student with the larger maximal probability wins (ties go to CLIP).
    "mean": logarithm of the mean of both distributions. "clip", "dinov3": that student alone. Where the DINOv3 student
    abstains (None), the CLIP student decides.

    Raises:
        ValueError: `fusion` is none of these, or "dinov3" where that student abstains.
    """
    if fusion not in ("confidence", "mean", "clip", "dinov3"):
        raise ValueError(f"fusion is {fusion!r}, expected 'confidence', 'mean', 'clip' or 'dinov3'.")
    if fusion == "dinov3" and dinov3_logits is None:
        raise ValueError("fusion is 'dinov3', but this student abstains: it was not trained for all of the classes.")
    if fusion == "clip" or dinov3_logits is None:
        return clip_logits
    if fusion == "dinov3":
        return dinov3_logits
    clip_log, dinov3_log = clip_logits.log_softmax(1), dinov3_logits.log_softmax(1)
    if fusion == "mean":
        return torch.logaddexp(clip_log, dinov3_log) - math.log(2)
    clip_wins = clip_log.amax(1, keepdim=True) >= dinov3_log.amax(1, keepdim=True)
    return torch.where(clip_wins, clip_logits, dinov3_logits)


class Co2SPreTrainedModel(SegmentationPreTrainedModel):
    """Initialisation."""

    config: Co2SConfig
    config_class = Co2SConfig
    base_model_prefix = "co2s"
    _no_split_modules = ["Co2SGuidanceHead"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what belongs to the students and heads; the backbones initialise themselves.

        text_embeddings          random directions on the unit sphere (a stand-in until real ones are set)
        queries                  normal(0, 0.02)
        Co2SFusedLinear          xavier uniform, bias 0
        Co2SZeroBias...          torch default, bias 0
        other Linear, Conv       torch default: kaiming uniform (a = sqrt 5), bias uniform(+-1/sqrt(fan in))
        GroupNorm, LayerNorm     weight 1, bias 0
        renormalize              from the configuration
        """
        if isinstance(module, Renormalize):
            module.reset()
        elif isinstance(module, Co2SClipStudent):
            init.normal_(module.text_embeddings)
            init.copy_(module.text_embeddings, F.normalize(module.text_embeddings, dim=-1))
        elif isinstance(module, Co2SDinov3Student):
            init.normal_(module.queries, std=0.02)
        elif isinstance(module, Co2SFusedLinear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                starts_at_zero = isinstance(module, (Co2SZeroBiasLinear, Co2SZeroBiasConv2d))
                bound = 0.0 if starts_at_zero else 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class Co2SForSemanticSegmentation(Co2SPreTrainedModel):
    """Two students and their fusion: land cover for every pixel of an image of any size."""

    # Fields of the output: of each student, of each student's perturbed features, and all that is worth evaluating.
    students = {"clip": "clip_logits", "dinov3": "dinov3_logits"}
    perturbed = {"clip": "clip_perturbed_logits", "dinov3": "dinov3_perturbed_logits"}
    predictions = {**students, "fused": "logits"}

    def __init__(self, config: Co2SConfig):
        """Build both students with random weights."""
        super().__init__(config)
        self.clip = Co2SClipStudent(config)
        self.dinov3 = Co2SDinov3Student(config)
        self._follow_classes()
        self.post_init()
        self.freeze_unused()

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding of the CLIP student; quantisation asks."""
        return self.clip.backbone.get_input_embeddings()

    def _follow_classes(self) -> None:
        """Let the DINOv3 student vote with its queries of the classes, or abstain."""
        self.dinov3.rows = self.config.dinov3_rows
        votes = self.dinov3.rows is not None
        self.predictions = {name: field for name, field in type(self).predictions.items() if votes or name != "dinov3"}

    def freeze_unused(self) -> None:
        """Freeze what can never get a gradient, so that distributed training need not search for it."""
        # The last block of CLIP is used through its value path only, and masked image modelling is over.
        last_attention = self.clip.backbone.vision_model.encoder.layers[-1].self_attn
        last_attention.q_proj.requires_grad_(False)
        last_attention.k_proj.requires_grad_(False)
        for name, parameter in self.dinov3.backbone.embeddings.named_parameters():
            if name == "mask_token":  # some DINOv2 come without
                parameter.requires_grad_(False)

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        *,
        perturbed_rows: tuple[int, int] | None = None,
        feature_dropout: float = 0.5,
        fusion: str | None = None,
        return_dict: bool = True,
    ) -> Co2SOutput | tuple[torch.Tensor, ...]:
        """Segment images.

        In eval mode an image larger than `config.window_px` is segmented by a sliding window, see
        `config.window_average`: logits are then the logarithm of averaged probabilities. In train mode never.

        Args:
            pixel_values: (batch_size, num_channels, height, width), normalised with `config.image_mean` and `_std`.
            labels: (batch_size, height, width) class ids, 255 is ignored; adds `loss`.
            perturbed_rows: rows [start, stop) of the batch that are also decoded under feature dropout.
            feature_dropout: probability of dropping a channel of each feature map of those rows.
            fusion: overrides `config.fusion`.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: the image has another number of bands, or labels another size.
        """
        self._check_input(pixel_values, labels)
        window = self.config.window_px
        if not self.training and perturbed_rows is None and max(pixel_values.shape[-2:]) > window:
            clip_logits, *others, logits = self._slide(pixel_values, fusion)
            dinov3_logits = others[0] if others else None
            perturbed: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        else:
            clip_logits, clip_perturbed = self.clip(pixel_values, perturbed_rows, feature_dropout)
            dinov3_logits, dinov3_perturbed = None, None
            if self.config.dinov3_rows is not None:
                dinov3_logits, dinov3_perturbed = self.dinov3(pixel_values, perturbed_rows, feature_dropout)
            logits = fuse_logits(clip_logits, dinov3_logits, fusion or self.config.fusion)
            perturbed = (None, None) if perturbed_rows is None else (clip_perturbed, dinov3_perturbed)
        loss = None
        if labels is not None:
            loss = cross_entropy(clip_logits, labels)
            if dinov3_logits is not None:
                loss = loss + cross_entropy(dinov3_logits, labels)
        output = Co2SOutput(
            loss=loss,
            logits=logits,
            clip_logits=clip_logits,
            dinov3_logits=dinov3_logits,
            clip_perturbed_logits=perturbed[0],
            dinov3_perturbed_logits=perturbed[1],
        )
        return output if return_dict else output.to_tuple()

    def student_logits(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Logits of the CLIP student and, unless it abstains, of the DINOv3 student, from one pass."""
        students = (self.clip,) if self.config.dinov3_rows is None else (self.clip, self.dinov3)
        return [student(pixel_values, None, 0.0)[0] for student in students]

    def all_predictions(self, student_logits: list[torch.Tensor], fusion: str | None = None) -> list[torch.Tensor]:
        """These logits and the fused ones, see `fuse_logits`."""
        dinov3_logits = student_logits[1] if len(student_logits) > 1 else None
        return [*student_logits, fuse_logits(student_logits[0], dinov3_logits, fusion or self.config.fusion)]

    @classmethod
    def from_backbones(
        cls,
        clip: str | PathLike[str] | None,
        dinov3: str | PathLike[str] | None,
        class_names: Sequence[str],
        *,
        concepts: Sequence[Sequence[str]] | None = None,
        text_embeddings: torch.Tensor | None = None,
        **config_fields: Any,
    ) -> "Co2SForSemanticSegmentation":
        """A model that starts from pretrained backbones; heads and queries are random.

        For other bands than red, green and blue, patch embeddings are adapted: see `adapt_bands`.

        Args:
            clip: folder or Hub id of any CLIP in transformers format; `None` for a tiny random one.
            dinov3: folder or Hub id of any DINOv3 or DINOv2 ViT; `None` for a tiny random one.
            class_names: the classes, in the order of their ids.
            concepts: for each class the phrases whose embeddings are averaged; default its name.
            text_embeddings: (num_labels, projection_dim) made elsewhere, instead of `clip`'s own text tower. Without
                either, stand-ins that carry no meaning, and a UserWarning.
            config_fields: see `Co2SConfig.from_backbones`; `num_channels` and `bands` are among them.

        Raises:
            ValueError: a folder holds another model or lacks weights, or the embeddings do not fit.
        """
        config = Co2SConfig.from_backbones(clip, dinov3, class_names, **config_fields)
        model = cls(config)
        if clip is not None:
            load_backbone(model.clip.backbone, clip, read_clip_config(clip).num_channels, config.bands)
        if dinov3 is not None:
            load_backbone(model.dinov3.backbone, dinov3, read_dino_config(dinov3).num_channels, config.bands)
        if text_embeddings is None:
            concepts = concepts or [[name] for name in class_names]
            if clip is not None and has_text_tower(clip):
                text_embeddings = encode_class_texts(clip, concepts)
                model.config.text_model = str(clip)
            else:
                text_embeddings = stand_in_embeddings(concepts, config.clip_config.projection_dim)
        model.set_text_embeddings(text_embeddings)
        return model

    def set_text_embeddings(self, text_embeddings: torch.Tensor) -> None:
        """Replace the class text embeddings by `text_embeddings` (num_labels, projection_dim).

        Raises:
            ValueError: they have another shape.
        """
        expected = (self.config.num_labels, self.config.clip_config.projection_dim)
        if tuple(text_embeddings.shape) != expected:
            raise ValueError(
                f"text_embeddings are {tuple(text_embeddings.shape)} but `num_labels` is {expected[0]} and "
                f"`clip_config.projection_dim` is {expected[1]}: expected one row of that width for each class."
            )
        with torch.no_grad():
            self.clip.text_embeddings.copy_(text_embeddings)

    def set_classes(
        self,
        class_names: Sequence[str],
        *,
        concepts: Sequence[Sequence[str]] | None = None,
        text_embeddings: torch.Tensor | None = None,
        text_model: str | PathLike[str] | None = None,
    ) -> None:
        """Segment other classes from now on, without training: open vocabulary, saved and loaded like any model.

        The CLIP student is guided by class texts and takes any. A class that the model already has keeps its
        embedding, so that only new ones need a text tower; `concepts`, `text_embeddings` and `text_model` replace all.

        The DINOv3 student is guided by what it learned for each class. Among the classes that it was trained for, any
        selection in any order, it goes on as before. With another class it abstains: `dinov3_logits` is None, and the
        CLIP student alone decides, for the old classes too, because what has no query at all can win nowhere. Its
        queries are kept: it votes again once the classes are among those that it knows.

        Args:
            class_names: the classes, in the order of their ids.
            concepts: for each class the phrases whose embeddings are averaged; default its name.
            text_embeddings: (num_labels, projection_dim) made elsewhere.
            text_model: folder or Hub id of the CLIP, with its text tower, that the CLIP student is part of; default
                `config.text_model`.

        Raises:
            ValueError: names are missing or alike, no text tower is known, its embeddings do not fit, or
                `config.fusion` is "dinov3" and that student would abstain. The model is then unchanged.
        """
        names = check_class_names(class_names)
        unknown = self.config.unknown_to_dinov3(names)
        if unknown and self.config.fusion == "dinov3":
            raise ValueError(
                f"config.fusion is 'dinov3', but the DINOv3 student was not trained for {unknown[0]!r}: set "
                "config.fusion to 'confidence', 'mean' or 'clip' first."
            )
        embeddings = self._class_texts(names, concepts, text_embeddings, text_model)
        known = self.config.class_names if self.config.dinov3_classes is None else list(self.config.dinov3_classes)
        self.config.dinov3_classes = None if known == names else known
        self.config.id2label = dict(enumerate(names))
        self.config.label2id = {name: index for index, name in enumerate(names)}
        self.config.text_model = self.config.text_model if text_model is None else str(text_model)
        self.clip.text_embeddings = embeddings.to(self.clip.text_embeddings)
        self._follow_classes()

    def add_class(
        self,
        name: str,
        *,
        concepts: Sequence[str] | None = None,
        text_embedding: torch.Tensor | None = None,
        text_model: str | PathLike[str] | None = None,
    ) -> None:
        """Add a class after the last one, without training; the others keep their ids and texts. See `set_classes`.

        Args:
            name: of the class.
            concepts: the phrases whose embeddings are averaged; default the name.
            text_embedding: (projection_dim,) made elsewhere.
            text_model: as of `set_classes`.

        Raises:
            ValueError: the class is there already, or as of `set_classes`.
        """
        if text_embedding is None:
            text_embedding = self._embed_texts([concepts or [name]], text_model)[0]
        old = self.clip.text_embeddings
        found = tuple(text_embedding.shape) if isinstance(text_embedding, torch.Tensor) else type(text_embedding)
        if found != tuple(old.shape[1:]):
            raise ValueError(f"text_embedding is {found} but `clip_config.projection_dim` is {old.shape[1]}.")
        self.set_classes(
            [*self.config.class_names, name], text_embeddings=torch.cat([old, text_embedding.to(old.device)[None]])
        )
        self.config.text_model = self.config.text_model if text_model is None else str(text_model)

    def _class_texts(
        self,
        names: list[str],
        concepts: Sequence[Sequence[str]] | None,
        text_embeddings: torch.Tensor | None,
        text_model: str | PathLike[str] | None,
    ) -> torch.Tensor:
        """One row of text embeddings for each of `names`; kept, given, or from a text tower."""
        width = self.config.clip_config.projection_dim
        if text_embeddings is None:
            phrases = [[name] for name in names] if concepts is None else concepts
            rows = dict(zip(self.config.class_names, self.clip.text_embeddings, strict=True))
            if concepts is not None or text_model is not None:
                rows = {}
            new = [index for index, name in enumerate(names) if name not in rows]
            class_prompts(phrases)  # refuses what are no phrases of classes
            if len(phrases) != len(names):
                raise ValueError(f"concepts are those of {len(phrases)} classes, but there are {len(names)} names.")
            if new:
                embedded = self._embed_texts([phrases[index] for index in new], text_model)
                rows.update({names[index]: row for index, row in zip(new, embedded, strict=True)})
            text_embeddings = torch.stack([rows[name].to(self.clip.text_embeddings) for name in names])
        found = tuple(text_embeddings.shape) if isinstance(text_embeddings, torch.Tensor) else type(text_embeddings)
        if found != (len(names), width):
            raise ValueError(
                f"text_embeddings are {found}, expected {(len(names), width)}: a row of `clip_config.projection_dim` "
                "numbers for each class, made with the text tower of the student's CLIP."
            )
        if text_embeddings.is_complex() or not bool(torch.isfinite(text_embeddings).all()):
            raise ValueError("text_embeddings hold numbers that are not finite, expected those of a text tower.")
        return text_embeddings

    def _embed_texts(self, concepts: Sequence[Sequence[str]], text_model: str | PathLike[str] | None) -> torch.Tensor:
        source = self.config.text_model if text_model is None else text_model
        if source is None:
            raise ValueError(
                "no text tower is known for this model, so new classes cannot be embedded: name the CLIP that its "
                "student started from as text_model, or give the embeddings."
            )
        return encode_class_texts(source, concepts)


__all__ = ["Co2SForSemanticSegmentation", "Co2SOutput", "Co2SPreTrainedModel"]
