"""The model itself, with tiny random students; that it computes the released numbers is tests/test_parity_co2s.py."""

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
)

from co2s_hf import guidance_head_co2s
from co2s_hf.configuration_co2s import Co2SConfig
from co2s_hf.guidance_head_co2s import Co2SGuidanceHead
from co2s_hf.modeling_co2s import (
    Co2SForSemanticSegmentation,
)

from .tiny_co2s import HEAD, SIZE, build, clip_config, dinov3_config, labels, load_aligned, pixels


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
