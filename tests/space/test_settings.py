import pytest

from segmenter import ModelError
from settings import Settings


def test_models_and_limits_come_from_the_environment():
    found = Settings.from_environment(
        {"CO2S_MODEL": " a/b, c/d@v1 ,", "CO2S_MAX_MB": "5", "CO2S_MAX_MEGAPIXELS": "2.5"}
    )
    assert found == Settings(["a/b", "c/d@v1"], any_model=True, max_megabytes=5, max_megapixels=2.5)


def test_a_public_space_runs_the_code_of_no_other_model():
    on_a_space = {"SPACE_ID": "me/space", "CO2S_MODEL": "a/b"}
    found = Settings.from_environment(on_a_space)
    found.check_model("a/b")
    with pytest.raises(ModelError, match="This page offers a/b. Duplicate the Space"):
        found.check_model("evil/model")
    with pytest.raises(ModelError, match="its owner sets CO2S_MODEL"):
        Settings.from_environment({"SPACE_ID": "me/space"}).check_model("evil/model")
    Settings.from_environment(on_a_space | {"CO2S_ANY_MODEL": "1"}).check_model("my/model")


def test_no_model_is_asked_for():
    with pytest.raises(ModelError, match="Enter a model"):
        Settings(any_model=True).check_model("")
