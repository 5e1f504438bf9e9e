"""The converter's bookkeeping; that converted weights compute the released numbers is tests/test_parity_co2s.py."""

import re

import pytest
import torch

from co2s_hf.configuration_co2s import TINY_HEAD
from co2s_hf.convert.co2s import (
    CLIP_NAMES,
    DINOV3_NAMES,
    HEAD_NAMES,
    convert_head,
    convert_official,
    discard_dinov3_prior,
    pretraining_overwritten,
)

WIDTH, DEPTH, PATCH, GRID, JOINT, CLASSES, REGISTERS = 64, 3, 16, 2, 8, 4, 2


def linear(name, rows, columns):
    return {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows)}


def norm(name, width):
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


def conv(name, rows, columns, side, bias=True):
    weights = {f"{name}.weight": torch.randn(rows, columns, side, side)}
    return weights | ({f"{name}.bias": torch.randn(rows)} if bias else {})


def fused(name, rows, columns):
    return {f"{name}_weight": torch.randn(rows, columns), f"{name}_bias": torch.randn(rows)}


def released_head(guidance_size):
    """A released decode head with the widths of TINY_HEAD: 32 + 32 channels, then 32 and 16, skips 16 and 8."""
    weights = conv("conv1", 32, 1, 7) | linear("text_proj.0", 32, guidance_size)
    for index, side in enumerate((1, 3, 3, 3)):
        weights |= conv(f"aspp.aspp_convs.{index}.0", 32, 32, side, bias=False)
        weights |= norm(f"aspp.aspp_convs.{index}.1", 32)
    weights |= conv("aspp.aspp_convs.4.gap.1", 32, 32, 1, bias=False) | norm("aspp.aspp_convs.4.gap.2", 32)
    weights |= conv("aspp.project.0", 32, 160, 1, bias=False) | norm("aspp.project.1", 32)
    for index in range(2):
        layer = f"layers.{index}.transformer"
        weights |= norm(f"{layer}.ln1", 64) | norm(f"{layer}.ln2", 64)
        weights |= fused(f"{layer}.attn.attn.in_proj", 192, 64) | linear(f"{layer}.attn.attn.out_proj", 64, 64)
        weights |= linear(f"{layer}.ffn.layers.0.0", 128, 64) | linear(f"{layer}.ffn.layers.1", 64, 128)
    weights |= conv("skip_proj.0.0", 16, WIDTH, 3) | conv("skip_proj.1.0", 8, WIDTH, 3)
    for index, inside, outside, upsampled in ((1, 32, 32, 16), (2, 32, 16, 24)):
        weights |= {f"up{index}.up.weight": torch.randn(inside, upsampled, 2, 2)}
        weights |= {f"up{index}.up.bias": torch.randn(upsampled)}
        weights |= conv(f"up{index}.conv.0", outside, inside, 3, bias=False) | norm(f"up{index}.conv.1", outside)
        weights |= conv(f"up{index}.conv.3", outside, outside, 3, bias=False) | norm(f"up{index}.conv.4", outside)
    return weights | conv("head", 1, 16, 3)


def released_clip():
    weights = {
        "_cached_text": torch.randn(CLASSES, JOINT),
        "backbone.cls_token": torch.randn(1, 1, WIDTH),
        "backbone.pos_embed": torch.randn(1, GRID**2 + 1, WIDTH),
        "backbone.proj.weight": torch.randn(JOINT, WIDTH, 1, 1),
    }
    weights |= conv("backbone.patch_embed.projection", WIDTH, 3, PATCH, bias=False)
    weights |= norm("backbone.ln0", WIDTH) | norm("backbone.ln1", WIDTH)
    for index in range(DEPTH):
        block = f"backbone.layers.{index}"
        weights |= norm(f"{block}.ln1", WIDTH) | norm(f"{block}.ln2", WIDTH)
        weights |= fused(f"{block}.attn.attn.in_proj", 3 * WIDTH, WIDTH)
        weights |= linear(f"{block}.attn.attn.out_proj", WIDTH, WIDTH)
        weights |= linear(f"{block}.ffn.layers.0.0", 2 * WIDTH, WIDTH)
        weights |= linear(f"{block}.ffn.layers.1", WIDTH, 2 * WIDTH)
    return weights | {f"decode_head.{name}": value for name, value in released_head(JOINT).items()}


def released_dinov3():
    weights = {
        "text_provider.emb.weight": torch.randn(CLASSES, WIDTH),
        "backbone.cls_token": torch.randn(1, 1, WIDTH),
        "backbone.storage_tokens": torch.randn(1, REGISTERS, WIDTH),
        "backbone.mask_token": torch.randn(1, WIDTH),
        "backbone.rope_embed.periods": torch.randn(WIDTH // 4, dtype=torch.bfloat16),
    }
    weights |= conv("backbone.patch_embed.proj", WIDTH, 3, PATCH) | norm("backbone.norm", WIDTH)
    mask = torch.ones(3, WIDTH)
    mask[1] = 0
    for index in range(DEPTH):
        block = f"backbone.blocks.{index}"
        weights |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        weights |= linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH) | {f"{block}.attn.qkv.bias_mask": mask.flatten()}
        weights |= linear(f"{block}.attn.proj", WIDTH, WIDTH)
        weights |= {f"{block}.ls{i}.gamma": torch.randn(WIDTH) for i in (1, 2)}
        weights |= linear(f"{block}.mlp.fc1", 2 * WIDTH, WIDTH) | linear(f"{block}.mlp.fc2", WIDTH, 2 * WIDTH)
    return weights | {f"decode_head.{name}": value for name, value in released_head(WIDTH).items()}


@pytest.fixture(scope="module")
def released():
    """State dicts of both students. Shared: copy before changing."""
    torch.manual_seed(0)
    return released_clip(), released_dinov3()


@pytest.fixture
def model(released):
    return convert_official(*released)


def without(state_dict, name):
    return {key: value for key, value in state_dict.items() if key != name}


def test_reads_the_configuration_from_the_tensors(model):
    clip, dinov3 = model.config.clip_config, model.config.dinov3_config
    assert (clip.hidden_size, clip.intermediate_size, clip.num_hidden_layers) == (WIDTH, 2 * WIDTH, DEPTH)
    assert (clip.num_attention_heads, clip.patch_size, clip.image_size, clip.projection_dim) == (1, PATCH, 32, JOINT)
    assert (clip.hidden_act, clip.layer_norm_eps, dinov3.layer_norm_eps) == ("gelu", 1e-6, 1e-6)
    assert (dinov3.hidden_size, dinov3.num_register_tokens, dinov3.pos_embed_rescale) == (WIDTH, REGISTERS, None)
    assert {name: tuple(getattr(model.config, name)) for name in TINY_HEAD if "up" in name or "skip" in name} == {
        "head_up_channels": (32, 16),
        "head_skip_channels": (16, 8),
    }
    assert (model.config.clip_skip_value_path, model.config.dinov3_pads_input) == (True, False)
    assert (model.config.clip_logits_size, model.config.dinov3_logits_size) == (224, 256)
    assert model.config.id2label == {index: f"LABEL_{index}" for index in range(CLASSES)}
    assert not model.training


def test_every_number_arrives_once(released, model):
    """Nothing is lost or doubled: sums over all tensors agree, but for what is dropped on purpose."""
    converted = model.state_dict()
    for student, weights in zip(("clip", "dinov3"), released, strict=True):
        kept = {key: value for key, value in weights.items() if not re.search("bias_mask|periods", key)}
        ours = [value for name, value in converted.items() if name.startswith(f"{student}.")]
        masked = [value[WIDTH : 2 * WIDTH] for key, value in kept.items() if key.endswith("attn.qkv.bias")]
        assert sum(v.numel() for v in ours) == sum(v.numel() for v in kept.values()) - sum(v.numel() for v in masked)
        expected = torch.cat([value.flatten() for value in kept.values()]).sort().values
        dropped = torch.cat([value.flatten() for value in masked] or [torch.empty(0)])
        expected = expected[~torch.isin(expected, dropped)]
        assert torch.equal(torch.cat([value.flatten() for value in ours]).sort().values, expected)


def test_fused_projections_are_cut_in_the_order_query_key_value(released, model):
    clip, dinov3 = released
    attention = model.clip.backbone.vision_model.encoder.layers[1].self_attn
    rows = clip["backbone.layers.1.attn.attn.in_proj_weight"].split(WIDTH)
    for part, expected in zip(("q_proj", "k_proj", "v_proj"), rows, strict=True):
        assert torch.equal(attention.get_submodule(part).weight, expected)
    attention = model.dinov3.backbone.model.layer[2].attention
    bias = dinov3["backbone.blocks.2.attn.qkv.bias"]
    assert torch.equal(attention.q_proj.bias, bias[:WIDTH])
    assert attention.k_proj.bias is None
    assert torch.equal(attention.v_proj.bias, bias[2 * WIDTH :])
    head = model.clip.head.layers[0].attention.qkv_proj.weight
    assert torch.equal(head, clip["decode_head.layers.0.transformer.attn.attn.in_proj_weight"])


def test_skips_keep_their_order(released, model):
    """Released list index 0 belongs to the middle feature map, 1 to the early one."""
    clip, _ = released
    assert torch.equal(model.clip.head.skip_proj1.weight, clip["decode_head.skip_proj.0.0.weight"])
    assert torch.equal(model.clip.head.skip_proj2.weight, clip["decode_head.skip_proj.1.0.weight"])


def test_prefix_of_distributed_training_is_dropped(released, model):
    prefixed = [{f"module.{key}": value for key, value in weights.items()} for weights in released]
    again = convert_official(*prefixed)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_runs_and_takes_names_and_overrides(released):
    names = ["water", "road", "tree", "roof"]
    model = convert_official(*released, class_names=names, clip_logits_size=32, dinov3_logits_size=None, window_px=64)
    assert model.config.label2id == {name: index for index, name in enumerate(names)}
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 70)).logits.shape == (1, CLASSES, 64, 70)


def test_survives_saving(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["backbone.layers.1.ln2.bias", "decode_head.up2.up.weight", "backbone.proj.weight"])
def test_refuses_a_missing_tensor(released, name):
    clip, dinov3 = released
    with pytest.raises(ValueError, match="the checkpoint (lacks 1 tensors|has no tensor)"):
        convert_official(without(clip, name), dinov3)


def test_refuses_a_foreign_tensor(released):
    clip, dinov3 = released
    with pytest.raises(ValueError, match=r"tensor 'backbone.layers.0.extra' of shape \(2,\) has no place"):
        convert_official(clip | {"backbone.layers.0.extra": torch.zeros(2)}, dinov3)
    with pytest.raises(ValueError, match="tensor 'nothing' .* has no place"):
        convert_head({"nothing": torch.zeros(1)})


def test_refuses_swapped_students(released):
    clip, dinov3 = released
    with pytest.raises(ValueError, match="has no tensor '_cached_text'"):
        convert_official(dinov3, clip)


def test_refuses_different_classes(released):
    clip, dinov3 = released
    more = dinov3 | {"text_provider.emb.weight": torch.zeros(CLASSES + 1, WIDTH)}
    with pytest.raises(
        ValueError, match=f"CLIP student has {CLASSES} classes but the DINOv3 student has {CLASSES + 1}"
    ):
        convert_official(clip, more)
    with pytest.raises(ValueError, match=f"class_names has 2 entries but the checkpoint has {CLASSES} classes"):
        convert_official(clip, dinov3, class_names=["a", "b"])


def test_refuses_masked_queries(released):
    clip, dinov3 = released
    name = "backbone.blocks.0.attn.qkv.bias_mask"
    with pytest.raises(
        ValueError, match=f"{re.escape(name)} is expected to be 1 for queries and values and 0 for keys"
    ):
        convert_official(clip, dinov3 | {name: torch.ones(3 * WIDTH)})


def test_refuses_a_grid_that_is_no_square(released):
    clip, dinov3 = released
    with pytest.raises(ValueError, match="has 6 patch positions, expected a square grid"):
        convert_official(clip | {"backbone.pos_embed": torch.zeros(1, 7, WIDTH)}, dinov3)


@pytest.mark.parametrize("student", ["clip", "dinov3"])
def test_number_of_heads(released, student):
    argument = f"{student}_num_attention_heads"
    model = convert_official(*released, **{argument: 4})
    assert getattr(model.config, f"{student}_config").num_attention_heads == 4
    with pytest.raises(ValueError, match=f"{argument} is 5, which does not divide the checkpoint's width {WIDTH}"):
        convert_official(*released, **{argument: 5})
    narrow = dict(released[0]), dict(released[1])
    name = {"clip": "backbone.patch_embed.projection.weight", "dinov3": "backbone.patch_embed.proj.weight"}[student]
    narrow[student == "dinov3"][name] = torch.zeros(48, 3, PATCH, PATCH)
    with pytest.raises(ValueError, match=f"width 48 is no multiple of 64: give `{argument}`"):
        convert_official(*narrow)


def test_patterns_do_not_overlap(released):
    for names, weights in zip((CLIP_NAMES, DINOV3_NAMES), released, strict=True):
        for key in weights:
            matches = [pattern for pattern, _ in names if re.fullmatch(pattern, key)]
            if key.startswith("decode_head."):
                part = key.removeprefix("decode_head.")
                matches += [pattern for pattern, _ in HEAD_NAMES if re.fullmatch(pattern, part)]
            assert len(matches) == (0 if re.search("bias_mask|periods", key) else 1), key


def test_discarded_prior_is_recognised(released, model):
    _, dinov3 = released
    assert not pretraining_overwritten(dinov3)
    scaled = {key: torch.full_like(v, 1e-5) if key.endswith("gamma") else v for key, v in dinov3.items()}
    assert pretraining_overwritten(scaled)
    assert pretraining_overwritten({f"module.{key}": value for key, value in scaled.items()})
    one = scaled | {"backbone.blocks.1.ls2.gamma": torch.full((WIDTH,), 2e-5)}
    assert not pretraining_overwritten(one)


def test_discarding_the_prior_blinds_dinov3_but_keeps_its_head(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    discard_dinov3_prior(model)
    for name, value in model.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == name.startswith("dinov3.backbone."), name
    for layer in model.dinov3.backbone.model.layer:
        assert (layer.layer_scale1.lambda1 == 1e-5).all() and (layer.layer_scale2.lambda1 == 1e-5).all()
    with torch.no_grad():
        early, middle, final = model.dinov3.features(torch.randn(1, 3, 64, 64))
    assert (early - final).abs().max() < 1e-3 and (middle - final).abs().max() < 1e-3
