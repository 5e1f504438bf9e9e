"""The model itself, tiny and random; that it computes the released numbers is tests/test_parity_family.py."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from co2s_hf.configuration_dinov2_dpt import Dinov2DPTConfig
from co2s_hf.modeling_dinov2_dpt import (
    Dinov2DPTForSemanticSegmentation,
    Dinov2DPTHead,
    Dinov2DPTOutput,
    Dinov2DPTTranslator,
    _sampled_positions,
)

NAMES = ("road", "water", "tree")
SIZE = dict(hidden_size=16, mlp_ratio=2, num_hidden_layers=4, num_attention_heads=2, patch_size=4, image_size=20)
DPT = dict(dpt_channels=8, dpt_out_channels=(4, 6, 8, 10))
TRANSLATORS = (
    {"teacher_width": 6, "hidden_width": 12},
    {"teacher_width": 10, "hidden_width": 8, "input_px": 24, "fusion_weight": 0.25},
)


def build(backbone=None, **fields):
    """A seeded model."""
    config = Dinov2DPTConfig(
        backbone_config=backbone or Dinov2Config(**SIZE),
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
        **{**DPT, "window_px": 96, **fields},
    )
    torch.manual_seed(0)
    return Dinov2DPTForSemanticSegmentation(config).eval()


def with_registers():
    return Dinov2WithRegistersConfig(**SIZE, num_register_tokens=2)


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labels(*shape):
    return torch.randint(len(NAMES), shape, generator=torch.Generator().manual_seed(2))


def load_aligned(path, **options):
    """Load a model into memory of its own: in a mapped file tensors lie unaligned, and kernels then round otherwise."""
    return copy.deepcopy(Dinov2DPTForSemanticSegmentation.from_pretrained(path, **options))


@pytest.fixture(scope="module")
def model():
    """With two translators. Shared: never train or change it."""
    return build(translators=TRANSLATORS)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The same model saved. Read only."""
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Sizes and windows
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("translators", [None, TRANSLATORS])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (20, 20), (33, 13)])
def test_logits_have_the_size_of_the_image(size, translators):
    output = build(translators=translators)(pixels(2, 3, *size))
    assert output.logits.shape == (2, 3, *size) and output.logits.isfinite().all()
    assert output.loss is None and output.perturbed_logits is None
    tokens = -(-size[0] // 4) * -(-size[1] // 4)
    expected = None if translators is None else [(2, tokens, 6), (2, 36, 10)]
    assert output.translated == expected or [one.shape for one in output.translated] == expected


@torch.no_grad()
def test_padding_is_zero_at_the_right_and_lower_border(model):
    image = pixels(1, 3, 18, 21)
    whole = model(F.pad(image, (0, 3, 0, 2))).logits
    assert torch.equal(model(image).logits, whole[..., :18, :21])


@torch.no_grad()
def test_overlapping_windows_are_averaged():
    fields = dict(window_px=16, window_stride_px=8, translators=TRANSLATORS)
    model, image = build(**fields), pixels(1, 3, 16, 24)
    left, right = (model(image[..., start : start + 16]).logits for start in (0, 8))
    alike = torch.cat([left[..., :8], (left[..., 8:] + right[..., :8]) / 2, right[..., 8:]], dim=-1)
    output = build(**fields, window_average="logits")(image)
    assert torch.allclose(output.logits, alike, atol=1e-5)
    assert output.translated is None, "windows have no common tokens"
    # An overlap of 8 px: the weights of its pixels are ceil(32 k / 9), k from 1 at the border.
    rise = torch.tensor([4.0, 8, 11, 15, 18, 22, 25, 29])
    left, right = left.softmax(1), right.softmax(1)
    shared = (left[..., 8:] * rise.flip(0) + right[..., :8] * rise) / (rise + rise.flip(0))
    expected = torch.cat([left[..., :8], shared, right[..., 8:]], dim=-1)
    assert torch.allclose(model(image).logits.softmax(1), expected, atol=2 / 65535)


@torch.no_grad()
def test_training_never_slides():
    image, whole = pixels(1, 3, 24, 24), build(window_px=64)
    narrow = build(window_px=16)
    assert torch.equal(narrow.train()(image).logits, whole(image).logits)
    assert not torch.allclose(narrow.eval()(image).logits, whole(image).logits, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# The backbone and its positions
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("registers", [False, True])
def test_features_are_those_of_transformers_normed(registers):
    config = with_registers() if registers else Dinov2Config(**SIZE)
    model = build(config, feature_layers=[0, 1, 2, 3], position_interpolation="size")
    plain = (Dinov2WithRegistersModel if registers else Dinov2Model)(config).eval()
    plain.load_state_dict(model.backbone.state_dict())
    image = pixels(2, 3, 12, 28)
    hidden_states = plain(image, output_hidden_states=True).hidden_states
    levels, _ = model.features(image)
    for level, states in zip(levels, hidden_states[1:], strict=True):
        expected = plain.layernorm(states)[:, 3 if registers else 1 :]
        assert torch.allclose(level.flatten(2).transpose(1, 2), expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("registers", [False, True])
def test_positions_by_scale_factor_and_by_size(registers):
    config = with_registers() if registers else Dinov2Config(**SIZE)
    scaled, sized = (build(config, position_interpolation=kind) for kind in ("scale_factor", "size"))
    sized.load_state_dict(scaled.state_dict())
    pretrained, other, image = pixels(1, 3, 20, 20), pixels(1, 3, 12, 28), pixels(1, 3, 24, 20)
    assert torch.equal(scaled(pretrained).logits, sized(pretrained).logits), "nothing to interpolate"
    for picture in (other, image):
        assert not torch.allclose(scaled(picture).logits, sized(picture).logits, atol=1e-4)


def cubic_weights(old, new):
    """(new, old) weights of cubic interpolation (a = -3/4) at (i + 1/2) / factor - 1/2, factor = (new + 0.1) / old."""
    weights, a = torch.zeros(new, old), -0.75
    for row in range(new):
        place = (row + 0.5) * old / (new + 0.1) - 0.5
        for neighbour in range(math.floor(place) - 1, math.floor(place) + 3):
            x = abs(place - neighbour)
            near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
            weights[row, min(max(neighbour, 0), old - 1)] += near if x <= 1 else far
    return weights


@torch.no_grad()
def test_positions_by_hand():
    embeddings = build().backbone.embeddings
    positions = embeddings.position_embeddings
    found = embeddings.interpolate_pos_encoding(None, 36, 44)
    pretrained = positions[0, 1:].T.unflatten(1, (5, 5))  # (channels, 5, 5)
    expected = cubic_weights(5, 9) @ pretrained @ cubic_weights(5, 11).T
    assert found.shape == (1, 1 + 9 * 11, 16) and torch.equal(found[:, 0], positions[:, 0])
    torch.testing.assert_close(found[0, 1:].T.unflatten(1, (9, 11)), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("grid", [(5, 5), (5, 6), (3, 9), (12, 7)])
def test_positions_of_an_exported_graph_are_the_same(grid):
    embeddings = build().backbone.embeddings
    torch.nn.init.normal_(embeddings.position_embeddings)
    expected = embeddings.interpolate_pos_encoding(None, grid[0] * 4, grid[1] * 4)[:, 1:]
    maps = embeddings.position_embeddings[:, 1:].transpose(1, 2).unflatten(2, (5, 5))
    torch.testing.assert_close(_sampled_positions(maps, grid), expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_copies_keep_their_own_positions(model):
    twin = copy.deepcopy(model)
    twin.backbone.embeddings.position_embeddings.zero_()
    image = pixels(1, 3, 12, 28)
    assert not torch.allclose(twin(image).logits, model(image).logits, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Decoder, translators and fusion
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_head_by_other_means():
    """The decoder written out, with the released modules' order of operations."""
    torch.manual_seed(0)
    head = Dinov2DPTHead(Dinov2DPTConfig(backbone_config=SIZE, num_labels=3, **DPT))
    levels = [pixels(2, 16, 3, 5) for _ in range(4)]

    def unit(module, x):
        return x + module.conv2(module.conv1(x.relu()).relu())

    def up(x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    one, two, three, four = (project(level) for project, level in zip(head.projections, levels, strict=True))
    maps = [head.resizes[0](one), head.resizes[1](two), three, head.resizes[3](four)]
    one, two, three, four = (reduce(level) for reduce, level in zip(head.reductions, maps, strict=True))
    assert [level.shape[-2:] for level in (one, two, three, four)] == [(12, 20), (6, 10), (3, 5), (2, 3)]
    x = head.fusions[3].project(up(unit(head.fusions[3].unit, four), (3, 5)))
    for level, skip, size in ((2, three, (6, 10)), (1, two, (12, 20)), (0, one, (24, 40))):
        fusion = head.fusions[level]
        x = fusion.project(up(unit(fusion.unit, x + unit(fusion.skip_unit, skip)), size))
    expected = head.classifier(head.conv(x).relu())
    assert torch.allclose(head(levels), expected, atol=1e-6) and expected.shape == (2, 3, 24, 40)
    assert head.fusions[3].skip_unit is None


@torch.no_grad()
def test_fusion_by_hand(model):
    image = pixels(2, 3, 20, 28)
    (*early, fused), translated = model.features(image)
    plain = build(translators=None)
    plain.load_state_dict({n: v for n, v in model.state_dict().items() if not n.startswith("translators.")})
    (*early_plain, own), nothing = plain.features(image)
    assert nothing == () and all(torch.equal(a, b) for a, b in zip(early, early_plain, strict=True))
    square = F.interpolate(image, (24, 24), mode="bilinear", align_corners=True)
    squeezed = plain.features(square)[0][-1]
    expected = (1 - 0.1 - 0.25) * own
    for translator, weight, seen, found in zip(
        model.translators, (0.1, 0.25), (own, squeezed), translated, strict=True
    ):
        tokens = seen.flatten(2).transpose(1, 2)
        assert torch.allclose(found, translator.fc2(translator.fc1(tokens).relu()), atol=1e-5)
        maps = F.interpolate(
            found.transpose(1, 2).unflatten(2, seen.shape[-2:]), (5, 7), mode="bilinear", align_corners=True
        )
        back = translator.project_back(maps.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (5, 7))
        expected = expected + weight * back
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_translators_of_one_square_share_its_pass():
    squares = [{"teacher_width": 6, "hidden_width": 8, "input_px": px} for px in (24, 24, 16, None)]
    model, seen = build(translators=squares), []
    model.backbone.register_forward_hook(lambda *arguments: seen.append(arguments[1][0].shape[-2:]))
    model(pixels(1, 3, 20, 20))
    assert seen == [(20, 20), (24, 24), (16, 16)]


@torch.no_grad()
def test_channel_masks_multiply_every_level(model):
    image = pixels(2, 3, 20, 24)
    masks = pixels(2, 16)
    levels, _ = model.features(image)
    expected = model.decode([level * masks[:, :, None, None] for level in levels], (20, 24))
    assert torch.allclose(model(image, channel_masks=masks).logits, expected, atol=1e-6)
    assert torch.equal(model(image, channel_masks=torch.ones(2, 16)).logits, model(image).logits)


@torch.no_grad()
def test_perturbed_rows(model):
    image = pixels(3, 3, 24, 20)
    clean = model(image).logits
    output = model(image, perturbed_rows=(1, 3))
    assert output.perturbed_logits.shape == (2, 3, 24, 20)
    assert torch.allclose(output.logits, clean, atol=1e-5)
    assert torch.allclose(output.perturbed_logits, clean[1:], atol=1e-5), "no dropout unless asked for"
    dropped = model(image, perturbed_rows=(0, 1), feature_dropout=0.5)
    assert torch.allclose(dropped.logits, clean, atol=1e-5)
    assert not torch.allclose(dropped.perturbed_logits, clean[:1], atol=1e-3)


@torch.no_grad()
def test_feature_dropout_drops_whole_channels_of_each_level(model, monkeypatch):
    seen = []
    monkeypatch.setattr(model, "decode", lambda levels, size: seen.extend(levels) or levels[0])
    model(pixels(2, 3, 24, 20), perturbed_rows=(1, 2), feature_dropout=0.5)
    ratios = [level[2] / level[1] for level in seen]
    assert len(ratios) == 4
    kept = [ratio.flatten(1).round(decimals=3) for ratio in ratios]
    assert all(((ratio == 0).all(1) | (ratio == 2).all(1)).all() for ratio in kept)
    assert len({tuple(ratio[:, 0].tolist()) for ratio in kept}) > 1, "each level draws its own"


# ---------------------------------------------------------------------------------------------------------------------
# Refusals and outputs
# ---------------------------------------------------------------------------------------------------------------------


def test_refusals(model):
    with pytest.raises(ValueError, match=r"pixel_values are \(1, 4, 16, 16\), expected .* built for 3 bands"):
        model(pixels(1, 4, 16, 16))
    with pytest.raises(ValueError, match=r"labels are \(1, 16, 15\), expected \(1, 16, 16\), one id for each pixel"):
        model(pixels(1, 3, 16, 16), labels=labels(1, 16, 15))
    with pytest.raises(ValueError, match=r"channel_masks are \(1, 8\), expected \(1, 16\), one factor for each image"):
        model(pixels(1, 3, 16, 16), channel_masks=torch.ones(1, 8))


@torch.no_grad()
def test_outputs_and_what_a_training_method_finds(model):
    output = model(pixels(2, 3, 16, 16), labels=labels(2, 16, 16), perturbed_rows=(0, 1))
    assert isinstance(output, Dinov2DPTOutput)
    assert model.students == model.predictions == {"dino": "logits"} and model.perturbed.keys() == {"dino"}
    assert output[model.perturbed["dino"]].shape == (1, 3, 16, 16)
    expected = F.cross_entropy(output.logits, labels(2, 16, 16))
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-5)
    plain = build()(pixels(1, 3, 16, 16), return_dict=False)
    assert isinstance(plain, tuple) and [value.shape for value in plain] == [(1, 3, 16, 16)]


# ---------------------------------------------------------------------------------------------------------------------
# Gradients
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "translators", "registers", "loaded"])
def test_exactly_what_trains_gets_a_gradient(folder, kind):
    if kind == "loaded":
        model = Dinov2DPTForSemanticSegmentation.from_pretrained(folder)
    else:
        translators = TRANSLATORS if kind == "translators" else None
        model = build(with_registers() if kind == "registers" else None, translators=translators)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"backbone.embeddings.mask_token"}
    model.train()(pixels(1, 3, 24, 24), labels=labels(1, 24, 24)).loss.backward()
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_gradient_in_float64():
    torch.manual_seed(0)
    head = Dinov2DPTHead(Dinov2DPTConfig(backbone_config=SIZE, num_labels=3, **DPT)).double()
    levels = [torch.randn(1, 16, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    weights = [head.projections[0].weight, head.reductions[3].weight, head.fusions[2].skip_unit.conv1.bias]
    assert torch.autograd.gradcheck(lambda *x: head(x[:4]), (*levels, *weights), fast_mode=True)
    translator = Dinov2DPTTranslator(4, 6, 8, None).double()
    tokens = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: translator.blend(translator(x), (2, 3), (3, 2)), tokens)


def gradients(model):
    model.train()
    loss = model(pixels(1, 3, 24, 20), labels=labels(1, 24, 20)).loss
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


def test_activation_checkpointing_changes_nothing():
    plain, checkpointed = (build(translators=TRANSLATORS) for _ in range(2))
    if hasattr(checkpointed, "activation_checkpointing_enable"):  # its name since transformers 5.2x
        checkpointed.activation_checkpointing_enable()
    else:
        checkpointed.gradient_checkpointing_enable()
    computed = []
    checkpointed.backbone.encoder.layer[1].norm1.register_forward_hook(lambda *_: computed.append(1))
    (loss, expected), (same_loss, actual) = gradients(plain), gradients(checkpointed)
    assert len(computed) == 4, "two passes, each once more in the backward pass"
    assert torch.equal(loss, same_loss) and expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.allclose(actual[name], value, atol=1e-6), name


# ---------------------------------------------------------------------------------------------------------------------
# Saving and loading, pretrained backbones
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_loaded_logits_are_bit_equal(model, folder):
    loaded, report = Dinov2DPTForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    image = pixels(1, 3, 22, 33)
    assert torch.equal(load_aligned(folder)(image).logits, model(image).logits)


@torch.no_grad()
def test_attention_implementations_and_half_precision_agree(model, folder):
    image = pixels(1, 3, 24, 20)
    for implementation in ("eager", "sdpa"):
        loaded = Dinov2DPTForSemanticSegmentation.from_pretrained(folder, attn_implementation=implementation)
        assert loaded.backbone.config._attn_implementation == implementation
        assert torch.allclose(loaded(image).logits, model(image).logits, atol=1e-5)
    half = Dinov2DPTForSemanticSegmentation.from_pretrained(folder, dtype=torch.bfloat16)
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}
    expected = model(image).logits
    assert (half(image).logits.float() - expected).norm() / expected.norm() < 0.1


@pytest.fixture(scope="module", params=["dinov2", "registers"])
def backbone(request, tmp_path_factory):
    """Folder of a backbone and its weights. Read only."""
    torch.manual_seed(3)
    if request.param == "dinov2":
        saved = Dinov2Model(Dinov2Config(**SIZE))
    else:
        saved = Dinov2WithRegistersModel(with_registers())
    path = tmp_path_factory.mktemp("backbone")
    saved.save_pretrained(path)
    return path, saved.state_dict()


def test_backbones_keep_their_weights(backbone):
    path, weights = backbone
    model = Dinov2DPTForSemanticSegmentation.from_backbones(path, NAMES, translators=TRANSLATORS, **DPT)
    kept = model.backbone.state_dict()
    assert kept.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in kept.items())
    assert [model.config.id2label[index] for index in range(3)] == list(NAMES) and len(model.translators) == 2
    assert not model.backbone.embeddings.mask_token.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("bands", [None, ["coastal", "Blue", "green", "red", "nir"]])
def test_a_grey_picture_of_five_bands_looks_as_one_of_three(backbone, bands):
    path, _ = backbone
    same = {f"{prefix}image_{name}": [0.5] * 3 for prefix in ("", "backbone_") for name in ("mean", "std")}
    statistics = dict(image_mean=[0.1] * 5, image_std=[0.05] * 5)
    three = Dinov2DPTForSemanticSegmentation.from_backbones(path, NAMES, **DPT, **same).eval()
    five = Dinov2DPTForSemanticSegmentation.from_backbones(
        path, NAMES, num_channels=5, bands=bands, **DPT, **statistics
    ).eval()
    assert (three.config.band_adaptation, five.config.num_channels) == (None, 5)
    assert five.config.band_adaptation == ("mean" if bands is None else "rgb_and_mean")
    grey, colour = pixels(1, 1, 20, 24), pixels(1, 5, 20, 24)
    found, expected = five.features(grey.expand(-1, 5, -1, -1))[0], three.features(grey.expand(-1, 3, -1, -1))[0]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert torch.equal(five.renormalize(colour), colour)


@torch.no_grad()
def test_another_normalisation_of_the_image_changes_nothing():
    image = pixels(1, 3, 20, 24).sigmoid()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    usual, raw = build(), build(image_mean=[0.0] * 3, image_std=[1.0] * 3)
    torch.testing.assert_close(raw(image).logits, usual((image - mean) / std).logits, atol=1e-4, rtol=1e-4)


def test_starts_from_dinov3_too(tmp_path):
    config = DINOv3ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, patch_size=8, image_size=32
    )
    pretrained = DINOv3ViTModel(config).eval()
    pretrained.save_pretrained(tmp_path)
    model = Dinov2DPTForSemanticSegmentation.from_backbones(tmp_path, NAMES, **DPT).eval()
    image = pixels(1, 3, 24, 40)
    with torch.no_grad():
        last = model.features(image)[0][-1]
        tokens = pretrained(image).last_hidden_state[:, 1 + config.num_register_tokens :]
        assert model(image).logits.shape == (1, len(NAMES), 24, 40)
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens, atol=1e-4, rtol=1e-4)
    assert model.config.backbone_config.pos_embed_rescale is None  # an augmentation of its pretraining


def test_refuses_other_folders(folder):
    with pytest.raises(ValueError, match="holds a 'dinov2_dpt' model, expected one of dinov3_vit, dinov2, dinov2_w"):
        Dinov2DPTForSemanticSegmentation.from_backbones(folder, NAMES)
