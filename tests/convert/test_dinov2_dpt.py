"""The converter's bookkeeping; that converted weights compute the released numbers is tests/test_parity_family.py."""

import re

import pytest
import torch

from co2s_hf import Dinov2DPTConfig, Dinov2DPTForSemanticSegmentation
from co2s_hf.convert.dinov2_dpt import (
    BACKBONE_NAMES,
    BLOCK_NAMES,
    DROPPED,
    HEAD_NAMES,
    OLDER_BLOCK_NAMES,
    TRANSLATOR_NAMES,
    convert_official,
    convert_tensors,
)

WIDTH, DEPTH, PATCH, GRID, CLASSES, CHANNELS, OUT = 64, 4, 4, 3, 5, 8, (4, 6, 10, 12)


def linear(name, rows, columns):
    return {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows)}


def norm(name, width):
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


def conv(name, rows, columns, side, bias=True):
    weights = {f"{name}.weight": torch.randn(rows, columns, side, side)}
    return weights | ({f"{name}.bias": torch.randn(rows)} if bias else {})


def released_backbone(prefix="backbone", gated=False):
    weights = {
        f"{prefix}.cls_token": torch.randn(1, 1, WIDTH),
        f"{prefix}.mask_token": torch.randn(1, WIDTH),
        f"{prefix}.pos_embed": torch.randn(1, GRID**2 + 1, WIDTH),
    }
    weights |= conv(f"{prefix}.patch_embed.proj", WIDTH, 3, PATCH) | norm(f"{prefix}.norm", WIDTH)
    for index in range(DEPTH):
        block = f"{prefix}.blocks.{index}"
        weights |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        weights |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{block}.attn.proj", WIDTH, WIDTH)
        weights |= {f"{block}.ls{i}.gamma": torch.randn(WIDTH) for i in (1, 2)}
        if gated:
            weights |= linear(f"{block}.mlp.w12", 2 * 176, WIDTH) | linear(f"{block}.mlp.w3", WIDTH, 176)
        else:
            weights |= linear(f"{block}.mlp.fc1", 2 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 2 * WIDTH)
    return weights


def released_head():
    weights = {}
    for index, out in enumerate(OUT):
        weights |= conv(f"head.projects.{index}", out, WIDTH, 1)
        weights |= conv(f"head.scratch.layer{index + 1}_rn", CHANNELS, out, 3, bias=False)
        refine = f"head.scratch.refinenet{index + 1}"
        weights |= conv(f"{refine}.out_conv", CHANNELS, CHANNELS, 1)
        for unit in ("resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2"):
            weights |= conv(f"{refine}.{unit}", CHANNELS, CHANNELS, 3)
    for index, side in ((0, 4), (1, 2), (3, 3)):
        weights |= conv(f"head.resize_layers.{index}", OUT[index], OUT[index], side)
    weights |= conv("head.scratch.output_conv.0", CHANNELS, CHANNELS, 3)
    return weights | conv("head.scratch.output_conv.2", CLASSES, CHANNELS, 1)


def released_translators():
    weights = released_backbone("Dino_teacher_model") | linear("clip_model.visual.proj", 4, 4)
    for name, teacher in (("dino", 20), ("clip", 28)):
        weights |= linear(f"feature_translator_for_{name}.layer.0", 24, WIDTH)
        weights |= linear(f"feature_translator_for_{name}.layer.2", teacher, 24)
        weights |= linear(f"project_{name}", WIDTH, teacher)
    return weights


@pytest.fixture(scope="module")
def released():
    """The state dict of an RS-MTDF, teachers included. Shared: copy before changing."""
    torch.manual_seed(0)
    return released_backbone() | released_head() | released_translators()


@pytest.fixture(scope="module")
def plain(released):
    """That of a FixMatch, UniMatch V2 or SemiEarth."""
    return {name: value for name, value in released.items() if name.startswith(("backbone.", "head."))}


def test_reads_the_configuration_from_the_tensors(released, plain):
    config = convert_official(released).config
    dinov2 = config.backbone_config
    assert (dinov2.hidden_size, dinov2.mlp_ratio, dinov2.num_hidden_layers, dinov2.num_attention_heads) == (64, 2, 4, 1)
    assert (dinov2.patch_size, dinov2.image_size, dinov2.num_channels) == (PATCH, GRID * PATCH, 3)
    assert (config.dpt_channels, tuple(config.dpt_out_channels), config.num_labels) == (CHANNELS, OUT, CLASSES)
    assert config.position_interpolation == "scale_factor"
    assert config.translators == [
        {"teacher_width": 20, "hidden_width": 24, "input_px": None, "fusion_weight": 0.1},
        {"teacher_width": 28, "hidden_width": 24, "input_px": 224, "fusion_weight": 0.1},
    ]
    assert convert_official(plain).config.translators is None
    assert config.id2label == {index: f"LABEL_{index}" for index in range(CLASSES)}


@pytest.mark.parametrize("kind", ["released", "plain"])
def test_every_number_arrives_once(kind, request):
    """Nothing is lost or doubled: all numbers agree, but for what is dropped on purpose."""
    weights = request.getfixturevalue(kind)
    kept = [value.flatten() for name, value in weights.items() if not DROPPED.fullmatch(name)]
    model = convert_official(weights)
    ours = [value.flatten() for value in model.state_dict().values()]
    assert torch.equal(torch.cat(ours).sort().values, torch.cat(kept).sort().values)
    dropped = {name.partition(".")[0] for name in weights if DROPPED.fullmatch(name)}
    assert dropped == ({"Dino_teacher_model", "clip_model", "head"} if kind == "released" else {"head"})
    assert not model.training and not model.backbone.embeddings.mask_token.requires_grad


def test_parts_keep_their_places(released):
    model = convert_official(released)
    attention = model.backbone.encoder.layer[2].attention.state_dict()
    query, key, value, out = (tensor for name, tensor in attention.items() if name.endswith("bias"))
    assert torch.equal(torch.cat([query, key, value]), released["backbone.blocks.2.attn.qkv.bias"])
    assert torch.equal(out, released["backbone.blocks.2.attn.proj.bias"])
    assert torch.equal(model.head.reductions[0].weight, released["head.scratch.layer1_rn.weight"])
    unit = released["head.scratch.refinenet3.resConfUnit1.conv2.weight"]
    assert torch.equal(model.head.fusions[2].skip_unit.conv2.weight, unit)
    for index, name in enumerate(("dino", "clip")):
        assert torch.equal(model.translators[index].project_back.weight, released[f"project_{name}.weight"])
        layer = released[f"feature_translator_for_{name}.layer.2.bias"]
        assert torch.equal(model.translators[index].fc2.bias, layer)


def test_the_gate_of_the_giant_comes_first(plain):
    rest = {name: value for name, value in plain.items() if ".mlp." not in name}
    gated = {name: value for name, value in released_backbone(gated=True).items() if ".mlp." in name}
    model = convert_official(rest | gated)
    assert model.config.backbone_config.use_swiglu_ffn and model.config.backbone_config.mlp_ratio == 4
    mlp, x = model.backbone.encoder.layer[1].mlp, torch.randn(3, WIDTH)
    w12, w3 = "backbone.blocks.1.mlp.w12", "backbone.blocks.1.mlp.w3"
    gate, up = (x @ gated[f"{w12}.weight"].T + gated[f"{w12}.bias"]).chunk(2, dim=-1)
    expected = (torch.nn.functional.silu(gate) * up) @ gated[f"{w3}.weight"].T + gated[f"{w3}.bias"]
    torch.testing.assert_close(mlp(x), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("translators", "millions"), [(None, 24.7), ([768, 1024], 28.0)])
def test_the_paper_student_has_its_size(translators, millions):
    # 24.8 and 28.1 as released, less 0.07 of the coarsest level's unit that never trains
    described = translators and [{"teacher_width": width} for width in translators]
    with torch.device("meta"):
        model = Dinov2DPTForSemanticSegmentation(Dinov2DPTConfig(translators=described, num_labels=7))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


def test_runs_and_takes_names_and_overrides(plain):
    names = ["water", "road", "tree", "roof", "field"]
    prefixed = {f"module.{name}": value for name, value in plain.items()}
    model = convert_official(prefixed, class_names=names, num_attention_heads=4, window_px=64)
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    assert model.config.backbone_config.num_attention_heads == 4
    with torch.no_grad():
        assert model(torch.randn(1, 3, 14, 70)).logits.shape == (1, CLASSES, 14, 70)


def test_gradients_are_renamed_alike(released):
    some = {
        name: released[name] for name in ("backbone.norm.weight", "project_clip.bias", "clip_model.visual.proj.bias")
    }
    assert set(convert_tensors(some)) == {"backbone.layernorm.weight", "translators.1.project_back.bias"}


@pytest.mark.parametrize(
    "name", ["backbone.blocks.1.ls2.gamma", "head.scratch.refinenet2.out_conv.bias", "head.projects.2.weight"]
)
def test_refuses_a_missing_tensor(plain, name):
    with pytest.raises(ValueError, match="the checkpoint (lacks 1 tensors|has no tensor)"):
        convert_official({key: value for key, value in plain.items() if key != name})


def test_refuses_what_does_not_fit(plain):
    with pytest.raises(ValueError, match=r"tensor 'backbone.blocks.0.extra' of shape \(2,\) has no place"):
        convert_official(plain | {"backbone.blocks.0.extra": torch.zeros(2)})
    with pytest.raises(ValueError, match=f"class_names has 2 entries but the checkpoint has {CLASSES} classes"):
        convert_official(plain, class_names=["a", "b"])
    with pytest.raises(ValueError, match="num_attention_heads is 5, which does not divide the checkpoint's width 64"):
        convert_official(plain, num_attention_heads=5)
    with pytest.raises(ValueError, match="backbone.pos_embed has 6 patch positions, expected a square grid"):
        convert_official(plain | {"backbone.pos_embed": torch.zeros(1, 7, WIDTH)})


def test_patterns_do_not_overlap(released):
    for key in released:
        patterns = (*BACKBONE_NAMES, *BLOCK_NAMES, *HEAD_NAMES, *TRANSLATOR_NAMES)
        matches = [pattern for pattern, _ in patterns if re.fullmatch(pattern, key)]
        assert len(matches) == (0 if key.startswith(("Dino_teacher_model", "clip_model")) else 1), key
    assert [pattern for pattern, _ in BLOCK_NAMES] == [pattern for pattern, _ in OLDER_BLOCK_NAMES]
