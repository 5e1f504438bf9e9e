"""That the proof fails where a conversion does."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from co2s_hf.convert.proof import compare_outputs, compare_tensors, prove, trace

RELEASED = {"qkv": torch.zeros(6, 2), "norm": torch.zeros(4), "blocks.0.mask": torch.zeros(3)}
DROPS = ((r"blocks\.\d+\.mask", "folded"),)


def convert(tensors):
    q, k, v = tensors["qkv"].chunk(3)
    return {"q.weight": q, "k.weight": k, "v.weight": v.T.contiguous().T, "norm.weight": tensors["norm"].view(1, 4)}


def test_says_where_each_tensor_went():
    use = trace("file.pth", RELEASED, convert, DROPS)
    assert use.used == {"qkv": ("q.weight", "k.weight", "v.weight"), "norm": ("norm.weight",)}
    assert use.dropped == {"blocks.0.mask": "folded"}
    expected = "file.pth\n  3 tensors: 2 used, 1 dropped on purpose\n  dropped: 1 x blocks.#.mask: folded"
    assert use.to_text() == expected


def test_a_part_may_be_left_behind_for_a_reason():
    def without_keys(tensors):
        return {name: value for name, value in convert(tensors).items() if name != "k.weight"}

    with pytest.raises(ValueError, match="8 of 12 numbers of 'qkv' have a place"):
        trace("file.pth", RELEASED, without_keys, DROPS)
    use = trace("file.pth", RELEASED, without_keys, (*DROPS, ("qkv", "keys are masked")))
    assert use.dropped["qkv"] == "keys are masked" and use.used["qkv"] == ("q.weight", "v.weight")
    assert "3 tensors: 2 used, 1 dropped on purpose" in use.to_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"norm.weight": t["norm"]}, "0 of 12 numbers of 'qkv'"),
        (lambda t: convert(t) | {"again": t["norm"]}, "8 of 4 numbers of 'norm'"),
        (lambda t: convert(t) | {"norm.weight": torch.cat([t["norm"][:2], t["qkv"][:2, 0]])}, "mixes 'qkv' and 'norm'"),
    ],
)
def test_refuses_what_is_lost_doubled_or_mixed(change, message):
    with pytest.raises(ValueError, match=message):
        trace("file.pth", RELEASED, change, DROPS)


def test_every_tensor_of_the_model_is_filled():
    model, released = nn.Linear(2, 3), {"w": torch.zeros(3, 2), "b": torch.zeros(3)}
    proof = prove([trace("f", released, lambda t: {"weight": t["w"], "bias": t["b"]}, ())], model, ["It is small."])
    assert (proof.num_tensors, proof.num_numbers) == (2, 9)
    assert "Model: all 2 tensors filled from there, 9 numbers." in proof.to_text() and "It is small." in proof.to_text()
    with pytest.raises(ValueError, match="1 tensors of the model and of the files have no partner, such as 'bias'"):
        prove([trace("f", {"w": released["w"]}, lambda t: {"weight": t["w"]}, ())], model)


def test_one_bit_is_seen():
    model, again = nn.Linear(2, 3), nn.Linear(2, 3)
    again.load_state_dict(model.state_dict())
    assert compare_tensors(model, again) == 2
    with torch.no_grad():
        again.bias[1] = torch.nextafter(again.bias[1], torch.tensor(9.0))
    with pytest.raises(ValueError, match=r"\['bias'\] differ"):
        compare_tensors(model, again)


def test_compares_outputs(tiny_model, tmp_path):
    path, image = tmp_path / "reference.safetensors", torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        outputs = tiny_model(image)
    recorded = {"odd.pixel_values": image, "odd.logits": outputs.logits, "odd.clip_logits": outputs.clip_logits + 0.01}
    save_file({name: value.contiguous() for name, value in recorded.items()}, path)
    found = compare_outputs(tiny_model, path, tolerance=0.02)
    assert found["odd.logits"] == 0 and found["odd.clip_logits"] == pytest.approx(0.01, rel=1e-2)
    with pytest.raises(ValueError, match=r"odd.clip_logits differs .* by 0.01, more than 0.001: .* --tolerance"):
        compare_outputs(tiny_model, path, tolerance=1e-3)
    save_file({"pixel_values": image, "logits": torch.full_like(outputs.logits, torch.nan)}, path)
    with pytest.raises(ValueError, match="by nan"):
        compare_outputs(tiny_model, path, tolerance=1e9)
    save_file({"pixel_values": image, "logits": outputs.logits[:, :2].contiguous()}, path)
    with pytest.raises(ValueError, match=r"logits is \(1, 2, 32, 40\) but the model gives \(1, 3, 32, 40\)"):
        compare_outputs(tiny_model, path, tolerance=1e-3)
    save_file({"pixel_values": image[:, :2].contiguous(), "logits": outputs.logits}, path)
    with pytest.raises(ValueError, match=r"the model does not take pixel_values \(1, 2, 32, 40\) of torch.float32"):
        compare_outputs(tiny_model, path, tolerance=1e-3)
    save_file({"pixel_values": image, "nothing": image + 1}, path)
    with pytest.raises(ValueError, match="holds nothing, pixel_values: expected pixel_values and an output"):
        compare_outputs(tiny_model, path, tolerance=1e-3)
    path.write_text("text")
    with pytest.raises(ValueError, match="is no readable .safetensors file"):
        compare_outputs(tiny_model, path, tolerance=1e-3)
