"""Parity with the released RS-MTDF, SemiEarth and UniMatch V2: tensors recorded from them against this package.

`FAMILY_GOLDEN` names the directory of recordings (see released_family.py). A test whose recordings or weights the
directory lacks is skipped with the reason, and the last test checks that none was skipped that should have run. All is
computed in float64 and compared at the tolerances that the recordings allow, which are stored in float32.
"""

from functools import cache

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from co2s_hf.configuration_dinov2_dpt import Dinov2DPTConfig
from co2s_hf.convert.dinov2_dpt import convert_tensors
from co2s_hf.modeling_dinov2_dpt import Dinov2DPTHead, Dinov2DPTTranslator
from tests.released_family import DIRECTORY, SUBSET, Golden, settings, student_of, tensors
from training.batches import Batch
from training.methods.fixmatch import FixMatch
from training.methods.rs_mtdf import RSMTDF
from training.methods.unimatch_v2 import UniMatchV2
from training.metrics import ConfusionMatrix, ReleasedTestScores
from training.optim import build_optimizer, build_scheduler, parameter_groups
from training.parts.losses import distillation_loss
from training.parts.schedules import Progress
from training.parts.teachers import Teacher, teacher_facts

FORWARD, GRADIENTS = 1e-5, 1e-6
TRAINED_LOSS, TRAINED_WEIGHTS = 1e-8, 5e-7
STORED_LOSS = 5e-7  # these losses lie below 8 and are stored in float32: one unit in its last place

SIZES = (0, 1)
TEACHERS = ("dino", "clip")
NUM_TOKENS_STORED = slice(None, None, 4)  # of the pass at 224 px

# What the default directory must compare, by test. A full directory must compare something in every test.
MINIMUM = {
    "test_rs_mtdf_features": 7,
    "test_rs_mtdf_logits": 1,
    "test_distillation": 7,
}


@pytest.fixture
def golden(request):
    return Golden(request.node.originalname or request.node.name)


def as_maps(tokens, grid):
    return tokens.transpose(1, 2).unflatten(2, grid)


def as_tokens(maps):
    return maps.flatten(2).transpose(1, 2)


# ---------------------------------------------------------------------------------------------------------------------
# DINOv2 + DPT
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_dpt_head(golden):
    recorded = golden.need_settings("dpt_head")
    *tokens, expected = golden.need("dpt_head", *(f"in.tokens_{i}" for i in range(4)), "out.logits")
    config = Dinov2DPTConfig(
        backbone_config={"hidden_size": recorded["in_channels"], "num_attention_heads": 1},
        dpt_channels=recorded["features"],
        dpt_out_channels=recorded["out_channels"],
        num_labels=recorded["nclass"],
    )
    head = Dinov2DPTHead(config).double()
    weights = convert_tensors(golden.need_all("dpt_head", "weights."))
    head.load_state_dict({name.removeprefix("head."): value for name, value in weights.items()})
    levels = [as_maps(level, (recorded["patch_h"], recorded["patch_w"])) for level in tokens]
    golden.close(head(levels), expected, FORWARD)


@cache
def plain_student():
    recorded = settings("dpt_model")
    weights = {n.removeprefix("init."): v for n, v in tensors("train_semiearth").items() if n.startswith("init.")}
    return student_of(weights, recorded["dino"], recorded["layer_indices"])


@pytest.fixture
def student(golden):
    golden.need_all("train_semiearth", "init.")
    golden.need_settings("dpt_model")
    return plain_student()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_positions(golden, student, size):
    image, expected = golden.need("dpt_model", f"in.image_{size}", f"out.pos_embed_{size}")
    golden.close(student.backbone.embeddings.interpolate_pos_encoding(None, *image.shape[-2:]), expected, FORWARD)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_tokens(golden, student, size):
    image, *expected = golden.need("dpt_model", f"in.image_{size}", *(f"out.tokens_{size}_{i}" for i in range(4)))
    levels, translated = student.features(image)
    assert translated == ()
    for level, tokens in zip(levels, expected, strict=True):
        golden.close(as_tokens(level), tokens, FORWARD)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_logits(golden, student, size):
    image, expected = golden.need("dpt_model", f"in.image_{size}", f"out.logits_{size}")
    golden.close(student(image).logits, expected, FORWARD)


@torch.no_grad()
def test_image_of_the_pretrained_grid(golden, student):
    """At 518 px no position is interpolated."""
    tile, tokens, logits = golden.need(
        "dpt_model", "in.image_518_tile_u8", "out.tokens_518_last_strided", "out.logits_518_strided"
    )
    ramp = torch.linspace(-1, 1, 518, dtype=torch.float64)
    image = (tile.double().repeat(1, 1, 7, 7) / 255 - 0.5) / 0.25 + ramp[:, None] + 0.5 * ramp[None]
    assert student.config.window_px >= 518 and image.shape[-2:] == (518, 518)
    assert student.backbone.embeddings.interpolate_pos_encoding(None, 518, 518).shape[1] == 1 + 37**2
    levels, _ = student.features(image)
    golden.close(as_tokens(levels[-1])[:, ::7], tokens, FORWARD)
    golden.close(student(image).logits[:, :, ::14, ::14], logits, FORWARD)


@torch.no_grad()
def test_complementary_dropout(golden, student):
    """Recorded draws, as UniMatch V2 makes masks of them, applied by the model."""
    names = ("comp_drop.in.image", "comp_drop.binomial", "comp_drop.randperm", "comp_drop.out.logits")
    image, draws, order, expected = golden.need("dpt_model", *names)
    first, second = 2 * draws, 2 - 2 * draws
    undropped = order[: len(draws) // 2]
    first[undropped] = second[undropped] = 1
    golden.close(student(image, channel_masks=torch.cat([first, second])).logits, expected, FORWARD)


# ---------------------------------------------------------------------------------------------------------------------
# RS-MTDF
# ---------------------------------------------------------------------------------------------------------------------


@cache
def rs_mtdf_student():
    recorded = settings("rs_mtdf_forward")
    weights = {n.removeprefix("init."): v for n, v in tensors("train_rs_mtdf").items() if n.startswith("init.")}
    return student_of(weights, recorded["student"], recorded["student_layers"])


@pytest.fixture
def rs_mtdf(golden):
    golden.need_all("train_rs_mtdf", "init.")
    golden.need_settings("rs_mtdf_forward")
    return rs_mtdf_student()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_rs_mtdf_features(golden, rs_mtdf, size):
    names = (
        "out.student_tokens",
        "out.student_tokens_224",
        "out.translated_dino",
        "out.translated_clip",
        "out.projected_dino",
        "out.projected_clip_aligned",
        "out.fused",
    )
    image, *expected = golden.need("rs_mtdf_forward", f"in.image_{size}", *(f"{name}_{size}" for name in names))
    own, squeezed, translated_dino, translated_clip, projected_dino, projected_clip, fused = expected
    grid = tuple(side // 14 for side in image.shape[-2:])

    seen = []
    hook = rs_mtdf.backbone.register_forward_hook(lambda *arguments: seen.append(arguments[-1].feature_maps[-1]))
    levels, translated = rs_mtdf.features(image)
    hook.remove()
    first, second = seen  # the image and its square of 224 px, each in one pass
    golden.close(as_tokens(first), own, FORWARD, "tokens")
    golden.close(as_tokens(second)[:, NUM_TOKENS_STORED], squeezed, FORWARD, "tokens of the square")
    golden.close(translated[0], translated_dino, FORWARD, "translated to DINOv2")
    golden.close(translated[1][:, NUM_TOKENS_STORED], translated_clip, FORWARD, "translated to CLIP")
    blended = [
        as_tokens(translator.blend(found, side, grid))
        for translator, found, side in zip(rs_mtdf.translators, translated, (grid, (16, 16)), strict=True)
    ]
    golden.close(blended[0], projected_dino, FORWARD, "projected back from DINOv2")
    golden.close(blended[1], projected_clip, FORWARD, "projected back from CLIP")
    golden.close(as_tokens(levels[-1]), fused, FORWARD, "fused")


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_rs_mtdf_logits(golden, rs_mtdf, size):
    image, expected = golden.need("rs_mtdf_forward", f"in.image_{size}", f"out.logits_{size}")
    golden.close(rs_mtdf(image).logits, expected, FORWARD)


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_rs_mtdf_losses(golden, rs_mtdf, size):
    """Of the square every fourth token of student and teacher is stored, so that its loss is that of these tokens."""
    image, *targets = golden.need("rs_mtdf_forward", f"in.image_{size}", *(f"teacher.{n}_{size}" for n in TEACHERS))
    recorded = golden.need("rs_mtdf_forward", *(f"out.translated_{name}_{size}" for name in TEACHERS))
    dino, clip = rs_mtdf(image).translated
    stored = [dino, clip[:, NUM_TOKENS_STORED]]
    expected = [(one - target).square().mean() for one, target in zip(recorded, targets, strict=True)]
    golden.close(distillation_loss(stored, targets), sum(expected) / 2, STORED_LOSS)
    if golden.has("rs_mtdf_forward", f"loss.dino_{size}"):
        (whole,) = golden.need("rs_mtdf_forward", f"loss.dino_{size}")
        golden.close(distillation_loss(stored[:1], targets[:1])[None], whole, STORED_LOSS)


def test_distillation(golden):
    recorded = golden.need_settings("rs_mtdf_distill")
    weights = convert_tensors(golden.need_all("rs_mtdf_distill", "weights."))
    names = ("student_tokens", "student_tokens_224")
    inputs = [value.clone().requires_grad_() for value in golden.need("rs_mtdf_distill", *(f"in.{n}" for n in names))]
    targets = golden.need("rs_mtdf_distill", *(f"in.teacher_{name}" for name in TEACHERS))
    translators = torch.nn.ModuleList(
        Dinov2DPTTranslator(recorded["student_dim"], recorded[f"{name}_dim"], recorded["hidden"], None)
        for name in TEACHERS
    ).double()
    ours = {name.removeprefix("translators."): value for name, value in weights.items()}
    missing, unexpected = translators.load_state_dict(ours, strict=False)
    assert not unexpected and all("project_back" in name for name in missing)

    translated = [translator(tokens) for translator, tokens in zip(translators, inputs, strict=True)]
    losses = [distillation_loss([one], [target]) for one, target in zip(translated, targets, strict=True)]
    total = distillation_loss(translated, targets)
    for name, loss in zip((*TEACHERS, "total"), (*losses, total), strict=True):
        (expected,) = golden.need("rs_mtdf_distill", f"loss.{name}")
        golden.close(loss[None], expected, STORED_LOSS, f"loss {name}")
    total.backward()
    for name, value in zip(names, inputs, strict=True):
        golden.close(value.grad, golden.need("rs_mtdf_distill", f"grad.{name}")[0], GRADIENTS, name)
    parameters = dict(translators.named_parameters())
    gradients = golden.need_all("rs_mtdf_distill", "grad.feature")
    for name, expected in convert_tensors({f"feature{name}": value for name, value in gradients.items()}).items():
        golden.close(parameters[name.removeprefix("translators.")].grad, expected, GRADIENTS, name)


# ---------------------------------------------------------------------------------------------------------------------
# Whole trainings
# ---------------------------------------------------------------------------------------------------------------------


def recorded_batch(golden, iteration):
    """The batch of one iteration; a CutMix partner is the image at the other end of the batch."""
    names = ("img_x", "mask_x", "img_u_w", "img_u_s1", "img_u_s2", "ignore_mask", "cutmix_box1", "cutmix_box2")
    x, y, u_w, u_s1, u_s2, ignored, box1, box2 = golden.need("train_data", *(f"{iteration}.{name}" for name in names))
    valid = ignored != 255
    return Batch(
        x=x,
        y=y.long(),
        u_w=u_w,
        u_s1=u_s1,
        u_s2=u_s2,
        u_valid=valid,
        box1=box1.bool(),
        box2=box2.bool(),
        p_w=u_w.flip(0),
        p_s1=u_s1.flip(0),
        p_s2=u_s2.flip(0),
        p_valid=valid.flip(0),
        pairs=torch.arange(len(u_w)).flip(0),
    )


def compare_training(golden, file, method, before_step=lambda iteration: None):
    """Train as recorded; compare every loss, the first gradients, and the last weights of student and teacher."""
    recorded = golden.need_settings(file)
    groups = parameter_groups(
        method.model,
        lr=recorded["lr"],
        backbone_factor=1.0,
        head_factor=recorded["lr_multi"],
        weight_decay=recorded["weight_decay"],
    )
    optimizer = build_optimizer(groups)
    scheduler = build_scheduler(optimizer, recorded["iters"], released=True)
    method.model.train()
    for iteration in range(recorded["iters"]):
        before_step(iteration)
        batch, progress = recorded_batch(golden, iteration), Progress(iteration, recorded["iters"])
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx(recorded["lrs_used_at_step"][iteration], rel=1e-12)
        losses = method.step(batch, progress)
        expected = recorded["scalars"]["train/loss_all"][iteration]
        golden.close(losses["loss"].detach()[None], torch.tensor([expected], dtype=torch.float64), TRAINED_LOSS, "loss")
        losses["loss"].backward()
        if iteration == 0:
            compare_gradients(golden, file, method.model)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        method.after_step(progress)
    for prefix, model in (("final.", method.model), ("final_ema.", method.teacher.model)):
        compare_evaluation(golden, recorded["scalars"], model, "_ema" if "ema" in prefix else "")
        weights = model.state_dict()
        for name, expected in convert_tensors(golden.need_all(file, prefix)).items():
            golden.close(weights[name], expected, TRAINED_WEIGHTS, f"{prefix}{name}")


@torch.no_grad()
def compare_evaluation(golden, expected, model, suffix):
    """Images resized to the nearest multiples of the patch and back, absent classes counted as 0."""
    confusion, patch, index = ConfusionMatrix(model.config.num_labels), model.config.backbone_config.patch_size, 0
    model.eval()
    while golden.has("train_data", f"val.{index}.image"):
        image, mask = golden.need("train_data", f"val.{index}.image", f"val.{index}.mask")
        size = [int(side / patch + 0.5) * patch for side in image.shape[1:]]
        resized = F.interpolate(image[None], size, mode="bilinear", align_corners=True)
        logits = F.interpolate(model(resized).logits, mask.shape, mode="bilinear", align_corners=True)
        confusion.update(logits.argmax(1)[0], mask.long())
        index += 1
    assert index > 0
    score = torch.tensor([100 * confusion.mean_iou("zero")], dtype=torch.float64)
    wanted = torch.tensor(expected[f"eval/mIoU{suffix}"], dtype=torch.float64)
    golden.close(score, wanted, 1e-9, f"mIoU{suffix}")


def compare_gradients(golden, file, model):
    parameters = dict(model.named_parameters())
    found = convert_tensors(golden.need_all(file, "step0.grad."))
    assert len(found) > 100
    for name, expected in found.items():
        if parameters[name].requires_grad:
            golden.close(parameters[name].grad, expected, GRADIENTS * max(1, expected.abs().max()), f"gradient {name}")


def trained_student(golden, file):
    recorded = golden.need_settings(file)
    weights = golden.need_all("train_rs_mtdf" if file == "train_rs_mtdf" else "train_semiearth", "init.")
    return student_of(weights, recorded["student"], recorded["student_layers"])


def test_training_of_fixmatch(golden):
    """SemiEarth as released trains what FixMatch trains, to the last bit."""
    recorded = golden.need_settings("train_semiearth")
    model = trained_student(golden, "train_semiearth")
    compare_training(golden, "train_semiearth", FixMatch(model, threshold=recorded["conf_thresh"]))


def test_training_of_unimatch_v2(golden, monkeypatch):
    recorded = golden.need_settings("train_unimatch_v2")
    method = UniMatchV2(trained_student(golden, "train_unimatch_v2"), threshold=recorded["conf_thresh"])
    draws = {}

    def before_step(iteration):
        names = (f"drop.{iteration}.binomial", f"drop.{iteration}.randperm")
        draws["bernoulli"], draws["randperm"] = golden.need("train_unimatch_v2", *names)

    monkeypatch.setattr(torch, "bernoulli", lambda probabilities: draws["bernoulli"].to(probabilities))
    monkeypatch.setattr(torch, "randperm", lambda count: draws["randperm"])
    compare_training(golden, "train_unimatch_v2", method, before_step)


def test_training_of_rs_mtdf(golden, tmp_path):
    recorded = golden.need_settings("train_rs_mtdf")
    weights = golden.need_all("train_rs_mtdf", "init.")
    save_dinov2_teacher(weights, recorded["dino_teacher"], tmp_path / "dinov2")
    save_clip_teacher(weights, tmp_path / "clip")
    imagenet = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    teachers = [
        Teacher(teacher_facts(str(tmp_path / name)), **imagenet, official=True).double() for name in ("dinov2", "clip")
    ]
    model = trained_student(golden, "train_rs_mtdf")
    assert [translator.input_px for translator in model.translators] == [teacher.facts.input_px for teacher in teachers]
    method = RSMTDF(model, foundation_models=teachers, threshold=recorded["conf_thresh"])
    compare_training(golden, "train_rs_mtdf", method)


def save_dinov2_teacher(weights, shape, folder):
    prefix = "Dino_teacher_model."
    released = {f"backbone.{n.removeprefix(prefix)}": v for n, v in weights.items() if n.startswith(prefix)}
    config = Dinov2Config(
        hidden_size=shape["embed_dim"],
        num_hidden_layers=shape["depth"],
        num_attention_heads=shape["heads"],
        image_size=518,
        patch_size=14,
    )
    model = Dinov2Model(config)
    model.load_state_dict({name.removeprefix("backbone."): v for name, v in convert_tensors(released).items()})
    model.save_pretrained(folder)


def save_clip_teacher(weights, folder):
    """OpenAI's names to those of transformers."""
    prefix = "clip_model.visual."
    released = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    width, _, patch, _ = released["conv1.weight"].shape
    depth = 1 + max(int(name.split(".")[2]) for name in released if name.startswith("transformer.resblocks"))
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        patch_size=patch,
        image_size=224,
        hidden_act="quick_gelu",
    )
    names = {
        "class_embedding": "embeddings.class_embedding",
        "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    for kind in ("weight", "bias"):
        names |= {f"ln_pre.{kind}": f"pre_layrnorm.{kind}", f"ln_post.{kind}": f"post_layernorm.{kind}"}
        for i in range(depth):
            block, ours = f"transformer.resblocks.{i}", f"encoder.layers.{i}"
            names |= {
                f"{block}.ln_1.{kind}": f"{ours}.layer_norm1.{kind}",
                f"{block}.ln_2.{kind}": f"{ours}.layer_norm2.{kind}",
                f"{block}.mlp.c_fc.{kind}": f"{ours}.mlp.fc1.{kind}",
                f"{block}.mlp.c_proj.{kind}": f"{ours}.mlp.fc2.{kind}",
                f"{block}.attn.out_proj.{kind}": f"{ours}.self_attn.out_proj.{kind}",
            }
    tensors = {names[name]: value for name, value in released.items() if name in names}
    for i in range(depth):
        for kind in ("weight", "bias"):
            parts = released[f"transformer.resblocks.{i}.attn.in_proj_{kind}"].chunk(3)
            for part, value in zip("qkv", parts, strict=True):
                tensors[f"encoder.layers.{i}.self_attn.{part}_proj.{kind}"] = value
    model = CLIPVisionModel(config)
    own = model.state_dict()
    start = "vision_model." if any(name.startswith("vision_model.") for name in own) else ""
    missing, unexpected = model.load_state_dict({start + name: value for name, value in tensors.items()}, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    model.save_pretrained(folder)


@pytest.mark.parametrize(("dataset", "excluded"), [("loveda", None), ("Potsdam", 0), ("deepglobe", 6)])
def test_scores(golden, dataset, excluded):
    recorded = golden.need_settings("eval_metrics")[dataset]
    scores = ReleasedTestScores(recorded["nclass"], excluded)
    index = 0
    while golden.has("eval_metrics", f"{dataset}.logits_{index}"):
        logits, mask = golden.need("eval_metrics", f"{dataset}.logits_{index}", f"{dataset}.mask_{index}")
        scores.update(logits.argmax(1), mask.long())
        index += 1
    ours = scores.summary()
    assert index > 0 and ours.keys() == recorded.keys() - {"nclass"}
    for name, value in ours.items():
        expected = torch.as_tensor(recorded[name], dtype=torch.float64)
        golden.close(torch.as_tensor(value, dtype=torch.float64), expected, 1e-9, name)


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
    if tensors("train_data"):  # only a whole directory has it
        assert not {name for name in compared if not Golden.counts[name]}, "a whole directory leaves no test out"
