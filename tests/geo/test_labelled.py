"""What is said to be labelled, and which tiles that are."""

import pytest

from co2s_hf.geo.labelled import Labelled
from co2s_hf.geo.tiles import cut_tiles
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.vectors import Footprint, write_footprints

PLACED = Grid(20, 30, (2, 0, 500_000, 0, -2, 5_000_000), "EPSG:32633")
FLAT = Grid(20, 30, (1, 0, 0, 0, 1, 0), None)


def labelled(*sources):
    found = Labelled()
    for source in sources:
        found.add(source)
    return found


def among(found, path="dir/a.tif", grid=FLAT):
    return found.among(cut_tiles(grid, path, 10)).astype(int).tolist()


def test_images_by_folder_and_list(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").touch()
    (tmp_path / "names.txt").write_text("else/b.jpg\n\nc\n")
    found = labelled(tmp_path / "masks", tmp_path / "names.txt")
    assert [among(found, f"x/{name}.tif") for name in "abcd"] == [[1] * 6, [1] * 6, [1] * 6, [0] * 6]


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xff")
    with pytest.raises(RasterError, match=r"names.txt is no UTF-8 text"):
        labelled(tmp_path / "names.txt")


def test_tiles_of_an_earlier_suggestion(tmp_path):
    path = tmp_path / "suggestions.csv"
    path.write_text("rank,file,row,column,height,width\n1,moved/a.tif,0,10,10,10\n2,a.tif,15,25,9,9\n")
    assert among(labelled(path)) == [0, 1, 0, 0, 0, 1] and among(labelled(path), "dir/b.tif") == [0] * 6
    one, other = tmp_path / "one" / "a.tif", tmp_path / "other" / "a.tif"
    for file in (one, other):
        file.parent.mkdir()
        file.touch()
    path.write_text(f"file,row,column,height,width\n{one},0,0,5,5\n")
    assert among(labelled(path), str(one)) == [1, 0, 0, 0, 0, 0] and among(labelled(path), str(other)) == [0] * 6
    path.write_text("file,row\na,1\n")
    with pytest.raises(RasterError, match="no table of tiles.*expected the columns file, row, column"):
        labelled(path)


def test_polygons(tmp_path):
    values = {"rank": 1}
    write_footprints(tmp_path / "p.gpkg", "x", [Footprint(PLACED, slice(0, 10), slice(0, 11), values)])
    assert among(labelled(tmp_path / "p.gpkg"), grid=PLACED) == [1, 1, 0, 0, 0, 0]
    with pytest.raises(RasterError, match="a.tif has no CRS"):
        among(labelled(tmp_path / "p.gpkg"))
    # Outlines that were reprojected and back reach by a sliver into the neighbours.
    other = Grid(20, 30, (0.00002, 0, 15, 0, -0.00002, 45), "EPSG:4326")
    write_footprints(
        tmp_path / "q.gpkg",
        "x",
        [Footprint(PLACED, slice(0, 10), slice(10, 20), values), Footprint(other, slice(0, 1), slice(0, 1), values)],
    )
    assert among(labelled(tmp_path / "q.gpkg"), grid=PLACED) == [0, 1, 0, 0, 0, 0]


def test_what_says_nothing(tmp_path):
    write_footprints(tmp_path / "p.gpkg", "x", [Footprint(FLAT, slice(0, 1), slice(0, 1), {"rank": 1})])
    with pytest.raises(RasterError, match="polygons without a CRS; expected polygons with one.*csv"):
        labelled(tmp_path / "p.gpkg")
    (tmp_path / "a.tif").write_text("x")
    for name in ("a.tif", "missing"):
        with pytest.raises(RasterError, match="says nothing of labels"):
            labelled(tmp_path / name)
    assert among(Labelled()) == [0] * 6
