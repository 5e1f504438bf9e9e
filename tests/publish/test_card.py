import math
import re

import pytest
import yaml

from co2s_hf.publish.card import CardFacts, Parent, model_card

CLIP = Parent("openai/clip-vit-base-patch16", "clip")
DINOV3 = Parent("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit")
DINOV2 = Parent("facebook/dinov2-base", "dinov2")
BARE = {
    "name": "my-model",
    "method": "co2s",
    "classes": ("water", "road"),
    "training_command": "python training/train_semi.py --output_dir out",
    "versions": {"torch": "9.87"},
}
RESULTS = {
    "clip": {"per_category_iou": [0.5, math.nan], "mean_iou": 0.51234, "mean_iou_absent_zero": 0.25},
    "fused": {"per_category_iou": [0.625, None], "mean_iou": 0.6251, "mean_iou_absent_zero": 0.3125},
}


def front_matter(card):
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(matter)


def test_from_scratch_is_apache_and_says_what_it_is():
    card = model_card(CardFacts(**BARE))
    assert front_matter(card) == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "remote-sensing", "semi-supervised-learning", "co2s_hf", "co2s"],
    }
    for text in (
        "# my-model\n",
        "- `1` road\n",
        "AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)",
        'pipeline("image-segmentation", model="my-model", trust_remote_code=True)',
        BARE["training_command"],
        "Versions: torch 9.87.",
        "Started from random weights.",
        "Trained from scratch",
        "random stand-ins",
        "No evaluation was recorded",
    ):
        assert text in card, text


def test_states_no_number_that_was_not_given():
    given = {"0", "1", "9.87"}  # class ids and a version
    fixed = r"CLIP|DINOv3|Co2S|co2s\w*|arXiv 2512\.23035|arxiv\.org/abs/2512\.23035|apache-2\.0|Apache-2\.0|\)\[0\]"
    assert set(re.findall(r"\d+(?:\.\d+)?", re.sub(fixed, "", model_card(CardFacts(**BARE))))) <= given
    card = model_card(CardFacts(**BARE, results=RESULTS, dataset="Dubai", num_labelled=12, num_validation=8, step=4321))
    shown = set(re.findall(r"\d+(?:\.\d+)?", re.sub(fixed, "", card)))
    assert shown == given | {"50.00", "62.50", "51.23", "62.51", "25.00", "31.25", "12", "8", "4321", "0.6251"}


def test_results_table_and_model_index():
    card = model_card(CardFacts(**BARE, results=RESULTS, dataset="Dubai aerial"))
    assert "| % | CLIP | Fused |\n|---|---:|---:|\n| water | 50.00 | 62.50 |\n| road | – | – |\n" in card
    assert "| **mean of present classes** | 51.23 | 62.51 |" in card
    assert "pixel accuracy" not in card and "confident" not in card.split("## Results")[1].split("##")[0]
    (entry,) = front_matter(card)["model-index"]
    assert entry["name"] == "my-model" and entry["results"][0]["dataset"]["name"] == "Dubai aerial"
    assert entry["results"][0]["metrics"][0]["value"] == 0.6251


def test_pseudo_label_quality_is_shown_if_recorded():
    results = {"fused": {**RESULTS["fused"], "pseudo_label_precision": 0.9, "pseudo_label_coverage": math.nan}}
    card = model_card(CardFacts(**BARE, results=results))
    assert "| precision of confident pixels | 90.00 |\n| share of confident pixels | – |" in card
    assert "model-index" not in front_matter(card)  # no data set to attach it to


def test_dinov3_parent_decides_the_licence():
    card = model_card(CardFacts(**BARE, backbones=(CLIP, DINOV3), text_model=CLIP))
    matter = front_matter(card)
    assert (matter["license"], matter["license_name"]) == ("other", "dinov3-license")
    assert matter["license_link"].endswith("dinov3-license")
    assert matter["base_model"] == [CLIP.name, DINOV3.name]
    assert "the CLIP parts keep their own licence" in card and f"Started from `{CLIP.name}`, `{DINOV3.name}`." in card
    assert "from scratch" not in card and "stand-ins" not in card


def test_other_parents_are_named_for_checking():
    card = model_card(CardFacts(**BARE, backbones=(CLIP, DINOV2)))
    matter = front_matter(card)
    assert matter["license"] == "other" and "license_name" not in matter
    assert f"derive from `{CLIP.name}`, `{DINOV2.name}`: check the licence of each" in card


def test_text_model_alone_is_a_parent_too():
    card = model_card(CardFacts(**BARE, text_model=CLIP))
    assert front_matter(card)["license"] == "other" and front_matter(card)["base_model"] == [CLIP.name]
    assert "Trained from scratch" in card


def test_local_parents_are_no_hub_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "near").mkdir(parents=True)
    parents = (Parent(str(tmp_path / "far"), "dinov3_vit"), Parent("weights/near", "clip"), Parent("./here/it", "clip"))
    card = model_card(CardFacts(**BARE, backbones=parents))
    assert "base_model" not in front_matter(card) and str(tmp_path) not in card
    assert "`far`, `near`, `it`" in card and front_matter(card)["license_name"] == "dinov3-license"


def test_odd_text_does_not_break_the_card():
    facts = {**BARE, "name": "a: {b} #c", "classes": ("grass | bush", "{x}"), "method": "new", "num_channels": 4}
    card = model_card(CardFacts(**facts, results=RESULTS, dataset="d: 'x'"))
    assert front_matter(card)["model-index"][0]["name"] == "a: {b} #c"
    assert "| grass \\| bush | 50.00" in card and "Trained with the method `new`." in card
    assert "images of 4 bands" in card


def test_refuses_results_of_other_classes():
    with pytest.raises(ValueError, match="results of CLIP have 2 classes, but the card names 3"):
        model_card(CardFacts(**{**BARE, "classes": ("a", "b", "c")}, results=RESULTS))


def test_one_student_is_told_apart():
    results = {"dino": {"per_category_iou": [0.5, 0.25], "mean_iou": 0.375, "mean_iou_absent_zero": 0.375}}
    facts = {**BARE, "model": "dinov2_dpt", "method": "rs_mtdf", "results": results, "dataset": "Dubai"}
    card = model_card(CardFacts(**facts, backbones=(DINOV2,)))
    assert "A DINO backbone with a DPT decoder. It learned" in card and "RS-MTDF" in card
    assert "students" not in card and "stand-ins" not in card and "| % | DINO |" in card
    assert front_matter(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.375
