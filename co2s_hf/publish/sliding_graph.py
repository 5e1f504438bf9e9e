"""The sliding window as a part of an ONNX graph: a loop around the graph of one pass, for images of any size.

Its numbers are those of `co2s_hf.segmentation.slide_strips`: the same windows, the same weights, the same rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tape import Tape

from ..segmentation import PROBABILITY_STEPS, WEIGHT_STEPS, window_overlap_px


class _Maker:
    """Makes the nodes of one graph; names of its values begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.tape, self.count = prefix, Tape(), 0

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        self.count += 1
        output = ir.Value(name=f"{self.prefix}{kind}_{self.count}")
        return self.tape.op(kind, inputs, attributes, output=output)

    def constant(self, value: torch.Tensor) -> ir.Value:
        return self.op("Constant", value=ir.tensor(value.numpy()))

    def number(self, value: float, dtype: torch.dtype = torch.int64) -> ir.Value:
        return self.constant(torch.tensor(value, dtype=dtype))

    def ints(self, *values: int) -> ir.Value:
        return self.constant(torch.tensor(values))


@dataclass(frozen=True)
class _Windows:
    """Where the windows of an image lie, as values of the outer graph; pairs are (height, width).

    Attributes:
        image: pixel values.
        shape: of the image.
        size: of every window.
        step: from one window to the next.
        room: the last first pixel of a window.
        columns: number of windows next to each other.
        count: number of all windows.
        is_single: whether there is one only.
        weight: of every pixel of a window, float64.
    """

    image: ir.Value
    shape: ir.Value
    size: ir.Value
    step: ir.Value
    room: ir.Value
    columns: ir.Value
    count: ir.Value
    is_single: ir.Value
    weight: ir.Value


def add_sliding_window(model: ir.Model, fields: Sequence[str], config: Any) -> None:
    """Put a loop over windows around a graph of one pass, in place.

    An image of at most one window keeps the logits of that pass. Of a larger one, the sums of all windows are in memory
    and added to once for each, in float64, in which sums of whole numbers are exact.

    Args:
        model: from `pixel_values` to one output (batch_size, predictions, num_labels, height, width): the logits of all
            of `fields`, or without the last one, the fused logits, where logits are averaged and then fused.
        fields: names of the new outputs, each (batch_size, num_labels, height, width).
        config: of the model of this package.
    """
    blends, classes = config.window_average == "probabilities", len(config.id2label)
    predictions = len(fields) - (not blends and len(fields) > 1)
    inner, outer = model.graph, _Maker("sliding.")
    image = inner.inputs[0]
    pixel_values = ir.Value(name=image.name, type=image.type, shape=image.shape)
    image.name = "window.pixel_values"
    windows = _windows(outer, pixel_values, config)
    body = _window_body(inner, outer, windows, blends)

    nothing = outer.number(0, torch.float64)
    batch = outer.op("Shape", pixel_values, start=0, end=1)
    full = outer.op("Concat", batch, outer.ints(predictions, classes), windows.shape, axis=0)
    zeros = [outer.op("Expand", nothing, shape) for shape in (full, windows.shape)]
    sums, visits = (ir.Value(name=f"sliding.{name}") for name in ("sums", "visits"))
    start = [windows.count, outer.number(1, torch.bool), *zeros]
    outer.tape.op_multi_out("Loop", start, {"body": body}, outputs=[sums, visits])
    mean = outer.op("Div", sums, visits)
    if blends:
        share = outer.op("Div", mean, outer.number(PROBABILITY_STEPS, torch.float64))
        least = outer.number(PROBABILITY_STEPS**-2, torch.float64)
        mean = outer.op("Where", windows.is_single, sums, outer.op("Log", outer.op("Max", share, least)))
    whole = outer.op("Cast", mean, to=ir.DataType.FLOAT)
    results = [outer.op("Gather", whole, outer.number(index), axis=1) for index in range(predictions)]
    if predictions < len(fields):
        results.append(_fused(outer, *results, fusion=config.fusion))
    outputs = [outer.op("Identity", result) for result in results]
    for value, name in zip(outputs, fields, strict=True):
        value.name, value.type = name, image.type
        value.shape = ir.Shape(["batch", classes, "height", "width"])
    weights = list(inner.initializers.values())
    inner.initializers.clear()
    model.graph = ir.Graph(
        [pixel_values],
        outputs,
        nodes=outer.tape.nodes,
        initializers=weights,
        opset_imports=inner.opset_imports,
        name=inner.name,
    )


def _windows(outer: _Maker, image: ir.Value, config: Any) -> _Windows:
    """`window_starts` and `blend_weights` as nodes."""
    window_px, overlap_px = config.window_px, config.window_px - config.window_stride_px
    blends = config.window_average == "probabilities"
    if blends:
        overlap_px = window_overlap_px(window_px, config.window_stride_px)
    step, one = outer.ints(window_px - overlap_px), outer.ints(1)
    shape = outer.op("Shape", image, start=2)
    size = outer.op("Min", shape, outer.ints(window_px))
    room = outer.op("Sub", shape, size)
    # Rounded up: (room + step - 1) / step + 1, of positive numbers, for ONNX divides towards 0.
    counts = outer.op("Add", outer.op("Div", outer.op("Sub", outer.op("Add", room, step), one), step), one)
    count = outer.op("ReduceProd", counts, keepdims=0)
    alike = outer.op("Expand", outer.number(1, torch.float64), size)
    return _Windows(
        image=image,
        shape=shape,
        size=size,
        step=step,
        room=room,
        columns=outer.op("Slice", counts, one, outer.ints(2)),
        count=count,
        is_single=outer.op("Equal", count, outer.number(1)),
        weight=_weights(outer, size, overlap_px) if blends else alike,
    )


def _window_body(inner: ir.Graph, outer: _Maker, windows: _Windows, blends: bool) -> ir.Graph:
    """The body of the loop: the graph of one pass for one window, added to the sums."""
    number, go_on, sums, visits = (ir.Value(name=f"window.{name}") for name in ("number", "go_on", "sums", "visits"))
    number.type, go_on.type = ir.TensorType(ir.DataType.INT64), ir.TensorType(ir.DataType.BOOL)
    number.shape = go_on.shape = ir.Shape([])
    sums.type = visits.type = ir.TensorType(ir.DataType.DOUBLE)

    cut = _Maker("cut.")
    place = cut.op("Concat", *(cut.op(kind, number, windows.columns) for kind in ("Div", "Mod")), axis=0)
    # The last window of an axis is moved back to end at the border.
    begin = cut.op("Min", cut.op("Mul", place, windows.step), windows.room)
    end = cut.op("Add", begin, windows.size)
    seen = cut.op("Slice", windows.image, begin, end, outer.ints(2, 3))

    image, logits, nodes = inner.inputs[0], inner.outputs[0], list(inner)
    inner.remove(nodes)
    ir.convenience.replace_all_uses_with(image, seen)
    for node in nodes:
        for output in node.outputs:
            output.shape = None  # sizes that bear the names of the image's are now those of a window

    add = _Maker("add.")
    part = add.op("Cast", logits, to=ir.DataType.DOUBLE)
    if blends:
        exact = add.op("Mul", add.op("Softmax", logits, axis=2), outer.number(PROBABILITY_STEPS, torch.float32))
        steps = add.op("Cast", add.op("Round", exact), to=ir.DataType.DOUBLE)
        part = add.op("Where", windows.is_single, part, add.op("Mul", steps, windows.weight))
    pads = add.op("Concat", begin, add.op("Sub", windows.shape, end), axis=0)
    outputs = [
        add.op("Identity", go_on),
        add.op("Add", sums, add.op("Pad", part, pads, None, outer.ints(3, 4))),
        add.op("Add", visits, add.op("Pad", windows.weight, pads, None, outer.ints(0, 1))),
    ]
    return ir.Graph(
        [number, go_on, sums, visits], outputs, nodes=[*cut.tape.nodes, *nodes, *add.tape.nodes], name="window"
    )


def _weights(outer: _Maker, size: ir.Value, overlap_px: int) -> ir.Value:
    """`blend_weights` of a window of `size` (height, width) as float64 (height, width)."""
    one, overlap, factors = outer.number(1), outer.number(overlap_px), []
    for axis in (0, 1):
        side = outer.op("Gather", size, outer.number(axis))
        places = outer.op("Range", outer.number(0), side, one)
        backwards = outer.op("Sub", outer.op("Sub", side, one), places)
        from_border = outer.op("Add", outer.op("Min", places, backwards, overlap), one)
        rounded_up = outer.op("Add", outer.op("Mul", from_border, outer.number(WEIGHT_STEPS)), overlap)
        factors.append(outer.op("Div", rounded_up, outer.number(overlap_px + 1)))
    column = outer.op("Unsqueeze", factors[0], outer.ints(1))
    return outer.op("Cast", outer.op("Mul", column, factors[1]), to=ir.DataType.DOUBLE)


def _fused(outer: _Maker, clip_logits: ir.Value, dinov3_logits: ir.Value | None = None, *, fusion: str) -> ir.Value:
    """`fuse_logits` of Co2S as nodes."""
    if fusion == "clip" or dinov3_logits is None:
        return clip_logits
    if fusion == "dinov3":
        return dinov3_logits
    logs = [outer.op("LogSoftmax", logits, axis=1) for logits in (clip_logits, dinov3_logits)]
    if fusion == "mean":
        larger = outer.op("Max", *logs)
        powers = [outer.op("Exp", outer.op("Sub", log, larger)) for log in logs]
        mean = outer.op("Mul", outer.op("Add", *powers), outer.number(0.5, torch.float32))
        return outer.op("Add", larger, outer.op("Log", mean))
    surest = [outer.op("ReduceMax", log, outer.ints(1)) for log in logs]
    return outer.op("Where", outer.op("GreaterOrEqual", *surest), clip_logits, dinov3_logits)


__all__ = ["add_sliding_window"]
