import pytest

from training.arguments import parse_arguments
from training.models import build_model

TINY = ["--method", "supervised", "--max_steps", "1"]


def checkpointed(model):
    return [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]


@pytest.mark.filterwarnings("ignore:class embeddings are stand-ins")
def test_activations_are_kept_unless_asked_otherwise():
    classes = ("sea", "land")
    assert checkpointed(build_model(parse_arguments(TINY), classes)) == []
    model = build_model(parse_arguments([*TINY, "--activation_checkpointing"]), classes)
    for student in (model.clip, model.dinov3):
        assert checkpointed(student.backbone)
