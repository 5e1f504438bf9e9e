"""dataset.yaml: what a data set is, in one file that is checked against its schema and implies nothing."""

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..raster.image import NoData, Reading
from .folders import DataSplit, find_split
from .label_map import IGNORE, LabelMap, LabelMapError, Value, show_value
from .patterns import MAX_CHARACTERS, PatternError, first_groups
from .wording import some

TODO = "TODO"
"""How every value starts that a person still has to give; a description with one is refused."""

ALPHA = "alpha"
"""Name of a last band that `bands.count` may leave out: it is transparency then."""

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")

IGNORED = "ignore"
"""The name, in a label map, of having no label."""

_HEADER = """\
# What this data set is. Paths are relative to `root`, and `root` to this file. Nothing is implied: mask values that
# label_map does not name are errors. Values that start with TODO are for you to fill in; until then it is refused.
#   classes      in the order of their training ids; concepts: phrases for the text encoder, null for the name alone
#   label_map    mask value (an id, or a colour as "#RRGGBB") -> class name, or ignore
#   images       a folder, or a glob such as data/*_sat.jpg; masks likewise: what * stands for is the same in both
#   bands        count: without a band that is transparency; rgb: places of red, green and blue; mean, std: in the
#                values of the files; scale, offset: from these to physical values, null as the files say
#   nodata       pixels that hold this value in every band show nothing; {value: 0, within: 12}: nor do darker borders
#                that JPEG has smeared; null: only what the files say themselves
#   scene_pattern  regular expression whose first group is the scene of an image name; null: each image is a scene
#   splits       lists of globs below images, folders, or .txt lists; null: see find_split. seed: of validation_fraction
"""


ANSWERS = {
    "images": "--images FOLDER",
    "masks": "--masks FOLDER",
    "classes": "--classes NAME …",
    "label_map": "--classes NAME …",
    "bands.count": "--alpha band, or --alpha transparency",
    "bands": "--bands NAME …",
    "scene_pattern": "--accept, or --scene_pattern REGEX",
}
"""The arguments of `co2s data init` that answer a TODO, by the start of its key."""


def answer_to(key: str) -> str:
    """The argument of `co2s data init` that answers the TODO at a key such as `classes[0].name`."""
    return next((argument for start, argument in ANSWERS.items() if key.startswith(start)), "")


def open_questions(document: Mapping[str, Any]) -> list[str]:
    """List the TODOs of a document, together what one argument of `co2s data init` answers, with that argument."""
    keys: dict[str, list[str]] = {}
    for key, text in todos(document, ""):
        keys.setdefault(answer_to(key), []).append(f"{key}: {text.removeprefix(f'{TODO}: ')}")
    return [f"{answer or 'edit the file'}: {some(lines, shown=2)}" for answer, lines in keys.items()]


class DescriptionError(ValueError):
    """A description that cannot be used; the message names the file, each key, what was expected, found, and the fix.

    Attributes:
        path: The description.
        problems: One for each key.
    """

    def __init__(self, path: Path, problems: "Sequence[Problem]") -> None:
        """Write one message of all problems."""
        self.path, self.problems = path, tuple(problems)
        many = f" ({len(problems)} problems)" if len(problems) > 1 else ""
        super().__init__(f"{path} is not a usable description{many}:" + "".join(f"\n  {p}" for p in problems))


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a description."""

    key: str
    expected: str
    found: str
    fix: str

    def __str__(self) -> str:
        """Write it in one line."""
        return f"{self.key}: expected {self.expected}, found {self.found}. {self.fix}"


@dataclass(frozen=True)
class LandCoverClass:
    """A class: its name, its RGB colour in pictures, and phrases for the text encoder (None: the name alone)."""

    name: str
    colour: tuple[int, int, int] | None = None
    concepts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Bands:
    """The bands of every image: their names, which three are red, green and blue, and their statistics.

    `mean` and `std` have one number per band, in the values of the files (0..255 for uint8); None if not measured.
    Values become physical ones by `stored * scale + offset`; None for both where that is as the files say.
    """

    names: tuple[str, ...]
    dtype: str = "uint8"
    rgb: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    offset: float | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.names)


@dataclass(frozen=True)
class DatasetDescription:
    """What dataset.yaml says.

    Attributes:
        root: Folder of the data set, absolute.
        classes: In the order of their training ids.
        label_map: What every value in the masks means.
        bands: Of every image.
        images, masks, labelled, unlabelled, validation, scene_pattern, validation_fraction, seed: As for `find_split`.
        nodata: Value of pixels that show nothing, in every band; None if there is none but what the files say.
    """

    root: Path
    classes: tuple[LandCoverClass, ...]
    label_map: LabelMap
    bands: Bands
    images: str = "images"
    masks: str = "labels"
    nodata: NoData | None = None
    scene_pattern: str | None = None
    labelled: tuple[str, ...] | None = None
    unlabelled: tuple[str, ...] | None = None
    validation: tuple[str, ...] | None = None
    validation_fraction: float | None = None
    seed: int = 0

    @classmethod
    def load(cls, path: str | Path) -> "DatasetDescription":
        """Read and check a description; opens no image.

        Raises:
            DescriptionError: The file is missing or no YAML, or breaks the schema; with every problem found.
        """
        path = Path(path)
        document = _Document(path)
        document.check()
        return document.description()

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the description, whole or not at all; an existing file is replaced only with `force`."""
        write_document(path, self.to_dict(Path(path)), force=force)

    def to_dict(self, path: Path) -> dict[str, Any]:
        """Give what the file at `path` holds; `root` is relative where it lies below the folder of the file."""
        names = {IGNORE: IGNORED, **{i: one.name for i, one in enumerate(self.classes)}}
        return {
            "version": 1,
            "root": root_as_seen_from(path, self.root),
            "images": self.images,
            "masks": self.masks,
            "classes": [
                {
                    "name": one.name,
                    "colour": None if one.colour is None else show_value(one.colour),
                    "concepts": None if one.concepts is None else list(one.concepts),
                }
                for one in self.classes
            ],
            "label_map": {
                value if isinstance(value, int) else show_value(value): names[target]
                for value, target in self.label_map.entries
            },
            "bands": {
                "count": self.bands.count,
                "names": list(self.bands.names),
                "dtype": self.bands.dtype,
                **{name: _listed(getattr(self.bands, name)) for name in ("rgb", "mean", "std")},
                "scale": self.bands.scale,
                "offset": self.bands.offset,
            },
            "nodata": written_nodata(self.nodata),
            "scene_pattern": self.scene_pattern,
            "splits": {
                **{part: _listed(getattr(self, part)) for part in ("labelled", "unlabelled", "validation")},
                "validation_fraction": self.validation_fraction,
                "seed": self.seed,
            },
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the training ids."""
        return tuple(one.name for one in self.classes)

    @property
    def reading(self) -> Reading:
        """How the files are read: which bands, and what is known of their values."""
        return Reading(names=self.bands.names, nodata=self.nodata, scale=self.bands.scale, offset=self.bands.offset)

    def find_split(self) -> DataSplit:
        """Find the images and masks; opens no image. Raises `DataError` where the files do not fit the description."""
        return find_split(
            self.root,
            classes=self.class_names,
            images=self.images,
            masks=self.masks,
            labelled=self.labelled,
            unlabelled=self.unlabelled,
            validation=self.validation,
            scene_pattern=self.scene_pattern,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
            label_map=self.label_map,
        )


def write_document(path: str | Path, document: Mapping[str, Any], *, force: bool = False) -> None:
    """Write the values of a dataset.yaml, finished or with TODOs, under a header that explains its keys."""
    # What a person edits has a line of its own; short lists stay on one.
    text = "".join(
        yaml.safe_dump(
            {key: value},
            sort_keys=False,
            width=10**6,
            allow_unicode=True,
            default_flow_style=None if key in ("classes", "bands") else False,
        )
        for key, value in document.items()
    )
    write_text(path, _HEADER + text, force=force)


def root_as_seen_from(path: str | Path, root: Path) -> str:
    """Give `root` as the file at `path` names it: relative where it is the folder of the file or lies below."""
    folder = Path(path).absolute().parent
    return str(root.relative_to(folder) if root.is_relative_to(folder) else root)


def write_text(path: str | Path, text: str, *, force: bool = False) -> None:
    """Write a text file, whole or not at all: under another name first, then renamed.

    Raises:
        FileExistsError: The file exists and `force` is not given.
    """
    path = Path(path)
    refuse_existing(path, force=force)
    with replaced_when_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """Another name to write to, beside the file; the file gets its own once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)  # mkstemp gives the owner alone any rights
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def rewrite_statistics(path: str | Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """Put mean and std of the bands in the place of those of a dataset.yaml; the rest of the text stays as it is.

    Raises:
        DescriptionError: The file is no usable description, before or, written in an unusual way, after that.
    """
    path = Path(path)
    before = DatasetDescription.load(path)
    text = path.read_text(encoding="utf-8")
    document: Any = yaml.compose(text, _Loader)
    bands = next(node for key, node in document.value if key.value == "bands")
    spans = {key.value: (key.end_mark.index, node) for key, node in bands.value}
    numbers = {"mean": mean, "std": std}
    for name in sorted(numbers, key=lambda name: -spans[name][0]):  # from behind, so that places hold
        start, node = spans[name]
        old = text[start : node.end_mark.index]
        text = f"{text[:start]}: {list(numbers[name])}{text[start + len(old.rstrip()) :]}"
    rewritten = _Document(path, text)
    rewritten.check()
    wanted = replace(before, bands=replace(before.bands, mean=tuple(mean), std=tuple(std)))
    if repr(rewritten.description()) != repr(wanted):  # as text: a nodata of NaN is not equal to itself
        fix = f"Write the numbers yourself: mean: {list(mean)}, std: {list(std)}."
        raise DescriptionError(path, [Problem("bands", "lists such as mean: [1, 2, 3]", "another way to write", fix)])
    write_text(path, text, force=True)


def refuse_existing(path: str | Path, *, force: bool) -> None:
    """Raise FileExistsError ahead of the work whose result could not be written."""
    if Path(path).exists() and not force:
        raise FileExistsError(f"{path} exists already and is left as it is; choose another name, or give --force.")


def written_nodata(nodata: NoData | None) -> Any:
    """Give what dataset.yaml says of pixels without data: null, a number, or `{value: 0, within: 12}`."""
    if nodata is None:
        return None
    value = int(nodata.value) if float(nodata.value).is_integer() else nodata.value
    return {"value": value, "within": nodata.within} if nodata.within else value


def parse_colour(text: str) -> tuple[int, int, int] | None:
    """Read a colour written as `#RRGGBB`; None for any other text."""
    match = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text)
    return (int(match[1], 16), int(match[2], 16), int(match[3], 16)) if match else None


# ---------------------------------------------------------------------------------------------------------------------
# The schema
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """What the value at a key must be."""

    holds: Callable[[Any], bool]
    expected: str
    fix: str


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(holds, value))


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _is_nodata(value: Any) -> bool:
    if isinstance(value, dict):
        within = value.get("within", 0)
        return (
            set(value) <= {"value", "within"} and _is_nodata(value.get("value")) and _is_number(within) and within >= 0
        )
    return isinstance(value, int | float) and not isinstance(value, bool)  # NaN, too


def _is_scene_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and first_groups(value, ()) == []
    except PatternError:
        return False


_ENTRIES = _Rule(
    _or_null(lambda value: _is_list(value, _is_text)),
    "null or a list of globs, folders or .txt lists",
    'Write for example ["tile1_*.jpg"].',
)
_STATISTICS = _Rule(
    _or_null(lambda value: _is_list(value, _is_number)),
    "null or a list with a number per band",
    "Let `co2s data init` measure it.",
)
_TOP = {
    "version": _Rule(lambda value: value == 1 and _is_count(value), "1", "Write `version: 1`."),
    "root": _Rule(_is_text, "the folder of the data set, relative to this file", 'Write "." if the file lies in it.'),
    "images": _Rule(_is_text, "a folder or a glob below root", "Write for example `images: images`."),
    "masks": _Rule(_is_text, "a folder or a glob below root", "Write for example `masks: labels`."),
    "classes": _Rule(
        lambda value: _is_list(value, lambda one: isinstance(one, dict)) and len(value) < IGNORE,
        "a list of 1 to 254 classes",
        "Write one `- {name: water, colour: null, concepts: null}` per class.",
    ),
    "label_map": _Rule(
        lambda value: isinstance(value, dict) and bool(value),
        "mask value: class lines",
        "Write `0: water` or `'#E2A929': water` for every value in the masks.",
    ),
    "bands": _Rule(lambda value: isinstance(value, dict), "count, names, dtype and so on", "See `co2s data init`."),
    "nodata": _Rule(
        _or_null(_is_nodata),
        "null, a number, or {value: a number, within: a tolerance from 0}",
        "Write `nodata: null` if no pixel value means no data, `{value: 0, within: 12}` for the black borders of JPEG.",
    ),
    "scene_pattern": _Rule(
        _or_null(_is_scene_pattern),
        f"null or a regular expression with a group, of at most {MAX_CHARACTERS} characters",
        r"Write for example `scene_pattern: (tile\d+)_`.",
    ),
    "splits": _Rule(
        lambda value: isinstance(value, dict),
        "labelled, unlabelled, validation, validation_fraction and seed",
        "See `co2s data init`.",
    ),
}
_CLASS = {
    "name": _Rule(
        lambda value: _is_text(value) and value != IGNORED, f"a text other than {IGNORED}", "Name the class."
    ),
    "colour": _Rule(
        lambda value: value is None or (isinstance(value, str) and parse_colour(value) is not None),
        'null or a colour such as "#E2A929"',
        "Quote it: YAML takes what follows a # for a comment.",
    ),
    "concepts": _Rule(
        _or_null(lambda value: _is_list(value, _is_text)),
        "null or a list of phrases",
        "Write for example [water, lake, river].",
    ),
}
_BANDS = {
    "count": _Rule(lambda value: _is_count(value) and value > 0, "a whole number from 1", "Count the bands of a file."),
    "names": _Rule(lambda value: _is_list(value, _is_text), "a list with a name per band", "Name them in their order."),
    "dtype": _Rule(lambda value: value in DTYPES, f"one of {', '.join(DTYPES)}", "Look at a file of the data set."),
    "rgb": _Rule(
        _or_null(lambda value: _is_list(value, _is_count) and len(value) == 3),
        "null or the places, from 0, of red, green and blue",
        "Write for example [0, 1, 2]; null if the bands show no natural colours.",
    ),
    "mean": _STATISTICS,
    "std": _Rule(
        _or_null(lambda value: _is_list(value, lambda one: _is_number(one) and one >= 0)),
        "null or a list with a number from 0 per band",
        "Let `co2s data init` measure it.",
    ),
    "scale": _Rule(
        _or_null(lambda value: _is_number(value) and 0 < value < math.inf),
        "null or a factor above 0",
        "Write `scale: null` for what the files say, 1.0e-4 for reflectances times 10,000.",
    ),
    "offset": _Rule(
        _or_null(lambda value: _is_number(value) and abs(value) < math.inf),
        "null or a finite number",
        "Write `offset: null` for what the files say.",
    ),
}
_OPTIONAL = ("bands.scale", "bands.offset")
"""Keys that files of before do not have; without them they are null."""

_SPLITS = {
    "labelled": _ENTRIES,
    "unlabelled": _ENTRIES,
    "validation": _ENTRIES,
    "validation_fraction": _Rule(
        _or_null(lambda value: _is_number(value) and 0 < value < 1),
        "null or a number between 0 and 1",
        "Write the share of the labelled images to hold out, for example 0.2.",
    ),
    "seed": _Rule(_is_count, "a whole number from 0", "Write `seed: 0`."),
}


DEEPEST = 20
MOST_VALUES = 1_000_000  # with every alias written out: a text of some lines can stand for more than any memory holds
# Besides its own errors PyYAML raises these for values that do not fit their tag, such as `!!timestamp x`.
_YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML without brackets in brackets in brackets, for which PyYAML takes a millisecond each, and without numbers of
    thousands of digits, which Python reads but does not write into a message.
    """

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} brackets deep", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        if value.bit_length() > 64:
            raise yaml.MarkedYAMLError(problem="a number of more than 64 bits", problem_mark=node.start_mark)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Document:
    """A description file being read: collects every problem before anything is made of it."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path, self.problems = path, list[Problem]()
        if text is None and not path.is_file():
            self._refuse("the file", "a description", "no file", "Write one with `co2s data init FOLDER`.")
            raise DescriptionError(path, self.problems)
        try:
            self.content = yaml.load(path.read_text(encoding="utf-8") if text is None else text, _Loader)
            _count_values(self.content, {})
        except _YAML_ERRORS as error:
            found = " ".join(str(error).split())
            self._refuse("the file", "YAML", found, "Correct the line, or write a new one with `co2s data init`.")
            raise DescriptionError(path, self.problems) from None

    def check(self) -> None:
        """Hold the content against the schema; what needs sound parts is compared only if the parts are sound."""
        for key, text in todos(self.content, ""):
            answer = answer_to(key)
            fix = f"Fill it in{f', or give `co2s data init` {answer}' if answer else ''}."
            self._refuse(key, "a value", repr(text), fix)
        self._stop_at_problems()
        self._hold(self.content, _TOP, "")
        self._stop_at_problems()
        for i, one in enumerate(self.content["classes"]):
            self._hold(one, _CLASS, f"classes[{i}].")
        self._hold(self.content["bands"], _BANDS, "bands.")
        self._hold(self.content["splits"], _SPLITS, "splits.")
        self._stop_at_problems()
        self._check_names()
        self._check_label_map()
        self._check_bands()
        splits = self.content["splits"]
        if splits["validation"] is None and splits["validation_fraction"] is None:
            fix = "Name the validation images, or give the share of the labelled images to hold out."
            self._refuse("splits.validation", "entries, or a validation_fraction", "neither", fix)
        self._stop_at_problems()

    def description(self) -> DatasetDescription:
        """Make the description of checked content."""
        content, bands, splits = self.content, self.content["bands"], self.content["splits"]
        classes = tuple(
            LandCoverClass(
                name=one["name"],
                colour=None if one["colour"] is None else parse_colour(one["colour"]),
                concepts=None if one["concepts"] is None else tuple(one["concepts"]),
            )
            for one in content["classes"]
        )
        return DatasetDescription(
            root=Path(os.path.normpath(self.path.absolute().parent / Path(content["root"]).expanduser())),
            classes=classes,
            label_map=self._label_map(),
            bands=Bands(
                **{name: _frozen(bands[name]) for name in ("dtype", "rgb")},
                **{name: _frozen(self._without_alpha(name)) for name in ("names", "mean", "std")},
                scale=bands.get("scale"),
                offset=bands.get("offset"),
            ),
            nodata=_nodata(content["nodata"]),
            **{name: content[name] for name in ("images", "masks", "scene_pattern")},
            **{name: _frozen(value) for name, value in splits.items()},
        )

    def _hold(self, content: Any, rules: Mapping[str, _Rule], prefix: str) -> None:
        if not isinstance(content, dict):
            self._refuse(prefix or "the file", f"the keys {', '.join(rules)}", repr(content), "See `co2s data init`.")
            return
        for key in content.keys() - rules.keys():
            self._refuse(f"{prefix}{key}", f"one of {', '.join(rules)}", f"the key {key!r}", "Correct or remove it.")
        for key, rule in rules.items():
            if f"{prefix}{key}" in _OPTIONAL and key not in content:
                continue
            if key not in content:
                self._refuse(f"{prefix}{key}", rule.expected, "nothing", rule.fix)
            elif not rule.holds(content[key]):
                self._refuse(f"{prefix}{key}", rule.expected, repr(content[key]), rule.fix)

    def _check_names(self) -> None:
        names = [one["name"] for one in self.content["classes"]]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._refuse("classes", "different names", f"{name!r} {names.count(name)} times", "Rename or merge them.")

    def _check_label_map(self) -> None:
        names = [one["name"] for one in self.content["classes"]]
        before = len(self.problems)
        for value, target in self.content["label_map"].items():
            key = f"label_map.{value}"
            if _mask_value(value) is None:
                fix = "Quote colours: YAML takes what follows a # for a comment."
                self._refuse(key, 'an id such as 3 or a colour such as "#E2A929"', repr(value), fix)
            if target not in (*names, IGNORED):
                fix = f"Write one of {', '.join((*names, IGNORED))}; or add the class."
                self._refuse(key, f"the name of a class, or {IGNORED}", repr(target), fix)
        targets = list(self.content["label_map"].values())  # maybe lists, which no set can hold
        for name in sorted(name for name in set(names) if name not in targets):
            fix = "Map a value to it, or remove the class."
            self._refuse("label_map", f"a value that means {name!r}", "none", fix)
        if len(self.problems) == before:
            try:
                self._label_map()
            except LabelMapError as error:
                self._refuse("label_map", "a target for each value, once", str(error), "Correct it.")

    def _label_map(self) -> LabelMap:
        ids = {one["name"]: i for i, one in enumerate(self.content["classes"])} | {IGNORED: IGNORE}
        pairs = [(_mask_value(value), ids[target]) for value, target in self.content["label_map"].items()]
        return LabelMap(tuple((value, target) for value, target in pairs if value is not None))

    def _check_bands(self) -> None:
        bands = self.content["bands"]
        count = bands["count"]
        for name in ("names", "mean", "std"):
            entries = self._without_alpha(name)
            if entries is not None and len(entries) != count:
                fix = "Correct the list or bands.count."
                self._refuse(f"bands.{name}", f"{count} entries, as bands.count says", f"{len(entries)}", fix)
        if bands["rgb"] is not None and (max(bands["rgb"]) >= count or len(set(bands["rgb"])) < 3):
            self._refuse(
                "bands.rgb", f"three different places below {count}", str(bands["rgb"]), "Count the bands from 0."
            )

    def _without_alpha(self, name: str) -> Any:
        """A list of the bands; without its last entry where that is the one of alpha, which `count` leaves out."""
        bands, entries = self.content["bands"], self.content["bands"][name]
        is_apart = bands["names"][-1] == ALPHA and len(bands["names"]) == bands["count"] + 1
        return entries[:-1] if entries is not None and is_apart and len(entries) == len(bands["names"]) else entries

    def _refuse(self, key: str, expected: str, found: str, fix: str) -> None:
        self.problems.append(Problem(key, expected, found, fix))

    def _stop_at_problems(self) -> None:
        if self.problems:
            raise DescriptionError(self.path, self.problems)


def _count_values(content: Any, known: dict[int, int]) -> int:
    """How many values the content has, each alias counted like what it stands for; ValueError beyond `MOST_VALUES`."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = MOST_VALUES  # until it is counted: what contains itself has no end
        values = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count_values(value, known) for value in values)
    if known[id(content)] > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES} values, write them out")
    return known[id(content)]


def todos(content: Any, key: str) -> list[tuple[str, str]]:
    """Find every text, value or key, that starts with TODO: (where, text)."""
    if isinstance(content, dict):
        parts = [(f"{key}.{name}" if key else str(name), value) for name, value in content.items()]
        keys = [(where, name) for (where, _), name in zip(parts, content, strict=True) if str(name).startswith(TODO)]
        return keys + [todo for where, value in parts for todo in todos(value, where)]
    if isinstance(content, list):
        return [todo for i, value in enumerate(content) for todo in todos(value, f"{key}[{i}]")]
    return [(key, content)] if isinstance(content, str) and content.startswith(TODO) else []


def _nodata(value: Any) -> NoData | None:
    if value is None:
        return None
    return (
        NoData(float(value["value"]), float(value.get("within", 0)))
        if isinstance(value, dict)
        else NoData(float(value))
    )


def _mask_value(value: Any) -> Value | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return parse_colour(value) if isinstance(value, str) else None


def _listed(value: Sequence[Any] | None) -> list[Any] | None:
    return None if value is None else list(value)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
