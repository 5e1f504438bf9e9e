import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from co2s_hf.data.folders import DataError
from co2s_hf.data.lists import Line, Lists, read_list, read_lists, write_list

# The same kind of line in every protocol, one of each as it is published.
PUBLISHED = {
    "Co2S WHDLD": "images/wh3917.jpg labels/wh3917.png",
    "Co2S LoveDA": "images/154.png labels/154.png",
    "Co2S Potsdam": "images/6_14_4608_512_5120_1024.png labels/6_14_4608_512_5120_1024.png",
    "Co2S GID-15": "images/GF2_PMS1__L1A0001064454-MSS1_0_10.tif labels/GF2_PMS1__L1A0001064454-MSS1_0_10.tif",
    "Co2S MER": "images/1P128287268EFF0000P2303L2M1.jpg labels/1P128287268EFF0000P2303L2M1.png",
    "RS-MTDF Potsdam": "image/top_potsdam_6_11_28_RGB.tif label/top_potsdam_6_11_28_label.tif",
    "RS-MTDF DeepGlobe": "data_cropped/384477_sat_3.jpg data_cropped/384477_mask_3.png",
    "SemiEarth": "JPEGImages/4889.jpg SegmentationClass/4889.png",
    "UniMatch": "JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png",
    "Co2S pred.txt": "images/wh3917.jpg",
}


def _write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=PUBLISHED)
def test_published_lines_round_trip(row, tmp_path):
    _write(tmp_path / "a.txt", row, f"other/{row}")
    lines = read_list(tmp_path / "a.txt")
    assert [str(line) for line in lines][0] == row and len(lines) == 2
    write_list(tmp_path / "b.txt", lines)
    assert (tmp_path / "b.txt").read_bytes() == (tmp_path / "a.txt").read_bytes()


NAMES = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1).filter(lambda text: text.split() == [text])


@settings(max_examples=40, deadline=None, database=None)
@given(st.lists(st.builds(Line, NAMES, st.none() | NAMES), unique_by=lambda line: line.image))
def test_any_names_round_trip(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lists") / "a.txt"
    write_list(path, lines)
    assert read_list(path) == tuple(lines)


def test_lists_of_a_ratio_as_published(tmp_path):
    co2s = tmp_path / "whdld"
    _write(co2s / "1_8" / "labeled.txt", "images/a.jpg labels/a.png")
    _write(co2s / "1_8" / "unlabeled.txt", "images/b.jpg labels/never_opened.png", "images/c.jpg x")
    _write(co2s / "val.txt", "images/d.jpg labels/d.png")
    _write(co2s / "pred.txt", "images/d.jpg")  # the validation images again
    assert read_lists(co2s / "1_8") == Lists(
        labelled=(Line("images/a.jpg", "labels/a.png"),),
        unlabelled=(Line("images/b.jpg"), Line("images/c.jpg")),
        validation=(Line("images/d.jpg", "labels/d.png"),),
        prediction=(Line("images/d.jpg"),),
    )
    _write(co2s / "all" / "labeled.txt", "images/a.jpg labels/a.png")
    assert read_lists(co2s / "all").unlabelled == ()

    rs_mtdf = tmp_path / "deepglobe"
    _write(rs_mtdf / "10" / "labeled.txt", "data_cropped/1_sat_1.jpg data_cropped/1_mask_1.png")
    _write(rs_mtdf / "10" / "unlabeled.txt", "data_cropped/1_sat_2.jpg data_cropped/1_mask_2.png")
    for name, tile in (("val", 3), ("test", 4)):
        _write(rs_mtdf / f"{name}.txt", f"data_cropped/1_sat_{tile}.jpg data_cropped/1_mask_{tile}.png")
    lists = read_lists(rs_mtdf / "10")
    assert [str(line) for line in lists.test] == ["data_cropped/1_sat_4.jpg data_cropped/1_mask_4.png"]
    assert lists.prediction == ()


def test_blank_lines_tabs_and_byte_order_marks(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa.png\tb.png\r\n\r\n  c.png  \r\n")
    assert read_list(tmp_path / "a.txt") == (Line("a.png", "b.png"), Line("c.png"))


def test_refuses_lists_that_cannot_be_meant(tmp_path):
    with pytest.raises(DataError, match="There is no list"):
        read_list(tmp_path / "a.txt")
    _write(tmp_path / "a.txt", "ok.png ok.png", "my image.png my mask.png")
    with pytest.raises(DataError, match=r"a.txt, line 2, has 4 names"):
        read_list(tmp_path / "a.txt")
    _write(tmp_path / "a.txt", "ok.png", "ok.png other.png")
    with pytest.raises(DataError, match=r"line 2, lists ok.png again"):
        read_list(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_list(tmp_path / "a.txt")


def test_refuses_folders_that_are_no_split(tmp_path):
    folder = tmp_path / "1_8"
    with pytest.raises(DataError, match="no labelled list"):
        read_lists(folder)
    _write(folder / "labeled.txt", "a.png")
    with pytest.raises(DataError, match="no validation list"):
        read_lists(folder)
    _write(folder / "val.txt", "a.png")
    with pytest.raises(DataError, match="a.png is in the labelled and in the validation list"):
        read_lists(folder)
    _write(folder / "labelled.txt", "a.png")
    with pytest.raises(DataError, match="are both the labelled list"):
        read_lists(folder)


def test_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    for name in ("my image.png", "", "a\n.png"):
        with pytest.raises(DataError, match="cannot list"):
            write_list(path, [Line("ok.png"), Line("b.png", name)])
    assert not path.parent.exists()
    write_list(path, [Line("one.png")])
    with pytest.raises(DataError, match="exists"):
        write_list(path, [Line("two.png")])
    assert read_list(path) == (Line("one.png"),)
    write_list(path, [Line("two.png")], force=True)
    assert read_list(path) == (Line("two.png"),)
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
