"""One pass over the files of a split, and all that is wrong with them: for training's start and the report alike."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..raster.errors import RasterError
from ..raster.grid import Grid, transformed
from ..raster.ids import Ids, read_ids
from ..raster.image import FileWindow, Raster, Reading
from ..raster.read import IMAGE_SUFFIXES, RasterFile, open_image
from .label_map import IGNORE, LabelMap, LabelMapError, Value, show_counts, show_value, value_counts
from .pairs import looks_like
from .samples import DataError, DataSplit, Sample, path_of
from .wording import SHOWN, some

PARTS = ("labelled", "unlabelled", "validation")

_DARK = 0.25
"""Of white: where 98 % of the values of 16 bits lie below, a model that divides by 65535 sees nearly black images."""

_HEADS = {
    "image without a mask": "labelled or validation image{s} without a mask",
    "size of a mask": "mask{s} not of the size of the image",
    "unreadable image": "unusable file{s}",
    "unreadable mask": "unusable file{s}",
    "bands of an image": "image{s} with another number of bands than wanted",
    "value not in the label map": "mask{s} with values that mean no class",
    "validation image in training": "validation image{s} in training as well",
    "mask without an image": "mask{s} without an image",
    "mask on another grid": "mask{s} on another grid than the image",
    "mask without a label": "mask{s} without a label",
}
"""What training's messages call findings of a kind, counted."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        severity: An error must be put right before training; a warning should be understood; a note is good to know.
        kind: What it is, the same words for all findings of a kind.
        file: The file, or the data set for what concerns the whole.
        finding: What was expected and found.
        fix: What to do.
    """

    severity: Literal["error", "warning", "note"]
    kind: str
    file: str
    finding: str
    fix: str


@dataclass
class PartSummary:
    """What one part of the split holds.

    Attributes:
        images: Number of images, readable or not.
        scenes: Number of scenes.
        sizes: Number of images of each (height, width) in px.
        pixels: Pixels of the readable images; `nodata_pixels` of them show nothing.
        class_pixels: Mask pixels of each class where the image holds data: what training sees. Empty for unlabelled
            images.
        lost_pixels: Mask pixels of each class where it holds none; `hidden_pixels`: by the reason, of which a pixel may
            have several.
        ignored_pixels: Mask pixels without a label; `unmapped_pixels`: those with values that the map does not name.
        values: Pixels of each value in the masks.
    """

    images: int = 0
    scenes: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: int = 0
    nodata_pixels: int = 0
    class_pixels: list[int] = field(default_factory=list)
    lost_pixels: list[int] = field(default_factory=list)
    hidden_pixels: dict[str, list[int]] = field(default_factory=dict)
    ignored_pixels: int = 0
    unmapped_pixels: int = 0
    values: Counter[Value] = field(default_factory=Counter)

    @property
    def class_shares(self) -> list[float]:
        """Share of each class among the pixels with a label; zeros where there are none."""
        total = max(sum(self.class_pixels), 1)
        return [pixels / total for pixels in self.class_pixels]

    @property
    def nodata_share(self) -> float:
        """Share of the pixels that show nothing."""
        return self.nodata_pixels / max(self.pixels, 1)


class Inspection:
    """A split whose files are decoded, once each; one image at a time is in memory.

    Args:
        split: The split. A part that is empty is not looked at.
        reading: The bands that are wanted, and what is known of their values.
        name: What findings call the data set.
        visit: Is given every image that can be read, for what the caller wants to know besides.
        decode_unlabelled: False trusts the unlabelled images.
        needed: Parts without which the split is of no use.
        strict: Raise DataError, ahead of all decoding, where images or masks are missing or on both sides.

    Attributes:
        parts: By the names in `PARTS`.
        parts_of: For every image the parts that it is in.
        findings: In the order in which they were found.
        absent: For the labelled and the validation part, the classes of which training sees no pixel.
    """

    def __init__(
        self,
        split: DataSplit,
        reading: Reading,
        *,
        name: str = "the data set",
        visit: Callable[[Sample, Raster], None] | None = None,
        decode_unlabelled: bool = True,
        needed: Sequence[str] = ("labelled", "validation"),
        strict: bool = False,
    ) -> None:
        """Look at every file, then compare what is known only at the end."""
        self.split, self.reading, self.name, self._visit = split, reading, name, visit
        self.findings: list[Finding] = []
        self.parts_of: dict[Path | FileWindow, list[str]] = defaultdict(list)
        self.absent: dict[str, list[str]] = {}
        self._alpha: list[tuple[int, int, int, bool]] = []
        self._brightness: NDArray[np.int64] | None = None
        samples: dict[Path | FileWindow, Sample] = {}
        self.parts = {part: _new_part(getattr(split, part), len(split.classes)) for part in PARTS}
        for part in PARTS:
            for sample in getattr(split, part):
                self.parts_of[sample.image].append(part)
                if sample.image not in samples or sample.mask is not None:
                    samples[sample.image] = sample
        self._tell_parts(needed)
        if strict:
            self.refuse_errors()
        wanted = [s for s in samples.values() if decode_unlabelled or self.parts_of[s.image] != ["unlabelled"]]
        for sample in tqdm(wanted, desc="Checking", unit="image", disable=None):
            self._look(sample)
        self._tell_alpha()
        self._tell_dark()
        self._tell_classes()
        self._tell_scenes()
        self._tell_unused()

    def find(
        self, severity: Literal["error", "warning", "note"], kind: str, file: object, finding: str, fix: str
    ) -> None:
        """Keep a finding."""
        self.findings.append(Finding(severity, kind, str(file), finding, fix))

    def refuse_errors(self) -> None:
        """Raise DataError for the first kind of error, naming its files."""
        errors = [one for one in self.findings if one.severity == "error"]
        if errors:
            head = _HEADS.get(errors[0].kind, errors[0].kind)
            raise DataError(self._line([one for one in errors if _HEADS.get(one.kind, one.kind) == head]))

    @property
    def warnings(self) -> list[str]:
        """One text for each kind of warning."""
        lines = [
            f"Classes without a {noun} pixel, {effect}: {some(self.absent[part])}."
            for part, (noun, effect) in _EFFECTS.items()
            if self.absent.get(part)
        ]
        kinds: dict[str, list[Finding]] = defaultdict(list)
        for one in self.findings:
            if one.severity == "warning" and not one.kind.startswith("class absent"):
                kinds[one.kind].append(one)
        return lines + [self._line(found) for found in kinds.values()]

    def _line(self, found: Sequence[Finding]) -> str:
        """Findings of one kind as one text."""
        texts = [
            one.finding if one.file == self.name or one.file in one.finding else f"{one.file}: {one.finding}"
            for one in found
        ]
        fixes = " ".join(dict.fromkeys(one.fix for one in found[:SHOWN]))
        head = _HEADS.get(found[0].kind)
        if found[0].kind == "suspicious label map":
            texts[0] = f"the masks do not fit their label map: {texts[0]}"
        start = "" if head is None else f"{len(found)} {head.format(s='s' * (len(found) != 1))}: "
        text = f"{start}{'; '.join(texts[:SHOWN])}{f' and {len(found) - SHOWN} more' * (len(found) > SHOWN)}. {fixes}"
        return text[0].upper() + text[1:]

    # -----------------------------------------------------------------------------------------------------------------
    # One sample
    # -----------------------------------------------------------------------------------------------------------------

    def _look(self, sample: Sample) -> None:
        raster: Raster | None = None
        reasons: dict[str, NDArray[np.bool_]] = {}
        try:
            with open_image(sample.image, self.reading) as file:
                file.require_meaning()
                raster = file.read()
                reasons = {} if raster.valid.all() else file.reasons(raster)
                self._count_alpha(file, reasons)
        except RasterError as error:
            self._refuse(_image_kind(sample.image), sample.image, error)
        if raster is not None:
            self._count_image(sample, raster)
        if sample.has_mask and path_of(sample.mask or sample.image).is_file():
            self._look_at_mask(sample, raster, reasons)

    def _count_image(self, sample: Sample, raster: Raster) -> None:
        for name in self.parts_of[sample.image]:
            part = self.parts[name]
            part.sizes[raster.grid.height, raster.grid.width] += 1
            part.pixels += raster.valid.size
            part.nodata_pixels += int((~raster.valid).sum())
        if not raster.valid.any():
            fix = "Take it out of the data set, or correct nodata."
            self.find("warning", "image without data", sample.image, "no pixel holds data", fix)
        scaled = self.reading.scale is not None or any(band.is_scaled for band in raster.bands)
        if raster.pixels.dtype == np.uint16 and not scaled:
            white = raster.bands[0].white or 65535
            levels = [np.minimum(band[raster.valid] // max(white // 255, 1), 255) for band in raster.pixels]
            counted = np.stack([np.bincount(one, minlength=256) for one in levels])
            if self._brightness is None or self._brightness.shape != counted.shape:
                self._brightness = np.zeros_like(counted)
            self._brightness += counted
        if self._visit is not None:
            self._visit(sample, raster)

    def _count_alpha(self, file: RasterFile, reasons: dict[str, NDArray[np.bool_]]) -> None:
        if file.alpha is not None:
            values = file.alpha_values()
            full = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
            hidden = int(reasons["alpha"].sum()) if "alpha" in reasons else 0
            graded = bool(((values != 0) & (values != full)).any())
            self._alpha.append((file.alpha.number, hidden, file.height * file.width, graded))

    def _look_at_mask(self, sample: Sample, raster: Raster | None, reasons: dict[str, NDArray[np.bool_]]) -> None:
        mask = sample.mask
        assert mask is not None
        try:
            ids = self._ids(mask, sample, raster)
            if ids is None:
                return
            counts = value_counts(ids.values, ids.known)
        except (RasterError, LabelMapError) as error:
            self._refuse("unreadable mask", mask, error)
            return
        self._count_mask(sample, ids, counts, raster, reasons)

    def _ids(self, mask: Path | FileWindow, sample: Sample, raster: Raster | None) -> Ids | None:
        """The mask on the grid of its image; None where it does not fit, and that was found."""
        if raster is None:
            return read_ids(mask)
        with open_image(mask) as file:
            file.require_place()
            grid = file.grid
        if not (grid.is_placed and raster.grid.is_placed):
            if (grid.height, grid.width) != raster.pixels.shape[1:]:
                image = f"{sample.image.name} is {raster.grid.width}x{raster.grid.height}"
                finding = f"{mask} is {grid.width}x{grid.height}, {image} (width x height)"
                self.find("error", "size of a mask", mask, finding, "Export the mask on the grid of its image.")
                return None
            return read_ids(mask, onto=raster.grid)
        if grid.is_same(raster.grid):
            return read_ids(mask, onto=raster.grid)
        try:
            ids = read_ids(mask, onto=raster.grid)
        except RasterError as error:
            self._refuse("place of a mask", mask, error)
            return None
        finding = f"{_offset(grid, raster.grid)}; aligned by the place of both, the nearest pixel counts"
        if not ids.known.all():
            finding += f", and {100 * (~ids.known).mean():.1f} % of the image have no label"
        fix = "Export the mask on the grid of its image if that is not meant."
        self.find("warning", "mask on another grid", mask, finding, fix)
        return ids

    def _count_mask(
        self,
        sample: Sample,
        ids: Ids,
        counts: dict[Value, int],
        raster: Raster | None,
        reasons: dict[str, NDArray[np.bool_]],
    ) -> None:
        label_map = sample.label_map or LabelMap.identity(len(self.split.classes))
        num_classes = len(self.split.classes)
        of_mask = label_map.class_pixels(counts)
        unmapped = label_map.unmapped(counts)
        seen = of_mask
        if reasons and raster is not None:
            seen = label_map.class_pixels(value_counts(ids.values, ids.known & raster.valid))
        for name in self.parts_of[sample.image]:
            if name == "unlabelled":
                continue
            part = self.parts[name]
            part.values.update(counts)
            part.class_pixels = [a + int(b) for a, b in zip(part.class_pixels, seen, strict=False)]
            part.lost_pixels = [a + int(b) for a, b in zip(part.lost_pixels, of_mask - seen, strict=False)]
            part.ignored_pixels += int(of_mask[IGNORE]) + int((~ids.known).sum())
            part.unmapped_pixels += sum(unmapped.values())
            for reason, holds in reasons.items():
                hidden = label_map.class_pixels(value_counts(ids.values, ids.known & holds))[:num_classes]
                before = part.hidden_pixels.get(reason, [0] * num_classes)
                part.hidden_pixels[reason] = [a + int(b) for a, b in zip(before, hidden, strict=True)]
        if unmapped:
            self._refuse_values(sample, unmapped, ids)
        if not of_mask[:num_classes].any():
            fix = "List the image as unlabelled if nothing in it is labelled."
            self.find("warning", "mask without a label", sample.mask, "no pixel has a class", fix)

    def _refuse_values(self, sample: Sample, unmapped: dict[Value, int], ids: Ids) -> None:
        if sample.label_map is not None:
            finding = f"label_map does not name {show_counts(unmapped)}, which {sample.mask} holds"
            fix = "Add each value to label_map: with its class, or with ignore."
        else:
            named = ", ".join(f"{i} {name}" for i, name in enumerate(self.split.classes))
            what = "ids" if ids.values.ndim == 2 else "colours"
            finding = f"{sample.mask} has {what} {some([show_value(value) for value in unmapped])}"
            fix = (
                f"Expected {named}, and {IGNORE} where there is no label: check the class list, renumber the masks, or "
                "say in a dataset.yaml what their values mean."
            )
        self.find("error", "value not in the label map", sample.mask, finding, fix)

    def _refuse(self, kind: str, file: object, error: Exception) -> None:
        self.findings.append(from_error(kind, str(file), error))

    # -----------------------------------------------------------------------------------------------------------------
    # The whole
    # -----------------------------------------------------------------------------------------------------------------

    def _tell_parts(self, needed: Sequence[str]) -> None:
        for name in needed:
            if not self.parts[name].images:
                finding = f"The split has no {name} image; expected at least one"
                self.find("error", "empty part", self.name, finding, f"Check the {name} entries.")
        for path, parts in self.parts_of.items():
            if "validation" in parts and len(parts) > 1:
                fix = "Training must not see what is measured: take them out of one of the two."
                self.find("error", "validation image in training", path, f"listed as {' and '.join(parts)}", fix)
        near = [path.stem for path in self.split.lone_masks]
        for sample in (*self.split.labelled, *self.split.validation):
            if not sample.has_mask or not path_of(sample.mask or sample.image).is_file():
                hint = looks_like(path_of(sample.image).stem, near)
                finding = f"expected its mask at {sample.mask}; found none{f', but {hint}' if hint else ''}"
                fix = "Add it, or list the image as unlabelled."
                self.find("error", "image without a mask", sample.image, finding, fix)

    def _tell_alpha(self) -> None:
        if not self._alpha:
            return
        numbers, hidden, pixels, graded = zip(*self._alpha, strict=True)
        share = 100 * sum(hidden) / sum(pixels)
        finding = (
            f"band {numbers[0]} of {len(numbers)} images is taken for alpha, transparency: it hides {share:.2f} % of "
            "their pixels"
        )
        if any(graded):
            finding += f"; in {sum(graded)} images it holds more than 0 and the full value, as a band would"
        fix = (
            f"If it is a band, such as near infrared, describe {numbers[0]} bands (bands.count, or `co2s data init "
            "--alpha band`) or name them with --bands."
        )
        self.find("warning" if share or any(graded) else "note", "alpha or a band", self.name, finding, fix)

    def _tell_dark(self) -> None:
        if self._brightness is None:
            return
        below = np.cumsum(self._brightness, axis=1) >= 0.98 * self._brightness.sum(axis=1, keepdims=True)
        level = int(below.argmax(axis=1).max()) + 1  # of 256
        if level < _DARK * 256:
            finding = (
                f"98 % of the values of 16-bit images lie below {100 * level / 256:.1f} % of white (65535 for "
                "16 bits): a model that divides by white sees them nearly black"
            )
            fix = (
                "Train with their own mean and deviation: with --dataset dataset.yaml, whose bands.mean and bands.std "
                "are used (`co2s data init` measures them), or with --image_mean and --image_std."
            )
            self.find("warning", "dark images", self.name, finding, fix)

    def _tell_classes(self) -> None:
        for name, (noun, effect) in _EFFECTS.items():
            part = self.parts[name]
            if not part.images:
                continue
            hidden = {reason: pixels for reason, pixels in part.hidden_pixels.items() if any(pixels)}
            self.absent[name] = []
            for i, label in enumerate(self.split.classes):
                reasons = {reason: pixels[i] for reason, pixels in hidden.items() if pixels[i]}
                why = ", ".join(f"{reason} {pixels} px" for reason, pixels in reasons.items())
                if not part.class_pixels[i]:
                    self.absent[name].append(label)
                    if reasons:
                        finding = f"all {noun} pixels of {label} lie where the image holds no data ({why}): {effect}"
                        fix = "Correct nodata or the alpha band if these pixels do show something."
                        self.find("warning", f"class hidden from {name}", self.name, finding, fix)
                        continue
                    finding = f"no {noun} pixel of {label}: {effect}"
                    fix = "Move an image with this class into the part, or correct label_map."
                    self.find("warning", f"class absent from {name}", self.name, finding, fix)
                elif reasons:
                    lost = f"{part.lost_pixels[i]} {noun} pixels of {label}"
                    finding = f"{lost} lie where the image holds no data ({why})"
                    fix = "They are not learned. Correct nodata or the alpha band if they do show something."
                    self.find("warning", "labelled pixels without data", self.name, finding, fix)
            if not sum(part.class_pixels) and part.values.total():
                lies = " where the image holds data" if hidden else ""
                held = show_counts(part.values)
                finding = f"No pixel of the {noun} images has a class{lies}; their masks hold {held}"
                fix = "Name these values in label_map, or list images that are labelled."
                self.find("error", "part without a label", self.name, finding, fix)
        self._tell_encoding()

    def _tell_encoding(self) -> None:
        labelled, validation = self.parts["labelled"].values, self.parts["validation"].values
        maps = {s.label_map for s in (*self.split.labelled, *self.split.validation)}
        for label_map in maps:
            known = label_map or LabelMap.identity(len(self.split.classes))
            suspicions = known.suspicions(labelled + validation, self.split.classes)
            suspicions += known.binary(labelled or validation, self.split.classes)
            for finding, fix in suspicions:
                self.find("error", "suspicious label map", self.name, finding, fix)

    def _tell_scenes(self) -> None:
        measured = {sample.scene for sample in self.split.validation}
        training = {sample.image: sample for sample in (*self.split.labelled, *self.split.unlabelled)}
        leaking = [sample for sample in training.values() if sample.scene in measured]
        if leaking:
            scenes = sorted({sample.scene for sample in leaking})
            finding = (
                f"{len(scenes)} of {len(measured)} validation scenes ({some(scenes)}) are in training as well: "
                f"{len(leaking)} of {len(training)} training images are neighbours of validation images, so that "
                "validation flatters the model"
            )
            fix = "Hold out whole scenes, or read the validation numbers as too good."
            self.find("warning", "scenes on both sides", self.name, finding, fix)

    def _tell_unused(self) -> None:
        lone = set(self.split.lone_masks)
        images = {path_of(image) for image in self.parts_of}
        rest = [path for path in self.split.unused if path not in lone]
        idle = [path for path in rest if path.suffix.lower() in IMAGE_SUFFIXES]
        others = [path for path in rest if path.suffix.lower() not in IMAGE_SUFFIXES]
        stems = {path.stem: path.name for path in (*images, *idle)}
        unread = {path.stem: path.name for path in others}
        for mask in self.split.lone_masks:
            if mask.stem in unread and unread[mask.stem] != mask.name:
                why = f"{unread[mask.stem]} is of a format that is not read as an image"
            else:
                why = looks_like(mask.stem, stems) or "no image has this name; expected one"
            fix = "Name it as its image, add the image, or move the mask away."
            self.find("warning", "mask without an image", mask, why, fix)
        if idle:
            finding = f"{len(idle)} images are in no part: {some([path.name for path in idle])}"
            fix = "Add them to the unlabelled images, unless they are held out on purpose."
            self.find("warning", "unused images", self.name, finding, fix)
        if others:
            finding = f"{len(others)} files are of formats that are not read: {some([path.name for path in others])}"
            fix = f"Convert them to one of {', '.join(IMAGE_SUFFIXES)}, or move them away."
            self.find("warning", "unused files", self.name, finding, fix)


_EFFECTS = {"labelled": ("labelled", "never learned"), "validation": ("validation", "never measured")}


def from_error(kind: str, file: str, error: Exception) -> Finding:
    """Make a finding of a message of this package: its last sentence is the way out."""
    finding, _, fix = str(error).rpartition(". ")
    return Finding("error", kind, file, finding or fix, fix if finding else "Correct the description.")


def _image_kind(image: Path | FileWindow) -> str:
    """What is wrong with an image that cannot be used: itself, or only the bands that are wanted of it."""
    try:
        with open_image(image) as file:
            file.read()
    except RasterError:
        return "unreadable image"
    return "bands of an image"


def _new_part(samples: Sequence[Sample], num_classes: int) -> PartSummary:
    none = [0] * num_classes
    scenes = len({sample.scene for sample in samples})
    return PartSummary(images=len(samples), scenes=scenes, class_pixels=none, lost_pixels=none)


def _offset(mask: Grid, image: Grid) -> str:
    """Say how the grid of a mask differs from that of its image."""
    corner = mask.to_ground(np.zeros((1, 2)))
    if mask.crs is not None and image.crs is not None and mask.crs != image.crs:
        corner = transformed(corner, mask.crs, image.crs)
    right, down = image.to_pixels(corner)[0]
    sizes = f"{mask.width}x{mask.height} px for {image.width}x{image.height}"
    return f"its corner lies {right:.4g} px right and {down:.4g} px down of that of the image ({sizes})"


__all__ = ["Finding", "Inspection", "PARTS", "PartSummary", "from_error"]
