"""CLIP files: a tiny model of open_clip computes the same before and after."""

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch.nn import functional as F

from co2s_hf.convert.clip import DROPPED, OPENAI_COUNTERS, convert_official, convert_tensors, is_openai
from co2s_hf.convert.proof import prove, trace

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TEXTS = torch.tensor([[48, 3, 4, 49, 0, 0, 0, 0], [48, 7, 49, 0, 0, 0, 0, 0]])  # 48 begins and 49 ends a text
HEADS = {"vision_num_attention_heads": 2, "text_num_attention_heads": 2}


def open_clip(kind=CLIP, quick_gelu=False):
    vision = CLIPVisionCfg(layers=2, width=48, patch_size=16, image_size=32, head_width=24)
    text = CLIPTextCfg(context_length=8, vocab_size=50, width=32, heads=2, layers=2)
    torch.manual_seed(0)
    model = kind(12, vision, text, quick_gelu=quick_gelu).eval()
    for parameter in model.parameters():  # open_clip's own leaves some at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def differences(theirs, ours):
    outputs = ours(input_ids=TEXTS, pixel_values=IMAGES)
    image, text = F.normalize(theirs.encode_image(IMAGES), dim=-1), F.normalize(theirs.encode_text(TEXTS), dim=-1)
    scaled = theirs.logit_scale.exp() * image @ text.T
    pairs = ((outputs.image_embeds, image), (outputs.text_embeds, text), (outputs.logits_per_image, scaled))
    return [(one - other).abs().max().item() for one, other in pairs]


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_both_towers_compute_the_same(kind, activation):
    theirs = open_clip(kind, quick_gelu=activation == "quick_gelu")
    ours = convert_official(theirs.state_dict(), activation=activation, **HEADS)
    assert max(differences(theirs, ours)) < 1e-5
    other = {"gelu": "quick_gelu", "quick_gelu": "gelu"}[activation]
    assert max(differences(theirs, convert_official(theirs.state_dict(), activation=other, **HEADS))) > 1e-3


def test_the_vision_tower_alone():
    theirs = open_clip()
    visual = {n: value for n, value in theirs.state_dict().items() if n.startswith("visual.") or n == "logit_scale"}
    ours = convert_official(visual, activation="gelu", vision_num_attention_heads=2)
    assert type(ours).__name__ == "CLIPVisionModelWithProjection" and not ours.training
    assert list(trace("file", visual, convert_tensors, DROPPED).dropped) == ["logit_scale"]
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES).image_embeds, theirs.encode_image(IMAGES), atol=1e-5, rtol=0)


def test_the_configuration_is_read_from_the_tensors():
    config = convert_official(open_clip().state_dict(), activation="gelu", **HEADS).config
    vision, text = config.vision_config, config.text_config
    assert (vision.image_size, vision.patch_size, vision.hidden_size, vision.intermediate_size) == (32, 16, 48, 192)
    assert (config.projection_dim, vision.projection_dim, text.projection_dim) == (12, 12, 12)
    assert (text.vocab_size, text.bos_token_id, text.eos_token_id, text.max_position_embeddings) == (50, 48, 49, 8)
    assert (vision.num_hidden_layers, text.num_hidden_layers, vision.layer_norm_eps) == (2, 2, 1e-5)


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_every_tensor_has_its_place(kind):
    released = open_clip(kind).state_dict() | {name: torch.tensor(1) for name in OPENAI_COUNTERS}
    released["transformer.resblocks.0.attn_mask"] = torch.zeros(8, 8)
    assert is_openai(released) and not is_openai(open_clip(kind).state_dict())
    use = trace("file", released, convert_tensors, DROPPED)
    assert set(use.dropped) == set(OPENAI_COUNTERS) | {"transformer.resblocks.0.attn_mask"}
    assert prove([use], convert_official(released, activation="gelu", **HEADS)).num_tensors == 78


def test_refuses_what_is_no_such_clip():
    released = dict(open_clip().state_dict())
    with pytest.raises(ValueError, match="width 48 is no multiple of 64: give `vision_num_attention_heads`"):
        convert_official(released, activation="gelu")
    with pytest.raises(ValueError, match=r"tensor 'visual.attnpool.c_proj.bias' of shape \(2,\) has no place"):
        convert_official(released | {"visual.attnpool.c_proj.bias": torch.zeros(2)}, activation="gelu", **HEADS)
    del released["visual.ln_pre.weight"]
    with pytest.raises(ValueError, match="lacks 1 tensors of the model, the first is 'vision_model.pre_layrnorm"):
        convert_official(released, activation="gelu", **HEADS)
    del released["visual.conv1.weight"]
    with pytest.raises(ValueError, match="no tensor 'visual.conv1.weight'"):
        convert_official(released, activation="gelu", **HEADS)
