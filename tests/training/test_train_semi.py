"""The training script as a whole: what a run leaves, what it refuses, and that a resumed run is the same run."""

import contextlib
import io
import json
import math
import os
import random
import runpy
import shutil
import signal
import sys
import time
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, Dinov2Config, Dinov2Model

from co2s_hf import Co2SForSemanticSegmentation
from co2s_hf.data.description import Bands, DatasetDescription, LandCoverClass
from co2s_hf.data.label_map import LabelMap
from co2s_hf.raster.read import read_raster
from co2s_hf.raster.write import write_image, write_mask
from tests.training.tiny_runs import (
    SCRIPT,
    STAND_INS,
    build_tiny_model,
    finish,
    start,
    tensors_of,
    tiny_arguments,
    write_recipe,
    write_shards,
)
from training.batches import Batch
from training.eval_semi import main as evaluate_saved
from training.methods import METHODS
from training.methods.co2s import Co2S
from training.methods.supervised import Supervised
from training.parts.schedules import Progress
from training.train_semi import find_palette, main, use_cores

pytestmark = [pytest.mark.filterwarnings(STAND_INS), pytest.mark.usefixtures("fresh_accelerate_state")]

CLASSES = ["field", "forest", "water", "road", "building"]
RUN_LEAVES = {".lock", "best", "checkpoints", "curves.png", "metrics.json", "model", "panel.png", "scenes"}
CODE = {
    "class_texts_co2s.py",
    "configuration_co2s.py",
    "guidance_head_co2s.py",
    "image_processing_co2s.py",
    "modeling_co2s.py",
    "pretrained_backbones.py",
    "segmentation.py",
}
MODEL_FILES = CODE | {
    "SHA256SUMS",
    "LICENSE.md",
    "README.md",
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
}


@pytest.fixture(scope="module")
def four_blocks(tmp_path_factory):
    """A DINOv2 deep enough for four feature levels."""
    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    size = dict(hidden_size=16, mlp_ratio=2, num_hidden_layers=4, num_attention_heads=2, patch_size=8, image_size=32)
    Dinov2Model(Dinov2Config(**size)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, students):
    """A finished Co2S run on drawn scenes: its folder, what `main` returned, what it printed. Read only."""
    folder, printed = tmp_path_factory.mktemp("finished"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        metrics = main(tiny_arguments(folder, **students))
    return Namespace(folder=folder / "run", metrics=metrics, printed=printed.getvalue())


@pytest.fixture
def user_folder(tmp_path):
    """Nine images of 40 x 48 px; masks of 0 to 3, of five classes and 255, for image 0 to 3 alone."""
    rng = np.random.default_rng(0)
    for i in range(9):
        (tmp_path / "images").mkdir(exist_ok=True), (tmp_path / "labels").mkdir(exist_ok=True)
        write_image(tmp_path / "images" / f"i{i}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        if i < 4:
            ids = rng.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), (5, 6))
            write_mask(tmp_path / "labels" / f"i{i}.png", np.kron(ids, np.ones((8, 8), np.uint8)))
    return tmp_path


@pytest.fixture
def train(user_folder, students):
    """Train on the user's folder for one step, with changes to the recipe."""

    def run(*argv, **changes):
        own = dict(data_dir=str(user_folder), classes=CLASSES, labelled=["i[01].png"], validation=["i[23].png"])
        short = dict(scenes=None, max_steps=1, eval_every=1, save_every=1)
        return main(tiny_arguments(user_folder, *argv, **{**students, **own, **short, **changes}))

    return run


def read_strictly(path):
    """Parse JSON as any other language would: without NaN."""

    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# ---- many bands, no data, few labels ---------------------------------------------------------------------------------

BANDS = ["blue", "green", "red", "nir", "swir1", "swir2"]


@pytest.fixture
def six_bands(tmp_path):
    """Six GeoTIFFs of 40 x 48 px, 6 bands of 16 bits and a strip of nodata; 0 and 1 with half a mask, 2 with a mask."""
    rasterio = pytest.importorskip("rasterio")
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    profile = dict(driver="GTiff", width=48, height=40, count=6, dtype="uint16", nodata=65535, crs="EPSG:32633")
    profile["transform"] = rasterio.Affine(10, 0, 500000, 0, -10, 5000000)
    for i in range(6):
        pixels = rng.integers(200, 4000, (6, 40, 48)).astype(np.uint16)
        pixels[:, :6] = 65535
        with rasterio.open(tmp_path / "images" / f"i{i}.tif", "w", **profile) as dataset:
            dataset.write(pixels)
        if i < 3:
            mask = rng.integers(0, 2, (40, 48), dtype=np.uint8)
            mask[20 if i < 2 else 40 :] = 255
            write_mask(tmp_path / "labels" / f"i{i}.png", mask)
    return tmp_path


def test_six_bands_of_16_bits_train_save_load_and_predict(six_bands, students, capsys):
    statistics = dict(image_mean=[0.03] * 6, image_std=[0.02] * 6)
    data = dict(data_dir=str(six_bands), classes=["soil", "crop"], labelled=["i[01].tif"], validation=["i2.tif"])
    short = dict(scenes=None, max_steps=2, eval_every=2, save_every=2, threshold=0.5)
    metrics = main(tiny_arguments(six_bands, bands=BANDS, **students, **data, **short, **statistics))
    printed = capsys.readouterr().out
    assert "2 labelled images are 58.8 % unlabelled: those pixels join the unlabelled pool" in printed  # 20 of 34 rows
    assert all(math.isfinite(value) for row in metrics["losses"] for value in row.values())
    assert metrics["losses"][-1]["loss_clip_s1"] > 0

    folder = six_bands / "run" / "model"
    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    assert processor.image_mean == model.config.image_mean == [0.03] * 6
    assert (model.config.bands, model.config.band_adaptation) == (BANDS, "rgb_and_mean")
    image = np.moveaxis(read_raster(six_bands / "images" / "i5.tif").pixels, 0, 2)
    assert image.dtype == np.uint16
    with torch.no_grad():
        outputs = model(**processor(image, return_tensors="pt"))
    assert processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 48)])[0].shape == (40, 48)


def test_sparse_labels_alone_train_and_without_them_supervised_does(students, tmp_path, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    for i in range(2):
        write_image(tmp_path / "images" / f"i{i}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        mask = rng.integers(0, 3, (40, 48), dtype=np.uint8)
        mask[:, 24 * (1 - i) :] = 255 if i == 0 else 1
        write_mask(tmp_path / "labels" / f"i{i}.png", mask)
    data = dict(data_dir=str(tmp_path), classes=CLASSES, labelled=["i0.png"], validation=["i1.png"], scenes=None)
    short = dict(max_steps=1, eval_every=1, save_every=1, threshold=0.0, **students)
    metrics = main(tiny_arguments(tmp_path, **data, **short))
    assert metrics["losses"][-1]["loss_dinov3_s1"] > 0
    with pytest.raises(SystemExit):
        main(tiny_arguments(tmp_path, "--ignore_is_final", **data, **short, output_dir=str(tmp_path / "final")))
    assert "There is no unlabelled image, and no image that is labelled in part" in capsys.readouterr().err
    main(tiny_arguments(tmp_path, "--method", "supervised", **data, **short, output_dir=str(tmp_path / "supervised")))


def test_ignored_pixels_may_stay_ignored(train, capsys):
    train("--ignore_is_final")
    assert "unlabelled:" not in capsys.readouterr().out


# ---- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_leaves_models_numbers_and_pictures(finished):
    assert {path.name for path in finished.folder.iterdir()} == RUN_LEAVES
    for name in ("model", "best"):
        pictures = {path.name for path in (finished.folder / name).glob("*.png")}
        assert {path.name for path in (finished.folder / name).iterdir()} == MODEL_FILES | pictures
        assert "curves.png" in pictures and (name == "best" or "panel.png" in pictures)
    for name in ("curves.png", "panel.png"):
        with Image.open(finished.folder / name) as picture:
            assert min(picture.size) > 100
    kept = sorted(path.name for path in (finished.folder / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000004"]


def test_metrics_hold_scores_and_the_quality_of_pseudo_labels(finished):
    metrics = read_strictly(finished.folder / "metrics.json")
    assert [row["step"] for row in metrics["history"]] == [2, 4]
    for row in metrics["history"]:
        for prediction in ("clip", "dinov3", "fused"):
            numbers = row[prediction]
            assert 0 <= numbers["mean_iou"] <= 1 and len(numbers["per_category_iou"]) == 6
            assert 0 < numbers["pseudo_label_coverage"] <= 1 and 0 <= numbers["pseudo_label_precision"] <= 1
    assert [row["step"] for row in metrics["losses"]] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for row in metrics["losses"] for value in row.values())
    assert metrics["method"] == "co2s" and metrics["steps"] == 4 and metrics["arguments"]["threshold"] == 0.168
    best = max(metrics["history"], key=lambda row: row["fused"]["mean_iou"])
    assert (metrics["best_step"], metrics["best_mean_iou"]) == (best["step"], best["fused"]["mean_iou"])
    assert metrics["history"][-1]["fused"]["mean_iou"] == finished.metrics["history"][-1]["fused"]["mean_iou"]


def test_the_printed_lines_load_the_model(finished):
    """They are the last thing a run says."""
    *_, imports, assignment = finished.printed.strip().splitlines()
    names = {}
    exec(f"{imports.strip()}\n{assignment.strip()}", names)
    model = names["model"].eval()
    assert isinstance(model, Co2SForSemanticSegmentation)
    processor = AutoImageProcessor.from_pretrained(finished.folder / "model")
    with torch.no_grad():
        logits = model(**processor(Image.new("RGB", (40, 24)), return_tensors="pt")).logits
    assert logits.shape[:2] == (1, 6) and logits.isfinite().all()


def test_a_run_says_what_it_found(finished):
    assert "3 labelled, 4 unlabelled, 2 validation images" in finished.printed
    assert "step 2: mIoU clip" in finished.printed and "IoU in %" in finished.printed


def test_the_card_says_how_the_model_was_made(finished):
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "train --tiny" in card and "bare_soil" in card and card.startswith("---\n")


@pytest.mark.parametrize(
    "flags", [("--method", "supervised"), ("--official",), ("--discard_dinov3_prior", "--confidence_mode", "pixelavg")]
)
def test_other_methods_and_modes_run(flags, students, tmp_path):
    metrics = main(tiny_arguments(tmp_path, *flags, max_steps=2, **students))
    assert all(math.isfinite(row["loss"]) for row in metrics["losses"])
    config = AutoModel.from_pretrained(tmp_path / "run" / "model").config
    assert config.clip_logits_size == (224 if "--official" in flags else None)
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_LEAVES


@pytest.mark.parametrize("method", ["fixmatch", "unimatch"])
def test_baselines_train_the_two_students(method, students, tmp_path):
    metrics = main(tiny_arguments(tmp_path, "--method", method, max_steps=2, burn_in_steps=1, **students))
    assert all(math.isfinite(row["loss"]) for row in metrics["losses"])
    assert "loss_clip_s1" in metrics["losses"][-1] and "loss_clip_stability" not in metrics["losses"][-1]


ONE_STUDENT = dict(
    model="dinov2_dpt", clip=None, dinov3=None, config={"dpt_channels": 8, "dpt_out_channels": [4, 6, 8, 10]}
)


@pytest.mark.parametrize(
    "flags", ["supervised", "fixmatch", "unimatch", "unimatch_v2", "rs_mtdf", "rs_mtdf --official"]
)
def test_methods_train_one_student(flags, four_blocks, students, tmp_path):
    method, *official = flags.split()
    teachers = [four_blocks, students["clip"]] if method == "rs_mtdf" else None
    changes = dict(max_steps=2, dino=four_blocks, teachers=teachers, **ONE_STUDENT)
    metrics = main(tiny_arguments(tmp_path, "--method", method, *official, **changes))
    assert all(math.isfinite(row["loss"]) for row in metrics["losses"])
    assert set(metrics["history"][-1]) == {"step", "dino"}
    assert ("loss_distillation" in metrics["losses"][-1]) == (method == "rs_mtdf")
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == RUN_LEAVES
    model = AutoModel.from_pretrained(folder / "model")
    assert len(model.config.translators or ()) == len(teachers or ())
    saved = load_file(folder / "model" / "model.safetensors")
    assert not any("tower" in name or "teacher" in name for name in saved)


def test_the_moving_average_may_be_what_is_saved(four_blocks, tmp_path):
    arguments = dict(method="fixmatch", max_steps=4, save_every=4, dino=four_blocks, **ONE_STUDENT)
    main(tiny_arguments(tmp_path, "--use_teacher", **arguments))
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000004"
    trained = load_file(checkpoint / "model.safetensors")
    name = "head.classifier.weight"
    assert saved[name].shape == trained[name].shape and not torch.equal(saved[name], trained[name])


def test_tiny_students_are_made_where_none_are_named(tmp_path):
    metrics = main(tiny_arguments(tmp_path, max_steps=1))
    assert len(metrics["losses"]) == 1


# ---- a folder of the user --------------------------------------------------------------------------------------------


def test_trains_on_a_folder_whose_unlabelled_images_have_no_masks(train, user_folder, capsys):
    metrics = train()
    assert "2 labelled, 5 unlabelled, 2 validation images" in capsys.readouterr().out
    assert len(metrics["history"][0]["fused"]["per_category_iou"]) == 5
    config = AutoModel.from_pretrained(user_folder / "run" / "model").config
    assert config.id2label == dict(enumerate(CLASSES))


def test_trains_on_lists_and_without_a_class(train, user_folder, capsys):
    for i in (0, 1):
        write_mask(user_folder / "labels" / f"i{i}.png", np.full((40, 48), i, np.uint8))
    (user_folder / "labelled.txt").write_text("i0.png\nimages/i1.png labels/i1.png\n")
    (user_folder / "unlabelled.txt").write_text("i4.png\ni5.png\ni6.png\n")
    train(labelled=["labelled.txt"], unlabelled=["unlabelled.txt"])
    said = capsys.readouterr().out
    assert "2 labelled, 3 unlabelled, 2 validation images" in said
    assert "warning: Classes without a labelled pixel, never learned: water, road, building." in said


# ---- refusals --------------------------------------------------------------------------------------------------------


def half_of(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def grow_mask(folder):
    write_mask(folder / "labels" / "i0.png", np.zeros((40, 50), np.uint8))


def strange_ids(folder):
    write_mask(folder / "labels" / "i1.png", np.resize(np.array([0, 7, 9], np.uint8), (40, 48)))


def one_band(folder):
    write_image(folder / "images" / "i5.png", np.zeros((40, 48, 1), np.uint8))


def list_validation(folder):
    (folder / "unlabelled.txt").write_text("i5.png\ni2.png\n")


def nothing_labelled(folder):
    for i in (0, 1):
        write_mask(folder / "labels" / f"i{i}.png", np.full((40, 48), 255, np.uint8))


def no_images(folder):
    shutil.rmtree(folder / "images")
    (folder / "images").mkdir()


@pytest.mark.parametrize(
    ("spoil", "changes", "said"),
    [
        pytest.param(
            None,
            dict(labelled=["i0.png", "i8.png"]),
            [
                "1 labelled or validation image without a mask",
                "images/i8.png",
                "labels/i8.*",
                "list the image as unlab",
            ],
            id="missing mask",
        ),
        pytest.param(
            grow_mask,
            {},
            ["1 mask not of the size", "labels/i0.png is 50x40, i0.png is 48x40", "on the grid of its image"],
            id="mask of another size",
        ),
        pytest.param(
            strange_ids,
            {},
            ["labels/i1.png has ids 7, 9", "Expected 0 field, 1 forest", "4 building, and 255", "renumber the masks"],
            id="ids of no class",
        ),
        pytest.param(
            lambda folder: (folder / "images" / "i6.png").write_text("no image"),
            {},
            ["1 unusable file", "images/i6.png"],
            id="unreadable image",
        ),
        pytest.param(
            lambda folder: half_of(folder / "images" / "i0.png"),
            {},
            ["1 unusable file", "images/i0.png"],
            id="truncated image",
        ),
        pytest.param(no_images, {}, ["images holds no image; expected files ending in .png"], id="empty folder"),
        pytest.param(
            list_validation,
            dict(unlabelled=["unlabelled.txt"]),
            ["listed as unlabelled and validation", "i2.png", "take them out of one of the two"],
            id="validation images in the unlabelled list",
        ),
        pytest.param(
            one_band,
            {},
            ["1 image with another number of bands than wanted", "images/i5.png has 1", "convert the image"],
            id="band count",
        ),
        pytest.param(
            None,
            dict(validation=None),
            ["No validation images are named and validation_fraction is None"],
            id="no validation",
        ),
        pytest.param(
            nothing_labelled, dict(class_weights=["balanced"]), ["No pixel of the labelled images"], id="no shares"
        ),
        pytest.param(
            nothing_labelled, dict(rare_class_temperature=0.3), ["No pixel of the labelled images"], id="no rare class"
        ),
        pytest.param(
            None,
            dict(class_weights=["1", "2"]),
            ["--class_weights has 2 numbers; expected 5, one per class"],
            id="class weights",
        ),
        pytest.param(None, dict(clip="/nowhere/clip"), ["/nowhere/clip"], id="no such backbone"),
        pytest.param(None, dict(config={"fusion": "median"}), ["fusion", "median"], id="configuration"),
        pytest.param(None, dict(config={"fusoin": "mean"}), ["--config names fusoin, but Co2SConfig"], id="misspelt"),
        pytest.param(
            lambda folder: shutil.rmtree(folder / "labels"),
            dict(data_dir="/nowhere"),
            ["no images folder /nowhere/images", "Check the root folder"],
            id="no such folder",
        ),
    ],
)
def test_refuses_before_training(spoil, changes, said, train, user_folder, capsys):
    if spoil is not None:
        spoil(user_folder)
    with pytest.raises(SystemExit) as refusal:
        train(**changes)
    assert refusal.value.code == 2
    message = capsys.readouterr().err.replace(os.sep, "/")
    assert "train_semi.py: error: " in message
    for part in said:
        assert part in message
    assert not (user_folder / "run" / "checkpoints").exists()


def test_a_second_run_does_not_enter_the_folder_of_the_first(finished, students, tmp_path, capsys):
    there = dict(output_dir=str(finished.folder), **students)
    with pytest.raises(SystemExit):
        main(tiny_arguments(tmp_path, **there))
    said = capsys.readouterr().err
    assert "run already holds a run (step-00000004): continue it with --resume, choose another --output_dir" in said
    with pytest.raises(SystemExit):
        main(tiny_arguments(tmp_path, "--resume", lr=0.5, threshold=0.3, **there))
    said = capsys.readouterr().err
    assert "belongs to a run with another configuration" in said
    assert "lr: checkpoint 0.001, now 0.5" in said and "threshold: checkpoint 0.168, now 0.3" in said
    assert "Start the new run in a new --output_dir, or resume with the old arguments." in said


def test_refuses_to_resume_nothing(train, capsys):
    with pytest.raises(SystemExit) as refusal:
        train("--resume")
    assert refusal.value.code == 2
    assert "--resume found no finished checkpoint in" in capsys.readouterr().err


def test_the_command_ends_with_the_message_alone(user_folder, monkeypatch, capsys):
    no_images(user_folder)
    recipe = write_recipe(user_folder, scenes=None, output_dir=str(user_folder / "run"))
    argv = ["--recipe", recipe, "--data_dir", user_folder, "--classes", *CLASSES, "--validation", "i2.png"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, argv)])
    with pytest.raises(SystemExit) as refusal:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert refusal.value.code == 2
    assert capsys.readouterr().err.startswith("train_semi.py: error: ")


def test_a_mistake_in_the_loop_keeps_its_traceback(train, monkeypatch):
    def step(self, batch, progress):
        raise ValueError("a mistake in a method")

    monkeypatch.setattr(Co2S, "step", step)
    with pytest.raises(ValueError, match="a mistake in a method"):
        train()


# ---- batches without a single label ----------------------------------------------------------------------------------


def random_batch(rows, seed=0, size_px=32):
    """A batch of noise in float64: every pixel labelled and valid, boxes in the corner."""
    generator = torch.Generator().manual_seed(seed)

    def noise():
        return torch.randn(rows, 3, size_px, size_px, generator=generator, dtype=torch.float64)

    valid, box = torch.ones(rows, size_px, size_px, dtype=torch.bool), torch.zeros(rows, size_px, size_px).bool()
    box[:, :8, :12] = True
    y = torch.randint(0, 3, (rows, size_px, size_px), generator=generator)
    return Batch(noise(), y, noise(), noise(), noise(), valid, box, box, noise(), noise(), noise(), valid)


@pytest.mark.parametrize("official", [False, True])
def test_co2s_learns_nothing_from_a_batch_without_labels(official):
    batch = random_batch(2)
    nowhere = torch.zeros_like(batch.u_valid)
    method = Co2S(build_tiny_model(), threshold=1.1, official=official)
    assert_no_gradient(method, replace(batch, y=torch.full_like(batch.y, 255), u_valid=nowhere, p_valid=nowhere))


def test_supervised_training_learns_nothing_from_a_batch_without_labels():
    batch = random_batch(2)
    assert_no_gradient(Supervised(build_tiny_model()), Batch(batch.x, torch.full_like(batch.y, 255)))


def assert_no_gradient(method, batch):
    scalars = method.step(batch, Progress(3, 10))
    scalars["loss"].backward()
    assert scalars["loss"].item() == 0
    assert all(value.isfinite() for value in scalars.values())
    trained = [parameter for parameter in method.model.parameters() if parameter.requires_grad]
    assert trained and all((parameter.grad == 0).all() for parameter in trained)


# ---- accumulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method_class", [Co2S, Supervised])
def test_accumulated_micro_batches_equal_one_batch(method_class):
    """Every pixel has a label and is valid, so that both micro-batches divide by the same counts.

    The stability term is off: it divides by the pixels where a student learns, which differ.
    """
    options = dict(threshold=0.2, feature_dropout=0.0, stability_peak=0.0) if method_class is Co2S else {}
    whole = random_batch(2)
    parts = [Batch(**{name: tensor[i : i + 1] for name, tensor in tensors_of(whole).items()}) for i in (0, 1)]
    expected = gradients(method_class(build_tiny_model(), **options), [whole], 1)
    found = gradients(method_class(build_tiny_model(), **options), parts, 2)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)


def gradients(method, batches, accumulation):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    method.model = accelerator.prepare(method.model)
    for batch in batches:
        with accelerator.accumulate(method.model):
            accelerator.backward(method.step(batch, Progress(5, 10))["loss"])
    assert accelerator.sync_gradients
    return {name: p.grad for name, p in method.model.named_parameters() if p.requires_grad}


# ---- resume ----------------------------------------------------------------------------------------------------------


SLOW_TILES = pytest.param("tile cache", marks=pytest.mark.slow)  # test_reader.py compares the batches


@pytest.mark.parametrize("case", ["files", "stream", "moving average", SLOW_TILES])
def test_an_interrupted_run_resumes_bitwise(case, students, tmp_path, monkeypatch):
    changes = dict(max_steps=8, eval_every=4, save_every=3, class_share=0.5, **students)
    method = "fixmatch" if case == "moving average" else "co2s"
    changes |= dict(method=method, use_teacher=method == "fixmatch")
    if case == "stream":
        pictures = np.random.default_rng(0).integers(0, 256, (9, 48, 40, 3), dtype=np.uint8)
        changes["unlabelled_stream"] = [write_shards(tmp_path / "shards", pictures)]
    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole = main(tiny_arguments(tmp_path / "whole", **changes))
    if case == "tile cache":  # which the other run does without
        changes["tile_cache"] = str(tmp_path / "tiles")

    after_step = METHODS[method].after_step

    def interrupt(self, progress):
        if progress.step == 4:
            raise KeyboardInterrupt
        after_step(self, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(METHODS[method], "after_step", interrupt)
        main(tiny_arguments(tmp_path / "parts", **changes))
    assert [path.name for path in (tmp_path / "parts" / "run" / "checkpoints").iterdir()] == ["step-00000003"]
    torch.manual_seed(123)  # nothing of the global state may matter
    resumed = main(tiny_arguments(tmp_path / "parts", "--resume", **changes))

    assert_same_run(tmp_path / "whole" / "run", tmp_path / "parts" / "run")
    assert resumed["losses"] == whole["losses"]
    assert any((tmp_path / "tiles").glob("*.safetensors")) == (case == "tile cache")


def assert_same_run(one, two):
    for name in ("model", "best"):
        assert (one / name / "model.safetensors").read_bytes() == (two / name / "model.safetensors").read_bytes()
    first, second = (read_strictly(folder / "metrics.json") for folder in (one, two))
    for name in ("history", "losses", "best_step", "best_mean_iou"):
        assert first[name] == second[name]


def test_a_finished_run_resumes_to_the_same_results(finished, students, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "run")
    main(tiny_arguments(tmp_path, "--resume", **students))
    assert_same_run(finished.folder, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_resumes_bitwise(seed, students, tmp_path):
    """SIGKILL twice at an arbitrary moment after a new checkpoint, with a worker process and accumulation."""
    changes = dict(max_steps=40, eval_every=15, save_every=2, num_workers=1, gradient_accumulation_steps=2, **students)
    commands = {}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        recipe = write_recipe(tmp_path / name, output_dir=str(tmp_path / name / "run"), **changes)
        commands[name] = (SCRIPT, "--recipe", recipe)
    finish(start(*commands["whole"]))

    delays_s, checkpoints = random.Random(seed), tmp_path / "parts" / "run" / "checkpoints"
    kill_after_a_new_checkpoint(start(*commands["parts"]), checkpoints, delays_s.uniform(0, 1.5))
    kill_after_a_new_checkpoint(start(*commands["parts"], "--resume"), checkpoints, delays_s.uniform(0, 1.5))
    finish(start(*commands["parts"], "--resume"))

    assert_same_run(tmp_path / "whole" / "run", tmp_path / "parts" / "run")


def kill_after_a_new_checkpoint(process, folder, delay_s):
    old, end = set(folder.glob("step-*")), time.monotonic() + 120
    while set(folder.glob("step-*")) <= old:
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(delay_s)
    assert process.poll() is None, "the run ended before it could be killed: give it more steps"
    process.send_signal(signal.SIGKILL)
    process.wait()


# ---- dataset.yaml ----------------------------------------------------------------------------------------------------


def test_a_described_folder_trains_on_coloured_masks_and_evaluates(user_folder, students, tmp_path, capsys):
    """Masks of colours, unlabelled images without any: training, its panel and `eval_semi.py` read the label map."""
    colours = np.array([[200, 0, 0], [0, 200, 0], [9, 9, 9]], np.uint8)
    rng = np.random.default_rng(0)
    for path in (user_folder / "labels").iterdir():
        write_image(path, np.kron(colours[rng.integers(0, 3, (5, 6))], np.ones((8, 8, 1), np.uint8)))
    description = DatasetDescription(
        root=user_folder,
        classes=(LandCoverClass("field", (200, 0, 0)), LandCoverClass("water", (0, 200, 0), ("sea", "lake"))),
        label_map=LabelMap((((200, 0, 0), 0), ((0, 200, 0), 1), ((9, 9, 9), 255))),
        bands=Bands(("red", "green", "blue"), rgb=(0, 1, 2)),
        labelled=("i[01].png",),
        validation=("i[23].png",),
    )
    path = user_folder / "dataset.yaml"
    description.save(path)
    short = dict(scenes=None, max_steps=1, eval_every=1, save_every=1)
    arguments = tiny_arguments(user_folder, "--dataset", str(path), **{**students, **short})
    metrics = main(arguments)
    assert math.isfinite(metrics["losses"][0]["loss"])
    assert list(metrics["arguments"]["label_map"].values()) == ["field", "water", "ignore"]
    assert find_palette(arguments) == [(200, 0, 0), (0, 200, 0)]
    run = user_folder / "run"
    assert list(Co2SForSemanticSegmentation.from_pretrained(run / "model").config.id2label.values()) == [
        "field",
        "water",
    ]
    again = evaluate_saved([str(run / "model"), "--dataset", str(path), "--threshold", str(arguments.threshold)])
    assert again["fused"]["mean_iou"] == pytest.approx(metrics["history"][-1]["fused"]["mean_iou"])

    swapped = replace(description, classes=description.classes[::-1])
    swapped.save(path, force=True)
    with pytest.raises(SystemExit):
        evaluate_saved([str(run / "model"), "--dataset", str(path)])
    assert "has the classes water, field; the model was trained with field, water" in capsys.readouterr().err


def test_a_cpu_process_gets_its_share_of_the_cores():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # what accelerate's launcher leaves
        use_cores(Accelerator(cpu=True), None)
        assert torch.get_num_threads() == os.cpu_count()
        use_cores(Accelerator(cpu=True), 1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
