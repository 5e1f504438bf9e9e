"""The model card: README.md of a saved model folder, made of facts of the run and of nothing else."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

TITLES = {"clip": "CLIP", "dinov3": "DINOv3", "dino": "DINO", "fused": "Fused"}
MAIN = {"co2s": "fused", "dinov2_dpt": "dino"}
"""The prediction that users of a model get."""

MODELS = {
    "co2s": (
        "Two students, one on a CLIP and one on a DINO backbone; the prediction is their fusion, and either can be "
        "asked alone."
    ),
    "dinov2_dpt": "A DINO backbone with a DPT decoder.",
}

METHODS = {
    "supervised": "It learned from the labelled images only: the baseline for semi-supervised methods.",
    "fixmatch": (
        "It learned from few labelled and many unlabelled images with FixMatch "
        "([arXiv 2001.07685](https://arxiv.org/abs/2001.07685)), labelled by its moving average."
    ),
    "unimatch": (
        "It learned from few labelled and many unlabelled images with UniMatch "
        "([arXiv 2208.09910](https://arxiv.org/abs/2208.09910))."
    ),
    "unimatch_v2": (
        "It learned from few labelled and many unlabelled images with UniMatch V2 "
        "([arXiv 2410.10777](https://arxiv.org/abs/2410.10777))."
    ),
    "rs_mtdf": (
        "It learned from few labelled and many unlabelled images with RS-MTDF "
        "([arXiv 2506.08772](https://arxiv.org/abs/2506.08772)): it imitates foundation models, which are not part of "
        "it, and decodes what it imitates."
    ),
    "semiearth": (
        "It learned from few labelled and many unlabelled images with SemiEarth "
        "([arXiv 2602.00202](https://arxiv.org/abs/2602.00202)): a vision-language model purified its pseudo-labels."
    ),
    "co2s": (
        "They learned from few labelled and many unlabelled images with Co2S "
        "([arXiv 2512.23035](https://arxiv.org/abs/2512.23035)): each trains on its own confident pseudo-labels and, "
        "where the other one is surer, on the other's."
    ),
}

DINOV3_LICENSE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license"

TEMPLATE = """\
---
{front_matter}
---

# {name}

Land-cover segmentation of aerial and satellite images. {model} {method}

## Classes

{classes}

## Results

{results}

## How to use

```python
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

folder = "{name}"  # this folder, or its name on the Hub
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True).eval()

image = Image.open("scene.png").convert("RGB")
with torch.no_grad():
    outputs = model(**processor(image, return_tensors="pt"))
sizes = [(image.height, image.width)]
classes = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)[0]
```

or, one mask for each class that occurs:

```python
from transformers import pipeline

masks = pipeline("image-segmentation", model="{name}", trust_remote_code=True)("scene.png")
```

`trust_remote_code=True` runs the model's Python files in this folder: read them first.

## Training

{training}

```
{command}
```

Versions: {versions}.

## Limits

{limits}

## License

{license}
"""


@dataclass(frozen=True)
class Parent:
    """A model whose weights are part of this one.

    Attributes:
        name: its name on the Hub, or a local path, of which the card shows the last part only.
        model_type: as in its config.json, e.g. "clip" or "dinov3_vit"; decides on the licence.
    """

    name: str
    model_type: str


@dataclass(frozen=True)
class CardFacts:
    """What is known about a trained model; the card states no number that is not in here.

    Attributes:
        name: of the folder or of the repository on the Hub.
        method: key of the training method, e.g. "co2s".
        model: model type, "co2s" or "dinov2_dpt".
        classes: class names in id order.
        training_command: as typed.
        versions: library -> version of the training run.
        backbones: pretrained backbones the students started from; empty = random weights.
        text_model: what turned the class names into embeddings; None = random stand-ins.
        dataset: name of the data.
        num_labelled, num_unlabelled, num_validation: number of images.
        step: finished optimizer steps.
        num_channels: bands of the images.
        results: the evaluation of exactly these weights, by prediction: {"fused": {"per_category_iou",
            "mean_iou", "mean_iou_absent_zero", ...}, ...}, fractions in [0, 1], nan or None = undefined.
    """

    name: str
    method: str
    classes: tuple[str, ...]
    training_command: str
    versions: Mapping[str, str]
    model: str = "co2s"
    backbones: tuple[Parent, ...] = ()
    text_model: Parent | None = None
    dataset: str | None = None
    num_labelled: int | None = None
    num_unlabelled: int | None = None
    num_validation: int | None = None
    step: int | None = None
    num_channels: int = 3
    results: Mapping[str, Any] | None = None

    @property
    def parents(self) -> tuple[Parent, ...]:
        """Every model that this one derives from, once each."""
        return tuple(dict.fromkeys(self.backbones + ((self.text_model,) if self.text_model else ())))


def model_card(facts: CardFacts) -> str:
    """Write the card.

    Args:
        facts: see `CardFacts`; what is unknown stays unsaid.

    Returns:
        Markdown with a YAML front matter, as the Hub reads it.

    Raises:
        ValueError: the results have another number of classes than there are names.
    """
    return TEMPLATE.format(
        front_matter=_front_matter(facts),
        name=facts.name,
        model=MODELS[facts.model],
        method=METHODS.get(facts.method, f"Trained with the method `{facts.method}`."),
        classes="\n".join(f"- `{index}` {name}" for index, name in enumerate(facts.classes)),
        results=_results(facts),
        training=_training(facts),
        command=facts.training_command,
        versions=", ".join(f"{library} {version}" for library, version in facts.versions.items()),
        limits="\n".join(f"- {limit}" for limit in _limits(facts)),
        license=_license(facts.parents)[1],
    )


def _front_matter(facts: CardFacts) -> str:
    license_fields, _ = _license(facts.parents)
    scores = _scores(facts)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "remote-sensing", "semi-supervised-learning", "co2s_hf", facts.method],
        base_model=[parent.name for parent in facts.parents if _is_on_hub(parent.name)] or None,
        model_name=facts.name if scores else None,
        eval_results=scores or None,
        **license_fields,
    )
    return data.to_yaml().strip()


def _scores(facts: CardFacts) -> list[EvalResult]:
    """The model index: only with a recorded number and a data set to attach it to."""
    value = (facts.results or {}).get(MAIN[facts.model], {}).get("mean_iou")
    if facts.dataset is None or value is None or math.isnan(value):
        return []
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", facts.dataset.lower()).strip("-"),
            dataset_name=facts.dataset,
            metric_type="mean_iou",
            metric_name="mean IoU over present classes",
            metric_value=value,
        )
    ]


def _license(parents: tuple[Parent, ...]) -> tuple[dict[str, Any], str]:
    """Front matter fields and a sentence: weights follow the licences of the weights they started from."""
    if not parents:
        return {"license": "apache-2.0"}, "Apache-2.0, weights and code: no pretrained weights went into this model."
    names = ", ".join(f"`{_shown(parent.name)}`" for parent in parents)
    if not any(parent.model_type.startswith("dinov3") for parent in parents):
        return {"license": "other"}, (
            f"The weights derive from {names}: check the licence of each before you use or share them. The code is "
            "Apache-2.0."
        )
    fields = {"license": "other", "license_name": "dinov3-license", "license_link": DINOV3_LICENSE}
    return fields, (
        f"The weights derive from {names}. The DINOv3 parts and what was trained on them fall under the "
        f"[DINOv3 License]({DINOV3_LICENSE}); the CLIP parts keep their own licence. The code is Apache-2.0."
    )


def _results(facts: CardFacts) -> str:
    if not facts.results:
        return "No evaluation was recorded for these weights."
    columns = {title: facts.results[key] for key, title in TITLES.items() if key in facts.results}
    for title, numbers in columns.items():
        if len(numbers["per_category_iou"]) != len(facts.classes):
            raise ValueError(
                f"The results of {title} have {len(numbers['per_category_iou'])} classes, but the card names "
                f"{len(facts.classes)}."
            )
    rows = [
        (name.replace("|", "\\|"), [numbers["per_category_iou"][index] for numbers in columns.values()])
        for index, name in enumerate(facts.classes)
    ]
    further = {
        "mean_iou": "**mean of present classes**",
        "mean_iou_absent_zero": "mean, a class without pixels counts as zero",
        "overall_accuracy": "pixel accuracy",
        "pseudo_label_precision": "precision of confident pixels",
        "pseudo_label_coverage": "share of confident pixels",
    }
    for key, label in further.items():
        if any(key in numbers for numbers in columns.values()):
            rows.append((label, [numbers.get(key) for numbers in columns.values()]))
    lines = [f"| {label} | {' | '.join(map(_percent, values))} |" for label, values in rows]
    header = [f"| % | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    return "\n".join(["IoU on the validation images of this run, ignored pixels left out.", "", *header, *lines])


def _training(facts: CardFacts) -> str:
    counts = {"labelled": facts.num_labelled, "unlabelled": facts.num_unlabelled, "validation": facts.num_validation}
    images = ", ".join(f"{count} {name}" for name, count in counts.items() if count is not None)
    start = ", ".join(f"`{_shown(parent.name)}`" for parent in facts.backbones) or "random weights"
    sentences = [f"Started from {start}."]
    if facts.dataset:
        sentences.append(f"Data: {facts.dataset}.")
    if images:
        sentences.append(f"Images: {images}.")
    if facts.step is not None:
        sentences.append(f"Optimizer steps: {facts.step}.")
    return " ".join(sentences)


def _limits(facts: CardFacts) -> list[str]:
    limits = ["It knows the classes above and the kind of images it was trained on; test it on yours before use."]
    if facts.results:
        limits.append("The weights may have been chosen by the validation score that is shown, which flatters it.")
    if not facts.backbones:
        limits.append("Trained from scratch, without pretrained backbones: expect less than such models reach.")
    if facts.text_model is None and facts.model == "co2s":
        limits.append("The class embeddings are random stand-ins, not made by a text encoder: names carry no meaning.")
    if facts.num_channels != 3:
        limits.append(
            f"It takes images of {facts.num_channels} bands: give the processor an array of them. The pipeline and the "
            "example above read RGB only."
        )
    return limits


def _is_on_hub(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def _shown(name: str) -> str:
    return name if _is_on_hub(name) else Path(name).name


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"
