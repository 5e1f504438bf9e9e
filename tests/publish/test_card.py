import math
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from co2s_hf.publish.card import CardFacts, DataFacts, model_card, write_card
from co2s_hf.publish.licences import DINOV3_LICENSE, Parent, find_licence_text, licence_file
from tests.hub_double import card_problems

CLIP = Parent("openai/clip-vit-base-patch16", "clip")
DINOV3 = Parent("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3_vit")
OTHER = Parent("laion/CLIP-ViT-B-16", "clip")
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
    recorded = dict(num_labelled=12, num_validation=8, step=4321, seconds=765.4, data=DataFacts("Dubai", gsd_m=0.125))
    card = model_card(CardFacts(**BARE, results=RESULTS, **recorded))
    shown = set(re.findall(r"\d+(?:\.\d+)?", re.sub(fixed, "", card)))
    scores = {"50.00", "62.50", "51.23", "62.51", "25.00", "31.25", "0.6251"}
    assert shown == given | scores | {"12", "8", "4321", "765", "0.125"}


def test_results_table_and_model_index():
    card = model_card(CardFacts(**BARE, results=RESULTS, data=DataFacts("Dubai aerial")))
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
    assert f"Started from `{CLIP.name}`, `{DINOV3.name}`." in card
    assert "from scratch" not in card and "stand-ins" not in card
    section = card.split("## License")[1]
    assert f"- `{CLIP.name}`: MIT\n- `{DINOV3.name}`: DINOv3 License\n" in section
    assert "[LICENSE.md](LICENSE.md)" in section and DINOV3_LICENSE in section and "The code is Apache-2.0." in section


@pytest.mark.parametrize(
    ("parents", "licence"),
    [((CLIP,), "mit"), ((DINOV2,), "apache-2.0"), ((CLIP, DINOV2), "apache-2.0"), ((CLIP, OTHER), "other")],
)
def test_licences_that_are_known_are_stated_and_others_are_to_be_checked(parents, licence):
    card = model_card(CardFacts(**BARE, backbones=parents))
    assert front_matter(card)["license"] == licence and "license_name" not in front_matter(card)
    assert (f"`{OTHER.name}`: check its licence before" in card) == (OTHER in parents)
    assert "LICENSE.md" not in card and licence_file(parents) is None


def test_text_model_alone_is_a_parent_too():
    card = model_card(CardFacts(**BARE, text_model=CLIP))
    assert front_matter(card)["license"] == "mit" and front_matter(card)["base_model"] == [CLIP.name]
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
    card = model_card(CardFacts(**facts, results=RESULTS, data=DataFacts("d: 'x'")))
    assert front_matter(card)["model-index"][0]["name"] == "a: {b} #c"
    assert "| grass \\| bush | 50.00" in card and "Trained with the method `new`." in card
    assert "images of 4 bands" in card


def test_refuses_results_of_other_classes():
    with pytest.raises(ValueError, match="results of CLIP have 2 classes, but the card names 3"):
        model_card(CardFacts(**{**BARE, "classes": ("a", "b", "c")}, results=RESULTS))


def test_one_student_is_told_apart():
    results = {"dino": {"per_category_iou": [0.5, 0.25], "mean_iou": 0.375, "mean_iou_absent_zero": 0.375}}
    facts = {**BARE, "model": "dinov2_dpt", "method": "rs_mtdf", "results": results, "data": DataFacts("Dubai")}
    card = model_card(CardFacts(**facts, backbones=(DINOV2,)))
    assert "A DINO backbone with a DPT decoder. It learned" in card and "RS-MTDF" in card
    assert "students" not in card and "stand-ins" not in card and "| % | DINO |" in card
    assert front_matter(card)["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.375


LOVEDA = DataFacts(
    "LoveDA",
    protocol="Co2S",
    gsd_m=0.3,
    licence="CC BY-NC-SA 4.0",
    citation="Wang et al.",
    page="https://example.com/loveda",
    hub_id="someone/loveda",
    note="Whole scenes.",
)


def test_the_hub_reads_its_own_kind_of_metadata_back():
    numbers = {"fused": {**RESULTS["fused"], "overall_accuracy": 0.75}}
    text = model_card(CardFacts(**BARE, results=numbers, data=LOVEDA, backbones=(CLIP, DINOV3)))
    data = ModelCard(text).data
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [
        ("mean_iou", 0.6251),
        ("overall_accuracy", 0.75),
    ]
    (first, _) = data.eval_results
    assert (first.dataset_type, first.dataset_name) == ("someone/loveda", "LoveDA, protocol Co2S")
    assert (first.dataset_split, first.task_type) == ("validation", "image-segmentation")
    assert data.datasets == ["someone/loveda"] and data.base_model == [CLIP.name, DINOV3.name]
    matter = front_matter(text)
    assert (matter["pipeline_tag"], matter["library_name"]) == ("image-segmentation", "transformers")
    assert card_problems(text) == []
    assert yaml.safe_load(data.to_yaml()) == matter  # nothing is lost on the way


def test_the_data_are_described_as_their_records_do():
    card = model_card(CardFacts(**BARE, data=LOVEDA, num_labelled=94, num_unlabelled=3677, num_validation=420))
    assert card.split("## Data\n\n")[1].split("\n\n##")[0].splitlines() == [
        "- Data set: [LoveDA](https://example.com/loveda)",
        "- On the Hub: someone/loveda",
        "- Protocol: Co2S",
        "- Images: 94 labelled, 3677 unlabelled, 420 validation",
        "- Metres per pixel: 0.3",
        "- Licence of the data: CC BY-NC-SA 4.0",
        "- Citation: Wang et al.",
        "- Note: Whole scenes.",
    ]
    assert "No record says" in model_card(CardFacts(**BARE))


def test_the_environment_is_what_was_recorded():
    card = model_card(CardFacts(**BARE, machine="2 cores, no GPU", seconds=12.6))
    assert "Machine: 2 cores, no GPU. Training until these weights took 13 s" in card
    assert "CO2" not in card and "Energy and emissions were not measured." in model_card(CardFacts(**BARE))


def test_what_goes_with_the_card_is_written_beside_it(tmp_path):
    model, picture = tmp_path / "model", tmp_path / "panel.png"
    model.mkdir()
    picture.write_bytes(b"pixels")
    parent = Parent("facebook/dinov3-x", "dinov3_vit", licence_text="THE TERMS")
    facts = CardFacts(**BARE, results=RESULTS, data=LOVEDA, backbones=(parent,))
    write_card(model, facts)
    names = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert names == {"README.md", "LICENSE.md", ".eval_results/someone-loveda.yaml"}
    assert (model / "LICENSE.md").read_text().endswith("THE TERMS") and "panel.png" not in (
        model / "README.md"
    ).read_text()
    (entry,) = parse_eval_result_entries(yaml.safe_load((model / ".eval_results/someone-loveda.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("someone/loveda", "image-segmentation", 0.6251)
    assert entry.notes == "mean IoU over present classes, validation images, Co2S"
    old = tmp_path / "old.md"
    old.hardlink_to(model / "README.md")
    before = old.read_text()
    write_card(model, facts, {picture: "Four images"})
    assert (model / "panel.png").read_bytes() == b"pixels"
    assert "![Four images](panel.png)" in (model / "README.md").read_text() and old.read_text() == before
    assert not [path for path in model.rglob("*") if path.suffix == ".tmp" or path.name == ".panel.png"]


def test_the_licence_that_came_with_a_parent_is_found(tmp_path):
    (tmp_path / "LICENSE.md").write_text("TERMS")
    assert find_licence_text(str(tmp_path)) == "TERMS"
    assert find_licence_text(str(tmp_path / "absent")) is None and find_licence_text("nobody/nothing-here") is None


def test_a_changed_record_changes_the_card():
    facts = CardFacts(**BARE, results=RESULTS, data=LOVEDA, machine="2 cores", seconds=12.0, step=7)
    card = model_card(facts)
    better = {**RESULTS, "fused": {**RESULTS["fused"], "mean_iou": 0.7351}}
    changed = model_card(replace(facts, results=better, seconds=99.0, step=8))
    lines = [one for one in changed.splitlines() if one not in card.splitlines()]
    assert len(lines) == 4  # model index, table, steps, duration
    assert "value: 0.7351" in lines[0] and "51.23 | 73.51 |" in lines[1]
    assert "Optimizer steps: 8." in lines[2] and "99 s" in lines[3]


def test_the_command_tells_nothing_about_the_machine():
    command = "python training/train_semi.py --data_dir /home/me/secret/dubai --a=~/x/y --classes 'bare soil' runs/a"
    card = model_card(CardFacts(**{**BARE, "training_command": command}))
    assert "\npython training/train_semi.py --data_dir dubai --a=y --classes 'bare soil' runs/a\n" in card
    assert "secret" not in card


def test_words_of_others_stay_words():
    name = "<script>a</script> | [x](javascript:b) `c`\n## Heading"
    facts = CardFacts(**BARE | {"classes": (name, "b")}, data=DataFacts(title=name, page="javascript:d", licence=name))
    card = model_card(facts)
    assert "<script>" not in card and "\n## Heading" not in card and "](javascript:d" not in card
    assert "- `0` &lt;script&gt;a&lt;/script&gt; \\| \\[x\\](javascript:b) \\`c\\` ## Heading" in card
