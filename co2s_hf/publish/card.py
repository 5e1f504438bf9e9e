"""The model card, README.md of a saved model, and what goes with it: made of facts of the run and of nothing else."""

import html
import math
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from .licences import Parent, licence_fields, licence_file, licence_section

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

TEMPLATE = Path(__file__).with_name("card_template.md")  # here and not in model_cards/, so that the wheel holds it


@dataclass(frozen=True)
class DataFacts:
    """What the records of a data set say about it; None is unknown and stays unsaid.

    Attributes:
        title: how it is called.
        protocol: whose tiles and split.
        gsd_m: metres per pixel.
        licence, citation, page: of its makers.
        hub_id, revision: its repository on the Hub, and the commit that was used.
        note: what one should know before comparing.
    """

    title: str
    protocol: str | None = None
    gsd_m: float | None = None
    licence: str | None = None
    citation: str | None = None
    page: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class CardFacts:
    """What is known about a trained model; the card states no number that is not in here.

    Attributes:
        name: of the folder or of the repository on the Hub.
        method: key of the training method, e.g. "co2s".
        model: model type, "co2s" or "dinov2_dpt".
        classes: class names in id order.
        training_command: as typed; of absolute paths the card shows the last part only.
        versions: library -> version of the training run.
        backbones: pretrained backbones the students started from; empty = random weights.
        text_model: what turned the class names into embeddings; None = random stand-ins.
        data: what it learned from.
        num_labelled, num_unlabelled, num_validation: number of images.
        step: finished optimizer steps.
        num_channels: bands of the images.
        results: the evaluation of exactly these weights, by prediction: {"fused": {"per_category_iou",
            "mean_iou", "mean_iou_absent_zero", ...}, ...}, fractions in [0, 1], nan or None = undefined.
        machine: what it was trained on.
        seconds: how long the training took until these weights, evaluations included.
        pictures: file name beside the card -> what it shows.
    """

    name: str
    method: str
    classes: tuple[str, ...]
    training_command: str
    versions: Mapping[str, str]
    model: str = "co2s"
    backbones: tuple[Parent, ...] = ()
    text_model: Parent | None = None
    data: DataFacts | None = None
    num_labelled: int | None = None
    num_unlabelled: int | None = None
    num_validation: int | None = None
    step: int | None = None
    num_channels: int = 3
    results: Mapping[str, Any] | None = None
    machine: str | None = None
    seconds: float | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)

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
    return TEMPLATE.read_text(encoding="utf-8").format(
        front_matter=_front_matter(facts),
        name=facts.name,
        model=MODELS[facts.model],
        method=METHODS.get(facts.method, f"Trained with the method `{facts.method}`."),
        classes="\n".join(f"- `{index}` {_plain(name)}" for index, name in enumerate(facts.classes)),
        results=_results(facts),
        data=_data(facts),
        training=_training(facts),
        command=_shown_command(facts.training_command),
        versions=", ".join(f"{library} {version}" for library, version in facts.versions.items()),
        environment=_environment(facts),
        limits="\n".join(f"- {limit}" for limit in _limits(facts)),
        license=licence_section(facts.parents),
    )


def write_card(folder: Path, facts: CardFacts, pictures: Mapping[Path, str] | None = None) -> None:
    """Write the card and what goes with it into the folder of a saved model, or anew; each file whole or not at all.

    Args:
        folder: of `save_pretrained`. Files are replaced, never written into: links to the old ones keep their content.
        facts: see `CardFacts`.
        pictures: file -> what it shows; copied beside the card.
    """
    pictures = pictures or {}
    for path in pictures:
        shutil.copyfile(path, folder / f".{path.name}")
        os.replace(folder / f".{path.name}", folder / path.name)
    texts = {"README.md": model_card(replace(facts, pictures={path.name: text for path, text in pictures.items()}))}
    licence = licence_file(facts.parents)
    if licence is not None:
        texts["LICENSE.md"] = licence
    entries = eval_results(facts)
    if entries:
        (folder / ".eval_results").mkdir(exist_ok=True)
        texts[f".eval_results/{_slug(str(entries[0].dataset_id))}.yaml"] = yaml.safe_dump(
            eval_result_entries_to_yaml(entries), sort_keys=False
        )
    for name, text in texts.items():
        unfinished = folder / f"{name}.tmp"
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, folder / name)


def eval_results(facts: CardFacts) -> list[EvalResultEntry]:
    """The scores as the Hub's leaderboards read them: only for data sets that are on the Hub."""
    scores = _scores(facts)
    if not scores or facts.data is None or facts.data.hub_id is None:
        return []
    notes = f"{scores[0].metric_name}, validation images" + (f", {facts.data.protocol}" if facts.data.protocol else "")
    entry = EvalResultEntry(facts.data.hub_id, "image-segmentation", scores[0].metric_value, notes=notes)
    return [replace(entry, dataset_revision=facts.data.revision)]


def _front_matter(facts: CardFacts) -> str:
    scores = _scores(facts)
    hub_id = facts.data.hub_id if facts.data else None
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "remote-sensing", "semi-supervised-learning", "co2s_hf", facts.method],
        datasets=[hub_id] if hub_id else None,
        base_model=[parent.name for parent in facts.parents if parent.is_on_hub] or None,
        model_name=facts.name if scores else None,
        eval_results=scores or None,
        **licence_fields(facts.parents),
    )
    return data.to_yaml().strip()


def _scores(facts: CardFacts) -> list[EvalResult]:
    """The model index: only with a recorded number and a data set to attach it to."""
    numbers = (facts.results or {}).get(MAIN[facts.model], {})
    if facts.data is None:
        return []
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=facts.data.hub_id or _slug(facts.data.title),
            dataset_name=_titled(facts.data),
            dataset_split="validation",
            metric_type=metric,
            metric_name=name,
            metric_value=numbers[metric],
        )
        for metric, name in (("mean_iou", "mean IoU over present classes"), ("overall_accuracy", "pixel accuracy"))
        if numbers.get(metric) is not None and math.isfinite(numbers[metric])
    ]


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
        (_plain(name), [numbers["per_category_iou"][index] for numbers in columns.values()])
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
    pictures = [line for name, text in facts.pictures.items() for line in ("", f"![{text}]({name})")]
    intro = "IoU on the validation images of this run, ignored pixels left out."
    return "\n".join([intro, "", *header, *lines, *pictures])


def _data(facts: CardFacts) -> str:
    if facts.data is None:
        return "No record says what it learned from."
    counts = {"labelled": facts.num_labelled, "unlabelled": facts.num_unlabelled, "validation": facts.num_validation}
    images = ", ".join(f"{count} {name}" for name, count in counts.items() if count is not None)
    said = {
        "Data set": _linked(facts.data.title, facts.data.page),
        "On the Hub": facts.data.hub_id,
        "Protocol": facts.data.protocol,
        "Images": images or None,
        "Metres per pixel": facts.data.gsd_m,
        "Licence of the data": facts.data.licence,
        "Citation": facts.data.citation,
        "Note": facts.data.note,
    }
    linked = said.pop("Data set")
    return "\n".join([f"- Data set: {linked}", *(f"- {k}: {_plain(str(value))}" for k, value in said.items() if value)])


def _environment(facts: CardFacts) -> str:
    said = [f"Machine: {facts.machine}."] if facts.machine else []
    if facts.seconds is not None:
        said.append(f"Training until these weights took {facts.seconds:.0f} s, evaluations included.")
    return " ".join([*said, "Energy and emissions were not measured."])


def _training(facts: CardFacts) -> str:
    start = ", ".join(f"`{parent.shown}`" for parent in facts.backbones) or "random weights"
    steps = "" if facts.step is None else f" Optimizer steps: {facts.step}."
    return f"Started from {start}.{steps}"


def _shown_command(command: str) -> str:
    """The command without the folders of the machine it ran on, of which the last part is kept."""
    shown = []
    for word in shlex.split(command):
        start, equals, value = word.rpartition("=")
        shown.append(f"{start}{equals}{Path(value).name if value.startswith(('/', '~')) else value}")
    return shlex.join(shown)


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


def _plain(text: str) -> str:
    """Other people's words on one line of Markdown: a class name must not end a table, nor bring HTML or a link."""
    return re.sub(r"([\\`|\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _linked(title: str, page: str | None) -> str:
    is_page = page is not None and re.fullmatch(r"https?://[^\s()<>]+", page)
    return f"[{_plain(title)}]({page})" if is_page else _plain(title)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"


def _titled(data: DataFacts) -> str:
    return f"{data.title}, protocol {data.protocol}" if data.protocol else data.title


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


__all__ = ["CardFacts", "DataFacts", "eval_results", "model_card", "write_card"]
