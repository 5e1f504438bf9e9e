"""What may go to the Hub, and what may not."""

import json
import shutil

import pytest

from co2s_hf.publish.folder import CHECKSUMS, FolderError, check_folder, verify_checksums, write_checksums


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "copy")


def refusal(folder):
    with pytest.raises(FolderError) as refused:
        check_folder(folder)
    message = str(refused.value)
    assert str(folder) in message and "\n" not in message
    return message


def test_a_saved_model_is_complete(folder):
    (folder / "panel.png").write_bytes(b"picture")
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "loveda.yaml").write_text("[]")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x.lock").touch()
    names = check_folder(folder)
    assert {"config.json", "model.safetensors", "modeling_co2s.py", "segmentation.py", "panel.png"} <= set(names)
    assert ".eval_results/loveda.yaml" in names and not any(".cache" in name for name in names)
    assert names == sorted(names)


def test_no_folder(tmp_path):
    assert "is no folder" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "README.md", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"lacks {name}" in refusal(folder)


@pytest.mark.parametrize("name", ["modeling_co2s.py", "image_processing_co2s.py", "segmentation.py"])
def test_missing_code_is_named_also_where_only_other_code_imports_it(folder, name):
    (folder / name).unlink()
    assert f"lacks {name}" in refusal(folder)


@pytest.mark.parametrize("name", ["optimizer.bin", "scheduler.pt", "state/random_states_0.pkl"])
def test_optimizer_states_and_pickles_stay_at_home(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    message = refusal(folder)
    assert name in message and "may hold a pickle" in message


def test_strangers_stay_at_home(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "extra.py").write_text("import os")
    assert "holds extra.py, notes.txt, which is no part of a model. Move" in refusal(folder)


def test_truncated_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.safetensors is damaged or truncated" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json", "modeling_co2s.py"])
def test_a_file_that_changed_since_it_was_saved_is_refused(folder, name):
    write_checksums(folder)
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nA word more.\n")
    assert CHECKSUMS in check_folder(folder)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(FolderError, match=f"{name} is not what .*{CHECKSUMS} says: it is damaged"):
        verify_checksums(folder)


def test_damaged_checksums_are_refused(folder):
    write_checksums(folder)
    path = folder / CHECKSUMS
    lines = path.read_text().splitlines(keepends=True)
    for text, said in (("nothing", "cannot be read"), ("".join(lines[:1]), "lacks"), ("", "lacks config.json")):
        path.write_text(text)
        with pytest.raises(FolderError, match=said):
            verify_checksums(folder)


def test_every_shard_is_needed(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "lacks model-00002-of-00002.safetensors:" in refusal(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    assert len([name for name in check_folder(folder) if name.endswith(".safetensors")]) == 2


@pytest.mark.parametrize(
    ("matter", "expected"),
    [
        ("license: [", "cannot be read"),
        ("library_name: transformers\npipeline_tag: image-segmentation", "states no license"),
        ("license: mit", "states no library_name, pipeline_tag"),
        (
            "library_name: transformers\npipeline_tag: image-segmentation\nlicense: other\nlicense_name: own",
            "names the licence own, but no license_link",
        ),
    ],
)
def test_a_card_without_its_metadata_is_refused(folder, matter, expected):
    (folder / "README.md").write_text(f"---\n{matter}\n---\n# Card\n")
    assert expected in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_damaged_configurations_are_refused(folder, content):
    (folder / "config.json").write_text(content)
    assert "config.json is no JSON" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "holds no JSON object" in refusal(folder)


@pytest.mark.parametrize("auto_map", [3, [3], ["a.B"], {"AutoModel": 3}, {"AutoModel": [["a.B"]]}])
def test_an_auto_map_that_names_no_classes_is_refused(folder, auto_map):
    (folder / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    assert "config.json has an auto_map that names no classes" in refusal(folder)


@pytest.mark.parametrize("weight_map", [None, [], ["a"], {"a": 3}, {"a": ["b"]}])
def test_an_index_that_names_no_files_is_refused(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "index.json names no files of weights" in refusal(folder)


def test_a_card_that_is_no_text_is_refused(folder):
    (folder / "README.md").write_bytes(b"\xff")
    assert "README.md starts with metadata that cannot be read" in refusal(folder)


def test_a_descendant_of_dinov3_carries_its_licence(folder):
    card = (folder / "README.md").read_text()
    named = "license: other\nlicense_name: dinov3-license\nlicense_link: https://example.com"
    (folder / "README.md").write_text(card.replace("license: apache-2.0", named))
    assert "descendant of DINOv3 without LICENSE.md" in refusal(folder)
    (folder / "LICENSE.md").write_text("Terms")
    assert "LICENSE.md" in check_folder(folder)
