"""What is generated for models: classes of any kind for `set_classes`, recorded outputs, and folders to push."""

import json
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation
from co2s_hf.convert.proof import compare_outputs
from co2s_hf.publish.folder import check_folder
from tests.faults.fuzz_values import JUNK, Target, Try, changed, shown
from tests.faults.judge import Row

NAMES = st.one_of(
    st.just(["x", "y"]), st.lists(st.sampled_from(["a", "b", "water", "", "A", " a", "x" * 10_000]), max_size=4), JUNK
)
WIDTH = 64
"""Of an embedding of the model below."""
KINDS = st.sampled_from([torch.float32, torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64])
SHAPES = st.one_of(
    st.sampled_from(
        [
            (2, WIDTH),
            (3, WIDTH),
            (WIDTH,),
            (1, 3, 32, 32),
            (1, 2, 32, 32),
            (2, 3, 64, 32),
            (1, 3, 0, 0),
            (1, 4, 32, 32),
            (),
        ]
    ),
    st.lists(st.integers(0, 33), max_size=5),
)
TENSORS = st.tuples(SHAPES, KINDS, st.sampled_from([0.0, 1.0, float("nan"), 6e4])).map(
    lambda one: torch.full(tuple(one[0]), one[2] if one[1] != torch.int64 else 1, dtype=one[1])
)


def _model() -> Co2SForSemanticSegmentation:
    return Co2SForSemanticSegmentation(Co2SConfig.from_backbones(None, None, ["a", "b"], window_px=32)).eval()


def _classes(_: Path) -> Try:
    model = _model()
    assert model.config.clip_config.projection_dim == WIDTH

    def try_one(row: Row, value: tuple[bool, Any, Any, Any]) -> None:
        is_new, names, concepts, embeddings = value
        if is_new:
            named = {"concepts": concepts, "text_embedding": embeddings}
        else:
            named = {"concepts": concepts, "text_embeddings": embeddings}
        before = model.config.class_names, model.clip.text_embeddings.clone()
        run = model.add_class if is_new else model.set_classes
        said = (
            f"{'add' if is_new else 'set'} {shown(names)} {shown(concepts)} {tuple(getattr(embeddings, 'shape', ()))}"
        )
        found = row.judge(lambda: run(names, **named), said)
        if isinstance(found, Exception):  # refused: nothing has changed
            assert model.config.class_names == before[0] and model.clip.text_embeddings.equal(before[1])
        else:
            model.set_classes(["a", "b"], text_embeddings=torch.zeros(2, model.config.clip_config.projection_dim))

    return try_one


def _recordings(folder: Path) -> Try:
    model, path = _model(), folder / "fuzzed.safetensors"

    def try_one(row: Row, value: dict[str, torch.Tensor]) -> None:
        save_file({name: tensor.contiguous() for name, tensor in value.items()}, path)
        shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in value.items()}
        row.judge(lambda: compare_outputs(model, path, 10.0), shown(shapes), "fuzzed.safetensors")

    return try_one


INDEX = {"metadata": {}, "weight_map": {"a": "model.safetensors"}}
CONFIG = {"auto_map": {"AutoModel": "modeling.Model", "AutoConfig": None}, "model_type": "co2s"}
CARD = "---\nlibrary_name: a\nlicense: mit\npipeline_tag: b\n---\n# Card\n"


def _folders(folder: Path) -> Try:
    place = folder / "pushed"
    place.mkdir()
    files = {"README.md": CARD, "config.json": json.dumps(CONFIG | {"auto_map": {}}), "preprocessor_config.json": "{}"}

    def try_one(row: Row, value: tuple[str, bytes]) -> None:
        name, content = value
        for path in place.iterdir():
            path.unlink()
        save_file({"a": torch.zeros(1)}, place / "model.safetensors")
        for kept, text in files.items():
            (place / kept).write_text(text)
        (place / name).write_bytes(content)
        row.judge(lambda: check_folder(place), f"{name} {shown(content)}")

    return try_one


def _text(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    return st.one_of(changed(document).map(lambda made: json.dumps(made).encode()), st.binary(max_size=40))


LINES = [
    "---\n", "license: mit\n", "library_name: a\n", "pipeline_tag: b\n", "- x\n", "license_name: dinov3-license\n",
    "eval_results: 3\n", "model-index: [1]\n", "a: !!python/name:os\n", "\0", "&a [*a]\n", "language: 3\n",
]  # fmt: skip
CARDS = st.one_of(
    st.lists(st.sampled_from(LINES), max_size=9).map(lambda parts: "".join(parts).encode()), st.binary(max_size=40)
)
FILES = st.one_of(
    st.tuples(st.sampled_from(["config.json", "preprocessor_config.json"]), _text(CONFIG)),
    st.tuples(st.just("model.safetensors.index.json"), _text(INDEX)),
    st.tuples(st.just("README.md"), CARDS),
    st.tuples(st.sampled_from(["SHA256SUMS", "model.safetensors", "x.pt", "a.py"]), st.binary(max_size=40)),
)

TARGETS = {
    "set_classes, add_class": Target(
        st.tuples(
            st.booleans(),
            NAMES,
            st.one_of(st.none(), JUNK, st.lists(st.lists(st.text(max_size=3), max_size=2), max_size=3)),
            st.one_of(st.none(), st.just(torch.ones(2, WIDTH)), st.just(torch.ones(WIDTH)), TENSORS, JUNK),
        ),
        _classes,
        4,
    ),
    "recorded outputs": Target(
        st.dictionaries(
            st.sampled_from(["pixel_values", "logits", "odd.pixel_values", "odd.clip_logits", "input_ids"]),
            TENSORS,
            max_size=4,
        ),
        _recordings,
        2,
    ),
    "folders to push": Target(FILES, _folders, 4),
}
