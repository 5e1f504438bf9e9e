"""The package works without a network and without the libraries that only some of it needs."""


def test_nothing_goes_to_the_network(isolated):
    assert isolated[1]["attempts"] == []


def test_import_and_model_without_optional_libraries(isolated):
    facts = isolated[1]["with_package"]
    assert facts["loaded"] == ["co2s_hf"]
    assert facts["num_labels"] == 2
    assert len(facts["warnings"]) == 1 and "stand-ins" in facts["warnings"][0]


def test_the_package_wins_over_code_loaded_from_a_folder_before(isolated):
    assert isolated[1]["with_package"]["classes"] == [
        "<class 'co2s_hf.modeling_co2s.Co2SForSemanticSegmentation'>",
        "<class 'co2s_hf.modeling_dinov2_dpt.Dinov2DPTForSemanticSegmentation'>",
    ]
