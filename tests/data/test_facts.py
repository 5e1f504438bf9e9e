import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from co2s_hf.data.facts import FACTS, dataset_facts
from co2s_hf.data.folders import DataError
from co2s_hf.data.label_map import LabelMapError
from co2s_hf.data.lists import Line, Lists
from co2s_hf.data.splits import Blocks

PROTOCOLS = [(facts, protocol) for facts in FACTS.values() for protocol in facts.protocols]
SOURCES = [
    pytest.param(protocol, source, id=f"{facts.title}-{protocol.name}-{kind}")
    for facts, protocol in PROTOCOLS
    for kind in ("original", "packaged")
    if (source := getattr(protocol, kind))
]


def _values(source):
    return [value for value, _ in source.encoding.entries]


# Counted in the published list files: ratio -> labelled and unlabelled; validation; test.
PUBLISHED = {
    ("WHDLD", "Co2S"): ({"1_32": (138, 4308), "1_4": (1111, 3335)}, 494, 0),
    ("LoveDA", "Co2S"): ({"1_40": (94, 3677), "1_8": (471, 3300)}, 420, 0),
    ("LoveDA", "SemiEarth"): ({"1_100": (100, 9960), "10_100": (1006, 9054)}, 3352, 3352),
    ("Potsdam", "Co2S"): ({"1_32": (153, 4771), "1_16": (307, 4617)}, 548, 0),
    ("Potsdam", "RS-MTDF"): ({"1": (32, 3251), "5": (164, 3119), "10": (328, 2955)}, 1094, 1095),
    ("Potsdam", "SemiEarth"): ({"1_100": (32, 3251)}, 1094, 1095),
    ("GID-15", "Co2S"): ({"1_8": (342, 2394), "all": (2736, 0)}, 684, 0),
    ("MER", "Co2S"): ({"1_8": (106, 745), "1_4": (212, 639)}, 213, 0),
    ("MSL", "Co2S"): ({"1_8": (392, 2749), "all": (3141, 0)}, 786, 0),
    ("DeepGlobe", "RS-MTDF"): ({"1": (120, 11925), "100": (12045, 0)}, 4015, 4015),
}


@pytest.mark.parametrize(("name", "protocol"), PUBLISHED)
def test_counts_are_those_of_the_published_lists(name, protocol):
    ratios, validation, test = PUBLISHED[name, protocol]
    found = dataset_facts(name).protocol(protocol)
    assert (found.validation, found.test) == (validation, test)
    by_name = {ratio.name: (ratio.labelled, ratio.unlabelled) for ratio in found.ratios}
    assert ratios.items() <= by_name.items()


def test_the_lists_of_a_protocol_name_all_of_its_tiles():
    seen = 0
    for facts, protocol in PROTOCOLS:
        if not protocol.ratios:
            continue
        assert {r.labelled + r.unlabelled for r in protocol.ratios} == {protocol.pool}, facts.title
        if protocol.packaged:
            assert protocol.pool + protocol.validation + protocol.test == protocol.packaged.count, facts.title
            seen += 1
    assert seen == 10


def test_records_are_complete():
    assert set(FACTS) == {"whdld", "loveda", "potsdam", "vaihingen", "gid15", "mer", "msl", "deepglobe"}
    for facts, protocol in PROTOCOLS:
        assert facts.citation and facts.page.startswith("https://")
        assert protocol.original or protocol.packaged
        assert len(set(protocol.classes)) == len(protocol.classes) == len(set(protocol.palette))
        assert {(facts.protocol(p.name).name) for p in facts.protocols} == {p.name for p in facts.protocols}
    assert dataset_facts("GID 15") is FACTS["gid15"] and dataset_facts("LoveDA").licence == "CC BY-NC-SA 4.0"
    semiearth = dataset_facts("loveda").protocol("semiearth")
    assert semiearth.classes[0] == "ignore" and semiearth.classes[7] == "background"
    assert semiearth.palette[1] == (255, 0, 0) and semiearth.palette[7] == (255, 255, 255)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(DataError, match="expected one of whdld, loveda"):
        dataset_facts("cityscapes")
    with pytest.raises(DataError, match="WHDLD has no protocol 'DWL'; expected one of Co2S"):
        dataset_facts("whdld").protocol("DWL")


# ---- encodings ----


@pytest.mark.parametrize(
    ("name", "protocol", "kind", "expected"),
    [
        ("whdld", "Co2S", "packaged", {0: 255, 1: 0, 6: 5, 255: 255}),
        ("loveda", "Co2S", "original", {0: 255, 1: 0, 7: 6}),
        ("loveda", "RS-MTDF", "original", {0: 255, 1: 0, 7: 6}),
        ("loveda", "SemiEarth", "packaged", {0: 0, 1: 1, 7: 7}),
        ("potsdam", "Co2S", "packaged", {0: 255, 1: 0, 6: 5, 255: 255}),
        ("potsdam", "Co2S", "original", {(255, 255, 255): 0, (0, 0, 255): 1, (255, 255, 0): 4, (255, 0, 0): 5}),
        ("potsdam", "RS-MTDF", "packaged", {0: 0, 5: 5}),
        ("vaihingen", "native", "original", {(0, 255, 255): 2, (0, 255, 0): 3}),
        ("gid15", "Co2S", "packaged", {0: 0, 14: 14, 255: 255}),
        ("gid15", "native", "original", {(200, 0, 0): 0, (0, 200, 250): 14, (0, 0, 0): 255}),
        ("mer", "Co2S", "packaged", {0: 0, 8: 8, 255: 255}),
        ("deepglobe", "RS-MTDF", "original", {(0, 255, 255): 0, (255, 255, 255): 5, (0, 0, 0): 6}),
        ("deepglobe", "RS-MTDF", "packaged", {0: 0, 6: 6}),
    ],
)
def test_encodings(name, protocol, kind, expected):
    encoding = getattr(dataset_facts(name).protocol(protocol), kind).encoding
    assert expected.items() <= encoding.targets.items()


@pytest.mark.parametrize(("protocol", "source"), SOURCES)
def test_every_class_has_exactly_one_value(protocol, source):
    ids = [target for target in source.encoding.targets.values() if target != 255]
    assert sorted(ids) == list(range(len(protocol.classes)))


@settings(max_examples=60, deadline=None, database=None)
@given(st.data())
def test_masks_are_translated_pixel_by_pixel_or_refused(data):
    source = data.draw(st.sampled_from([param.values[1] for param in SOURCES]))
    known = _values(source)
    value = st.tuples(*[st.integers(0, 255)] * 3) if isinstance(known[0], tuple) else st.integers(0, 255)
    drawn = data.draw(st.lists(st.sampled_from(known) | value, min_size=6, max_size=6))
    mask = np.array(drawn, np.uint8).reshape(2, 3, *np.shape(known[0]))
    unknown = set(drawn) - set(known)
    if not unknown:
        expected = [source.encoding.targets[value] for value in drawn]
        assert source.encoding.apply(mask).ravel().tolist() == expected
        return
    with pytest.raises(LabelMapError) as error:
        source.encoding.apply(mask)
    assert set(error.value.unmapped) == unknown


# ---- names ----


def test_published_lines_become_prepared_names():
    lines = {
        ("whdld", "Co2S"): ("images/wh3917.jpg labels/wh3917.png", "wh3917"),
        ("loveda", "Co2S"): ("images/154.png labels/154.png", "154"),
        ("loveda", "SemiEarth"): ("JPEGImages/10006.jpg SegmentationClass/10006.png", "10006"),
        ("potsdam", "Co2S"): (
            "images/6_14_4608_512_5120_1024.png labels/6_14_4608_512_5120_1024.png",
            "6_14_4608_512_5120_1024",
        ),
        ("potsdam", "RS-MTDF"): ("image/top_potsdam_6_11_28_RGB.tif label/top_potsdam_6_11_28_label.tif", "6_11_28"),
        ("potsdam", "SemiEarth"): ("JPEGImages/4889.jpg SegmentationClass/4889.png", "4889"),
        ("gid15", "Co2S"): (
            "images/GF2_PMS1__L1A0001064454-MSS1_0_10.tif labels/GF2_PMS1__L1A0001064454-MSS1_0_10.tif",
            "GF2_PMS1__L1A0001064454-MSS1_0_10",
        ),
        ("mer", "Co2S"): (
            "images/1P128287268EFF0000P2303L2M1.jpg labels/1P128287268EFF0000P2303L2M1.png",
            "1P128287268EFF0000P2303L2M1",
        ),
        ("msl", "Co2S"): ("images/0.jpg labels/0.png", "0"),
        ("deepglobe", "RS-MTDF"): ("data_cropped/384477_sat_3.jpg data_cropped/384477_mask_3.png", "384477_3"),
    }
    for (name, protocol), (text, tile) in lines.items():
        line = Line(*text.split())
        record = dataset_facts(name).protocol(protocol)
        assert (
            record.packaged.masks[0].format(**re.fullmatch(record.packaged.images, line.image).groupdict()) == line.mask
        )
        prepared = record.prepared(Lists((line,), (Line(line.image),), (), prediction=(Line(line.image),)))
        assert prepared.labelled == (Line(f"images/{tile}.png", f"labels/{tile}.png"),)
        assert prepared.unlabelled == prepared.prediction == (Line(f"images/{tile}.png"),)


def test_lines_of_another_protocol_are_refused():
    lists = Lists((Line("images/154.png", "labels/154.png"),), (), ())
    with pytest.raises(DataError, match="images/154.png is not a tile of the protocol RS-MTDF"):
        dataset_facts("potsdam").protocol("RS-MTDF").prepared(lists)
    with pytest.raises(DataError, match="of which there are none"):
        dataset_facts("loveda").protocol("RS-MTDF").prepared(lists)


def test_name_patterns_find_scenes_and_positions():
    names = {
        ("potsdam", "Co2S"): ("6_14_4608_512_5120_1024.png", "6_14", True),
        ("potsdam", "RS-MTDF"): ("6_11_28.png", "6_11", False),
        ("loveda", "RS-MTDF"): ("154_4.png", "154", False),
        ("gid15", "Co2S"): ("GF2_PMS1__L1A0001064454-MSS1_0_10.png", "GF2_PMS1__L1A0001064454-MSS1", True),
        ("vaihingen", "native"): ("11_512_0_1024_512.png", "11", True),
        ("deepglobe", "RS-MTDF"): ("384477_25.png", "384477", False),
    }
    for (name, protocol), (tile, scene, has_position) in names.items():
        pattern = dataset_facts(name).protocol(protocol).name_pattern
        assert re.search(pattern, tile).group(1) == scene
        if has_position:
            Blocks(pattern, tiles=2)
