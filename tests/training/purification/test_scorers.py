import torch

from training.purification.scorers import empty_scores, model_identity, precision_on


def test_a_model_on_the_hub_is_its_commit():
    assert model_identity("openai/clip", "main", "abc") == {"model": "openai/clip", "revision": "abc"}
    assert model_identity("openai/clip", "v1") == {"model": "openai/clip", "revision": "v1"}


def test_local_weights_are_told_apart_by_their_content_and_not_their_place(tmp_path):
    for place, weights in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / place / "clip").mkdir(parents=True)
        (tmp_path / place / "clip" / "model.safetensors").write_bytes(weights)
        (tmp_path / place / "clip" / "notes.md").write_text(place)
    first, same, other = (model_identity(tmp_path / place / "clip") for place in "abc")
    assert first == same and first["model"] == "clip" and first != other
    assert model_identity(tmp_path / "a" / "clip" / "model.safetensors")["model"] == "model.safetensors"


def test_empty_scores_abstain():
    assert empty_scores(2, 3).isnan().all() and empty_scores(0, 3).shape == (0, 3)


def test_precision_is_that_of_the_device():
    assert precision_on(torch.device("cpu")) == torch.float32 and precision_on(torch.device("cuda")) == torch.bfloat16
