"""Released checkpoints as files: what training wrote around the tensors must not change what `co2s convert` makes.

The weights and outputs are those of tests/test_parity_co2s.py and tests/test_parity_family.py (`CO2S_GOLDEN`,
`FAMILY_GOLDEN`). Where a directory holds all weights, the command itself compares the outputs of the released code.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from co2s_hf import Co2SForSemanticSegmentation, Dinov2DPTForSemanticSegmentation
from co2s_hf.__main__ import main
from co2s_hf.convert.co2s import convert_official
from tests import released_co2s, released_family
from tests.released_co2s import CONFIG, completed, official_names, recorded_case
from tests.released_family import student_of

LOGITS, FAMILY_LOGITS = "5e-4", "1e-3"  # the family's at float32
CASES = ("train", "nonsq", "odd")


def optimizer_state():
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    return optimizer.state_dict()


def save_training(path, **parts):
    """What a released training writes: tensors of a model in distributed training, optimizer, epoch, best score."""
    prefixed = {name: {f"module.{key}": v for key, v in weights.items()} for name, weights in parts.items()}
    torch.save({**prefixed, "optimizer": optimizer_state(), "epoch": 7, "previous_best": np.float64(71.5)}, path)


def assert_same(model, expected):
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and len(ours) > 100
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name].to(ours[name].dtype))] == []


@pytest.fixture
def co2s_reference(request, tmp_path):
    """Options that compare with recorded outputs; none where the directory lacks weights or outputs."""
    golden = released_co2s.Golden(request.node.name)
    complete = all(
        official_names(student) <= set(released_co2s.tensors(f"{student}_state_dict")) for student in ("clip", "dinov3")
    )
    if not complete:
        return []
    recorded = {}
    for student in ("clip", "dinov3"):
        for case in CASES:
            image, logits = recorded_case(golden, student, case, "logits")
            recorded |= {f"{student}.{case}.pixel_values": image, f"{student}.{case}.{student}_logits": logits}
    save_file({name: value.contiguous() for name, value in recorded.items()}, tmp_path / "reference.safetensors")
    return ["--reference", str(tmp_path / "reference.safetensors"), "--tolerance", LOGITS]


def test_co2s(tmp_path, capsys, co2s_reference):
    weights = {student: completed(student) for student in ("clip", "dinov3")}
    sizes = {f"{s}_logits_size": CONFIG[s]["head_image_size"] for s in weights}
    heads = {f"{s}_num_attention_heads": CONFIG[s]["num_heads"] for s in weights}
    options = [word for name, value in (sizes | heads).items() for word in (f"--{name}", str(value))]
    for student, tensors in weights.items():
        save_training(tmp_path / f"{student}.pth", model=tensors)
        options += [f"--{student}", str(tmp_path / f"{student}.pth")]
    assert main(["convert", "co2s", *options, *co2s_reference, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "clip.pth: its 'model'; left in the file: optimizer, epoch, previous_best" in printed
    assert f"{len(weights['clip'])} tensors: {len(weights['clip'])} used, 0 dropped" in printed
    for case in CASES if co2s_reference else ():
        assert f"clip.{case}.clip_logits " in printed and f"dinov3.{case}.dinov3_logits " in printed
    model = Co2SForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert_same(model, convert_official(weights["clip"], weights["dinov3"], **sizes, **heads))


@pytest.mark.parametrize(
    ("kind", "weights_of", "outputs_of", "student_key", "layers_key"),
    [
        ("rs-mtdf", "train_rs_mtdf", "rs_mtdf_forward", "student", "student_layers"),
        ("semiearth", "train_semiearth", "dpt_model", "dino", "layer_indices"),
    ],
)
def test_family(tmp_path, capsys, kind, weights_of, outputs_of, student_key, layers_key):
    recorded, settings = released_family.tensors(weights_of), released_family.settings(outputs_of)
    if not recorded or not settings:
        pytest.skip(f"{released_family.DIRECTORY} has no {weights_of}.safetensors or no {outputs_of}.json")
    weights = {n.removeprefix("init."): v.float() for n, v in recorded.items() if n.startswith("init.")}
    average = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    save_training(tmp_path / "file.pth", model=weights, model_ema=average)
    outputs = released_family.tensors(outputs_of)
    named = (("pixel_values", "in.image_0"), ("logits", "out.logits_0"))
    save_file({ours: outputs[theirs].float() for ours, theirs in named}, tmp_path / "reference.safetensors")

    layers = [str(layer) for layer in settings[layers_key]]
    heads = str(settings[student_key]["heads"])
    command = ["convert", kind, str(tmp_path / "file.pth"), "--num_attention_heads", heads, "--feature_layers", *layers]
    reference = ["--reference", str(tmp_path / "reference.safetensors"), "--tolerance", FAMILY_LOGITS]
    assert main([*command, *reference, "--output", str(tmp_path / "student")]) == 0
    assert "Taken is the student" in (printed := capsys.readouterr().out) and "difference: logits " in printed
    assert main([*command, "--weights", "ema", "--output", str(tmp_path / "average")]) == 0
    assert "Taken is the moving average" in capsys.readouterr().out
    for folder, expected in (("student", weights), ("average", average)):
        model = Dinov2DPTForSemanticSegmentation.from_pretrained(tmp_path / folder)
        assert_same(model, student_of(expected, settings[student_key], settings[layers_key]))
