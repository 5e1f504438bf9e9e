"""A model folder as a training leaves it."""

import pytest

from co2s_hf import Co2SImageProcessor
from co2s_hf.publish.card import CardFacts, model_card


@pytest.fixture(scope="session")
def model_folder(tiny_model, tmp_path_factory):
    """Weights, configuration, code, processor and card. Read only."""
    folder = tmp_path_factory.mktemp("run") / "model"
    tiny_model.save_pretrained(folder)
    Co2SImageProcessor().save_pretrained(folder)
    facts = CardFacts(
        name="run",
        method="co2s",
        classes=tuple(tiny_model.config.id2label.values()),
        training_command="accelerate launch training/train_semi.py",
        versions={"torch": "9.87"},
    )
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    return folder
