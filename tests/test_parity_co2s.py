"""Parity with the released Co2S: tensors recorded from it against this package.

`CO2S_GOLDEN` names the directory of recordings (see released_co2s.py). A test whose recordings or weights the directory
lacks is skipped with the reason, and the last test checks that none was skipped that should have run.

The second student is compared with recordings of float32 rotary positions (`*_ropefp32`): the released code rounds
them to bfloat16, transformers does not.
"""

import copy
import re

import pytest
import torch
from torch.nn import functional as F

from co2s_hf.configuration_co2s import Co2SConfig
from co2s_hf.convert.co2s import convert_head, convert_official
from co2s_hf.guidance_head_co2s import Co2SGuidanceHead
from co2s_hf.modeling_co2s import Co2SForSemanticSegmentation, Co2SOutput
from co2s_hf.segmentation import window_starts
from tests.released_co2s import (
    CONFIG,
    DIRECTORY,
    SUBSET,
    Golden,
    completed,
    head_fields,
    official_names,
    our_names,
    recorded_case,
    settings,
    tensors,
    weights_below,
)
from tests.released_co2s_step import (
    STUDENTS,
    co2s,
    need_step,
    optimizer_groups,
    progress,
    recorded_batch,
    rounding_slack,
    step_taker,
    student_rows,
)
from training.metrics import ConfusionMatrix
from training.optim import build_optimizer, build_scheduler
from training.parts.losses import confident_cross_entropy, reduce_confident, stability_loss
from training.parts.pseudo_labels import PseudoLabels, cutmix, mutual_masks
from training.parts.schedules import stability_weight

CASES, LEVELS = ("train", "nonsq", "odd"), (0, 1, 2)
FEATURES, LOGITS, LOSSES, GRADIENTS = 1e-4, 5e-4, 1e-5, 1e-3  # the last one relative to the norm of the tensor
BFLOAT16 = 5e-2  # features that went through bfloat16 are compared for plausibility only

# What the default directory must compare, by test. A full directory must compare something in every test.
MINIMUM = {
    "test_features": 2,
    "test_features_with_bfloat16_positions": 1,
    "test_rope_tables": 4,
    "test_head_intermediates": 5,
    "test_head_logits": 2,
    "test_head_gradients": 50,
    "test_stability_loss": 3,
    "test_confident_reduction": 9,
    "test_cutmix": 3,
    "test_stability_weight": 270,
    "test_learning_rates": 240,
    "test_absent_class_counts_as_zero": 4,
    "test_parameter_groups": 600,
}


@pytest.fixture
def golden(request):
    return Golden(request.node.originalname or request.node.name)


@pytest.fixture(scope="module")
def model():
    clip, dinov3, sliding = CONFIG["clip"], CONFIG["dinov3"], settings("sliding_window")
    return convert_official(
        completed("clip"),
        completed("dinov3"),
        clip_num_attention_heads=clip["num_heads"],
        dinov3_num_attention_heads=dinov3["num_heads"],
        clip_logits_size=clip["head_image_size"],
        dinov3_logits_size=dinov3["head_image_size"],
        clip_skip_layers=clip["out_block_indices_value_path"],
        dinov3_skip_layers=dinov3["out_block_indices"][:2],
        head_num_attention_heads=CONFIG["head"]["num_heads"],
        head_pool_size=CONFIG["head"]["pool_size"][0],
        window_px=sliding.get("crop_size", CONFIG["crop_size"]),
        window_stride_px=sliding.get("stride"),
    )


def squared(student, logits):
    return F.interpolate(logits, (student.logits_size, student.logits_size), mode="bilinear")


# ---------------------------------------------------------------------------------------------------------------------
# Forward passes
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("student", STUDENTS)
def test_features(golden, model, student, case, level):
    image, expected = recorded_case(golden, student, case, f"pyramid.{level}")
    golden.need_weights(student, weights_below(student, level))
    golden.close(getattr(model, student).features(image)[level], expected, FEATURES)


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_features_with_bfloat16_positions(golden, model, case, level):
    image, expected = golden.need("dinov3_io", f"{case}.image", f"{case}.pyramid.{level}")
    golden.need_weights("dinov3", weights_below("dinov3", level))
    golden.close(model.dinov3.features(image)[level], expected, BFLOAT16)


def test_rope_tables(golden, model):
    names = [name for name in tensors("rope") if re.match(r"(cos|sin)\.fp32\.", name)]
    if not names:
        pytest.skip(f"{DIRECTORY} has no rope.safetensors")
    rope = model.dinov3.backbone.rope_embeddings
    for name in names:
        rows, columns = (int(side) * CONFIG["patch_size"] for side in name.split(".")[-1].split("x"))
        cos, sin = rope(torch.zeros(1, 3, rows, columns))
        golden.close(cos if name.startswith("cos") else sin, tensors("rope")[name], 1e-6, name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("student", STUDENTS)
def test_guidance(golden, model, student, case):
    (expected,) = golden.need(f"{student}_io", f"{case}.text")
    golden.need_weights(student, official_names(student))
    golden.close(getattr(model, student).guidance().detach().expand_as(expected), expected, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("student", STUDENTS)
def test_head_on_recorded_features(golden, model, student, case):
    """Both students' heads, from the recorded features of the released code."""
    names = [f"{case}.pyramid.{level}" for level in LEVELS]
    *pyramid, guidance, expected = golden.need(f"{student}_io", *names, f"{case}.text", f"{case}.head_stride4_logits")
    golden.need_weights(student, official_names(student))
    network = getattr(model, student)
    logits = network.head(pyramid, guidance)
    golden.close(logits, expected, LOGITS)
    if golden.has(f"{student}_io", f"{case}.head_square_logits"):
        (square,) = golden.need(f"{student}_io", f"{case}.head_square_logits")
        golden.close(squared(network, logits), square, LOGITS)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("student", STUDENTS)
def test_logits(golden, model, student, case):
    image, expected = recorded_case(golden, student, case, "logits")
    golden.need_weights(student, official_names(student))
    logits, perturbed = getattr(model, student)(image, None, 0.0)
    golden.close(logits, expected, LOGITS)
    assert len(perturbed) == 0
    if max(image.shape[-2:]) <= model.config.window_px:
        golden.close(model(image)[f"{student}_logits"], expected, LOGITS, "of the whole model")


def recorded_dropout(golden, student):
    """First image of `train`, channel masks of its three levels and the logits under them."""
    masks = golden.need(f"{student}_io", *(f"fp.channel_mask.{level}" for level in LEVELS))
    (image,) = golden.need(f"{student}_io", "train.image")
    file = "clip_io" if student == "clip" else "dinov3_io_ropefp32"
    (expected,) = golden.need(file, "fp.logits_perturbed")
    golden.need_weights(student, official_names(student))
    return image[:1], masks, expected


def masked_logits(student, image, masks):
    pyramid = [level * mask[:, :, None, None] for level, mask in zip(student.features(image), masks, strict=True)]
    logits = squared(student, student.head(pyramid, student.guidance()))
    return F.interpolate(logits, image.shape[-2:], mode="bilinear")


@torch.no_grad()
@pytest.mark.parametrize("student", STUDENTS)
def test_recorded_feature_dropout(golden, model, student):
    image, masks, expected = recorded_dropout(golden, student)
    golden.close(masked_logits(getattr(model, student), image, masks), expected, LOGITS)


@torch.no_grad()
@pytest.mark.parametrize("student", STUDENTS)
def test_seeded_feature_dropout(golden, model, student):
    """`perturbed_rows` drops whole channels, level after level, and leaves the other rows alone."""
    image, masks, expected = recorded_dropout(golden, student)
    network, seed = getattr(model, student), CONFIG["seed"] + 7
    torch.manual_seed(seed)
    drawn = [F.dropout2d(torch.ones_like(mask)[:, :, None, None], 0.5).flatten(1) for mask in masks]
    torch.manual_seed(seed)
    clean, perturbed = network(image, (0, 1), 0.5)
    golden.close(perturbed, masked_logits(network, image, drawn), LOGITS)
    golden.close(clean, network(image, None, 0.5)[0], LOGITS, "clean rows")
    # Another version of torch may draw other masks from this seed.
    if all(torch.equal(mask, draw) for mask, draw in zip(masks, drawn, strict=True)):
        golden.close(perturbed, expected, LOGITS, "with the recorded draws")


# ---------------------------------------------------------------------------------------------------------------------
# The guidance head alone
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def head(golden):
    weights = tensors("vlg_head_state_dict")
    if not weights:
        pytest.skip(f"{DIRECTORY} has no vlg_head_state_dict.safetensors")
    shape = CONFIG["vlg_head_alone"]
    middle, early = shape["skip_in_channels"]
    module = Co2SGuidanceHead(Co2SConfig(**head_fields(shape)), early, shape["text_in_channels"])
    # A student has one width; the recorded head has another one for each skip.
    module.skip_proj1 = torch.nn.Conv2d(middle, shape["skip_channels"][0], 3, padding=1)
    module.load_state_dict(convert_head(weights))
    return module


def head_inputs(golden, case):
    return golden.need("vlg_head_io", *(f"{case}.pyramid.{level}" for level in LEVELS), f"{case}.text")


@pytest.mark.parametrize("case", ["a", "b"])
def test_head_intermediates(golden, head, case):
    names = [name for name in tensors("vlg_head_io") if name.startswith(f"{case}.mid.")]
    if not names:
        pytest.skip(f"{DIRECTORY} has no intermediates of case {case}")
    modules = {
        "aspp": head.aspp,
        "text_proj": head.guidance_proj,
        "skip_proj.0": head.skip_proj1,
        "skip_proj.1": head.skip_proj2,
        "up1": head.up1.conv2[2],  # normalised where it goes on
        **{f"semantic.{index}": layer for index, layer in enumerate(head.layers)},
    }
    seen = {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    head.aspp.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("similarity", inputs[0]))
    *pyramid, text = head_inputs(golden, case)
    with torch.no_grad():
        head(pyramid, text)
        seen["conv1"] = head.similarity_conv(seen["similarity"])  # the head composes it with what follows
    for name in names:
        part = name.removeprefix(f"{case}.mid.")
        (expected,) = golden.need("vlg_head_io", name)
        actual = F.relu(seen[part]) if "proj" in part else seen[part]
        if part.startswith("semantic"):  # (batch * classes, channels, ...) -> (batch, channels, classes, ...)
            actual = actual.unflatten(0, (len(expected), -1)).transpose(1, 2)
        golden.close(actual, expected, FEATURES, name)


@torch.no_grad()
@pytest.mark.parametrize("case", ["a", "b"])
def test_head_logits(golden, head, case):
    *pyramid, text = head_inputs(golden, case)
    (expected,) = golden.need("vlg_head_io", f"{case}.stride4_logits")
    golden.close(head(pyramid, text), expected, LOGITS)


@torch.no_grad()
@pytest.mark.parametrize("case", ["a", "b"])
def test_head_square_logits(golden, head, case):
    *pyramid, text = head_inputs(golden, case)
    (expected,) = golden.need("vlg_head_io", f"{case}.square_logits")
    size = (CONFIG["vlg_head_alone"]["img_size"],) * 2
    golden.close(F.interpolate(head(pyramid, text), size, mode="bilinear"), expected, LOGITS)


def test_head_gradients(golden, head):
    inputs = [value.clone().requires_grad_() for value in head_inputs(golden, "a")]
    (cotangent,) = golden.need("vlg_head_io", "a.cotangent")
    *pyramid, text = inputs
    head(pyramid, text).backward(cotangent)
    names = [f"a.grad.pyramid.{level}" for level in LEVELS] + ["a.grad.text"]
    for name, value in zip(names, inputs, strict=True):
        if golden.has("vlg_head_io", name):
            golden.close_norm(value.grad, *golden.need("vlg_head_io", name), GRADIENTS, name)
    prefix = "a.grad.param."
    recorded = {
        name.removeprefix(prefix): value for name, value in tensors("vlg_head_io").items() if name.startswith(prefix)
    }
    for name, expected in convert_head(recorded).items():
        golden.close_norm(head.get_parameter(name).grad, expected, GRADIENTS, name)


# ---------------------------------------------------------------------------------------------------------------------
# Losses and schedules alone
# ---------------------------------------------------------------------------------------------------------------------


def test_stability_loss(golden):
    student, teacher, mask, gradient = golden.need(
        "unit_losses", "mse.student", "mse.teacher", "mse.mask", "mse.grad_student"
    )
    student, mask = student.clone().requires_grad_(), mask[:, 0] > 0
    loss = stability_loss(student, teacher, mask)
    loss.backward()
    golden.close(loss, golden.need_settings("unit_losses", "mse.loss"), 1e-6)
    golden.close(student.grad, gradient, 1e-6)
    empty = stability_loss(student, teacher, torch.zeros_like(mask))
    golden.close(empty, golden.need_settings("unit_losses", "mse.loss_empty_mask"), 0.0)


def test_confident_reduction(golden):
    loss_map, confidence, ignored = golden.need("unit_losses", "cwl.loss_map", "cwl.conf", "cwl.ignore_mask")
    for name, recorded in settings("unit_losses").items():
        if name.startswith("cwl."):
            _, mode, threshold = name.split(".", 2)
            value = reduce_confident(loss_map, confidence, ignored != 255, threshold=float(threshold), mode=mode)
            golden.close(value, recorded["value"][0], 1e-5 * max(1.0, recorded["value"][0]), name)


def test_cutmix(golden):
    (box,) = golden.need("unit_losses", "cutmix.box")
    for name in ("img", "mask", "conf"):
        own, other, expected = golden.need("unit_losses", *(f"cutmix.{name}{end}" for end in ("", "_mix", "_out")))
        golden.equal(cutmix(own, other, box.bool()), expected, name)


def test_stability_weight(golden):
    recorded = dict(golden.need_settings("schedules", "dynamic_weight"))
    for name, expected in recorded.pop("edge").items():
        step, total, _, ramp = re.match(r"step=(-?\d+),total=(\d+)(,up=([\d.]+))?", name).groups()
        value = stability_weight(int(step), int(total), **({"ramp_fraction": float(ramp)} if ramp else {}))
        golden.close(value, expected, 1e-9, name)
    for name, values in recorded.items():
        run = dict(part.split("=") for part in name.split(","))
        for step, expected in values.items():
            value = stability_weight(
                int(step), int(run["total"]), ramp_fraction=float(run["up_ratio"]), mode=run["mode"]
            )
            golden.close(value, expected, 1e-9, f"{name} at {step}")


def test_learning_rates(golden):
    for name, run in golden.need_settings("schedules", "lr").items():
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in run["initial_lrs"]]
        optimizer = build_optimizer(groups)
        scheduler = build_scheduler(optimizer, run["max_iters"], warmup_steps=run["warmup_iters"], released=True)
        for at, values in enumerate(run["values"]):
            assert values["iters"] == at
            for group, expected in zip(optimizer.param_groups, values["lr_used_by_step"], strict=True):
                golden.close(group["lr"], expected, 1e-9 * expected, f"{name} at {at}")
            optimizer.step()
            scheduler.step()


# ---------------------------------------------------------------------------------------------------------------------
# Sliding window and metrics
# ---------------------------------------------------------------------------------------------------------------------


def sliding_images(golden):
    return range(len(golden.need_settings("sliding_window", "images")))


@torch.no_grad()
@pytest.mark.parametrize("student", STUDENTS)
def test_sliding_window(golden, model, student):
    golden.need_weights(student, official_names(student))
    file = "sliding_window" if student == "clip" else "sliding_window_ropefp32"
    report = golden.need_settings(file, *([] if student == "dinov3" else ["per_student"]), student)
    confusion = ConfusionMatrix(CONFIG["num_classes"])
    differing = 0
    for index in sliding_images(golden):
        image, mask = golden.need("sliding_window", f"image.{index}", f"mask.{index}")
        expected, prediction = golden.need(file, f"{student}.final_logits.{index}", f"{student}.pred.{index}")
        logits = model(image)[f"{student}_logits"]
        logits = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=True)
        golden.close(logits, expected, LOGITS, f"image {index}")
        best, second = logits.topk(2, dim=1).values.unbind(1)
        differs = logits.argmax(1) != prediction
        assert not (differs & (best - second > 1e-3)).any(), f"image {index}: predictions differ where they are clear"
        differing += int(differs.sum())
        confusion.update(logits.argmax(1), mask.long())
    if not differing:
        golden.close(confusion.iou().nan_to_num(), torch.tensor(report["iou_percent"]).double() / 100, 1e-6)
        golden.close(confusion.mean_iou(absent="zero"), report["miou_percent"] / 100, 1e-6)
    else:
        golden.close(confusion.mean_iou(absent="zero"), report["miou_percent"] / 100, 1e-3)


@pytest.mark.parametrize("student", STUDENTS)
def test_recorded_predictions_give_recorded_counts(golden, student):
    report = golden.need_settings("sliding_window", "per_student", student)
    confusion = ConfusionMatrix(CONFIG["num_classes"])
    for index in sliding_images(golden):
        prediction, mask = golden.need("sliding_window", f"{student}.pred.{index}", f"mask.{index}")
        one = ConfusionMatrix(CONFIG["num_classes"])
        for counted in (one, confusion):
            counted.update(prediction.long(), mask.long())
        compare_counts(golden, one, report["per_image"][index])
    golden.close(confusion.mean_iou(absent="zero") * 100, report["miou_percent"], 1e-4)


@pytest.mark.parametrize("student", STUDENTS)
def test_windows(golden, student):
    window, stride = (golden.need_settings("sliding_window", name) for name in ("crop_size", "stride"))
    images = golden.need_settings("sliding_window", "images")
    reports = golden.need_settings("sliding_window", "per_student", student, "per_image")
    for image, report in zip(images, reports, strict=True):
        height, width = image["image_hw"]
        corners = [(y, x) for y in window_starts(height, window, stride) for x in window_starts(width, window, stride)]
        sizes = [[min(window, height - y), min(window, width - x)] for y, x in corners]
        golden.equal(torch.tensor(sizes), torch.tensor(report["window_hw"]))


def test_absent_class_counts_as_zero(golden):
    case = golden.need_settings("sliding_window", "absent_class_case")
    confusion = ConfusionMatrix(case["K"])
    confusion.update(torch.tensor(case["pred"]), torch.tensor(case["target"]))
    compare_counts(golden, confusion, case)
    golden.close(confusion.iou().nan_to_num() * 100, torch.tensor(case["iou_percent"]), 1e-4)
    golden.close(confusion.mean_iou(absent="zero") * 100, case["miou_percent"], 1e-4)


def compare_counts(golden, confusion, recorded):
    intersection = confusion.counts.diagonal()
    union = confusion.counts.sum(0) + confusion.counts.sum(1) - intersection
    golden.equal(intersection, torch.tensor(recorded["intersection"]))
    golden.equal(union, torch.tensor(recorded["union"]))
    if "target" in recorded and not isinstance(recorded["target"][0], list):
        golden.equal(confusion.counts.sum(1), torch.tensor(recorded["target"]))


# ---------------------------------------------------------------------------------------------------------------------
# One training step
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def take_step(model):
    return step_taker(model)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_step_losses(golden, take_step, variant):
    recorded = need_step(golden)[variant]
    step = take_step(variant, torch.float32)
    terms, weight = step.terms, step.terms["stability_weight"]
    golden.close(weight, recorded["stabilization_weight"], 1e-7)
    for student in STUDENTS:
        slack = rounding_slack(step, student)
        ours = {name: terms[f"loss_{student}_{name}"] for name in ("x", "s1", "s2", "fp")}
        ours["total"] = terms[f"loss_{student}"]
        for name, value in ours.items():
            golden.close(value, recorded[f"loss_{student}_{name}"], LOSSES + slack[name], f"{student} {name}")
        stability = weight * terms[f"loss_{student}_stability"]
        golden.close(stability, recorded[f"loss_stab_{student}"], LOSSES + slack["stab"], f"{student} stability")


def joined(values, student, name, like):
    """Our tensors that make up a released one, put together; DINOv3's keys have no bias with us."""
    parts = our_names(student, name)
    zeros = torch.zeros(like.shape[0] // len(parts), *like.shape[1:], dtype=torch.float64)
    return torch.cat([values[part].double() if part in values else zeros for part in parts]).view_as(like)


def compare_gradients(golden, steps, student, recorded):
    for name, expected in recorded.items():
        # In either precision single units of a ReLU may fall to the other side; not in both on the same tensor.
        candidates = [joined(step.gradients, student, name, expected) for step in steps]
        if name == "decode_head.head.bias":  # adds the same to all classes: no gradient, only rounding noise
            golden.close(min(gradient.abs().max() for gradient in candidates), 0.0, 1e-5, name)
            golden.close(expected.abs().max(), 0.0, 1e-5, name)
        else:
            best = min(candidates, key=lambda gradient: (gradient - expected).norm())
            golden.close_norm(best, expected, GRADIENTS, f"{student} {name}")


def recorded_parts(file, student, kind):
    prefix = f"{student}.{kind}."
    return {name.removeprefix(prefix): value for name, value in tensors(file).items() if name.startswith(prefix)}


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_step_gradients(golden, take_step, variant, student):
    summary = need_step(golden)[variant]
    # As released, CLIP's gradients do not depend on the other student, and the first file holds all of them.
    file = "train_released" if (student, variant) == ("clip", "released") else f"train_{variant}_ropefp32"
    recorded = recorded_parts(file, student, "grad")
    if not recorded:
        pytest.skip(f"{DIRECTORY} has no gradients in {file}.safetensors")
    steps = [take_step(variant, dtype) for dtype in (torch.float32, torch.float64)]
    compare_gradients(golden, steps, student, recorded)
    gradients = [value for name, value in steps[1].gradients.items() if name.startswith(f"{student}.")]
    norm = torch.cat([value.flatten() for value in gradients]).norm().item()
    expected = summary[f"grad_norm_{student}"]
    golden.close(norm / expected, 1.0, GRADIENTS, "norm of all gradients")


def test_step_gradients_with_bfloat16_positions(golden, take_step):
    """All of DINOv3's gradients point where the released ones do."""
    need_step(golden)
    recorded = recorded_parts("train_released", "dinov3", "grad")
    if not recorded:
        pytest.skip(f"{DIRECTORY} has no gradients in train_released.safetensors")
    step = take_step("released", torch.float64)
    for name, expected in recorded.items():
        if name != "decode_head.head.bias":
            gradient = joined(step.gradients, "dinov3", name, expected)
            cosine = F.cosine_similarity(gradient.flatten(), expected.double().flatten(), dim=0)
            golden.close(cosine, torch.ones_like(cosine), 0.1, name)


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_step_parameters(golden, take_step, variant, student):
    need_step(golden)
    file = f"train_{variant}_ropefp32"
    after, gradients = recorded_parts(file, student, "after"), recorded_parts(file, student, "grad")
    if not after:
        pytest.skip(f"{DIRECTORY} has no parameters after the step in {file}.safetensors")
    step = take_step(variant, torch.float32)
    rates = golden.need_settings("train_step", "param_groups", student)
    for name, expected in after.items():
        if name == "decode_head.head.bias":
            continue
        # AdamW's first step is the sign of the gradient: rounding noise decides it where there is none.
        gradient = gradients[name].abs()
        clear = gradient > 1e-3 * gradient.max()
        error = (joined(step.parameters, student, name, expected) - expected.double()).abs()
        # Besides the tolerance one unit in the last place: the backbones' rate is not far above it.
        excess = (error - torch.finfo(torch.float32).eps * expected.abs())[clear].max().item()
        golden.measured(excess / rates[name]["lr"], 1e-2, f"{student} {name}, in units of its learning rate,")


def test_parameter_groups(golden, model):
    network = copy.deepcopy(model).requires_grad_(True)
    network.freeze_unused()
    groups = optimizer_groups(network)
    parameters = dict(network.named_parameters())
    rates = {id(value): (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    trained, frozen = set(), set()
    for student in STUDENTS:
        for name, recorded in golden.need_settings("train_step", "param_groups", student).items():
            ours = [part for part in our_names(student, name) if part in parameters]
            for part in ours:
                if not recorded["trainable"]:
                    assert id(parameters[part]) not in rates, f"{part} trains, {name} does not"
                elif id(parameters[part]) in rates:
                    lr, weight_decay = rates[id(parameters[part])]
                    golden.close(lr, recorded["lr"], 1e-9 * recorded["lr"], part)
                    golden.close(weight_decay, recorded["weight_decay"], 1e-9, part)
                    trained.add(part)
                else:
                    frozen.add(part)
    assert trained == {name for name, value in parameters.items() if value.requires_grad}
    # Queries and keys of CLIP's last block are unused: released they only decay, here they are frozen.
    last = f"clip.backbone.vision_model.encoder.layers.{CONFIG['clip']['depth'] - 1}.self_attn"
    assert frozen == {f"{last}.{part}_proj.{kind}" for part in "qk" for kind in ("weight", "bias")}


@pytest.mark.parametrize("student", STUDENTS)
def test_step_pseudo_labels(golden, take_step, student):
    need_step(golden)
    file = "train_released_ropefp32"
    logits, label, confidence = golden.need(
        file, f"{student}.pred_w", f"{student}.mask_w_mixed1", f"{student}.conf_w_mixed1"
    )
    weak, partner, strong1, _ = student_rows(take_step("released", torch.float32), student)
    batch = recorded_batch(torch.float32)
    golden.close(weak, logits, LOGITS)
    own = PseudoLabels.from_logits(weak, batch.u_valid)
    mixed = own.cutmix(PseudoLabels.from_logits(partner, batch.p_valid), batch.box1)
    golden.close(mixed.confidence, confidence, 2e-4)
    best, second = cutmix(weak, partner, batch.box1).topk(2, dim=1).values.unbind(1)
    clear = best - second > 1e-3
    golden.equal(mixed.label[clear], label.long()[clear])
    expected_strong, tolerance = golden.need("train_released", f"{student}.pred_s1_image0"), LOGITS
    if student == "dinov3":  # recorded with bfloat16 positions only
        tolerance = 10 * BFLOAT16
    golden.close(strong1[:1], *expected_strong, tolerance)
    if student == "clip" and golden.has("train_released", "clip.mask_w_mixed2"):
        label, confidence = golden.need("train_released", "clip.mask_w_mixed2", "clip.conf_w_mixed2")
        mixed = own.cutmix(PseudoLabels.from_logits(partner, batch.p_valid), batch.box2)
        golden.close(mixed.confidence, confidence, 2e-4)
        best, second = cutmix(weak, partner, batch.box2).topk(2, dim=1).values.unbind(1)
        golden.equal(mixed.label[best - second > 1e-3], label.long()[best - second > 1e-3])


def test_step_student_masks(golden, take_step):
    need_step(golden)
    expected = golden.need("train_released_ropefp32", "clip_student_mask", "dino_student_mask")
    step, threshold = take_step("released", torch.float32), settings("train_step")["conf_thresh"]
    valid = recorded_batch(torch.float32).u_valid
    pseudo = [PseudoLabels.from_logits(student_rows(step, student)[0], valid) for student in STUDENTS]
    first, second = (labels.confidence for labels in pseudo)
    clear = ((first - threshold).abs() > 1e-4) & ((second - threshold).abs() > 1e-4) & ((first - second).abs() > 1e-4)
    assert clear.float().mean() > 0.99
    for ours, mask in zip(mutual_masks(*pseudo, threshold), expected, strict=True):
        golden.equal(ours[clear], mask.bool()[clear])


def test_step_inputs_after_cutmix(golden):
    golden.need("train_batch", "img_s1")
    image, ignored = golden.need("train_released", "img_s1_after_cutmix.image", "ignore_mask_mixed1")
    batch = recorded_batch(torch.float32)
    golden.equal(cutmix(batch.u_s1, batch.p_s1, batch.box1), image)
    golden.equal(cutmix(batch.u_valid, batch.p_valid, batch.box1), ignored != 255)


class Replay(torch.nn.Module):
    """Stands for the model and answers with its recorded outputs."""

    students, perturbed = Co2SForSemanticSegmentation.students, Co2SForSemanticSegmentation.perturbed

    def __init__(self, outputs):
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, *args, **kwargs):
        return Co2SOutput(**next(self.outputs))


@torch.no_grad()
@pytest.mark.parametrize("mode", ["pixelratio", "pixelavg"])
def test_step_losses_of_other_confidence_modes(golden, take_step, mode):
    need_step(golden)
    recorded = golden.need_settings("train_step", "other_conf_modes", mode)
    batch, outputs = recorded_batch(torch.float32), take_step("released", torch.float32).outputs
    terms = co2s(Replay(outputs), mode=mode).step(batch, progress())
    for name in ("s1", "s2", "fp"):
        golden.close(terms[f"loss_clip_{name}"], recorded[f"loss_clip_{name}"][0], LOSSES * 10, name)
    for name in ("s1", "fp"):  # recorded with bfloat16 positions
        expected = recorded[f"loss_dinov3_{name}"][0]
        golden.close(terms[f"loss_dinov3_{name}"], expected, BFLOAT16 * expected, f"dinov3 {name}")
    (logits,) = golden.need("train_released", "dinov3.pred_w")
    pseudo = PseudoLabels.from_logits(logits, batch.u_valid)
    threshold = settings("train_step")["conf_thresh"]
    value = confident_cross_entropy(logits, pseudo, threshold=threshold, mode=mode, counts_invalid=True)
    golden.close(value, recorded["loss_dinov3_fp"][0], LOSSES, "dinov3 fp from recorded logits")


# ---------------------------------------------------------------------------------------------------------------------
# Nothing was silently left out
# ---------------------------------------------------------------------------------------------------------------------


def test_contract_of_comparisons(request):
    tests = {item.originalname for item in request.session.items if item.module is request.module}
    every = {name for name in vars(request.module) if name.startswith("test_")}
    if tests != every:
        pytest.skip("only a part of this module was selected")
    compared = every - {"test_contract_of_comparisons"}
    for name in sorted(compared):
        print(f"{name:48s} {Golden.counts[name]:5d} comparisons, largest error {Golden.worst.get(name, 0.0):.2g}")
    if DIRECTORY == SUBSET:
        too_few = {name: Golden.counts[name] for name, least in MINIMUM.items() if Golden.counts[name] < least}
        assert not too_few, f"fewer comparisons than {MINIMUM}"
    complete = not any(official_names(student) - set(tensors(f"{student}_state_dict")) for student in STUDENTS)
    if complete and tensors("train_batch"):
        assert not {name for name in compared if not Golden.counts[name]}, "a whole directory leaves no test out"
