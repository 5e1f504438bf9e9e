import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from co2s_hf import Dinov2DPTConfig
from training.parts.teachers import Teacher, load_teachers, resize_features, teacher_facts

SIZE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, patch_size=8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A DINOv2, a vision tower of CLIP, and one of SigLIP. Read only."""
    torch.manual_seed(0)
    models = {
        "dinov2": Dinov2Model(Dinov2Config(image_size=32, mlp_ratio=2, **SIZE)),
        "clip": CLIPVisionModel(CLIPVisionConfig(image_size=32, intermediate_size=32, **SIZE)),
        "siglip": SiglipVisionModel(SiglipVisionConfig(image_size=32, intermediate_size=32, **SIZE)),
    }
    folder = tmp_path_factory.mktemp("teachers")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def teacher(folder, **settings):
    return Teacher(teacher_facts(folder), mean=MEAN, std=STD, **settings)


@pytest.fixture
def images():
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_facts(folders):
    assert teacher_facts(folders["dinov2"]).input_px is None and teacher_facts(folders["clip"]).input_px == 32
    assert {teacher_facts(folder).width for folder in folders.values()} == {16}


def test_whole_clip_counts_as_its_tower(clip_folder):
    facts = teacher_facts(str(clip_folder))
    assert (facts.width, facts.input_px) == (16, 32)
    assert teacher(str(clip_folder))(torch.zeros(1, 3, 64, 64)).shape == (1, 16, 2, 2)


def test_dinov2_gives_its_normed_patch_tokens_row_by_row(folders, images):
    features = teacher(folders["dinov2"])(images)
    tokens = Dinov2Model.from_pretrained(folders["dinov2"])(images).last_hidden_state[:, 1:]
    assert features.shape == (2, 16, 6, 6)
    torch.testing.assert_close(features[:, :, 1, 2], tokens[:, 1 * 6 + 2].detach())


def test_clip_sees_squeezed_images_ahead_of_its_last_norm(folders, images):
    features = teacher(folders["clip"], official=True)(images)
    squeezed = F.interpolate(images, (32, 32), mode="bilinear", align_corners=True)
    tower = CLIPVisionModel.from_pretrained(folders["clip"])
    tokens = tower(squeezed, output_hidden_states=True).hidden_states[-1][:, 1:]
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens.detach())


def test_siglip_has_no_class_token(folders, images):
    assert teacher(folders["siglip"])(images).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("siglip", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("dinov2", MEAN, STD),
    ],
)
def test_each_sees_the_statistics_it_was_trained_with(folders, kind, mean, std):
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))

    def normalised(mean, std):
        return (picture - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    ours = teacher(folders[kind])(normalised(MEAN, STD))
    theirs = teacher(folders[kind], official=True)(normalised(mean, std))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("bands", [["red", "green", "blue"], ["nir", "blue", "green", "red"]])
@pytest.mark.parametrize("official", [False, True])
def test_images_with_statistics_of_their_own_are_seen_as_they_come(folders, kind, bands, official):
    size = len(bands)
    mean, std = [0.01 * (band + 1) for band in range(size)], [0.002 * (band + 1) for band in range(size)]
    config = Dinov2DPTConfig.from_backbones(None, ["a", "b"], bands=bands, image_mean=mean, image_std=std)
    arguments = SimpleNamespace(teachers=[folders[kind]], official=official, open_clip_model=None)
    (loaded,) = load_teachers(arguments, config)
    normalised = torch.randn(2, size, 32, 32, generator=torch.Generator().manual_seed(3))  # mean 0, deviation 1
    seen = []
    handle = loaded.tower.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    loaded(normalised)
    handle.remove()
    rgb = [bands.index(colour) for colour in ("red", "green", "blue")]
    assert torch.equal(seen[0], normalised[:, rgb])


def test_teachers_are_frozen(folders, images):
    model = teacher(folders["clip"])
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.tower.model.training
    assert not model(images.requires_grad_()).requires_grad


def test_red_green_and_blue_are_picked_from_many_bands(folders, images):
    config = Dinov2DPTConfig.from_backbones(
        None,
        ["a", "b"],
        bands=["nir", "blue", "green", "red"],
        image_mean=(0.3, *reversed(MEAN)),
        image_std=(0.2, *reversed(STD)),
    )
    arguments = SimpleNamespace(teachers=[folders["dinov2"]], official=False, open_clip_model=None)
    (loaded,) = load_teachers(arguments, config)
    bands = torch.cat((torch.zeros(2, 1, 48, 48), images.flip(1)), dim=1)
    torch.testing.assert_close(loaded(bands), teacher(folders["dinov2"])(images))


def test_refuses_to_go_without(folders):
    config = Dinov2DPTConfig.from_backbones(None, ["a", "b"])
    with pytest.raises(ValueError, match="name one or more with --teachers"):
        load_teachers(SimpleNamespace(teachers=None, official=False, open_clip_model=None), config)
    two = Dinov2DPTConfig.from_backbones(
        None, ["a", "b"], bands=["nir", "red"], image_mean=(0.5, 0.5), image_std=(0.2, 0.2)
    )
    with pytest.raises(ValueError, match="but the bands are nir, red: name these three in --bands"):
        load_teachers(SimpleNamespace(teachers=[folders["clip"]], official=False, open_clip_model=None), two)


def test_features_are_resized_to_the_grid_of_the_student():
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert resize_features(features, 4) is features
    assert resize_features(features, 2).shape == (1, 1, 2, 2)


def test_open_clip_gives_its_patches_ahead_of_its_last_norm(tmp_path, images):
    open_clip = pytest.importorskip("open_clip")
    architecture = tmp_path / "tiny-teacher.json"
    vision = dict(image_size=32, layers=2, width=64, head_width=32, patch_size=8)
    text = dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1)
    architecture.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(architecture)
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-teacher", pretrained=None).eval()
    weights = str(tmp_path / "teacher.pt")
    torch.save(model.state_dict(), weights)
    facts = teacher_facts(weights, "tiny-teacher")
    assert (facts.width, facts.input_px) == (64, 32)
    features = Teacher(facts, mean=MEAN, std=STD, official=True)(images)
    seen = []
    model.visual.transformer.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    with torch.no_grad():
        model.encode_image(F.interpolate(images, (32, 32), mode="bilinear", align_corners=True))
    assert features.shape == (2, 64, 4, 4)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), seen[0][:, 1:])
    with pytest.raises(ValueError, match="which needs the name of its architecture as open_clip_model"):
        teacher_facts(weights)
