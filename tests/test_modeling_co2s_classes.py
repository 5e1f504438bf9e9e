"""Open vocabulary: other classes for a trained model, without training."""

import pytest
import torch

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.class_texts_co2s import encode_class_texts
from co2s_hf.configuration_co2s import TINY_HEAD

NAMES = ["a", "b", "c"]


@pytest.fixture
def model(clip_folder):
    """It has the text tower of `clip_folder`; class names are letters, the only words that this one knows."""
    torch.manual_seed(0)
    return Co2SForSemanticSegmentation.from_backbones(clip_folder, None, NAMES, window_px=64, **TINY_HEAD).eval()


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def predict(model, image, **options):
    return model(image, **options)


# ---- the same classes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embed_again", [False, True])
def test_the_same_classes_give_the_same_logits(model, clip_folder, image, embed_again):
    before, config = predict(model, image), model.config.to_dict()
    model.set_classes(NAMES, text_model=clip_folder if embed_again else None)
    after = predict(model, image)
    assert all(torch.equal(after[field], before[field]) for field in ("logits", "clip_logits", "dinov3_logits"))
    assert model.config.to_dict() == config


def test_another_order_exchanges_the_logits_of_both_students(model, image):
    before = predict(model, image)
    model.set_classes(["c", "a", "b"])
    after = predict(model, image)
    for field in ("logits", "clip_logits", "dinov3_logits"):
        torch.testing.assert_close(after[field], before[field][:, [2, 0, 1]], atol=1e-5, rtol=0)
    assert model.config.id2label == {0: "c", 1: "a", 2: "b"} and model.config.label2id == {"c": 0, "a": 1, "b": 2}


def test_fewer_classes_keep_both_students(model, image):
    queries = model.dinov3.queries.clone()
    model.set_classes(["c", "a"])
    after = predict(model, image)
    assert after.logits.shape == after.dinov3_logits.shape == (1, 2, 48, 40) and model.config.num_labels == 2
    assert torch.equal(model.dinov3.guidance(), queries[[2, 0]])


def test_known_classes_keep_the_texts_they_were_trained_with(model):
    model.set_text_embeddings(torch.eye(3, 12))  # not what the names alone say
    model.set_classes(["b", "x", "a"])
    assert torch.equal(model.clip.text_embeddings[[0, 2]], torch.eye(3, 12)[[1, 0]])


# ---- other classes ---------------------------------------------------------------------------------------------------


def test_new_classes_are_embedded_as_in_training(model, clip_folder, image):
    model.set_classes(["x", "y"], concepts=[["x", "z q"], ["y"]])
    expected = encode_class_texts(clip_folder, [["x", "z q"], ["y"]])
    assert torch.equal(model.clip.text_embeddings, expected)
    assert predict(model, image).logits.shape == (1, 2, 48, 40)


def test_the_student_that_cannot_see_a_class_abstains(model, image):
    queries = model.dinov3.queries.clone()
    model.set_classes(["a", "x"])
    output = predict(model, image)
    assert output.dinov3_logits is None and torch.equal(output.logits, output.clip_logits)
    assert torch.equal(predict(model, image, fusion="mean").logits, output.clip_logits)
    assert torch.equal(model.dinov3.queries, queries)
    assert set(model.predictions) == {"clip", "fused"} and set(type(model).predictions) == {"clip", "dinov3", "fused"}


def test_it_votes_again_with_the_classes_it_knows(model, image):
    before, config = predict(model, image), model.config.to_dict()
    model.set_classes(["a", "x"])
    model.set_classes(NAMES)
    after = predict(model, image)
    assert torch.equal(after.dinov3_logits, before.dinov3_logits) and after.dinov3_logits is not None
    torch.testing.assert_close(after.logits, before.logits, atol=1e-5, rtol=0)
    assert model.config.to_dict() == config and set(model.predictions) == {"clip", "dinov3", "fused"}


def test_an_added_class_leaves_the_others_where_they_were(model, clip_folder, image):
    texts = model.clip.text_embeddings.clone()
    model.add_class("x", concepts=["x", "y"])
    assert model.config.class_names == [*NAMES, "x"]
    assert torch.equal(model.clip.text_embeddings[:3], texts)
    assert torch.equal(model.clip.text_embeddings[3:], encode_class_texts(clip_folder, [["x", "y"]]))
    output = predict(model, image)
    assert output.logits.shape == (1, 4, 48, 40) and output.dinov3_logits is None


def test_embeddings_may_be_given(model):
    model.set_classes(["x", "y"], text_embeddings=torch.eye(2, 12))
    model.add_class("z", text_embedding=torch.ones(12))
    assert torch.equal(model.clip.text_embeddings, torch.cat([torch.eye(2, 12), torch.ones(1, 12)]))


def test_a_window_slides_with_one_student(model):
    wide = torch.randn(1, 3, 50, 90, generator=torch.Generator().manual_seed(1))
    both = predict(model, wide)
    model.config.fusion = "clip"
    model.set_classes([*NAMES, "x"], text_embeddings=torch.cat([model.clip.text_embeddings, torch.ones(1, 12)]))
    one = predict(model, wide)
    assert one.dinov3_logits is None and one.logits.shape == (1, 4, 50, 90) and both.dinov3_logits is not None


def test_the_loss_is_that_of_the_student_that_votes(model, image):
    model.set_classes(["a", "x"])
    labels = torch.zeros(1, 48, 40, dtype=torch.long)
    output = model(image, labels)
    expected = torch.nn.functional.cross_entropy(output.clip_logits, labels)
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    assert model.dinov3.queries.grad is None and model.clip.head.classifier.weight.grad is not None


@pytest.mark.parametrize("names", [["x", "b"], ["c", "b"], [*NAMES, "x"]])
def test_saved_and_loaded_like_any_model(model, image, names, tmp_path):
    model.set_classes(names)
    model.save_pretrained(tmp_path)
    loaded = Co2SForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.class_names == names and loaded.config.text_model == model.config.text_model
    expected, found = predict(model, image), predict(loaded, image)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    assert (found.dinov3_logits is None) == (expected.dinov3_logits is None) == ("x" in names)
    loaded.set_classes(NAMES)
    assert torch.equal(loaded.dinov3.queries, model.dinov3.queries) and predict(loaded, image).dinov3_logits is not None


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_training_records_the_text_tower(model, clip_folder):
    assert model.config.text_model == str(clip_folder)


@pytest.mark.filterwarnings("ignore:class embeddings are stand-ins")
def test_refuses_new_classes_without_a_text_tower(clip_folder):
    model = Co2SForSemanticSegmentation.from_backbones(None, None, NAMES)
    with pytest.raises(ValueError, match="no text tower is known for this model.*text_model, or give the embeddings"):
        model.set_classes(["a", "x"])
    with pytest.raises(ValueError, match="no text tower is known"):
        model.add_class("x")
    with pytest.raises(ValueError, match=r"text_embeddings are \(2, 12\), expected \(2, 64\)"):
        model.set_classes(["x", "y"], text_model=clip_folder)
    with pytest.raises(ValueError, match=r"text_embedding is \(12,\) but `clip_config.projection_dim` is 64"):
        model.add_class("x", text_model=clip_folder)
    assert model.config.class_names == NAMES and model.config.dinov3_classes is None


@pytest.mark.parametrize("names", [[], ["x"], ["x", "y", "x"], "xyz"])
def test_refuses_unusable_names(model, names):
    with pytest.raises(ValueError, match="expected (at least two different|a list of) class names, found"):
        model.set_classes(names)
    assert model.config.class_names == NAMES


def test_refuses_what_does_not_fit(model):
    with pytest.raises(ValueError, match=r"text_embeddings are \(3, 12\), expected \(2, 12\)"):
        model.set_classes(["x", "y"], text_embeddings=torch.eye(3, 12))
    with pytest.raises(ValueError, match="concepts are those of 1 classes, but there are 2 names"):
        model.set_classes(["x", "y"], concepts=[["x"]])
    with pytest.raises(ValueError, match="a list with the concepts of each class, in their order, found {'x'"):
        model.set_classes(["x", "y"], concepts={"x": ["lake"], "y": ["street"]})
    with pytest.raises(ValueError, match="at least two different class names"):
        model.add_class("b")
    assert model.config.class_names == NAMES


def test_refuses_to_ask_the_student_that_abstains(model, image):
    model.set_classes(["a", "x"])
    with pytest.raises(ValueError, match="fusion is 'dinov3', but this student abstains"):
        predict(model, image, fusion="dinov3")


def test_refuses_to_silence_the_only_student(model):
    model.config.fusion = "dinov3"
    with pytest.raises(ValueError, match="config.fusion is 'dinov3', but the DINOv3 student was not trained for 'x'"):
        model.set_classes(["a", "x"])
    assert model.config.class_names == NAMES


def test_the_configuration_refuses_contradictions():
    labels = {"id2label": {0: "a", 1: "x"}, "label2id": {"a": 0, "x": 1}}
    with pytest.raises(ValueError, match="fusion is 'dinov3' but the DINOv3 student does not know the class 'x'"):
        Co2SConfig(fusion="dinov3", dinov3_classes=NAMES, **labels)
    with pytest.raises(ValueError, match="expected each class once"):
        Co2SConfig(dinov3_classes=["a", "a"], **labels)


@pytest.mark.parametrize("embeddings", [[[0.0] * 12] * 2, 3, torch.full((2, 12), torch.nan), torch.ones(2, 12) * 1j])
def test_embeddings_that_are_none_change_nothing(model, embeddings):
    before = model.config.class_names, model.clip.text_embeddings.clone()
    with pytest.raises(ValueError, match="text_embeddings (are|hold)"):
        model.set_classes(["x", "y"], text_embeddings=embeddings)
    with pytest.raises(ValueError, match="text_embeddings? (is|are|hold)"):
        model.add_class("x", text_embedding=embeddings if isinstance(embeddings, (int, list)) else embeddings[0])
    assert model.config.class_names == before[0] and torch.equal(model.clip.text_embeddings, before[1])
