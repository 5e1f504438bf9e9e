"""DINO files: a tiny model of transformers under Meta's names comes back and computes the same."""

import re

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from co2s_hf.convert.dino import DROPPED, convert_official, convert_tensors, is_dinov3
from co2s_hf.convert.proof import prove, trace

WIDTH, HEADS, PATCH = 32, 2, 4
SIZE = dict(hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=HEADS, patch_size=PATCH)
PERIODS = 100 ** (torch.arange(WIDTH // HEADS // 4) / (WIDTH // HEADS // 4))

# transformers' name -> Meta's; what Meta fuses is put together afterwards.
NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "REGISTERS"),
    (r"embeddings\.patch_embeddings(?:\.projection)?\.(\w+)", r"patch_embed.proj.\1"),
    (r"(?:layer)?norm\.(\w+)", r"norm.\1"),
    (r"(?:encoder|model)\.layer\.(\d+)\.norm([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"(?:encoder|model)\.layer\.(\d+)\.attention\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"(?:encoder|model)\.layer\.(\d+)\.attention\.o_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"(?:encoder|model)\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"(?:encoder|model)\.layer\.(\d+)\.mlp\.(\w+)\.(\w+)", r"blocks.\1.mlp.\2.\3"),
)


def released(model):
    """The weights of a DINO of transformers, named, shaped and fused as Meta does."""
    is_v3 = model.config.model_type == "dinov3_vit"
    gated = is_v3 and model.config.use_gated_mlp
    parts = {"fc1": "fc1", "fc2": "fc2", "up_proj": "w2" if gated else "fc1", "gate_proj": "w1"}
    parts["down_proj"] = "w3" if gated else "fc2"
    weights = {}
    for name, value in model.state_dict().items():
        match, theirs = next((m, t) for pattern, t in NAMES if (m := re.fullmatch(pattern, name)))
        theirs = match.expand(theirs).replace("REGISTERS", "storage_tokens" if is_v3 else "register_tokens")
        if is_v3 or "gate_proj.weight" not in str(model.state_dict().keys()):
            theirs = re.sub(r"(?<=mlp\.)\w+", lambda part: parts[part[0]], theirs)
        weights[theirs] = value.clone()
    weights["mask_token"] = weights["mask_token"].view(1, WIDTH)
    for block in {re.match(r"blocks\.\d+", name)[0] for name in weights if name.startswith("blocks")}:
        fuse(weights, block)
    return weights | ({"rope_embed.periods": PERIODS.bfloat16()} if is_v3 else {})


def fuse(weights, block):
    for kind in ("weight", "bias"):
        parts = [weights.pop(f"{block}.attn.{part}.{kind}", None) for part in "qkv"]
        if kind == "bias" and parts[0] is not None and parts[1] is None:
            parts[1] = torch.randn(WIDTH)  # Meta's keys have a bias that a mask takes away
            weights[f"{block}.attn.qkv.bias_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(WIDTH)
        if parts[0] is not None:
            weights[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
        if f"{block}.mlp.gate_proj.{kind}" in weights:  # DINOv2's gate
            first = [weights.pop(f"{block}.mlp.{part}_proj.{kind}") for part in ("gate", "up")]
            weights[f"{block}.mlp.w12.{kind}"] = torch.cat(first)
            weights[f"{block}.mlp.w3.{kind}"] = weights.pop(f"{block}.mlp.down_proj.{kind}")


def dinov3(**fields):
    size = dict(intermediate_size=48, num_register_tokens=3, image_size=16)
    return DINOv3ViTModel(DINOv3ViTConfig(**SIZE, **size, **fields))


def dinov2(**fields):
    return Dinov2Model(Dinov2Config(**SIZE, mlp_ratio=2, image_size=16, **fields))


MODELS = {
    "dinov3": dinov3,
    "dinov3 gated": lambda: dinov3(use_gated_mlp=True, hidden_act="silu"),
    "dinov3 7B": lambda: dinov3(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
    "dinov2": dinov2,
    "dinov2 giant": lambda: Dinov2Model(Dinov2Config(**SIZE, mlp_ratio=4, image_size=16, use_swiglu_ffn=True)),
    "dinov2 registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZE, mlp_ratio=2, image_size=16, num_register_tokens=2)
    ),
}


def randomised(build):
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():  # registers, masks and scales would be zeros and ones
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_comes_back_and_computes_the_same(kind):
    theirs = randomised(MODELS[kind])
    weights, image = released(theirs), torch.randn(2, 3, 16, 24)
    ours = convert_official(weights, num_attention_heads=HEADS)
    assert type(ours) is type(theirs) and is_dinov3(weights) == kind.startswith("dinov3") and not ours.training
    with torch.no_grad():
        assert torch.equal(ours(image).last_hidden_state, theirs(image).last_hidden_state)
    use = trace("file", weights, convert_tensors, DROPPED)
    proof = prove([use], ours)
    assert proof.num_tensors == len(theirs.state_dict())
    assert {name.split(".")[-1] for name in use.dropped} <= {"periods", "bias_mask", "bias"}


def test_training_checkpoints(tmp_path):
    """Meta's trainings put `backbone.` before the names, keep heads beside, and count blocks within chunks."""
    weights = released(randomised(MODELS["dinov2"]))
    chunked = {re.sub(r"^blocks\.(\d+)", r"blocks.0.\1", name): value for name, value in weights.items()}
    training = {f"backbone.{name}": value for name, value in chunked.items()} | {"dino_head.mlp.0.bias": torch.ones(2)}
    ours, expected = (convert_official(w, num_attention_heads=HEADS).state_dict() for w in (training, weights))
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)
    assert trace("file", training, convert_tensors, DROPPED).dropped == {
        "dino_head.mlp.0.bias": "a head of pretraining"
    }


def test_periods_tell_the_number_of_heads():
    weights = released(randomised(MODELS["dinov3"]))
    config = convert_official(weights).config
    assert config.num_attention_heads == HEADS
    assert (config.num_register_tokens, config.layer_norm_eps, config.key_bias) == (3, 1e-5, False)
    with pytest.raises(ValueError, match="rope_embed.periods has 4 numbers from 1 to 31.6, expected 2 from 1 to 10"):
        convert_official(weights, num_attention_heads=4)
    with pytest.raises(ValueError, match="positions that are not known here"):
        convert_official(weights | {"rope_embed.periods": PERIODS * 2})


def test_keys_without_a_mask_keep_their_bias():
    weights = released(randomised(MODELS["dinov3"]))
    unmasked = {name: value for name, value in weights.items() if not name.endswith("bias_mask")}
    model = convert_official(unmasked)
    bias = unmasked["blocks.1.attn.qkv.bias"][WIDTH : 2 * WIDTH]
    assert torch.equal(model.state_dict()["model.layer.1.attention.k_proj.bias"], bias)


def test_refuses_what_does_not_fit():
    weights = released(randomised(MODELS["dinov3"]))
    with pytest.raises(ValueError, match="qkv.bias_mask is expected to be 1 for queries and values and 0 for keys"):
        convert_official(weights | {"blocks.0.attn.qkv.bias_mask": torch.full((3 * WIDTH,), torch.nan)})
    with pytest.raises(ValueError, match="tensor 'backbone.extra' .* has no place"):
        convert_official(weights | {"extra": torch.zeros(2)})
    del weights["blocks.1.ls2.gamma"]
    with pytest.raises(ValueError, match="lacks 1 tensors of the model"):
        convert_official(weights)
