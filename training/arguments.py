"""Arguments of the training script: the command line, with a recipe (YAML) underneath.

A recipe holds the same names as the command line; the command line wins. Without arguments the quick start runs.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import yaml
from huggingface_hub.errors import StrictDataclassError

from co2s_hf.data.description import IGNORED, DatasetDescription, DescriptionError
from co2s_hf.data.folders import DataError
from co2s_hf.data.label_map import show_value
from co2s_hf.pretrained_backbones import RGB
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import Band, NoData, Reading, unit_factors
from co2s_hf.raster.read import open_image
from training.methods import METHODS
from training.models import MODELS
from training.optim import TrainablePart
from training.parts.losses import ConfidenceMode
from training.views import HUE

QUICKSTART = Path(__file__).parent / "recipes" / "quickstart.yaml"

# Arguments that change nothing in the numbers: a run may be resumed with other values of these.
FREE = (
    *("recipe", "output_dir", "resume", "num_workers", "report_to", "log_every", "save_every", "cache_gb", "command"),
    *("tile_cache", "tile_cache_gb"),
    *("push_to_hub", "hub_private", "save_on_signal", "keep_checkpoints", "max_skipped_steps", "timeout_minutes"),
)

# Methods that only one model can train with; the others take any.
ONLY_MODEL = {"co2s": "co2s", "rs_mtdf": "dinov2_dpt", "unimatch_v2": "dinov2_dpt"}

# What dataset.yaml says.
DESCRIBED = ("data_dir", "classes", "labelled", "unlabelled", "validation", "scene_pattern", "validation_fraction")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line (default: that of the process) and the recipe it names.

    Raises:
        SystemExit: an argument or a key of the recipe is unknown or has the wrong type; the message says which.
    """
    parser = build_parser()
    given = parser.parse_args(argv)
    recipe = QUICKSTART if given.recipe is given.data_dir is given.dataset is None else given.recipe
    if recipe is not None:
        parser.set_defaults(**read_recipe(parser, Path(recipe)))
    arguments = parser.parse_args(argv)
    arguments.recipe = None if recipe is None else Path(recipe).name
    arguments.file_bands = None
    if arguments.official and arguments.model == "co2s":
        arguments.discard_dinov3_prior = True
        arguments.trainable = "attention"
    for problem in _contradictions(arguments):
        parser.error(problem)
    if arguments.dataset is not None:
        try:
            _fill_from_description(arguments)
        except (DescriptionError, RasterError) as error:
            parser.error(str(error))
        for problem in _out_of_range(arguments):
            parser.error(problem)
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """Every argument with its default and its meaning."""
    parser = argparse.ArgumentParser(
        prog="train_semi.py",
        description="Train semi-supervised land-cover segmentation. Without arguments: a quick start on drawn scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--recipe", help="YAML file with values for the arguments below")
    parser.add_argument("--output_dir", default="runs/train", help="what the run leaves")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in output_dir")

    data = parser.add_argument_group("data")
    data.add_argument("--dataset", help="dataset.yaml of `co2s data init`, instead of the data arguments below")
    data.add_argument("--data_dir", help="folder of the images and masks; default: drawn scenes")
    data.add_argument("--images", default="images", help="folder of the images in data_dir")
    data.add_argument("--masks", default="labels", help="folder of the masks in data_dir")
    data.add_argument("--classes", nargs="+", help="class names in the order of their ids")
    for part, default in (
        ("labelled", "every image with a mask that validation leaves"),
        ("unlabelled", "every other image; masks are never opened"),
        ("validation", "see validation_fraction"),
    ):
        data.add_argument(f"--{part}", nargs="+", help=f"globs, folders or .txt lists; default: {default}")
    data.add_argument(
        "--unlabelled_stream",
        nargs="+",
        help="instead of unlabelled: .tar (WebDataset), .parquet or .arrow files, globs or a folder of them, or the id "
        "of a data set on the Hub; read as it comes, never held in memory",
    )
    data.add_argument("--stream_column", help="column of the images in the stream; default: the only one there is")
    data.add_argument("--scene_pattern", help=r"regular expression whose first group is the scene, e.g. '(tile\d+)_'")
    data.add_argument("--validation_fraction", type=float, help="share of labelled images held out, by whole scenes")
    data.add_argument("--image_scale", type=float, default=1.0, help="factor on the size of every image")
    data.add_argument("--bands", nargs="+", help="names of the image bands in their order; default: red green blue")
    for name in ("mean", "std"):
        data.add_argument(
            f"--image_{name}",
            type=float,
            nargs="+",
            help="of each band, 255 and 65535 being 1, or in physical values; default: as dataset.yaml or ImageNet",
        )
    add_reading_arguments(data)
    data.add_argument(
        "--ignore_is_final", action="store_true", help="mask value 255 means left out, not: unlabelled, to be learned"
    )
    data.add_argument("--scenes", type=yaml.safe_load, help="drawn scenes: number of labelled, unlabelled, validation")

    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=sorted(MODELS), default="co2s", help="two students, or one DINO with DPT")
    model.add_argument("--clip", help="folder or Hub id of any CLIP; default: a tiny one from random weights")
    model.add_argument("--dinov3", help="folder or Hub id of any DINOv3 or DINOv2; default: likewise")
    model.add_argument("--dino", help="of dinov2_dpt: folder or Hub id of any DINOv2 or DINOv3; default: likewise")
    model.add_argument(
        "--teachers", nargs="+", help="of rs_mtdf: vision models to imitate: folders, Hub ids, open_clip files"
    )
    model.add_argument("--text_model", help="CLIP folder, Hub id or open_clip file for the class texts; default: clip")
    model.add_argument("--open_clip_model", help="architecture of an open_clip file, e.g. ViT-B-32")
    model.add_argument(
        "--concepts", type=yaml.safe_load, help="class -> list of phrases, or the name of a known data set"
    )
    model.add_argument("--config", type=yaml.safe_load, help="further fields of the model's configuration, as YAML")

    method = parser.add_argument_group("method")
    method.add_argument("--method", choices=sorted(METHODS), default="co2s")
    method.add_argument("--official", action="store_true", help="reproduce the released step, its mistakes included")
    method.add_argument(
        "--discard_dinov3_prior", action="store_true", help="overwrite DINOv3 at the start, as released"
    )
    method.add_argument("--cut_stability_gradient", action="store_true", help="stability term for show, as released")
    method.add_argument("--threshold", type=float, default=0.95, help="confidence from which a pseudo-label counts")
    method.add_argument("--confidence_mode", choices=get_args(ConfidenceMode), default="pixelwise")
    method.add_argument("--feature_dropout", type=float, default=0.5)
    method.add_argument(
        "--class_share", type=float, default=0.0, help="share of the pixels of every class that counts as confident"
    )
    method.add_argument(
        "--class_weights",
        nargs="+",
        help="weights of the classes in the loss of the labels, or `balanced`: by median frequency; default: 1",
    )
    method.add_argument(
        "--rare_class_temperature",
        type=float,
        help="draw labelled crops by class, rare ones the more the smaller this is, e.g. 0.3; default: by image",
    )
    method.add_argument("--stability_peak", type=float, default=0.5, help="weight of the stability term after its ramp")

    method.add_argument("--purify", help="folder of scores of training/purify_labels.py: they purify pseudo-labels")
    method.add_argument("--purifier", type=yaml.safe_load, help="fields of PurifierSettings, as YAML")
    method.add_argument(
        "--use_teacher", action="store_true", help="of methods with a moving average: evaluate and save that"
    )
    method.add_argument("--burn_in_steps", type=int, default=0, help="first steps on labels alone, for short trainings")

    train = parser.add_argument_group("training")
    train.add_argument("--max_steps", type=int, default=40000, help="optimizer steps")
    train.add_argument("--batch_size", type=int, default=2, help="labelled, and unlabelled, images per process")
    train.add_argument("--gradient_accumulation_steps", type=int, default=1)
    train.add_argument("--crop_px", type=int, default=512)
    train.add_argument("--scale_range", type=float, nargs=2, default=[0.5, 2.0], help="random scale of training crops")
    train.add_argument("--hue_range", type=float, default=HUE, help="largest turn of the hue in strong views, in turns")
    train.add_argument(
        "--trainable", choices=get_args(TrainablePart), default="attention", help="part of the backbones"
    )
    train.add_argument("--lr", type=float, default=1e-4)
    train.add_argument("--backbone_factor", type=float, default=0.01, help="factor on lr for the backbones")
    train.add_argument("--head_factor", type=float, default=10.0, help="factor on lr for the heads")
    train.add_argument("--weight_decay", type=float, default=0.01)
    train.add_argument("--warmup_steps", type=int, default=0)
    train.add_argument(
        "--max_skipped_steps",
        type=int,
        default=25,  # as many as GradScaler may need to get from its first scale to one that fits
        help="steps in a row without a finite loss and gradient that end the run; fewer are left out and counted",
    )
    train.add_argument(
        "--timeout_minutes", type=float, default=30.0, help="how long a process waits for another one that is silent"
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--mixed_precision", choices=["no", "bf16", "fp16"], default="no")
    train.add_argument(
        "--activation_checkpointing",
        action="store_true",
        help="compute what the backbones would keep for the backward pass again: less memory, more time, same results",
    )
    train.add_argument("--cpu_threads", type=int, help="of each process on a CPU; default: the cores shared out evenly")
    train.add_argument("--num_workers", type=int, default=2)
    train.add_argument("--cache_gb", type=float, default=2.0, help="memory for decoded images")
    train.add_argument(
        "--tile_cache", help="folder for decoded images instead: pays where they are larger than crops and cache_gb"
    )
    train.add_argument("--tile_cache_gb", type=float, default=50.0, help="of disk for tile_cache")

    report = parser.add_argument_group("evaluation and report")
    report.add_argument("--eval_every", type=int, default=1000, help="optimizer steps")
    report.add_argument("--save_every", type=int, default=1000, help="optimizer steps")
    report.add_argument("--keep_checkpoints", type=int, default=2, help="newest ones that stay: one may get damaged")
    report.add_argument(
        "--save_on_signal",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="SIGTERM and Ctrl-C save a checkpoint ahead of the next step, and end with 143 or 130",
    )
    report.add_argument("--log_every", type=int, default=10, help="optimizer steps")
    report.add_argument("--absent_as_zero", action="store_true", help="an absent class counts as 0, as in the papers")
    report.add_argument(
        "--push_to_hub",
        metavar="REPO_ID",
        help="owner/name on the Hub: the best model goes to its branch main, the last one to `last`, in the background",
    )
    report.add_argument("--hub_private", action="store_true", help="of push_to_hub: visible to its owner only")
    report.add_argument("--report_to", choices=["tensorboard", "wandb", "trackio", "none"], default="none")
    return parser


def add_reading_arguments(group: Any) -> None:
    """What a file may leave unsaid about its values; see `values_of`."""
    group.add_argument("--nodata", type=float, help="value of bands without data, besides what the files say")
    group.add_argument(
        "--nodata_within",
        type=float,
        help="how far from --nodata values still are none, where connected to the border: 12 for the borders of JPEG",
    )
    group.add_argument("--scale", type=float, help="physical value = stored value * scale + offset; default: as in the")
    group.add_argument("--offset", type=float, help="files, e.g. 1e-4 and -0.1 for reflectances of Sentinel-2")


def values_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say about stored values, for a `Reading`."""
    nodata = None if arguments.nodata is None else NoData(arguments.nodata, arguments.nodata_within or 0.0)
    return {"nodata": nodata, "scale": arguments.scale, "offset": arguments.offset}


def complete_values(arguments: argparse.Namespace, said: Reading) -> list[str]:
    """Fill in what the arguments leave unsaid about stored values; give the names of what was."""
    filled = []
    nodata = said.nodata
    if arguments.nodata is None and nodata is not None and math.isfinite(nodata.value):  # others never are data
        arguments.nodata = nodata.value
        arguments.nodata_within = nodata.within if arguments.nodata_within is None else arguments.nodata_within
        filled.append("nodata")
    if arguments.scale is arguments.offset is None:  # the two of one source
        arguments.scale, arguments.offset = said.scale, said.offset
        filled += [name for name in ("scale", "offset") if getattr(said, name) is not None]
    return filled


def read_recipe(parser: argparse.ArgumentParser, path: Path) -> dict[str, Any]:
    """Values of a recipe, each held against the argument of its name."""
    if not path.is_file():
        parser.error(f"no recipe at {path}; the recipes of this project lie in {QUICKSTART.parent.name}/.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        parser.error(f"{path} is not valid YAML: {error}")
    if not isinstance(values, dict):
        parser.error(f"{path} must hold `argument: value` lines.")
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "recipe")}
    unknown = sorted(set(values) - set(actions))
    if unknown:
        parser.error(f"{path} names unknown arguments: {', '.join(unknown)}.")
    return {name: _checked(parser, path, actions[name], value) for name, value in values.items()}


@contextmanager
def plain_refusals(program: str) -> Iterator[None]:
    """Ahead of the work, what is wrong with arguments, data or files ends the program with its message alone."""
    try:
        yield
    except (ValueError, OSError, StrictDataclassError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _fill_from_description(arguments: argparse.Namespace) -> None:
    """Take from dataset.yaml what the rest of the program, its records and a resumed run look up by name."""
    description = DatasetDescription.load(arguments.dataset)
    targets = dict(enumerate(description.class_names))
    arguments.data_dir = str(description.root)
    arguments.classes = list(description.class_names)
    arguments.label_map = {
        show_value(value): targets.get(target, IGNORED) for value, target in description.label_map.entries
    }
    if arguments.concepts is None:
        own = {one.name: list(one.concepts) for one in description.classes if one.concepts is not None}
        arguments.concepts = own or None
    said = description.reading
    complete_values(arguments, replace(said, nodata=None) if arguments.official else said)  # which knows no nodata
    bands = description.bands
    names = list(bands.names)
    for place, colour in zip(bands.rgb or (), RGB, strict=False):  # the names by which pretrained filters are kept
        names[place] = colour
    if arguments.bands is None:
        arguments.file_bands = list(bands.names)
        arguments.bands = None if names == list(RGB) else names
    if arguments.bands is None and arguments.official:  # released with the statistics of ImageNet
        return
    factors = _unit_factors(description, replace(said, **values_of(arguments)))
    if arguments.image_mean is None and bands.mean is not None and factors is not None:
        pairs = zip(bands.mean, factors, strict=True)
        arguments.image_mean = [value / (1 / scale) + offset for value, (scale, offset) in pairs]  # 1/255 is not exact
    if arguments.image_std is None and bands.std is not None and factors is not None:
        arguments.image_std = [value / (1 / scale) for value, (scale, _) in zip(bands.std, factors, strict=True)]


def _unit_factors(description: DatasetDescription, reading: Reading) -> list[tuple[float, float]] | None:
    """Scale and offset of each band to what a model gets: as the first labelled image says, else as the type implies.

    None where neither does; the check of all files says why.
    """
    count, dtype = description.bands.count, description.bands.dtype
    try:
        with open_image(description.find_split().labelled[0].image, reading) as file:
            if file.palette is None:
                return unit_factors(file.name, file.bands, reading)
    except (DataError, RasterError, LookupError):
        pass
    white = {"uint8": 255, "uint16": 65535}.get(dtype)
    factors = Band(1, "", "", dtype, None, white).factors(reading)
    return None if factors is None else [factors] * count


def _checked(parser: argparse.ArgumentParser, path: Path, action: argparse.Action, value: Any) -> Any:
    if value is None or action.type is yaml.safe_load:
        return value
    if action.const is True or isinstance(action, argparse.BooleanOptionalAction):  # a flag
        if not isinstance(value, bool):
            parser.error(f"{path}: {action.dest} is {value!r}, expected true or false.")
        return value
    if action.nargs is not None:
        entries = value if isinstance(value, list) else [value]
        if isinstance(action.nargs, int) and len(entries) != action.nargs:
            parser.error(f"{path}: {action.dest} has {len(entries)} values, expected {action.nargs}.")
        return [_converted(parser, path, action, entry) for entry in entries]
    return _converted(parser, path, action, value)


def _converted(parser: argparse.ArgumentParser, path: Path, action: argparse.Action, value: Any) -> Any:
    kind: Any = action.type or str
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        parser.error(f"{path}: {action.dest} is {value!r}, expected {kind.__name__}.")
    if action.choices and converted not in action.choices:
        parser.error(f"{path}: {action.dest} is {value!r}, expected one of {', '.join(action.choices)}.")
    return converted


def _contradictions(arguments: argparse.Namespace) -> list[str]:
    problems = []
    if arguments.dataset is not None:
        described = [name for name in DESCRIBED if getattr(arguments, name) is not None]
        if described:
            problems.append(f"--dataset says it already: leave out --{', --'.join(described)}.")
    elif arguments.data_dir is not None and not arguments.classes:
        problems.append("--data_dir needs --classes: the class names in the order of the ids in the masks.")
    elif arguments.data_dir is None and not arguments.scenes:
        problems.append("give --dataset or --data_dir, or a recipe that draws `scenes`.")
    if arguments.nodata_within is not None and arguments.nodata is arguments.dataset is None:
        problems.append("--nodata_within says how far values may lie from --nodata: give both.")
    if arguments.unlabelled_stream is not None:
        if arguments.unlabelled is not None:
            problems.append("--unlabelled_stream comes instead of --unlabelled: leave out one of the two.")
        if arguments.batch_size % 2:
            problems.append(
                f"--unlabelled_stream pairs the images of a batch: --batch_size {arguments.batch_size} is odd."
            )
    return problems + _unlike_methods(arguments) + _unlike_released(arguments) + _out_of_range(arguments)


def _unlike_methods(arguments: argparse.Namespace) -> list[str]:
    """What a method needs, and what it cannot be joined with."""
    problems = []
    needed = ONLY_MODEL.get(arguments.method, arguments.model)
    if arguments.model != needed:
        problems.append(f"--method {arguments.method} needs --model {needed}, but it is {arguments.model}.")
    if (arguments.method == "rs_mtdf") != bool(arguments.teachers):
        problems.append("--teachers are what --method rs_mtdf imitates: give both or none.")
    if arguments.method == "semiearth" and arguments.purify is None:
        problems.append(
            "--method semiearth purifies pseudo-labels: make scores with training/purify_labels.py and name their "
            "folder with --purify."
        )
    if arguments.method == "supervised" and arguments.purify is not None:
        problems.append("--method supervised has no pseudo-labels to --purify: leave it out, or take another method.")
    if arguments.purify is not None and arguments.unlabelled_stream is not None:
        problems.append("--purify has scores of listed images, none of an --unlabelled_stream: leave one out.")
    if arguments.purifier is not None and arguments.purify is None:
        problems.append("--purifier says how to use scores: name their folder with --purify.")
    return problems


def _unlike_released(arguments: argparse.Namespace) -> list[str]:
    """What --official cannot be joined with."""
    if not arguments.official:
        return []
    problems = []
    if arguments.method not in ("co2s", "rs_mtdf"):
        problems.append(f"--official reproduces a released step, but --method is {arguments.method}.")
    if arguments.nodata is not None:
        problems.append("--official reproduces a step that knows no --nodata: train without one of the two.")
    if arguments.class_share:
        problems.append("--official reproduces a step with one threshold for all classes: leave out --class_share.")
    if arguments.purify is not None:
        problems.append("--official reproduces a purification that changes no loss: leave out --purify.")
    for name in ("class_weights", "rare_class_temperature"):
        if getattr(arguments, name) is not None:
            problems.append(f"--official reproduces a step that treats all classes alike: leave out --{name}.")
    return problems


def _is_positive(number: str) -> bool:
    try:
        return 0 < float(number) < math.inf
    except ValueError:
        return False


def _ranges() -> Iterator[tuple[str, Callable[[float], bool], str]]:
    """Names of numbers, which of them can be used, and how that is said. NaN is in none of them."""
    counts = ("max_steps", "batch_size", "gradient_accumulation_steps", "crop_px", "eval_every", "save_every")
    counts += ("log_every", "keep_checkpoints", "max_skipped_steps", "cpu_threads")
    yield from ((name, lambda value: value >= 1, "at least 1") for name in counts)
    positive = ("image_scale", "image_std", "scale", "rare_class_temperature", "timeout_minutes", "tile_cache_gb")
    yield from ((name, lambda value: 0 < value < math.inf, "a positive number") for name in positive)
    others = ("lr", "backbone_factor", "head_factor", "weight_decay", "stability_peak", "cache_gb")
    others += ("seed", "num_workers", "burn_in_steps", "warmup_steps", "nodata_within")
    yield from ((name, lambda value: 0 <= value < math.inf, "a number from 0 on") for name in others)
    shares = ("class_share", "feature_dropout", "threshold")
    yield from ((name, lambda value: 0 <= value <= 1, "a share from 0 to 1") for name in shares)
    yield from ((name, math.isfinite, "finite numbers") for name in ("image_mean", "nodata", "offset"))
    yield "hue_range", lambda value: 0 <= value <= 0.5, "turns of the colour circle from 0 to 0.5"


def _out_of_range(arguments: argparse.Namespace) -> list[str]:
    problems = []
    for name, fits, expected in _ranges():
        value = getattr(arguments, name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        problems += [f"--{name} is {one}, expected {expected}." for one in values if not fits(one)]
    weights = arguments.class_weights
    if weights is not None and weights != ["balanced"] and not all(_is_positive(weight) for weight in weights):
        problems.append(
            f"--class_weights is {' '.join(weights)}, expected a positive number for each class, or balanced."
        )
    if arguments.class_share and not 0 < arguments.threshold < 1:
        problems.append(f"--class_share needs a --threshold between 0 and 1, not {arguments.threshold}.")
    if not 0 < arguments.scale_range[0] <= arguments.scale_range[1] < math.inf:
        problems.append(f"--scale_range is {arguments.scale_range}, expected two increasing positive numbers.")
    return problems
