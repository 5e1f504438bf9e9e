"""The guidance head of both students: three feature maps and one guidance vector per class to logits.

The VLG decoder of Co2S (arXiv 2512.23035). Its weights are initialised in `Co2SPreTrainedModel._init_weights`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .configuration_co2s import Co2SConfig

GROUP_CHANNELS = 16  # channels per group of every group norm

Pyramid = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Co2SFusedLinear(nn.Linear):
    """Queries, keys and values in one projection; a class of its own to be initialised as torch does it."""


class Co2SZeroBiasLinear(nn.Linear):
    """A layer whose bias starts at 0."""


class Co2SZeroBiasConv2d(nn.Conv2d):
    """A layer whose bias starts at 0."""


class Co2SConvNormReLU(nn.Sequential):
    """Convolution, group norm, ReLU; where the convolution is composed with another one, the rest alone."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1):
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.GroupNorm(out_channels // GROUP_CHANNELS, out_channels),
            nn.ReLU(inplace=True),
        )

    @property
    def weight(self) -> torch.Tensor:
        return self.get_parameter("0.weight")

    def norm_relu(self, convolved: torch.Tensor) -> torch.Tensor:
        return self[2](self[1](convolved))


def _remember_inputs(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """`function(*inputs)`, of which the backward pass remembers `inputs` and computes what it needs of the rest again.

    For norms and ReLUs ahead of a convolution: half of the memory of the maps of all classes, for one part in a hundred
    of the time. The convolution, which has to come last, is not repeated.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(*inputs)
    result: torch.Tensor = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result


def _conv_1x1(hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # As one matrix product over all places; faster than a convolution, and the result is channels last.
    return F.linear(hidden_states.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)


def _dilated_conv(hidden_states: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(hidden_states, weight, padding=padding, dilation=dilation)


class Co2SResidualASPP(nn.Module):
    """Atrous spatial pyramid pooling around a residual: x + project(branches(x)), x = similarity_conv(similarity).

    Nothing but a sum stands between the first convolution and those of the branches, so both are composed to one on
    what the first one sees of the single similarity channel: k^2 neighbours and a constant for its bias, instead of
    `channels`. Padding stays exact: outside of the image neighbours and constant are 0, as x is for a branch.
    """

    branches: Any  # a ModuleList, whose elements mypy knows nothing about

    def __init__(self, channels: int):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                Co2SConvNormReLU(channels, channels, 1),
                *(Co2SConvNormReLU(channels, channels, 3, dilation) for dilation in (6, 12, 18)),
            ]
        )
        self.image_pooling = Co2SConvNormReLU(channels, channels, 1)
        self.project = Co2SConvNormReLU(5 * channels, channels, 1)

    def forward(self, similarity: torch.Tensor, similarity_conv: nn.Conv2d) -> torch.Tensor:
        height, width = similarity.shape[-2:]
        # (batch, 1, h, w) -> (batch, k * k + 1, h, w)
        kernel_size = similarity_conv.weight.shape[-1]
        neighbours = F.unfold(similarity, kernel_size, padding=kernel_size // 2)
        neighbours = F.pad(neighbours.unflatten(2, (height, width)), (0, 0, 0, 0, 0, 1), value=1.0)
        neighbours = neighbours.contiguous(memory_format=torch.channels_last)
        assert similarity_conv.bias is not None
        # (channels, k * k + 1)
        basis = torch.cat([similarity_conv.weight.flatten(1), similarity_conv.bias[:, None]], dim=1)
        hidden_states = _conv_1x1(neighbours, basis)

        convolved = []
        for branch in self.branches:
            weight = torch.einsum("ocyx,ct->otyx", branch.weight, basis)
            convolved.append(_dilated_conv(neighbours, weight, branch[0].dilation[0]))
        # The pooled branch is the same everywhere: its share of the projection is added once.
        pooled = self.image_pooling(hidden_states.mean((2, 3), keepdim=True))
        channels = pooled.shape[1]
        of_branches, of_pooled = self.project.weight.flatten(1).split([4 * channels, channels], dim=1)

        def project(*convolved: torch.Tensor) -> torch.Tensor:
            maps = [branch.norm_relu(of_branch) for branch, of_branch in zip(self.branches, convolved, strict=True)]
            return _conv_1x1(torch.cat(maps, dim=1), of_branches)

        projected = _remember_inputs(project, *convolved) + _conv_1x1(pooled, of_pooled)
        return hidden_states + self.project.norm_relu(projected)


class Co2SClassAttention(nn.Module):
    """Self-attention over the classes seen at one place."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv_proj = Co2SFusedLinear(hidden_size, 3 * hidden_size)
        self.out_proj = Co2SZeroBiasLinear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # (places, classes, 3 * hidden) -> 3 x (places, heads, classes, hidden / heads)
        queries, keys, values = (
            self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Co2SSemanticLayer(nn.Module):
    """Lets the classes at each pooled place look at each other, and adds the result to the feature map."""

    def __init__(self, config: Co2SConfig):
        super().__init__()
        hidden_size = config.head_channels + config.head_text_channels
        self.pool_size = config.head_pool_size
        self.layer_norm1 = nn.LayerNorm(hidden_size)
        self.attention = Co2SClassAttention(hidden_size, config.head_num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, 4 * config.head_channels)
        self.fc2 = nn.Linear(4 * config.head_channels, hidden_size)

    def forward(self, hidden_states: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
        (folded, channels, height, width), num_classes = hidden_states.shape, guidance.shape[1]
        pooled = F.avg_pool2d(hidden_states, self.pool_size)
        rows, columns = pooled.shape[-2:]
        # (batch * classes, channels, rows, columns) -> (batch, rows, columns, classes, channels)
        tokens = pooled.unflatten(0, (-1, num_classes)).permute(0, 3, 4, 1, 2)
        text = guidance[:, None, None].expand(-1, rows, columns, -1, -1)
        tokens = torch.cat([tokens, text], dim=-1).flatten(0, 2)  # (batch * rows * columns, classes, hidden)

        tokens = tokens + self.attention(self.layer_norm1(tokens))
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.layer_norm2(tokens))))

        # (batch * rows * columns, classes, channels) -> (batch * classes, channels, rows, columns)
        tokens = tokens[..., :channels].unflatten(0, (-1, rows, columns))
        mixed = tokens.permute(0, 3, 4, 1, 2).reshape(folded, channels, rows, columns)
        return hidden_states + F.interpolate(mixed, (height, width), mode="bilinear", align_corners=True)


class Co2SUpsample(nn.Module):
    """Doubles the resolution of the per-class maps and mixes a skip feature of the image into each of them.

    relu(norm(conv1(cat(upsample(x), skip)))), then conv2. conv1 is linear in its two inputs, so the skip's share is
    computed once for each image instead of once for each class, and the other share is composed with `upsample`.
    Norm and ReLU after conv2 are left to what comes next, which gets them as `norm_relu`: see `_remember_inputs`.
    """

    def __init__(self, in_channels: int, out_channels: int, skip_channels: int):
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, in_channels - skip_channels, kernel_size=2, stride=2)
        self.conv1 = Co2SConvNormReLU(in_channels, out_channels, 3)
        self.conv2 = Co2SConvNormReLU(out_channels, out_channels, 3)

    def forward(
        self, hidden_states: torch.Tensor, skip: torch.Tensor, norm_relu: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        height, width = hidden_states.shape[-2:]
        of_classes, of_skip = self.conv1.weight.split([self.upsample.out_channels, skip.shape[1]], dim=1)
        skip = F.interpolate(skip, (2 * height, 2 * width), mode="bilinear", align_corners=True)
        # The bias of the transposed convolution is a constant that ends where the image does.
        assert self.upsample.bias is not None
        bias = self.upsample.bias[None, :, None, None].expand(1, -1, 2 * height, 2 * width)
        of_skip = F.conv2d(skip, of_skip, padding=1) + F.conv2d(bias, of_classes, padding=1)

        kernel = self._doubling_kernel(of_classes)
        phases = _remember_inputs(lambda maps: F.conv2d(norm_relu(maps), kernel, padding=1), hidden_states)
        doubled = self._interleave(phases, height, width)
        # (batch * classes, channels, h, w) -> (batch, classes, channels, h, w): one skip for all classes of an image
        doubled = doubled.unflatten(0, (skip.shape[0], -1)) + of_skip[:, None]
        return _remember_inputs(lambda maps: self.conv2[0](self.conv1.norm_relu(maps)), doubled.flatten(0, 1))

    def _doubling_kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """conv1(upsample(x)) without the bias as one convolution, `weight` the share of conv1: (out, upsampled, 3, 3).

        Together they are one transposed convolution of stride 2 and 4x4 pixels. Phase (a, b) of its result, pixels
        (2 i + a, 2 j + b), is an ordinary convolution with every other of these: two by two pixels from i + a - 1 on.
        """
        kernel = F.conv2d(self.upsample.weight, weight, padding=2).flip(2, 3)
        # (in, out, 4, 4) -> (in, out, 2, a, 2, b) -> (a * b * out, in, 2, 2)
        return kernel.unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(3, 5, 1, 0, 2, 4).flatten(0, 2)

    def _interleave(self, phases: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The four phases of all pixels in their places."""
        phases = phases.unflatten(1, (2, 2, -1))
        # (batch, 2, 2, channels, h + 1, w + 1) -> (batch, channels, 2 h, 2 w); unbound, as slices cost more backward
        rows = [
            torch.stack([of_ab[..., a : a + height, b : b + width] for b, of_ab in enumerate(of_a.unbind(1))], dim=-1)
            for a, of_a in enumerate(phases.unbind(1))
        ]
        return torch.stack(rows, dim=-3).flatten(4, 5).flatten(2, 3)


class Co2SGuidanceHead(nn.Module):
    """The VLG decoder: similarity of dense features and class vectors, refined for each class by the same weights.

    Nothing in it depends on the number of classes.
    """

    def __init__(self, config: Co2SConfig, skip_channels: int, guidance_size: int):
        """Make a head for maps of `skip_channels` channels and guidance vectors of `guidance_size`."""
        super().__init__()
        channels, (up1, up2), (skip1, skip2) = config.head_channels, config.head_up_channels, config.head_skip_channels
        kernel_size = config.head_kernel_size
        self.similarity_scale = config.head_similarity_scale
        self.adds_similarity = config.head_adds_similarity
        # A bias here is the same for every class. As large as torch starts it, it hides what classes differ in, and
        # where all classes look alike the gradient is zero: training then waits for hundreds of steps (LOG.md).
        self.similarity_conv = Co2SZeroBiasConv2d(1, channels, kernel_size, padding=kernel_size // 2)
        self.aspp = Co2SResidualASPP(channels)
        self.guidance_proj = Co2SZeroBiasLinear(guidance_size, config.head_text_channels)
        self.layers = nn.ModuleList(Co2SSemanticLayer(config) for _ in range(config.head_num_layers))
        self.skip_proj1 = nn.Conv2d(skip_channels, skip1, 3, padding=1)
        self.skip_proj2 = nn.Conv2d(skip_channels, skip2, 3, padding=1)
        self.up1 = Co2SUpsample(channels, up1, skip1)
        self.up2 = Co2SUpsample(up1, up2, skip2)
        self.classifier = nn.Conv2d(up2, 1, 3, padding=1)

    def forward(self, pyramid: Pyramid, guidance: torch.Tensor) -> torch.Tensor:
        """Logits at four times the resolution of the pyramid.

        Args:
            pyramid: early, middle (batch_size, skip_channels, h, w) and final (batch_size, guidance_size, h, w) maps.
            guidance: (num_labels, guidance_size), or (batch_size, num_labels, guidance_size).

        Returns:
            (batch_size, num_labels, 4 h, 4 w)
        """
        early, middle, final = pyramid
        guidance = guidance.to(final).expand(final.shape[0], -1, -1)
        guidance = F.normalize(guidance, dim=-1)
        similarity = self.similarity_scale * torch.einsum("bchw,bnc->bnhw", F.normalize(final, dim=1), guidance)

        # (batch, classes, h, w) -> (batch * classes, 1, h, w): from here each class is an image of its own
        hidden_states = self.aspp(similarity.flatten(0, 1).unsqueeze(1), self.similarity_conv)
        guidance = F.relu(self.guidance_proj(guidance))
        for layer in self.layers:
            hidden_states = layer(hidden_states, guidance)
        hidden_states = self.up1(hidden_states, F.relu(self.skip_proj1(middle)), nn.Identity())
        hidden_states = self.up2(hidden_states, F.relu(self.skip_proj2(early)), self.up1.conv2.norm_relu)
        logits = _remember_inputs(lambda maps: self.classifier(self.up2.conv2.norm_relu(maps)), hidden_states)
        logits = logits.squeeze(1).unflatten(0, similarity.shape[:2])
        if self.adds_similarity:
            logits = logits + F.interpolate(similarity, logits.shape[-2:], mode="bilinear")
        return logits


__all__ = ["Co2SGuidanceHead"]
