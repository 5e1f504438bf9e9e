"""`co2s convert`: files to folders that load, and each bad input in one sentence with nothing written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, CLIPModel

from co2s_hf.__main__ import main
from co2s_hf.class_texts_co2s import has_text_tower
from co2s_hf.configuration_co2s import read_clip_config
from co2s_hf.convert.co2s import DINOV3_DROPPED, convert_clip_tensors, convert_dinov3_tensors, read_config
from co2s_hf.convert.proof import prove, trace
from co2s_hf.modeling_co2s import Co2SForSemanticSegmentation
from co2s_hf.pretrained_backbones import read_dino_config
from tests.convert import test_clip, test_dino
from tests.convert.test_co2s import CLASSES, released_clip, released_dinov3
from tests.convert.test_dinov2_dpt import released_backbone, released_head, released_translators


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One released file of each kind. Read only."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    plain = released_backbone() | released_head()
    contents = {
        "clip.pth": {"model": {f"module.{name}": v for name, v in released_clip().items()}, "epoch": 1},
        "dinov3.pth": {"model": released_dinov3(), "optimizer": {}},
        "semiearth.pth": {"model": plain, "model_ema": plain},
        "rs_mtdf.pth": {"model": plain | released_translators()},
        "open_clip.pt": test_clip.open_clip().state_dict(),
        "dino.pth": test_dino.released(test_dino.randomised(test_dino.MODELS["dinov3"])),
    }
    for name, content in contents.items():
        torch.save(content, folder / name)
    return folder


def convert(files, output, kind, *words):
    paths = [str(files / word) if word.endswith((".pth", ".pt", ".safetensors")) else word for word in words]
    return main(["convert", kind, *paths, "--output", str(output)])


CO2S = ("--clip", "clip.pth", "--dinov3", "dinov3.pth")
OPEN_CLIP = ("open_clip.pt", "--vision_num_attention_heads", "2", "--text_num_attention_heads", "2")


def test_co2s_gives_a_complete_folder(files, tmp_path, capsys):
    out = tmp_path / "model"
    assert convert(files, out, "co2s", *CO2S, "--classes", "sea", "road", "tree", "roof") == 0
    printed = capsys.readouterr().out
    assert "clip.pth: its 'model'; left in the file: epoch" in printed and f"Wrote {out}." in printed
    assert "still carries its pretraining" in printed and "grid of 2 x 2 patches (32 px)" in printed
    assert "each bit the same" in printed and "was not compared" in printed
    model = AutoModelForSemanticSegmentation.from_pretrained(out)
    assert model.config.id2label == {0: "sea", 1: "road", 2: "tree", 3: "roof"}
    assert AutoImageProcessor.from_pretrained(out).image_mean == list(model.config.image_mean)
    assert {"modeling_co2s.py", "guidance_head_co2s.py", "README.md"} < {path.name for path in out.iterdir()}
    card = (out / "README.md").read_text()
    assert "license_name: dinov3-license" in card and "each bit the same" in card and str(files) not in card
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_says_when_the_pretraining_is_gone(files, tmp_path, capsys):
    dinov3 = torch.load(files / "dinov3.pth")["model"]
    gone = {name: torch.full_like(v, 1e-5) if name.endswith("gamma") else v for name, v in dinov3.items()}
    torch.save(gone, tmp_path / "gone.pth")
    words = ("--clip", "clip.pth", "--dinov3", str(tmp_path / "gone.pth"))
    assert convert(files, tmp_path / "out", "co2s", *words) == 0
    assert "does NOT carry its pretraining: every value of its LayerScale is exactly 1e-5" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "file"), [("rs-mtdf", "rs_mtdf.pth"), ("semiearth", "semiearth.pth")])
def test_the_family(files, tmp_path, capsys, kind, file):
    assert convert(files, tmp_path / "out", kind, file, "--weights", "model") == 0
    printed = capsys.readouterr().out
    assert ("a frozen teacher" in printed) == (kind == "rs-mtdf") and "has nothing to add there" in printed
    assert ("--weights ema" in printed) == (kind == "semiearth")
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert (model.config.translators is None) == (kind == "semiearth")
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


def test_backbones_are_usable_in_training(files, tmp_path, capsys):
    assert convert(files, tmp_path / "clip", "clip", *OPEN_CLIP) == 0
    assert "Activation: gelu, as in files of open_clip" in capsys.readouterr().out
    assert convert(files, tmp_path / "dino", "dino", "dino.pth") == 0
    assert "dinov3_vit of width 32, 3 blocks, 2 heads and 3 registers" in capsys.readouterr().out
    assert read_clip_config(tmp_path / "clip").hidden_act == "gelu" and has_text_tower(tmp_path / "clip")
    assert read_dino_config(tmp_path / "dino").num_register_tokens == 3
    names = ["sea", "road"]
    model = Co2SForSemanticSegmentation.from_backbones(
        tmp_path / "clip",
        tmp_path / "dino",
        names,
        text_embeddings=torch.ones(2, 12),
        dinov3_skip_layers=[0, 1],
        clip_skip_layers=[0, 1],
    )
    expected = CLIPModel.from_pretrained(tmp_path / "clip").vision_model.post_layernorm.weight
    assert torch.equal(model.clip.backbone.vision_model.post_layernorm.weight, expected)


def test_the_activation_can_be_said(files, tmp_path, capsys):
    assert convert(files, tmp_path / "clip", "clip", *OPEN_CLIP, "--activation", "quick_gelu") == 0
    assert "Activation: quick_gelu, as you said" in capsys.readouterr().out
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == config["text_config"]["hidden_act"] == "quick_gelu"


BAD = {
    "exchanged students": (
        ("co2s", "--clip", "dinov3.pth", "--dinov3", "clip.pth"),
        "dinov3.pth holds the DINOv3 student of a Co2S, expected the CLIP student of a Co2S: exchange --clip and",
    ),
    "the same student twice": (
        ("co2s", "--clip", "clip.pth", "--dinov3", "clip.pth"),
        "clip.pth holds the CLIP student of a Co2S, expected the DINOv3 student",
    ),
    "another system": (("co2s", "--clip", "rs_mtdf.pth", "--dinov3", "dinov3.pth"), "holds an RS-MTDF, expected"),
    "no translators": (("rs-mtdf", "semiearth.pth"), "no translators (FixMatch, UniMatch V2, SemiEarth), expected an"),
    "translators": (("semiearth", "rs_mtdf.pth"), "use `co2s convert rs-mtdf`"),
    "a backbone": (("semiearth", "dino.pth"), "dino.pth holds a DINOv3, expected a DINOv2 with DPT"),
    "a student as backbone": (("dino", "dinov3.pth"), "use `co2s convert co2s --dinov3`"),
    "DINO as CLIP": (("clip", "dino.pth"), "dino.pth holds a DINOv3, expected a CLIP: use `co2s convert dino`"),
    "no average": (("rs-mtdf", "rs_mtdf.pth", "--weights", "ema"), "rs_mtdf.pth holds model, expected tensors by name"),
    "names": (
        ("co2s", *CO2S, "--classes", "sea", "road"),
        f"class_names has 2 entries but the checkpoint has {CLASSES}",
    ),
    "heads": (("co2s", *CO2S, "--clip_num_attention_heads", "5"), "clip_num_attention_heads is 5, which does not"),
    "other classes": (("co2s", "--clip", "clip.pth", "--dinov3", "more.pth"), "the DINOv3 student has 5: take both of"),
    "missing tensor": (("semiearth", "missing.pth"), "missing.pth: the checkpoint lacks 1 tensors of the model"),
    "missing block": (("co2s", "--clip", "blockless.pth", "--dinov3", "dinov3.pth"), "lacks 16 tensors of the model"),
    "other shape": (("semiearth", "shape.pth"), "is (3,) in the checkpoint, expected (64,)"),
    "foreign tensor": (("dino", "foreign.pth"), "tensor 'backbone.extra' of shape (2,) has no place"),
    "Hub format": (("clip", "hub.safetensors"), "is in transformers format already, expected a CLIP: name its folder"),
    "unknown": (("clip", "unknown.pth"), "no checkpoint that is known here, expected a CLIP: its first tensor is 'w'"),
    "truncated": (("dino", "truncated.pth"), "truncated.pth is no readable checkpoint, expected a whole"),
    "no checkpoint": (("dino", "text.pth"), "text.pth is no readable checkpoint"),
    "code": (("dino", "code.pth"), "code.pth holds more than data: opening it would run print"),
    "absent": (("dino", "absent.pth"), "No such file or directory"),
    "no reference": (("dino", "dino.pth", "--reference", "text.pth"), "text.pth is no readable .safetensors file"),
    "reference": (
        ("dino", "dino.pth", "--reference", "reference.safetensors"),
        "last_hidden_state differs from the reference",
    ),
}


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.fixture(scope="module")
def bad_files(files):
    """The broken ones next to the good ones."""
    content = {path.stem: torch.load(path, weights_only=True) for path in files.iterdir()}
    clip, dinov3 = content["clip"]["model"], content["dinov3"]["model"]
    plain, dino = content["semiearth"]["model"], content["dino"]
    bad = {
        "more.pth": dinov3 | {"text_provider.emb.weight": torch.zeros(5, 64)},
        "missing.pth": {name: v for name, v in plain.items() if name != "backbone.blocks.1.ls2.gamma"},
        "blockless.pth": {name: v for name, v in clip.items() if "backbone.layers.1." not in name},
        "shape.pth": plain | {"backbone.norm.weight": torch.zeros(3)},
        "foreign.pth": dino | {"extra": torch.zeros(2)},
        "unknown.pth": {"w": torch.zeros(2)},
        "code.pth": {"model": dino, "hook": Harmful()},
    }
    for name, tensors in bad.items():
        torch.save(tensors, files / name)
    save_file({"vision_model.embeddings.class_embedding": torch.zeros(2)}, files / "hub.safetensors")
    reference = {"pixel_values": torch.zeros(1, 3, 16, 16), "last_hidden_state": torch.zeros(1, 20, 32)}
    save_file(reference, files / "reference.safetensors")
    (files / "truncated.pth").write_bytes((files / "dino.pth").read_bytes()[:-500])
    (files / "text.pth").write_text("not a checkpoint at all")
    return files


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(bad_files, tmp_path, capsys, case):
    (kind, *words), message = BAD[case]
    assert convert(bad_files, tmp_path / "out", kind, *words) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.err.startswith("co2s: error: ")
    assert printed.out == "" and list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_force(files, tmp_path, capsys):
    assert convert(files, tmp_path / "out", "dino", "dino.pth") == 0
    before = (tmp_path / "out" / "config.json").read_text()
    (tmp_path / "out" / "config.json").write_text(before + " ")
    assert convert(files, tmp_path / "out", "dino", "dino.pth") == 2
    assert "exists already: choose another --output, or replace it with --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "config.json").read_text() == before + " "
    assert convert(files, tmp_path / "out", "dino", "dino.pth", "--force") == 0
    assert (tmp_path / "out" / "config.json").read_text() == before


# ---------------------------------------------------------------------------------------------------------------------
# The released shapes
# ---------------------------------------------------------------------------------------------------------------------

OFFICIAL = json.loads((Path(__file__).parents[1] / "goldens" / "official_shapes.json").read_text())


def official_weights(student):
    """Zeros of the released shapes, each a single number in memory; bias masks are what they must be."""
    weights = {name: torch.zeros(()).expand(shape) for name, shape in OFFICIAL[student].items()}
    for name in weights:
        if name.endswith("bias_mask"):
            weights[name] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(768)
    return weights


def test_every_official_tensor_has_its_place():
    clip, dinov3 = official_weights("clip"), official_weights("dinov3")
    config = read_config(clip, dinov3)
    assert config.to_dict()["clip_config"]["num_attention_heads"] == config.dinov3_config.num_attention_heads == 12
    assert (config.clip_config.image_size, config.num_labels, config.head_channels) == (224, 6, 128)
    with torch.device("meta"):
        model = Co2SForSemanticSegmentation(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    tensors = convert_clip_tensors(clip) | convert_dinov3_tensors(dinov3)
    assert {name: value.shape for name, value in tensors.items()} == shapes
    uses = [
        trace("clip", clip, convert_clip_tensors, ()),
        trace("dinov3", dinov3, convert_dinov3_tensors, DINOV3_DROPPED),
    ]
    assert (len(uses[0].used), len(uses[0].dropped)) == (221, 0)
    assert (len(uses[1].used), len(set(uses[1].dropped) - set(uses[1].used))) == (244, 13)
    # 88.41 and 87.92 million released parameters, less DINOv3's 12 x 768 masked biases of keys
    assert prove(uses, model).num_numbers == sum(value.numel() for value in model.parameters()) + 6 * 512


@pytest.mark.slow
def test_official_sizes_as_files(tmp_path, capsys):
    torch.manual_seed(0)
    for student in ("clip", "dinov3"):
        weights = official_weights(student)
        filled = {n: 0.02 * torch.randn(v.shape) if "mask" not in n else v for n, v in weights.items()}
        if student == "dinov3":
            filled["backbone.rope_embed.periods"] = (100 ** (torch.arange(16) / 16)).bfloat16()
        torch.save({"model": {f"module.{n}": v for n, v in filled.items()}, "epoch": 1}, tmp_path / f"{student}.pth")
    assert convert(tmp_path, tmp_path / "out", "co2s", *CO2S) == 0
    assert "grid of 14 x 14 patches (224 px), that of OpenAI's CLIP, kept because" in capsys.readouterr().out
    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 256, 256)).logits
    assert logits.shape == (1, 6, 256, 256) and logits.isfinite().all()
