"""A sliding window in a graph gives the numbers of the one in torch; the network here is a convolution."""

from types import SimpleNamespace

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.tape import Tape

from co2s_hf.modeling_co2s import fuse_logits
from co2s_hf.publish.sliding_graph import add_sliding_window
from co2s_hf.segmentation import slide

FIELDS = ["clip_logits", "dinov3_logits", "logits"]
WEIGHT = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))  # two students of three classes


def students(windows):
    return list(torch.nn.functional.conv2d(windows, WEIGHT, padding=1).chunk(2, 1))


def one_pass(fields):
    """The graph of `students`: (batch, 2, height, width) -> (batch, len(fields), 3, height, width)."""
    image = ir.Value(name="pixel_values", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["b", 2, "h", "w"]))
    weight = ir.Value(name="weight", const_value=ir.tensor(WEIGHT.numpy(), name="weight"))
    tape = Tape()
    both = tape.op("Conv", [image, weight], {"pads": [1, 1, 1, 1]})
    clip, dinov3 = tape.op_multi_out("Split", [both], {"axis": 1, "num_outputs": 2}, num_outputs=2)
    parts = {"clip_logits": clip, "dinov3_logits": dinov3, "logits": clip}
    axis = tape.op("Constant", [], {"value": ir.tensor([1])})
    stacked = tape.op("Concat", [tape.op("Unsqueeze", [parts[name], axis]) for name in fields], {"axis": 1})
    graph = ir.Graph([image], [stacked], nodes=tape.nodes, initializers=[weight], opset_imports={"": 18}, name="main")
    return ir.Model(graph, ir_version=10)


def run(average, fusion, image, window_px, stride_px, tmp_path):
    blends = average == "probabilities"
    config = SimpleNamespace(
        window_px=window_px,
        window_stride_px=stride_px,
        window_average=average,
        fusion=fusion,
        id2label=dict.fromkeys("abc"),
    )
    model = one_pass(FIELDS if blends else FIELDS[:-1])
    add_sliding_window(model, FIELDS, config)
    ir.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    return dict(zip(FIELDS, map(torch.from_numpy, session.run(FIELDS, {"pixel_values": image.numpy()})), strict=True))


@pytest.mark.parametrize("size", [(1, 1), (5, 16), (16, 16), (17, 16), (40, 9), (33, 50)])
@pytest.mark.parametrize("stride", [16, 13, 2])
def test_probabilities_are_those_of_torch(size, stride, tmp_path):
    image = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))
    found = run("probabilities", "clip", image, 16, stride, tmp_path)
    if max(size) <= 16:
        expected = [students(image)[index] for index in (0, 1, 0)]
        for name, one in zip(FIELDS, expected, strict=True):
            torch.testing.assert_close(found[name], one, atol=1e-5, rtol=1e-5)
        return
    expected = slide(students, image, window_px=16, stride_px=stride, average="probabilities")
    for name, one in zip(FIELDS, [*expected, expected[0]], strict=True):
        assert found[name].shape == one.shape
        torch.testing.assert_close(found[name].exp(), one.exp(), atol=2 / 65535, rtol=0)
        assert (found[name].argmax(1) == one.argmax(1)).float().mean() > 0.999


@pytest.mark.parametrize("size", [(7, 12), (33, 50)])
@pytest.mark.parametrize("fusion", ["confidence", "mean", "clip", "dinov3"])
def test_logits_are_averaged_and_then_fused_as_released(size, fusion, tmp_path):
    image = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(1))
    found = run("logits", fusion, image, 16, 13, tmp_path)
    clip, dinov3 = slide(students, image, window_px=16, stride_px=13, average="logits")
    expected = dict(zip(FIELDS, (clip, dinov3, fuse_logits(clip, dinov3, fusion)), strict=True))
    for name in FIELDS:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
