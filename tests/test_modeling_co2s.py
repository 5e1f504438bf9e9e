"""The model itself, with tiny random students; that it computes the released numbers is tests/test_parity_co2s.py."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from co2s_hf import guidance_head_co2s
from co2s_hf.configuration_co2s import Co2SConfig
from co2s_hf.guidance_head_co2s import Co2SGuidanceHead
from co2s_hf.modeling_co2s import (
    Co2SForSemanticSegmentation,
    Co2SOutput,
    fuse_logits,
)
from co2s_hf.segmentation import window_starts

NAMES = ("road", "water", "tree")
SIZE = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2)
HEAD = dict(
    head_channels=16, head_text_channels=16, head_up_channels=(16, 16), head_skip_channels=(8, 8), head_pool_size=2
)


def clip_config(**fields):
    return CLIPVisionConfig(**{**SIZE, "patch_size": 8, "image_size": 32, "projection_dim": 12, **fields})


def dinov3_config(**fields):
    return DINOv3ViTConfig(
        **{**SIZE, "patch_size": 8, "image_size": 32, "num_register_tokens": 1, "pos_embed_rescale": None, **fields}
    )


def build(clip=None, dinov3=None, **fields):
    """A seeded model; text embeddings and queries are random."""
    config = Co2SConfig(
        clip_config=clip or clip_config(),
        dinov3_config=dinov3 or dinov3_config(),
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
        **{**HEAD, "window_px": 96, **fields},
    )
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation(config).eval()


def pixels(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def labels(*shape):
    return torch.randint(len(NAMES), shape, generator=torch.Generator().manual_seed(2))


def load_aligned(path, **options):
    """Load a model into memory of its own: in a mapped file tensors lie unaligned, and kernels then round otherwise."""
    return copy.deepcopy(Co2SForSemanticSegmentation.from_pretrained(path, **options))


@pytest.fixture(scope="module")
def model():
    """Shared: never train or change it."""
    return build()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The same model saved. Read only."""
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Sizes and windows
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 64), (33, 130), (97, 96)])
def test_logits_have_the_size_of_the_image(size, official):
    fields = dict(clip_logits_size=28, dinov3_logits_size=32, dinov3_pads_input=False) if official else {}
    output = build(**fields)(pixels(2, 3, *size))
    for name in ("logits", "clip_logits", "dinov3_logits"):
        assert output[name].shape == (2, 3, *size) and output[name].isfinite().all()
    assert output.loss is None and output.clip_perturbed_logits is None


class Echo(nn.Module):
    """Stands for a student and answers with the pixels it sees, and counts them."""

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.anchor = nn.Parameter(torch.zeros(()))  # says on which device the model is

    def forward(self, pixel_values, perturbed_rows, feature_dropout):
        self.sizes += [tuple(pixel_values.shape[-2:])] * len(pixel_values)
        return pixel_values, pixel_values[:0]


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 40), (41, 97), (20, 100), (32, 33)])
def test_windows_return_to_their_places_and_cover_every_pixel(size):
    model = build(window_px=32, window_stride_px=23)
    model.clip, model.dinov3 = Echo(), Echo()
    image = pixels(3, 3, *size)
    assert torch.allclose(model(image).clip_logits.exp(), image.softmax(1), atol=1 / 65535)
    model.config.window_average = "logits"
    model.clip, model.dinov3 = Echo(), Echo()
    assert torch.allclose(model(image).clip_logits, image, atol=1e-6)
    assert set(model.clip.sizes) == {tuple(min(side, 32) for side in size)}
    count = len(window_starts(size[0], 32, 23)) * len(window_starts(size[1], 32, 23))
    assert len(model.clip.sizes) == len(model.dinov3.sizes) == 3 * count


def blended(left, right, overlap):
    """Two windows next to each other, averaged by weights that fall over the overlap; written down anew."""
    size = left.shape[-1]
    from_border = torch.arange(size).minimum(torch.arange(size).flip(0)).clamp(max=overlap) + 1
    weights = torch.ceil(32 * from_border / (overlap + 1)).double()
    total = weights[-overlap:] + weights[:overlap]
    shared = (left[..., -overlap:] * weights[-overlap:] + right[..., :overlap] * weights[:overlap]) / total
    return torch.cat([left[..., :-overlap], shared, right[..., overlap:]], dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["confidence", "mean", "clip", "dinov3"])
def test_probabilities_of_overlapping_windows_are_blended(fusion):
    model = build(window_px=32, window_stride_px=20, fusion=fusion)
    image = pixels(1, 3, 32, 52)
    left, right = (model(image[..., start : start + 32]) for start in (0, 20))
    whole = model(image)
    for name in ("clip_logits", "dinov3_logits", "logits"):
        expected = blended(*(one[name].double().softmax(1) for one in (left, right)), 12)
        assert torch.allclose(whole[name].softmax(1).double(), expected, atol=2 / 65535)
        assert torch.allclose(whole[name].exp().sum(1), torch.ones(1, 32, 52), atol=5 / 65535)
    assert not torch.allclose(whole.logits, build(window_px=32, window_stride_px=32)(image).logits, atol=1e-3)
    other = model(image, fusion="mean").logits
    assert torch.equal(other, build(window_px=32, window_stride_px=20, fusion="mean")(image).logits)


@torch.no_grad()
def test_the_released_numerics_average_logits_and_fuse_them_afterwards():
    model = build(window_px=32, window_stride_px=16, window_average="logits")
    image = pixels(1, 3, 32, 48)
    left, right = (model(image[..., start : start + 32]) for start in (0, 16))
    output = model(image)
    for name in ("clip_logits", "dinov3_logits"):
        one, other = left[name], right[name]
        expected = torch.cat([one[..., :16], (one[..., 16:] + other[..., :16]) / 2, other[..., 16:]], dim=-1)
        assert torch.allclose(output[name], expected, atol=1e-5)
    assert torch.equal(output.logits, fuse_logits(output.clip_logits, output.dinov3_logits, "confidence"))


@torch.no_grad()
def test_a_window_that_covers_the_image_changes_nothing(model):
    image = pixels(2, 3, 40, 56)
    output = model(image)
    slid = model._slide(image)
    model.config.window_average = "logits"
    as_released = model._slide(image)
    model.config.window_average = "probabilities"
    for name, field in model.predictions.items():
        index = list(model.predictions).index(name)
        assert torch.allclose(as_released[index], output[field], atol=1e-6)
        assert torch.allclose(slid[index].exp(), output[field].softmax(1), atol=1 / 65535)


@torch.no_grad()
def test_training_never_slides():
    model = build(window_px=32).train()
    image = pixels(1, 3, 40, 40)
    whole = build(window_px=64).train()
    assert torch.equal(model(image).logits, whole(image).logits)
    assert not torch.allclose(model.eval()(image).logits, whole(image).logits, atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Fusion and refusals
# ---------------------------------------------------------------------------------------------------------------------


def at_one_pixel(*probabilities):
    return torch.tensor(probabilities).log().view(1, -1, 1, 1)


def test_fusion_by_hand():
    clip, dinov3 = at_one_pixel(0.7, 0.2, 0.1), at_one_pixel(0.1, 0.1, 0.8)
    assert torch.equal(fuse_logits(clip, dinov3, "clip"), clip)
    assert torch.equal(fuse_logits(clip, dinov3, "dinov3"), dinov3)
    assert torch.equal(fuse_logits(clip, dinov3, "confidence"), dinov3)
    assert torch.equal(fuse_logits(dinov3, clip, "confidence"), dinov3)
    mean = fuse_logits(clip, dinov3, "mean").exp().flatten()
    assert torch.allclose(mean, torch.tensor([0.4, 0.15, 0.45]))
    # Logits are known up to a constant only, so the constant must not decide.
    assert torch.equal(fuse_logits(clip + 100, dinov3, "confidence"), dinov3)
    assert torch.allclose(fuse_logits(clip + 100, dinov3 - 3, "mean").exp().flatten(), mean, atol=1e-5)


def test_ties_go_to_clip():
    clip, dinov3 = at_one_pixel(0.25, 0.75), at_one_pixel(0.75, 0.25)
    assert torch.equal(fuse_logits(clip, dinov3, "confidence"), clip)


def test_fusion_decides_for_each_pixel():
    clip = torch.tensor([[9.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    dinov3 = torch.tensor([[0.0, 9.0], [1.0, 0.0]]).view(1, 2, 1, 2)
    assert fuse_logits(clip, dinov3, "confidence").flatten().tolist() == [9.0, 9.0, 0.0, 0.0]


@torch.no_grad()
def test_fusion_of_a_call_overrides_the_configuration(model):
    output = model(pixels(1, 3, 32, 32), fusion="dinov3")
    assert torch.equal(output.logits, output.dinov3_logits)
    assert build(fusion="clip").config.fusion == "clip"


@torch.no_grad()
def test_refuses_unknown_fusion(model):
    with pytest.raises(ValueError, match="fusion is 'max', expected 'confidence', 'mean', 'clip' or 'dinov3'"):
        model(pixels(1, 3, 16, 16), fusion="max")


def test_refuses_another_number_of_bands(model):
    with pytest.raises(ValueError, match=r"pixel_values are \(1, 4, 16, 16\), expected \(batch_size, 3, .* 3 bands"):
        model(pixels(1, 4, 16, 16))
    with pytest.raises(ValueError, match=r"pixel_values are \(3, 16, 16\)"):
        model(pixels(3, 16, 16))


def test_refuses_labels_of_another_size(model):
    with pytest.raises(ValueError, match=r"labels are \(1, 16, 15\), expected \(1, 16, 16\), one id for each pixel"):
        model(pixels(1, 3, 16, 16), labels=labels(1, 16, 15))


def test_a_training_method_finds_students_and_predictions(model):
    with torch.no_grad():
        output = model(pixels(2, 3, 16, 16), perturbed_rows=(0, 1))
    assert set(model.students) == set(model.perturbed) == {"clip", "dinov3"} < set(model.predictions)
    assert {name: model.predictions[name] for name in model.students} == model.students
    assert torch.equal(output[model.predictions["fused"]], output.logits)
    for student in model.students:
        assert output[model.students[student]].shape == (2, 3, 16, 16)
        assert output[model.perturbed[student]].shape == (1, 3, 16, 16)


@torch.no_grad()
def test_tuple_output(model):
    output = model(pixels(1, 3, 16, 16), return_dict=False)
    assert isinstance(output, tuple) and [value.shape for value in output] == [(1, 3, 16, 16)] * 3
    assert isinstance(model(pixels(1, 3, 16, 16)), Co2SOutput)


# ---------------------------------------------------------------------------------------------------------------------
# Loss, gradients, perturbation
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_loss_is_the_sum_of_both_cross_entropies(model):
    target = labels(2, 16, 24)
    target[0, :5] = 255
    output = model(pixels(2, 3, 16, 24), labels=target)
    expected = 0.0
    for logits in (output.clip_logits, output.dinov3_logits):
        log = logits.log_softmax(1).gather(1, target.clamp(max=2)[:, None])[:, 0]
        expected -= log[target != 255].mean().item()
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)


def test_loss_without_any_label_is_zero():
    model = build().train()
    loss = model(pixels(1, 3, 16, 16), labels=torch.full((1, 16, 16), 255)).loss
    loss.backward()
    assert loss.item() == 0.0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().max() == 0.0, name


def unused(model):
    attention = "clip.backbone.vision_model.encoder.layers.2.self_attn"
    names = {f"{attention}.{part}_proj.{kind}" for part in "qk" for kind in ("weight", "bias")}
    return names | {name for name, _ in model.named_parameters() if name.endswith("mask_token")}


@pytest.mark.parametrize("loaded", [False, True])
def test_exactly_what_trains_gets_a_gradient(folder, loaded):
    model = Co2SForSemanticSegmentation.from_pretrained(folder) if loaded else build()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == unused(model) and len(frozen) == 5
    model.train()(pixels(1, 3, 32, 32), labels=labels(1, 32, 32)).loss.backward()
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            # A constant added to the logits of all classes changes nothing.
            assert parameter.grad.abs().max() > 0 or name.endswith(("classifier.bias", "k_proj.bias")), name


@torch.no_grad()
def test_perturbed_rows(model):
    image = pixels(3, 3, 24, 32)
    clean = model(image)
    output = model(image, perturbed_rows=(1, 3), feature_dropout=0.0)
    for student in ("clip", "dinov3"):
        logits, perturbed = output[f"{student}_logits"], output[f"{student}_perturbed_logits"]
        assert perturbed.shape == (2, 3, 24, 32)
        assert torch.allclose(logits, clean[f"{student}_logits"], atol=1e-5)
        assert torch.allclose(perturbed, logits[1:], atol=1e-5)
    output = model(image, perturbed_rows=(0, 1))
    for student in ("clip", "dinov3"):
        assert torch.allclose(output[f"{student}_logits"], clean[f"{student}_logits"], atol=1e-5)
        assert not torch.allclose(output[f"{student}_perturbed_logits"], clean[f"{student}_logits"][:1], atol=1e-3)


@torch.no_grad()
def test_train_and_eval_agree(model):
    image = pixels(1, 3, 32, 40)
    assert torch.equal(build().train()(image).logits, model(image).logits)


def gradients(model):
    model.train()
    loss = model(pixels(1, 3, 32, 32), labels=labels(1, 32, 32)).loss
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


def test_activation_checkpointing_changes_nothing():
    plain, checkpointed = build(), build()
    if hasattr(checkpointed, "activation_checkpointing_enable"):  # its name since transformers 5.2x
        checkpointed.activation_checkpointing_enable()
    else:
        checkpointed.gradient_checkpointing_enable()
    computed = []
    clip_layer = checkpointed.clip.backbone.vision_model.encoder.layers[1]
    dinov3_layer = checkpointed.dinov3.backbone.model.layer[1]
    clip_layer.layer_norm1.register_forward_hook(lambda *_: computed.append("clip"))
    dinov3_layer.norm1.register_forward_hook(lambda *_: computed.append("dinov3"))
    (loss, expected), (same_loss, actual) = gradients(plain), gradients(checkpointed)
    assert sorted(computed) == ["clip"] * 2 + ["dinov3"] * 2  # once more in the backward pass
    assert torch.equal(loss, same_loss) and expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.allclose(actual[name], value, atol=1e-6), name


def test_gradient_of_the_guidance_head():
    config = Co2SConfig(**HEAD, head_num_layers=1, head_num_attention_heads=2)
    torch.manual_seed(0)
    head = Co2SGuidanceHead(config, skip_channels=4, guidance_size=5).double()
    inputs = [torch.randn(1, channels, 2, 3, dtype=torch.float64, requires_grad=True) for channels in (4, 4, 5)]
    guidance = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    parameters = [head.skip_proj1.bias, head.classifier.weight, head.layers[0].attention.out_proj.bias]

    def logits(early, middle, final, guidance, *_):
        return head((early, middle, final), guidance)

    assert torch.autograd.gradcheck(logits, (*inputs, guidance, *parameters), fast_mode=True)


def test_the_head_remembers_maps_once_and_repeats_no_convolution(monkeypatch):
    config = Co2SConfig(**HEAD, head_num_layers=1, head_num_attention_heads=2)
    torch.manual_seed(0)
    head = Co2SGuidanceHead(config, skip_channels=4, guidance_size=5)
    pyramid = [torch.randn(2, channels, 8, 8, requires_grad=True) for channels in (4, 4, 5)]
    computed = {"conv": 0, "norm": 0}
    head.up2.conv2[0].register_forward_hook(lambda *_: computed.update(conv=computed["conv"] + 1))
    head.up2.conv2[1].register_forward_hook(lambda *_: computed.update(norm=computed["norm"] + 1))

    def run():
        kept = {}

        def keep(saved):
            kept.setdefault(saved.untyped_storage().data_ptr(), saved)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            logits = head(pyramid, torch.ones(3, 5))
        inputs = [*pyramid, *head.parameters()]
        gradients = torch.autograd.grad(logits.square().sum(), inputs, allow_unused=True)
        return sum(saved.untyped_storage().nbytes() for saved in kept.values()), [logits, *gradients]

    few_bytes, actual = run()
    assert computed == {"conv": 1, "norm": 2}
    monkeypatch.setattr(guidance_head_co2s, "_remember_inputs", lambda function, *inputs: function(*inputs))
    many_bytes, expected = run()
    assert few_bytes < 0.75 * many_bytes
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Saving and loading
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_loaded_logits_are_bit_equal(model, folder):
    image = pixels(1, 3, 40, 33)
    loaded, report = Co2SForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(load_aligned(folder)(image).logits, model(image).logits)
    assert torch.allclose(loaded(image).logits, model(image).logits, atol=1e-5)


@torch.no_grad()
def test_attention_implementations_agree(folder):
    image, outputs = pixels(1, 3, 32, 48), []
    for implementation in ("eager", "sdpa"):
        loaded = Co2SForSemanticSegmentation.from_pretrained(folder, attn_implementation=implementation)
        assert loaded.clip.backbone.config._attn_implementation == implementation
        assert loaded.dinov3.backbone.config._attn_implementation == implementation
        outputs.append(loaded(image).logits)
    assert torch.allclose(*outputs, atol=1e-5)


@torch.no_grad()
def test_half_precision_is_close(model, folder):
    loaded = Co2SForSemanticSegmentation.from_pretrained(folder, dtype=torch.bfloat16)
    assert {value.dtype for value in loaded.parameters()} == {torch.bfloat16}
    image = pixels(1, 3, 16, 16)
    expected, output = model(image), loaded(image)
    for name in ("clip_logits", "dinov3_logits"):
        error = (output[name].float() - expected[name]).norm() / expected[name].norm()
        assert error < 0.1


@torch.no_grad()
@pytest.mark.parametrize("device_map", ["cpu", "auto"])
def test_device_map(model, folder, device_map):
    loaded = Co2SForSemanticSegmentation.from_pretrained(folder, device_map=device_map)
    image = pixels(1, 3, 32, 32)
    logits = loaded(image.to(loaded.device)).logits
    assert torch.allclose(logits.cpu(), model(image).logits, atol=1e-4)


def test_other_number_of_classes(model, folder):
    with pytest.raises((ValueError, RuntimeError), match="ignore_mismatched_sizes"):
        Co2SForSemanticSegmentation.from_pretrained(folder, num_labels=5)
    loaded, report = Co2SForSemanticSegmentation.from_pretrained(
        folder, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    mismatched = {entry[0] for entry in report["mismatched_keys"]}
    assert mismatched == {"clip.text_embeddings", "dinov3.queries"}
    assert torch.allclose(loaded.clip.text_embeddings.norm(dim=1), torch.ones(5))
    assert 0 < loaded.dinov3.queries.std() < 0.1
    for name, value in loaded.state_dict().items():
        assert name in mismatched or torch.equal(value, model.state_dict()[name]), name
    with torch.no_grad():
        assert loaded(pixels(1, 3, 16, 16)).logits.shape == (1, 5, 16, 16)


# ---------------------------------------------------------------------------------------------------------------------
# Other students and other images
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dinov3",
    [
        Dinov2Config(**{**SIZE, "intermediate_size": None, "mlp_ratio": 2}, patch_size=8, image_size=32),
        Dinov2WithRegistersConfig(**SIZE, mlp_ratio=2, num_register_tokens=2, patch_size=8, image_size=32),
        DINOv3ViTConfig(**SIZE, patch_size=14, image_size=28, num_register_tokens=1, pos_embed_rescale=None),
        DINOv3ViTConfig(**SIZE, patch_size=8, image_size=32, use_gated_mlp=True, pos_embed_rescale=None),
    ],
    ids=["dinov2", "dinov2-registers", "patch-14", "gated"],
)
def test_other_second_students(dinov3, tmp_path):
    model = build(clip_config(patch_size=16), dinov3)
    image = pixels(1, 3, 45, 50)
    output = model(image, labels=labels(1, 45, 50))
    output.loss.backward()
    assert output.logits.shape == (1, 3, 45, 50)
    missing = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not missing
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_aligned(tmp_path)(image).logits, output.logits)


@torch.no_grad()
def test_each_student_gets_its_own_normalisation(model):
    """The processor normalises for ImageNet; CLIP sees what its own processor would have given."""
    config = model.config

    def normalised(image, mean, std):
        return (image - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)

    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(3))
    ours = model.clip.features(normalised(image, config.image_mean, config.image_std))
    direct = model.clip.pyramid(normalised(image, config.clip_image_mean, config.clip_image_std))
    for actual, expected in zip(ours, direct, strict=True):
        assert torch.allclose(actual, expected, atol=1e-5)
    assert torch.equal(model.dinov3.renormalize(image), image)  # trained with the incoming statistics


@torch.no_grad()
def test_padding_is_zero_after_normalisation(model):
    image = pixels(1, 3, 30, 29)
    padded = model.clip._pad(model.clip.renormalize(image))
    assert padded.shape == (1, 3, 32, 32)
    assert padded[:, :, 30:].abs().max() == padded[:, :, :, 29:].abs().max() == 0


def test_five_bands(tmp_path):
    statistics = {
        f"{name}_{kind}": [0.1, 0.2, 0.3, 0.4, 0.5]
        for name in ("image", "clip_image", "dinov3_image")
        for kind in ("mean", "std")
    }
    model = build(clip_config(num_channels=5), dinov3_config(num_channels=5), **statistics)
    assert model.config.num_channels == 5
    model.save_pretrained(tmp_path)
    image = pixels(1, 5, 24, 24)
    with torch.no_grad():
        assert torch.equal(load_aligned(tmp_path)(image).logits, model(image).logits)
    with pytest.raises(ValueError, match="image_mean has 3 values but clip_config.num_channels is 5"):
        build(clip_config(num_channels=5), dinov3_config(num_channels=5))


# ---------------------------------------------------------------------------------------------------------------------
# Starting from backbones
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Folders of a CLIP vision tower and a DINOv3, and their weights. Read only."""
    torch.manual_seed(3)
    clip, dinov3 = CLIPVisionModelWithProjection(clip_config()), DINOv3ViTModel(dinov3_config())
    folders = [tmp_path_factory.mktemp(name) for name in ("clip", "dinov3")]
    for saved, path in zip((clip, dinov3), folders, strict=True):
        saved.save_pretrained(path)
    return *folders, clip.state_dict(), dinov3.state_dict()


def test_backbones_keep_their_weights(backbones):
    clip, dinov3, clip_weights, dinov3_weights = backbones
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    model = Co2SForSemanticSegmentation.from_backbones(clip, dinov3, NAMES, text_embeddings=text, **HEAD)
    assert torch.equal(model.clip.text_embeddings, text)
    assert [model.config.id2label[index] for index in range(3)] == list(NAMES)
    kept = model.clip.backbone.state_dict()
    assert kept.keys() == clip_weights.keys()
    assert all(torch.equal(value, clip_weights[name]) for name, value in kept.items())
    # The backbone class of DINOv3 nests its layers one level deeper than the plain model.
    kept = {name.removeprefix("model."): value for name, value in model.dinov3.backbone.state_dict().items()}
    plain = {name.removeprefix("model."): value for name, value in dinov3_weights.items()}
    assert kept.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in kept.items())
    with torch.no_grad():
        assert model(pixels(1, 3, 20, 20)).logits.shape == (1, 3, 20, 20)


SIX_BANDS = dict(image_mean=[0.05, 0.06, 0.07, 0.2, 0.1, 0.08], image_std=[0.02, 0.02, 0.03, 0.1, 0.05, 0.04])
WITH_RGB = ["coastal", "Blue", "green", "red", "nir", "swir"]


@pytest.mark.parametrize("bands", [None, WITH_RGB])
@pytest.mark.parametrize("second", ["dinov3", "dinov2"])
def test_a_grey_picture_of_six_bands_looks_as_one_of_three(backbones, tmp_path, bands, second):
    clip, dinov3, _, _ = backbones
    if second == "dinov2":
        torch.manual_seed(4)
        dinov3 = tmp_path
        Dinov2Model(Dinov2Config(**SIZE, patch_size=8, image_size=32)).save_pretrained(dinov3)
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    fields = dict(text_embeddings=text, **HEAD)
    same = {
        f"{student}{name}": [0.5] * 3 for student in ("", "clip_", "dinov3_") for name in ("image_mean", "image_std")
    }
    three = Co2SForSemanticSegmentation.from_backbones(clip, dinov3, NAMES, **fields, **same).eval()
    six = Co2SForSemanticSegmentation.from_backbones(
        clip, dinov3, NAMES, num_channels=6, bands=bands, **fields, **SIX_BANDS
    ).eval()
    assert six.config.num_channels == 6
    assert six.config.band_adaptation == ("mean" if bands is None else "rgb_and_mean")
    assert three.config.band_adaptation is None
    grey, colour = pixels(2, 1, 32, 40), pixels(2, 6, 32, 40)
    with torch.no_grad():
        for student in ("clip", "dinov3"):
            want, found = getattr(three, student), getattr(six, student)
            for one, other in zip(
                want.features(grey.expand(-1, 3, -1, -1)), found.features(grey.expand(-1, 6, -1, -1)), strict=True
            ):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
            assert not torch.allclose(found.features(colour)[0], found.features(colour.flip(1))[0]) or bands is None
            assert torch.equal(found.renormalize(colour), colour)


def test_six_bands_survive_saving(backbones, tmp_path):
    clip, dinov3, _, _ = backbones
    text = torch.nn.functional.normalize(pixels(3, 12), dim=1)
    model = Co2SForSemanticSegmentation.from_backbones(
        clip, dinov3, NAMES, bands=WITH_RGB, text_embeddings=text, **HEAD, **SIX_BANDS
    ).eval()
    model.save_pretrained(tmp_path)
    loaded = load_aligned(tmp_path)
    assert loaded.config.bands == [name.lower() for name in WITH_RGB]
    assert (loaded.config.num_channels, loaded.config.band_adaptation) == (6, "rgb_and_mean")
    image = pixels(1, 6, 24, 24)
    with torch.no_grad():
        assert torch.equal(loaded(image).logits, copy.deepcopy(model)(image).logits)
    with pytest.raises(ValueError, match="this model was built for 6 bands"):
        model(pixels(1, 3, 24, 24))


def test_a_backbone_that_takes_the_bands_already_keeps_its_weights(tmp_path):
    torch.manual_seed(3)
    clip, dinov3 = CLIPVisionModelWithProjection(clip_config(num_channels=6)), DINOv3ViTModel(dinov3_config())
    clip.save_pretrained(tmp_path / "clip")
    dinov3.save_pretrained(tmp_path / "dinov3")
    model = Co2SForSemanticSegmentation.from_backbones(
        tmp_path / "clip",
        tmp_path / "dinov3",
        NAMES,
        num_channels=6,
        text_embeddings=torch.nn.functional.normalize(pixels(3, 12), dim=1),
        **HEAD,
        **SIX_BANDS,
    )
    name = "vision_model.embeddings.patch_embedding.weight"
    assert torch.equal(model.clip.backbone.state_dict()[name], clip.state_dict()[name])


def test_refuses_a_folder_that_lacks_weights(backbones, tmp_path):
    clip, dinov3, _, weights = backbones
    model = DINOv3ViTModel(dinov3_config())
    incomplete = {name: value for name, value in weights.items() if not name.endswith("layer.1.norm1.weight")}
    assert len(incomplete) == len(weights) - 1
    model.save_pretrained(tmp_path, state_dict=incomplete)
    with pytest.raises(ValueError, match=r"lacks 1 weights of its .*norm1.weight.*expected a complete model"):
        Co2SForSemanticSegmentation.from_backbones(clip, tmp_path, NAMES, **HEAD)


def test_refuses_swapped_folders(backbones):
    clip, dinov3, _, _ = backbones
    with pytest.raises(ValueError, match="holds a 'dinov3_vit' model, expected one of clip"):
        Co2SForSemanticSegmentation.from_backbones(dinov3, clip, NAMES, **HEAD)


def test_refuses_text_embeddings_of_another_shape(model):
    with pytest.raises(ValueError, match=r"text_embeddings are \(3, 13\) but `num_labels` is 3 .* is 12"):
        model.set_text_embeddings(torch.zeros(3, 13))


@torch.no_grad()
def test_text_embeddings_guide_clip_alone():
    model, image = build(), pixels(1, 3, 32, 32)
    before = model(image)
    model.set_text_embeddings(model.clip.text_embeddings.flip(0))
    after = model(image)
    # Nothing in the head belongs to a class: exchanging the texts exchanges the logits.
    assert torch.allclose(after.clip_logits, before.clip_logits.flip(1), atol=1e-5)
    assert torch.equal(after.dinov3_logits, before.dinov3_logits)


@torch.no_grad()
def test_centred_class_texts_lose_only_what_they_share():
    image = pixels(1, 3, 32, 32)
    for centred in (True, False):
        model = build(clip_centers_text=centred)
        before = model(image).clip_logits
        texts = model.clip.text_embeddings.clone()
        model.set_text_embeddings(texts + 0.3)
        assert torch.allclose(model(image).clip_logits, before, atol=1e-4) == centred
        model.set_text_embeddings(texts)
        assert torch.equal(model(image).clip_logits, before)


@torch.no_grad()
def test_a_head_may_start_from_zero_shot_segmentation():
    image = pixels(1, 3, 32, 32)
    with_it, without = build(head_adds_similarity=True, head_similarity_scale=7.0), build(head_similarity_scale=7.0)
    without.load_state_dict(with_it.state_dict())
    for student, other in ((with_it.clip, without.clip), (with_it.dinov3, without.dinov3)):
        pyramid, guidance = student.features(image), student.guidance()
        added = student.head(pyramid, guidance) - other.head(pyramid, guidance)
        cosine = F.cosine_similarity(pyramid[-1][:, None], guidance[None, :, :, None, None], dim=2)
        expected = F.interpolate(7 * cosine, added.shape[-2:], mode="bilinear")
        torch.testing.assert_close(added, expected, atol=1e-4, rtol=1e-4)
        assert expected.std(1).min() > 0


def test_a_fresh_head_starts_from_what_classes_differ_in():
    fresh = build()
    for student in (fresh.clip, fresh.dinov3):
        # One bias for all classes as large as their similarities leaves training on a plateau without gradient.
        assert not student.head.similarity_conv.bias.any()
        assert not student.head.guidance_proj.bias.any()
        for layer in student.head.layers:
            weight = layer.attention.qkv_proj.weight
            bound = math.sqrt(6 / sum(weight.shape))  # xavier uniform, not torch's default for a linear layer
            assert 0.9 * bound < weight.abs().max() <= bound
            assert not layer.attention.qkv_proj.bias.any()
            assert not layer.attention.out_proj.bias.any()
        assert student.head.up1.upsample.bias.any()
