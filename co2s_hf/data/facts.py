r"""What is known of the public data sets: classes, encodings, tilings, protocols, and where to get them.

One record per data set. A protocol is a way to cut it into tiles and to split them: results of two protocols never
share a column. None means that neither the papers, their code nor the page of the data set states it.
"""

import re
from dataclasses import dataclass
from typing import Literal

from .label_map import IGNORE, LabelMap, Value
from .lists import Line, Lists
from .samples import DataError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How a scene is cut into square tiles, row by row from the upper left.

    Attributes:
        scene_px: (height, width) that every scene must have; None where scenes differ.
        tile_px: Side of a tile.
        border: What happens where the last tile of a row or column would reach over the scene: "pad" fills it with
            black and `pad_id`, "shift" moves it back onto the scene.
        pad_id: Class id of the padding.
    """

    scene_px: tuple[int, int] | None
    tile_px: int
    border: Literal["pad", "shift"]
    pad_id: int = IGNORE


@dataclass(frozen=True)
class Source:
    r"""One layout in which a data set can be had, and how its masks are encoded.

    Attributes:
        images: Regular expression of the whole path of an image below the folder, with a named group `scene` and
            maybe others.
        masks: Where its mask is, the groups in braces; the first one that exists counts.
        name: Name of the prepared image, without suffix; besides the groups it may use what `Tiling` knows of a tile:
            index (from 1), row and column (from 0), and x1, y1, x2, y2 (px).
        encoding: Mask value, an id or a colour, to class id. A value that it does not name is an error.
        count: How many images there are; None where any number will do.
        tiling: How the images are cut; None where they are taken as they are.
    """

    images: str
    masks: tuple[str, ...]
    name: str
    encoding: LabelMap
    count: int | None = None
    tiling: Tiling | None = None


@dataclass(frozen=True)
class Ratio:
    """How many images are labelled and unlabelled in one of the published splits; `name` is its folder."""

    name: str
    labelled: int
    unlabelled: int


@dataclass(frozen=True)
class Protocol:
    """One way to cut and to split a data set.

    Attributes:
        name: Who made it; "native" is ours, for originals that have no published lists.
        classes: Class names, in the order of their ids.
        palette: Their colours.
        original: The data set as its makers give it away; None where the tiles cannot be made from it.
        packaged: The tiles as the protocol's authors give them away, and as their lists name them.
        ratios: The published splits; all draw from one pool.
        validation: Validation images.
        test: Test images; 0 where there is no test list.
        excluded_ids: Classes that the authors' test leaves out of the mean.
        name_pattern: Regular expression for the names of prepared tiles: scene first, and column and row or x and y
            where they are known. Fits `scene_pattern` of `find_split` and `Blocks` of `draw_split`.
        note: What one should know before comparing.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    original: Source | None = None
    packaged: Source | None = None
    ratios: tuple[Ratio, ...] = ()
    validation: int | None = None
    test: int | None = None
    excluded_ids: tuple[int, ...] = ()
    name_pattern: str | None = None
    note: str = ""

    @property
    def pool(self) -> int | None:
        """Training images of every ratio, labelled and unlabelled; None without published splits."""
        return self.ratios[0].labelled + self.ratios[0].unlabelled if self.ratios else None

    def prepared(self, lists: Lists) -> Lists:
        """Translate published lists to the names that `prepare` gives the same tiles.

        Raises:
            DataError: A line that is not of this protocol; the lists name no tiles that can be made.
        """
        return Lists(
            *(
                tuple(self._prepared_line(line) for line in part)
                for part in (lists.labelled, lists.unlabelled, lists.validation, lists.test, lists.prediction)
            )
        )

    def _prepared_line(self, line: Line) -> Line:
        source = self.packaged
        match = re.fullmatch(source.images, line.image) if source else None
        if source is None or match is None:
            raise DataError(
                f"{line.image} is not a tile of the protocol {self.name}; expected a name that fits "
                f"{source.images if source else 'published lists, of which there are none'}."
            )
        name = source.name.format(**match.groupdict())
        return Line(f"images/{name}.png", f"labels/{name}.png" if line.mask else None)


@dataclass(frozen=True)
class DatasetFacts:
    """A public data set.

    Attributes:
        title: How it is called.
        gsd_m: Metres per pixel; None for photographs from the ground, and where sources do not agree.
        bands: What the bands of its images are, in their order; None: not stated.
        licence: Under which terms it may be used; None: not stated where we could read it, so ask at `page`.
        citation: What to cite.
        page: Where to get it.
        hub_id: Its dataset repository on the Hub; None where no complete copy with a licence is known.
        protocols: By name.
    """

    title: str
    gsd_m: float | None
    bands: tuple[str, ...] | None
    licence: str | None
    citation: str
    page: str
    protocols: tuple[Protocol, ...]
    hub_id: str | None = None

    def protocol(self, name: str) -> Protocol:
        """Get a protocol by its name, in any case; a `DataError` names those there are."""
        for protocol in self.protocols:
            if _plain(protocol.name) == _plain(name):
                return protocol
        names = ", ".join(protocol.name for protocol in self.protocols)
        raise DataError(f"{self.title} has no protocol {name!r}; expected one of {names}.")


def dataset_facts(name: str) -> DatasetFacts:
    """Get the record of a data set by its name, in any case and with or without dashes: "GID-15", "gid15".

    Raises:
        DataError: There is none; the message names those there are.
    """
    if _plain(name) not in FACTS:
        raise DataError(f"There are no facts about {name!r}; expected one of {', '.join(FACTS)}.")
    return FACTS[_plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# ---------------------------------------------------------------------------------------------------------------------
# Encodings
# ---------------------------------------------------------------------------------------------------------------------


def _as_they_are(num_classes: int) -> LabelMap:
    return LabelMap(tuple((i, i) for i in range(num_classes)))


def _lowered(num_classes: int, *, ignored: tuple[int, ...] = (0,)) -> LabelMap:
    """What `reduce_zero_label` does: 1 to K become 0 to K - 1, and 0 (Co2S: 255, too) is without a label."""
    return LabelMap((*((value, IGNORE) for value in ignored), *((i + 1, i) for i in range(num_classes))))


def _colours(palette: tuple[Colour, ...], *more: tuple[Value, int]) -> LabelMap:
    return LabelMap((*((colour, i) for i, colour in enumerate(palette)), *more))


def _ratios(*counts: tuple[str, int, int]) -> tuple[Ratio, ...]:
    return tuple(Ratio(*count) for count in counts)


_CO2S_IGNORED = (0, IGNORE)
_NO_TEST = "Co2S has no test list: validation selects the checkpoint and is reported."

# ---------------------------------------------------------------------------------------------------------------------
# WHDLD
# ---------------------------------------------------------------------------------------------------------------------

_WHDLD_CLASSES = ("building", "road", "pavement", "vegetation", "bare soil", "water")
_WHDLD_PALETTE = ((255, 0, 0), (255, 255, 0), (192, 192, 0), (0, 255, 0), (128, 128, 128), (0, 0, 255))

WHDLD = DatasetFacts(
    title="WHDLD",
    gsd_m=2.0,
    bands=("red", "green", "blue"),
    licence=None,
    citation="Shao, Zhou, Deng, Zhang, Cheng: Multilabel Remote Sensing Image Retrieval Based on Fully Convolutional "
    "Network. IEEE JSTARS, 2020",
    page="https://sites.google.com/view/zhouwx/dataset",
    protocols=(
        Protocol(
            name="Co2S",
            classes=_WHDLD_CLASSES,
            palette=_WHDLD_PALETTE,
            original=Source(
                images=r"Images/(?P<scene>wh\d+)\.jpg",
                masks=("ImagesPNG/{scene}.png",),
                name="{scene}",
                encoding=_lowered(6, ignored=_CO2S_IGNORED),
                count=4940,
            ),
            packaged=Source(
                images=r"images/(?P<scene>wh\d+)\.jpg",
                masks=("labels/{scene}.png",),
                name="{scene}",
                encoding=_lowered(6, ignored=_CO2S_IGNORED),
                count=4940,
            ),
            ratios=_ratios(
                ("1_32", 138, 4308), ("1_24", 185, 4261), ("1_16", 277, 4169), ("1_8", 555, 3891), ("1_4", 1111, 3335)
            ),
            validation=494,
            test=0,
            note="Images of 256 px, which Co2S enlarges to 512 px. " + _NO_TEST,
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# LoveDA. The numbers of its images run on from Train/Rural over Train/Urban and Val/Rural to Val/Urban: 0 to 4190.
# ---------------------------------------------------------------------------------------------------------------------

_LOVEDA_CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")
_LOVEDA_PALETTE = (
    (255, 255, 255),
    (255, 0, 0),
    (255, 255, 0),
    (0, 0, 255),
    (159, 129, 183),
    (0, 255, 0),
    (255, 195, 128),
)
_LOVEDA_IMAGES = r"(?P<part>Train|Val)/(?P<domain>Urban|Rural)/images_png/(?P<scene>\d+)\.png"
_LOVEDA_MASKS = ("{part}/{domain}/masks_png/{scene}.png",)

LOVEDA = DatasetFacts(
    title="LoveDA",
    gsd_m=0.3,
    bands=("red", "green", "blue"),
    licence="CC BY-NC-SA 4.0",
    citation="Wang, Zheng, Ma, Lu, Zhong: LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic "
    "Segmentation. NeurIPS Datasets and Benchmarks, 2021. arXiv 2110.08733",
    page="https://zenodo.org/records/5706578",
    protocols=(
        Protocol(
            name="Co2S",
            classes=_LOVEDA_CLASSES,
            palette=_LOVEDA_PALETTE,
            original=Source(
                images=_LOVEDA_IMAGES,
                masks=_LOVEDA_MASKS,
                name="{scene}",
                encoding=_lowered(7),
                count=4191,
            ),
            packaged=Source(
                images=r"images/(?P<scene>\d+)\.png",
                masks=("labels/{scene}.png",),
                name="{scene}",
                encoding=_lowered(7, ignored=_CO2S_IGNORED),
                count=4191,
            ),
            ratios=_ratios(
                ("1_40", 94, 3677), ("1_24", 157, 3614), ("1_16", 235, 3536), ("1_8", 471, 3300), ("1_4", 942, 2829)
            ),
            validation=420,
            test=0,
            note="Whole scenes of 1024 px; Train and Val of the original are split anew. " + _NO_TEST,
        ),
        Protocol(
            name="RS-MTDF",
            classes=_LOVEDA_CLASSES,
            palette=_LOVEDA_PALETTE,
            original=Source(
                images=_LOVEDA_IMAGES,
                masks=_LOVEDA_MASKS,
                name="{scene}_{index}",
                encoding=_lowered(7),
                count=4191,
                tiling=Tiling((1024, 1024), 512, "pad"),  # quarters: nothing is ever padded
            ),
            ratios=_ratios(("1", 100, 9988), ("5", 504, 9584), ("10", 1008, 9080)),
            validation=3338,
            test=3338,
            name_pattern=r"^(?P<scene>\d+)_\d\.",
            note="Train teaches, Val is split in halves. The lists were not released: counts from the script that "
            "makes them, quarters numbered 1 to 4 from the upper left.",
        ),
        Protocol(
            name="SemiEarth",
            classes=("ignore", "building", "road", "water", "barren", "forest", "agriculture", "background"),
            palette=((0, 0, 0), *_LOVEDA_PALETTE[1:], _LOVEDA_PALETTE[0]),
            packaged=Source(
                images=r"JPEGImages/(?P<scene>\d+)\.jpg",
                masks=("SegmentationClass/{scene}.png",),
                name="{scene}",
                encoding=_as_they_are(8),
                count=16764,
            ),
            ratios=_ratios(("1_100", 100, 9960), ("5_100", 503, 9557), ("10_100", 1006, 9054)),
            validation=3352,
            test=3352,
            note="Quarters, renumbered: which is which is not known. Pixels without data are a class of their own, "
            "trained and averaged, and background is the last class; whether the masks were renumbered to fit that "
            "list cannot be told without them. The test list is never read.",
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Potsdam and Vaihingen
# ---------------------------------------------------------------------------------------------------------------------

_ISPRS_CLASSES = ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter")
_ISPRS_PALETTE = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
_ISPRS_CITATION = (
    "Rottensteiner et al.: The ISPRS Benchmark on Urban Object Classification and 3D Building Reconstruction. ISPRS "
    "Annals, 2012. doi 10.5194/isprsannals-I-3-293-2012"
)
_POTSDAM_IMAGES = r"2_Ortho_RGB/top_potsdam_(?P<scene>\d+_\d+)_RGB\.tif"
_POTSDAM_MASKS = ("5_Labels_all/top_potsdam_{scene}_label.tif", "top_potsdam_{scene}_label.tif")

POTSDAM = DatasetFacts(
    title="Potsdam",
    gsd_m=0.05,
    bands=("red", "green", "blue"),
    licence=None,
    citation=_ISPRS_CITATION,
    page="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx",
    protocols=(
        Protocol(
            name="Co2S",
            classes=_ISPRS_CLASSES,
            palette=_ISPRS_PALETTE,
            original=Source(
                images=_POTSDAM_IMAGES,
                masks=_POTSDAM_MASKS,
                name="{scene}_{x1}_{y1}_{x2}_{y2}",
                encoding=_colours(_ISPRS_PALETTE),
                count=38,
                tiling=Tiling((6000, 6000), 512, "shift"),
            ),
            packaged=Source(
                images=r"images/(?P<scene>\d+_\d+)_(?P<x1>\d+)_(?P<y1>\d+)_(?P<x2>\d+)_(?P<y2>\d+)\.png",
                masks=("labels/{scene}_{x1}_{y1}_{x2}_{y2}.png",),
                name="{scene}_{x1}_{y1}_{x2}_{y2}",
                encoding=_lowered(6, ignored=_CO2S_IGNORED),
                count=38 * 144,
            ),
            ratios=_ratios(
                ("1_32", 153, 4771), ("1_24", 205, 4719), ("1_16", 307, 4617), ("1_8", 615, 4309), ("1_4", 1231, 3693)
            ),
            validation=548,
            test=0,
            name_pattern=r"^(?P<scene>\d+_\d+)_(?P<x>\d+)_(?P<y>\d+)_",
            note="All 38 scenes are on both sides, and neighbouring tiles overlap at the right and lower border. "
            + _NO_TEST,
        ),
        Protocol(
            name="RS-MTDF",
            classes=_ISPRS_CLASSES,
            palette=_ISPRS_PALETTE,
            original=Source(
                images=_POTSDAM_IMAGES,
                masks=_POTSDAM_MASKS,
                name="{scene}_{index}",
                encoding=_colours(_ISPRS_PALETTE),
                count=38,
                tiling=Tiling((6000, 6000), 512, "pad", pad_id=5),
            ),
            packaged=Source(
                images=r"image/top_potsdam_(?P<scene>\d+_\d+)_(?P<index>\d+)_RGB\.tif",
                masks=("label/top_potsdam_{scene}_{index}_label.tif",),
                name="{scene}_{index}",
                encoding=_as_they_are(6),
                count=38 * 144,
            ),
            ratios=_ratios(("1", 32, 3251), ("5", 164, 3119), ("10", 328, 2955)),
            validation=1094,
            test=1095,
            excluded_ids=(0,),
            name_pattern=r"^(?P<scene>\d+_\d+)_\d+\.",
            note="Black padding is labelled clutter. The authors' test leaves out id 0, which is impervious surface: "
            "they may have meant clutter, so report both.",
        ),
        Protocol(
            name="SemiEarth",
            classes=_ISPRS_CLASSES,
            palette=_ISPRS_PALETTE,
            packaged=Source(
                images=r"JPEGImages/(?P<scene>\d+)\.jpg",
                masks=("SegmentationClass/{scene}.png",),
                name="{scene}",
                encoding=_as_they_are(6),
                count=38 * 144,
            ),
            ratios=_ratios(("1_100", 32, 3251), ("5_100", 164, 3119), ("10_100", 328, 2955)),
            validation=1094,
            test=1095,
            note="The counts of RS-MTDF, renumbered: whether the tiles are the same cannot be told. All six classes "
            "are averaged. The test list is never read.",
        ),
    ),
)

VAIHINGEN = DatasetFacts(
    title="Vaihingen",
    gsd_m=0.09,
    bands=("near infrared", "red", "green"),
    licence=None,
    citation=_ISPRS_CITATION,
    page="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx",
    protocols=(
        Protocol(
            name="native",
            classes=_ISPRS_CLASSES,
            palette=_ISPRS_PALETTE,
            original=Source(
                images=r"top/top_mosaic_09cm_area(?P<scene>\d+)\.tif",
                masks=("gt/top_mosaic_09cm_area{scene}.tif", "top_mosaic_09cm_area{scene}.tif"),
                name="{scene}_{x1}_{y1}_{x2}_{y2}",
                encoding=_colours(_ISPRS_PALETTE),
                count=33,
                tiling=Tiling(None, 512, "shift"),
            ),
            name_pattern=r"^(?P<scene>\d+)_(?P<x>\d+)_(?P<y>\d+)_",
            note="No published lists: none of Co2S, RS-MTDF and SemiEarth uses it. Scenes differ in size.",
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# GID-15
# ---------------------------------------------------------------------------------------------------------------------

_GID_CLASSES = (
    "industrial_land",
    "urban_residential",
    "rural_residential",
    "traffic_land",
    "paddy_field",
    "irrigated_land",
    "dry_cropland",
    "garden_plot",
    "arbor_woodland",
    "shrub_land",
    "natural_grassland",
    "artificial_grassland",
    "river",
    "lake",
    "pond",
)
_GID_PALETTE = (
    (200, 0, 0),
    (250, 0, 150),
    (200, 150, 150),
    (250, 150, 150),
    (0, 200, 0),
    (150, 250, 0),
    (150, 200, 150),
    (200, 0, 200),
    (150, 0, 250),
    (150, 150, 250),
    (250, 200, 0),
    (200, 200, 0),
    (0, 0, 200),
    (0, 150, 200),
    (0, 200, 250),
)

GID15 = DatasetFacts(
    title="GID-15",
    gsd_m=None,  # TorchGeo says 3 m, others say 4 m and 0.8 m
    bands=("red", "green", "blue"),
    licence=None,
    citation="Tong, Xia, Lu, Shen, Li, You, Zhang: Land-cover classification with high-resolution remote sensing "
    "images using transferable deep models. Remote Sensing of Environment 237, 2020. doi 10.1016/j.rse.2019.111322",
    page="https://captain-whu.github.io/GID15/",
    protocols=(
        Protocol(
            name="Co2S",
            classes=_GID_CLASSES,
            palette=_GID_PALETTE,
            packaged=Source(
                images=r"images/(?P<scene>GF2_[^/]+-MSS\d+)_(?P<row>\d+)_(?P<column>\d+)\.tif",
                masks=("labels/{scene}_{row}_{column}.tif",),
                name="{scene}_{row}_{column}",
                encoding=LabelMap.identity(15),
                count=10 * 18 * 19,
            ),
            ratios=_ratios(("1_8", 342, 2394), ("1_4", 684, 2052), ("all", 2736, 0)),
            validation=684,
            test=0,
            name_pattern=r"^(?P<scene>.+)_(?P<row>\d+)_(?P<column>\d+)\.",
            note="18 x 19 tiles of each of 10 scenes, in an order and of a size that are not stated. All scenes are on "
            "both sides. " + _NO_TEST,
        ),
        Protocol(
            name="native",
            classes=_GID_CLASSES,
            palette=_GID_PALETTE,
            original=Source(
                images=r"image_RGB/(?P<scene>GF2_[^/]+)\.tif",
                masks=("label_15classes/{scene}_label.tif", "label_15classes/{scene}_15label.tif"),
                name="{scene}_{row}_{column}",
                encoding=_colours(_GID_PALETTE, ((0, 0, 0), IGNORE)),
                tiling=Tiling((6800, 7200), 384, "shift"),
            ),
            name_pattern=r"^(?P<scene>.+)_(?P<row>\d+)_(?P<column>\d+)\.",
            note="18 rows and 19 columns of 384 px: as many tiles as Co2S has, not known to be the same. Black in the "
            "masks is without a label.",
        ),
    ),
)

# ---------------------------------------------------------------------------------------------------------------------
# Mars
# ---------------------------------------------------------------------------------------------------------------------

_MARS_CLASSES = (
    "Martian Soil",
    "Sands",
    "Gravel",
    "Bedrock",
    "Rocks",
    "Tracks",
    "Shadows",
    "Unknown",
    "Background",
)
_MARS_PALETTE = (
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
)


def _mars(title: str, images: int, ratios: tuple[Ratio, ...], validation: int) -> DatasetFacts:
    return DatasetFacts(
        title=title,
        gsd_m=None,
        bands=None,
        licence=None,
        citation="Mars-Seg, released with: A Stepwise Domain Adaptive Segmentation Network With Covariate Shift "
        "Alleviation for Remote Sensing Imagery. IEEE TGRS, 2022",
        page="https://github.com/xiaoqiang-lu/WSCL",
        protocols=(
            Protocol(
                name="Co2S",
                classes=_MARS_CLASSES,
                palette=_MARS_PALETTE,
                packaged=Source(
                    images=r"images/(?P<scene>[^/]+)\.jpg",
                    masks=("labels/{scene}.png",),
                    name="{scene}",
                    encoding=LabelMap.identity(9),
                    count=images,
                ),
                ratios=ratios,
                validation=validation,
                test=0,
                note="Photographs of a rover, taken as they are. All nine classes are averaged, unknown and background "
                "as well. The labelled images of a ratio are not among those of a larger one. " + _NO_TEST,
            ),
        ),
    )


MER = _mars("MER", 1064, _ratios(("1_8", 106, 745), ("1_4", 212, 639), ("all", 851, 0)), validation=213)
MSL = _mars("MSL", 3927, _ratios(("1_8", 392, 2749), ("1_4", 785, 2356), ("all", 3141, 0)), validation=786)

# ---------------------------------------------------------------------------------------------------------------------
# DeepGlobe
# ---------------------------------------------------------------------------------------------------------------------

_DEEPGLOBE_CLASSES = ("urban", "agriculture", "rangeland", "forest", "water", "barren", "unknown")
_DEEPGLOBE_PALETTE = (
    (0, 255, 255),
    (255, 255, 0),
    (255, 0, 255),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)

DEEPGLOBE = DatasetFacts(
    title="DeepGlobe",
    gsd_m=0.5,
    bands=("red", "green", "blue"),
    licence=None,
    citation="Demir et al.: DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images. CVPR Workshops, "
    "2018. arXiv 1805.06561",
    page="https://www.kaggle.com/datasets/balraj98/deepglobe-land-cover-classification-dataset",
    protocols=(
        Protocol(
            name="RS-MTDF",
            classes=_DEEPGLOBE_CLASSES,
            palette=_DEEPGLOBE_PALETTE,
            original=Source(
                images=r"train/(?P<scene>\d+)_sat\.jpg",
                masks=("train/{scene}_mask.png",),
                name="{scene}_{index}",
                encoding=_colours(_DEEPGLOBE_PALETTE),
                count=803,
                tiling=Tiling((2448, 2448), 512, "pad", pad_id=6),
            ),
            packaged=Source(
                images=r"data_cropped/(?P<scene>\d+)_sat_(?P<index>\d+)\.jpg",
                masks=("data_cropped/{scene}_mask_{index}.png",),
                name="{scene}_{index}",
                encoding=_as_they_are(7),
                count=803 * 25,
            ),
            ratios=_ratios(("1", 120, 11925), ("5", 602, 11443), ("10", 1204, 10841), ("100", 12045, 0)),
            validation=4015,
            test=4015,
            excluded_ids=(6,),
            name_pattern=r"^(?P<scene>\d+)_\d+\.",
            note="Black padding is labelled unknown, which is trained and left out of the test. Tiles are taken to be "
            "numbered from 1, as those of Potsdam are.",
        ),
    ),
)

FACTS: dict[str, DatasetFacts] = {
    _plain(facts.title): facts for facts in (WHDLD, LOVEDA, POTSDAM, VAIHINGEN, GID15, MER, MSL, DEEPGLOBE)
}
"""Every record, by the name in small letters and digits."""
