"""A trained model as ONNX, or with weights of 8 bits; both are compared with the original before they are kept."""

import contextlib
import copy
import importlib.util
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from ..segmentation import SegmentationPreTrainedModel

SIZES = ((96, 96), (64, 160), (101, 67))  # one square, one wide, one that is no multiple of any patch
BATCHES = (1, 3)
TOLERANCE = 1e-3  # of logits: rounding in another order stays far below
LARGEST_PATCH_PX = 16  # of all backbones
NO_WINDOW_PX = 1 << 40  # larger than any image
ONE_FILE_BYTES = int(1.5 * 2**30)  # protobuf holds 2 GiB
ROUNDS = 10
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "int8": ("torchao",)}

Predict = Callable[[Tensor], dict[str, Tensor]]
"""From pixel values to the output fields of `predictions`, each (batch_size, num_labels, height, width)."""


@dataclass(frozen=True)
class Export:
    """What was written, and how it compares with the original.

    Attributes:
        path: the ONNX file or the int8 folder.
        megabytes: its weights and graph, in 10^6 bytes.
        original_megabytes: the weights of the original as float32.
        difference: largest absolute difference of any student's logits.
        agreement: share of pixels with the same class.
    """

    path: Path
    megabytes: float
    original_megabytes: float
    difference: float
    agreement: float


def load(source: str | PathLike[str]) -> SegmentationPreTrainedModel:
    """A model of this package in float32, in eval mode.

    Raises:
        ValueError: `source` holds another model, or one that was quantised already.
    """
    model = AutoModelForSemanticSegmentation.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
    if not isinstance(model, SegmentationPreTrainedModel):
        raise ValueError(f"{source} holds a {type(model).__name__}, expected a model of co2s_hf.")
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError(f"{source} is quantised already: export the model that it was made from.")
    return model.eval()


def check_installed(format_name: str) -> None:
    """ValueError unless the libraries that a format needs are installed."""
    missing = [name for name in NEEDS[format_name] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{format_name} needs {', '.join(missing)}: pip install 'co2s_hf[export]'.")


# ---- ONNX ------------------------------------------------------------------------------------------------------------


def export_onnx(
    source: str | PathLike[str], output: str | PathLike[str], *, opset: int | None = None, force: bool = False
) -> Export:
    """Write a model as one ONNX graph for any batch, height and width; what it needs to know beside it as JSON.

    The graph holds the sliding window, too: images above `window_px` (in the JSON) get the map that the model gives.
    Its input is `pixel_values` as the processor gives them, its outputs `logits` and, of Co2S, those of each student
    that votes.

    Args:
        source: folder or Hub id of a model of this package.
        output: the file, ending in .onnx; more than 1.5 GiB of weights go to a file beside it.
        opset: version of the ONNX operators; default the newest that the exporter knows.
        force: replace an existing file.

    Raises:
        ValueError: something is not installed, the file exists, or onnxruntime does not compute what torch does.
            Nothing is written then.
    """
    check_installed("onnx")
    path = Path(output)
    if path.suffix != ".onnx":
        raise ValueError(f"--output is {path}, expected a file that ends in .onnx.")
    _refuse_existing(path, force)
    model = load(source)
    with _beside(path) as folder:
        write_onnx(model, folder / path.name, preprocessing(source, model), opset=opset)
        difference, agreement = compare(model, onnx_predict(folder / path.name))
        if not difference <= TOLERANCE:
            raise ValueError(f"onnxruntime's logits differ by {difference:.1e} from torch's, expected {TOLERANCE:g}.")
        megabytes = _megabytes(folder)
        for file in folder.iterdir():
            file.replace(path.parent / file.name)
    return Export(path, megabytes, _weight_megabytes(model), difference, agreement)


def write_onnx(
    model: SegmentationPreTrainedModel, path: Path, facts: Mapping[str, Any], *, opset: int | None = None
) -> None:
    """Write the graph, its metadata and its JSON; see `export_onnx`."""
    try:
        from torch.export import Dim
        from transformers.exporters.configs import OnnxConfig
        from transformers.exporters.exporter_onnx import OnnxExporter
    except ImportError as error:
        raise ValueError(f"ONNX needs a newer transformers: pip install 'co2s_hf[export]'. ({error})") from error
    import onnx_ir

    from .sliding_graph import add_sliding_window

    single: Any = copy.deepcopy(model)
    single.config.window_px = NO_WINDOW_PX
    forward, fields = single.forward, list(single.predictions.values())
    fuses_last = single.config.window_average == "logits" and len(fields) > 1  # then the graph fuses what it averages
    stacked = fields[:-1] if fuses_last else fields

    def run(pixel_values: Tensor) -> dict[str, Tensor]:
        output = forward(pixel_values)
        return {"stacked": torch.stack([getattr(output, field) for field in stacked], dim=1)}

    single.forward = run
    axes = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    # What torch sees as 1, or as equal to something else, it takes for constant: so two images of two different
    # numbers of patches on their sides, both unlike the number of classes, and not whole patches.
    classes = len(model.config.id2label or {})
    sides = [(classes + more) * LARGEST_PATCH_PX - 3 for more in (3, 6)]
    sample: Any = {"pixel_values": torch.zeros(2, model.config.num_channels, *sides)}
    # onnxruntime optimises a graph when it loads it; onnxscript's passes over one of this size take ten minutes.
    config = OnnxConfig(dynamic=True, dynamic_shapes={"pixel_values": axes}, opset_version=opset, optimize=False)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        program = OnnxExporter().export(single, sample, config).program
    add_sliding_window(program, fields, model.config)
    program.metadata_props.clear()  # traces of this machine's files
    for node in onnx_ir.traversal.RecursiveGraphIterator(program.graph):
        node.metadata_props.clear()
    program.metadata_props.update({name: json.dumps(value) for name, value in facts.items()})
    program.producer_name, program.doc_string = "co2s_hf", ""
    external = f"{path.name}.data" if _weight_megabytes(model) * 1e6 > ONE_FILE_BYTES else None
    onnx_ir.save(program, path, external_data=external)
    path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def preprocessing(source: str | PathLike[str], model: SegmentationPreTrainedModel) -> dict[str, Any]:
    """What somebody who has only the graph needs to know: classes, and what to do with an image first."""
    config: Any = model.config  # one of several classes that share these fields
    facts = {
        "classes": [name for _, name in sorted(config.id2label.items())],
        "bands": None if config.bands is None else list(config.bands),
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
        "window_px": config.window_px,
        "window_stride_px": config.window_stride_px,
        "window_average": config.window_average,
    }
    with contextlib.suppress(OSError):  # a folder may hold a model alone
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False).to_dict()
        facts["image_processor"] = {name: value for name, value in processor.items() if name != "auto_map"}
    return facts


def onnx_predict(path: Path) -> Predict:
    """Run an ONNX file in onnxruntime, on as many threads as torch takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(pixel_values: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {"pixel_values": pixel_values.numpy()})
        return {name: torch.from_numpy(values) for name, values in zip(names, found, strict=True)}

    return predict


# ---- int8 ------------------------------------------------------------------------------------------------------------


def export_int8(source: str | PathLike[str], output: str | PathLike[str], *, force: bool = False) -> Export:
    """Write a model whose backbones' matrices have 8 bits and a scale for each row; activations stay as they were.

    A folder like any other: it holds safetensors, and `from_pretrained` loads it where torchao is installed. The heads
    are small and decide, and keep 32 bits.

    Args:
        source: folder or Hub id of a model of this package.
        output: the folder.
        force: replace an existing folder.

    Raises:
        ValueError: torchao is not installed, the folder exists, or what would be replaced is no model.
    """
    check_installed("int8")
    path = Path(output)
    _refuse_existing(path, force)
    if path.exists() and not (path / "config.json").is_file():
        raise ValueError(f"{path} is not the folder of a model, so --force does not replace it: give another --output.")
    model = load(source)
    with _beside(path) as folder:
        quantised(source, model).save_pretrained(folder)
        with contextlib.suppress(OSError):  # a folder may hold a model alone
            AutoImageProcessor.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
        difference, agreement = compare(model, torch_predict(type(model).from_pretrained(folder).eval()))
        megabytes = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
        if path.exists():
            shutil.rmtree(path)
        folder.replace(path)
    return Export(path, megabytes, _weight_megabytes(model), difference, agreement)


def quantised(source: str | PathLike[str], model: SegmentationPreTrainedModel) -> SegmentationPreTrainedModel:
    """The `model` of `source` with int8 weights, in eval mode."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    heads = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("head", "translators")]
    config = TorchAoConfig(Int8WeightOnlyConfig(version=2), modules_to_not_convert=heads)
    made = type(model).from_pretrained(source, dtype=torch.float32, quantization_config=config)
    assert isinstance(made, SegmentationPreTrainedModel)
    return made.eval()


# ---- comparison ------------------------------------------------------------------------------------------------------


def torch_predict(model: SegmentationPreTrainedModel) -> Predict:
    """Run a model of this package."""

    @torch.no_grad()
    def predict(pixel_values: Tensor) -> dict[str, Tensor]:
        output = model(pixel_values)
        return {field: getattr(output, field) for field in model.predictions.values()}

    return predict


def compare(model: SegmentationPreTrainedModel, found: Predict) -> tuple[float, float]:
    """Largest difference of students' logits, and share of pixels of the same class, at `SIZES` and in `BATCHES`.

    One more size is of two windows. Where these are averaged, students' probabilities are compared: logits of those
    near 0 differ by more than a step of their rounding makes of the others.
    """
    expected, window_px = torch_predict(model), model.config.window_px
    differences, equal = [], []
    for batch_size in BATCHES:
        for height, width in (*SIZES, (window_px + LARGEST_PATCH_PX // 2, LARGEST_PATCH_PX)):
            pixel_values = smooth_noise(batch_size, model.config.num_channels, height, width)
            first, second = expected(pixel_values), found(pixel_values)
            if max(height, width) > window_px and model.config.window_average == "probabilities":
                differences.append(_difference(_of_students(first), _of_students(second)))
            else:
                differences.append(_difference(first, second))
            equal.append((first["logits"].argmax(1) == second["logits"].argmax(1)).flatten())
    return max(differences), float(torch.cat(equal).float().mean())


def _of_students(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Probabilities of each student: which of two decides in a window may be rounding, see `_difference`."""
    fused = {"logits"} if len(logits) > 1 else set()
    return {name: values.softmax(1) for name, values in logits.items() if name not in fused}


def smooth_noise(batch_size: int, num_channels: int, height: int, width: int) -> Tensor:
    """Normalised pixel values with blots and grain, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    blots = F.interpolate(torch.randn(batch_size, num_channels, 6, 6, generator=generator), (height, width))
    return blots + 0.2 * torch.randn(blots.shape, generator=generator)


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Infinite where fields, shapes or numbers are missing."""
    if expected.keys() != found.keys() or any(expected[name].shape != found[name].shape for name in expected):
        return float("inf")
    differences = {name: (expected[name] - found[name]).abs().nan_to_num(nan=float("inf")) for name in expected}
    if {"logits", "dinov3_logits"} <= expected.keys():
        # The fused logits of a pixel are those of the surer student. Where both are as sure, rounding decides, and
        # the other one's logits are no error.
        clip, dinov3 = (expected[name].log_softmax(1).amax(1) for name in ("clip_logits", "dinov3_logits"))
        undecided = (clip - dinov3).abs() < TOLERANCE
        differences["logits"] = differences["logits"].amax(1).masked_fill(undecided, 0.0)
    return max(float(values.max()) for values in differences.values())


# ---- latency ---------------------------------------------------------------------------------------------------------


def benchmark(
    source: str | PathLike[str],
    *,
    onnx: Path | None = None,
    opset: int | None = None,
    side_px: int | None = None,
) -> dict[str, float]:
    """Median milliseconds of one image in torch, ONNX and int8, measured in turns in one process on the CPU.

    Args:
        source: folder or Hub id of a model of this package.
        onnx: its ONNX file, where there is one already; it takes a while to make.
        opset: see `export_onnx`; of the file that is made where there is none.
        side_px: of the square image; default the window of the model.

    Raises:
        ValueError: something is not installed.
    """
    for format_name in NEEDS:
        check_installed(format_name)
    model = load(source)
    side = side_px or model.config.window_px
    pixel_values = smooth_noise(1, model.config.num_channels, side, side)
    with tempfile.TemporaryDirectory() as folder:
        if onnx is None:
            onnx = Path(folder) / "model.onnx"
            write_onnx(model, onnx, {}, opset=opset)
        runs = {
            "torch": torch_predict(model),
            "onnx": onnx_predict(onnx),
            "int8": torch_predict(quantised(source, model)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(1 + ROUNDS):
            for name, predict in runs.items():
                start = perf_counter()
                predict(pixel_values)
                seconds[name].append(perf_counter() - start)
    return {name: 1000 * median(times[1:]) for name, times in seconds.items()}  # the first one warms up


# ---- files -----------------------------------------------------------------------------------------------------------


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ValueError(f"{path} exists already: give another --output, or --force to replace it.")


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder next to `path`, where files are made until they are known to be right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        made = Path(folder) / "made"  # of a folder that is for everybody to read, which a temporary one is not
        made.mkdir()
        yield made


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def _weight_megabytes(model: SegmentationPreTrainedModel) -> float:
    return 4 * sum(tensor.numel() for tensor in model.state_dict().values()) / 1e6


__all__ = [
    "Export",
    "benchmark",
    "check_installed",
    "compare",
    "export_int8",
    "export_onnx",
    "load",
    "onnx_predict",
    "preprocessing",
    "quantised",
    "smooth_noise",
    "torch_predict",
    "write_onnx",
]
