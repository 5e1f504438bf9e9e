"""`co2s export`: ONNX and int8 agree with the original, and nothing doubtful is written."""

import copy
import json

import pytest
import torch

from co2s_hf import Co2SForSemanticSegmentation, Co2SImageProcessor, Dinov2DPTForSemanticSegmentation
from co2s_hf.__main__ import main
from co2s_hf.publish import export

# Slow: on one core the exporter takes a minute even for the smallest of these models. They need the `export` extra.
SLOW = pytest.mark.slow
QUIET = pytest.mark.filterwarnings("ignore")  # of the libraries that export, each has its own


@pytest.fixture(scope="module")
def folders(tiny_model, tmp_path_factory):
    """Saved models by kind, windows of 96 px. Read only."""
    torch.manual_seed(0)
    translators = [{"teacher_width": 12, "hidden_width": 16}, {"teacher_width": 20, "hidden_width": 8, "input_px": 56}]
    dpt = Dinov2DPTForSemanticSegmentation.from_backbones(
        None, ["road", "water"], translators=translators, window_px=96
    )
    as_released = copy.deepcopy(tiny_model)
    as_released.config.window_average = "logits"
    folders = {}
    for kind, model in {"co2s": tiny_model, "co2s_as_released": as_released, "dinov2_dpt": dpt}.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folders[kind])
        Co2SImageProcessor().save_pretrained(folders[kind])
    return folders


def answers(logits, **others):
    """A `Predict` that gives the same to everybody, cut to the size of the image."""

    def predict(pixel_values):
        size = (pixel_values.shape[0], 3, *pixel_values.shape[-2:])
        return {name: value.expand(size) for name, value in {"logits": logits, **others}.items()}

    return predict


# ---- the real thing --------------------------------------------------------------------------------------------------


@SLOW
@QUIET
@pytest.mark.parametrize("kind", ["co2s", "co2s_as_released", "dinov2_dpt"])
def test_onnx_agrees_at_every_size_and_names_its_preprocessing(kind, folders, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    assert main(["export", str(folders[kind]), "--output", str(path), "--format", "onnx"]) == 0
    assert "100.00 % of pixels" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.json"}
    model, predict = export.load(folders[kind]), export.onnx_predict(path)
    expected = export.torch_predict(model)
    # None of these was checked by the command; the last four are above a window of 96 px.
    for size in [(2, 3, 17, 9), (1, 3, 96, 96), (1, 3, 97, 96), (1, 3, 200, 64), (4, 3, 112, 113), (2, 3, 150, 231)]:
        pixel_values = export.smooth_noise(*size)
        first, second = expected(pixel_values), predict(pixel_values)
        assert first.keys() == second.keys() == set(model.predictions.values())
        blends = max(size) > 96 and kind != "co2s_as_released"
        for name in first.keys() - {"logits"} or {"logits"}:
            one, other = (found[name].softmax(1) if blends else found[name] for found in (first, second))
            torch.testing.assert_close(other, one, atol=1e-4, rtol=0)
        same = (first["logits"].argmax(1) == second["logits"].argmax(1)).float().mean()
        assert same > 0.999, "the map of an image is one, in torch and in ONNX"
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["classes"] == [model.config.id2label[i] for i in range(3)] and facts["window_px"] == 96
    assert facts["window_average"] == ("logits" if kind == "co2s_as_released" else "probabilities")
    assert facts["image_processor"]["image_mean"] == facts["image_mean"] == list(model.config.image_mean)

    import onnx

    found = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert found == facts


@SLOW
@QUIET
@pytest.mark.parametrize("kind", ["co2s", "dinov2_dpt"])
def test_int8_is_smaller_and_loads_again(kind, folders, tmp_path, capsys):
    folder = tmp_path / "int8"
    made = export.export_int8(folders[kind], folder)
    assert made.megabytes < 0.9 * made.original_megabytes and made.agreement > 0.95
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pt"))
    model = export.load(folders[kind])
    loaded = type(model).from_pretrained(folder).eval()
    assert export.compare(model, export.torch_predict(loaded)) == (made.difference, made.agreement)
    assert Co2SImageProcessor.from_pretrained(folder).image_mean == Co2SImageProcessor().image_mean
    with pytest.raises(ValueError, match="is quantised already"):
        export.load(folder)
    with pytest.raises(ValueError, match="exists already"):
        export.export_int8(folders[kind], folder)


@SLOW
@QUIET
def test_the_benchmark_times_all_three(folders):
    assert set(export.benchmark(folders["dinov2_dpt"], side_px=32)) == {"torch", "onnx", "int8"}


# ---- comparison ------------------------------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """Stands for Co2S: its students say the same everywhere."""

    def __init__(self, clip, dinov3, config):
        super().__init__()
        self.values, self.config = {"clip_logits": clip, "dinov3_logits": dinov3, "logits": clip}, config
        self.predictions = {name: name for name in self.values}

    def forward(self, pixel_values):
        return type("Output", (), answers(**self.values)(pixel_values))


CLIP, SURE, AS_SURE = (
    torch.tensor(values).view(1, 3, 1, 1) for values in ([3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 3.0, 0.0])
)


def test_equal_predictions_have_no_difference(tiny_model):
    model = Constant(CLIP, SURE, tiny_model.config)
    assert export.compare(model, export.torch_predict(model)) == (0.0, 1.0)


def test_a_difference_of_any_student_counts(tiny_model):
    model = Constant(CLIP, SURE, tiny_model.config)
    found = answers(CLIP, clip_logits=CLIP, dinov3_logits=SURE + 0.25)
    assert export.compare(model, found) == (0.25, 1.0)


def test_fused_logits_may_be_of_either_student_only_where_both_are_as_sure(tiny_model):
    other = answers(AS_SURE, clip_logits=CLIP, dinov3_logits=AS_SURE)
    assert export.compare(Constant(CLIP, AS_SURE, tiny_model.config), other) == (0.0, 0.0)
    other = answers(SURE, clip_logits=CLIP, dinov3_logits=SURE)
    assert export.compare(Constant(CLIP, SURE, tiny_model.config), other) == (4.0, 0.0)


@pytest.mark.parametrize("found", [answers(CLIP), answers(CLIP * float("nan"), clip_logits=CLIP, dinov3_logits=SURE)])
def test_what_is_missing_is_no_agreement(tiny_model, found):
    assert export.compare(Constant(CLIP, SURE, tiny_model.config), found)[0] == float("inf")


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(capsys, *arguments):
    assert main(["export", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_refuses_before_anything_is_written(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(export.NEEDS, "onnx", ())
    monkeypatch.setitem(export.NEEDS, "int8", ())
    source, there = folders["co2s"], tmp_path / "there.onnx"
    there.write_text("mine")
    assert "expected a file that ends in .onnx" in refusal(capsys, source, "-o", tmp_path / "x", "--format", "onnx")
    assert "there.onnx exists already" in refusal(capsys, source, "-o", there, "--format", "onnx")
    int8 = (source, "-o", tmp_path / "x", "--format", "int8")
    assert "--opset is of --format onnx" in refusal(capsys, *int8, "--opset", "18")
    assert "exists already" in refusal(capsys, source, "-o", tmp_path, "--format", "int8")
    force = (source, "-o", tmp_path, "--format", "int8", "--force")
    assert "is not the folder of a model, so --force does not replace it" in refusal(capsys, *force)
    assert [file.name for file in tmp_path.iterdir()] == ["there.onnx"] and there.read_text() == "mine"


@pytest.mark.parametrize("format_name", ["onnx", "int8"])
def test_names_what_is_not_installed(format_name, folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(export.NEEDS, format_name, ("json", "not_a_library"))
    error = refusal(capsys, folders["co2s"], "-o", tmp_path / "x.onnx", "--format", format_name)
    assert f"{format_name} needs not_a_library: pip install 'co2s_hf[export]'" in error
    assert not list(tmp_path.iterdir())


def test_keeps_nothing_that_onnxruntime_computes_otherwise(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(export.NEEDS, "onnx", ())
    monkeypatch.setattr(export, "write_onnx", lambda model, path, facts, **_: path.write_text("wrong"))
    monkeypatch.setattr(export, "onnx_predict", lambda path: answers(CLIP))
    error = refusal(capsys, folders["co2s"], "-o", tmp_path / "x.onnx", "--format", "onnx")
    assert "onnxruntime's logits differ by inf from torch's" in error and not list(tmp_path.iterdir())


def test_an_interrupted_replacement_leaves_what_was_there(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(export.NEEDS, "int8", ())
    (tmp_path / "config.json").touch()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(export, "quantised", fail)
    with pytest.raises(OSError, match="disk full"):
        export.export_int8(folders["co2s"], tmp_path, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_refuses_another_model(clip_folder):
    with pytest.raises(ValueError, match="CLIPConfig"):
        export.load(clip_folder)


def test_preprocessing_without_a_processor(folders, tiny_model, tmp_path):
    assert "image_processor" in export.preprocessing(folders["co2s"], tiny_model)
    facts = export.preprocessing(tmp_path, tiny_model)
    assert "image_processor" not in facts and facts["classes"] == ["road", "water", "tree"]


def test_exports_an_original_of_this_package(folders):
    model = export.load(folders["co2s"])
    assert isinstance(model, Co2SForSemanticSegmentation) and not model.training
