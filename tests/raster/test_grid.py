import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from co2s_hf.raster.errors import PlaceError, RasterError
from co2s_hf.raster.grid import Grid, transformed
from co2s_hf.raster.read import open_image, quiet

WKT = rasterio.crs.CRS.from_epsg(32633).to_wkt()
GRID = Grid(30, 40, (10, 0, 400_000, 0, -10, 5_000_000), WKT)


def written(path, **options):
    with (
        quiet(),
        rasterio.open(path, "w", driver="GTiff", count=1, height=30, width=40, dtype="uint8", **options) as file,
    ):
        file.write(np.ones((1, 30, 40), np.uint8))
    return path


def test_places_come_from_the_tags(tmp_path):
    path = written(tmp_path / "a.tif", crs="EPSG:32633", transform=Affine(9, 1, 400_000, -1, -9, 5_000_000))
    with open_image(path) as file:
        assert file.grid.transform == (9, 1, 400_000, -1, -9, 5_000_000) and file.grid.is_placed
        assert rasterio.crs.CRS.from_wkt(file.grid.crs) == "EPSG:32633"
    with open_image(written(tmp_path / "b.tif")) as file:
        assert not file.grid.is_placed and file.misplaced is None


def test_control_points_that_fit_give_a_place(tmp_path):
    truth = Affine(9, 1, 400_000, -1, -9, 5_000_000)
    corners = [(0, 0), (0, 40), (30, 0), (30, 40), (11, 7)]
    points = [
        GroundControlPoint(row, column, 9 * column + row + 400_000, -column - 9 * row + 5_000_000)
        for row, column in corners
    ]
    with open_image(written(tmp_path / "a.tif", gcps=points, crs="EPSG:32633")) as file:
        np.testing.assert_allclose(file.grid.transform, tuple(truth)[:6], rtol=1e-9)
        assert "UTM zone 33N" in file.grid.crs
        file.require_place()


def test_control_points_that_do_not_fit_say_how_to_warp(tmp_path):
    points = [
        GroundControlPoint(r, c, 10.0 * c + 2.0 * r * c, -10.0 * r) for r, c in ((0, 0), (0, 40), (30, 0), (30, 40))
    ]
    for few in (points, points[:2]):
        with open_image(written(tmp_path / "a.tif", gcps=few, crs="EPSG:32633")) as file:
            assert not file.grid.is_placed
            with pytest.raises(PlaceError, match=rf"a\.tif has {len(few)} ground control points .*gdalwarp -tps"):
                file.require_place()
            assert file.read().pixels.all()  # the pixels can be read all the same


def test_pixels_without_an_area_have_no_place(tmp_path):
    with open_image(written(tmp_path / "a.tif", transform=Affine(1, 1, 5, 1, 1, 5))) as file:
        with pytest.raises(PlaceError, match="where its pixels have no area"):
            file.require_place()


def test_windows_and_resized_grids_lie_where_their_pixels_do():
    window = GRID.window(slice(3, 13), slice(5, 25))
    assert window == Grid(10, 20, (10, 0, 400_050, 0, -10, 4_999_970), WKT)
    assert window.resized(5, 5).transform == (40, 0, 400_050, 0, -20, 4_999_970)
    assert Grid(30, 40).window(slice(3, 13), slice(5, 25)) == Grid(10, 20)


def test_grids_are_the_same_where_no_pixel_is_moved():
    assert GRID.is_same(Grid(30, 40, (10, 0, 400_000.0001, 0, -10, 5_000_000), WKT))
    assert GRID.is_same(Grid(30, 40, GRID.transform, "EPSG:32633")) and GRID.is_same(Grid(30, 40, GRID.transform))
    assert GRID.crs_name == "EPSG:32633 (WGS 84 / UTM zone 33N)" and Grid(30, 40, GRID.transform).crs_name is None
    assert not GRID.is_same(Grid(30, 40, (10, 0, 400_001, 0, -10, 5_000_000), WKT))
    assert not GRID.is_same(Grid(30, 40, (10.01, 0, 400_000, 0, -10, 5_000_000), WKT))  # 0.04 px at the right end
    assert not GRID.is_same(Grid(30, 40, GRID.transform, "EPSG:32634")) and not GRID.is_same(
        Grid(29, 40, GRID.transform, WKT)
    )


def test_places_on_another_grid_hold_the_centres(monkeypatch):
    other = Grid(5, 6, (25, 0, 400_100, 0, -25, 4_999_950), WKT)
    rows, columns = GRID.places_on(other)
    for row, column in np.ndindex(30, 40):
        x, y = 400_000 + 10 * (column + 0.5), 5_000_000 - 10 * (row + 0.5)
        right = (int((4_999_950 - y) // 25), int((x - 400_100) // 25))
        inside = 0 <= right[0] < 5 and 0 <= right[1] < 6
        assert (rows[row, column], columns[row, column]) == (right if inside else (-1, -1))
    monkeypatch.setattr("co2s_hf.raster.grid._STRIPE_PX", 100)  # in stripes of two rows
    np.testing.assert_array_equal(GRID.places_on(other), (rows, columns))


def test_places_are_transformed_by_proj():
    places = np.array([[400_000.0, 5_000_000.0], [420_000.0, 5_010_000.0]])
    right = Transformer.from_crs(32633, 27572, always_xy=True).transform(*places.T)
    np.testing.assert_allclose(transformed(places, WKT, "EPSG:27572"), np.stack(right, axis=1))
    with pytest.raises(RasterError, match="There is no way from nonsense to EPSG:4326"):
        transformed(places, "nonsense", "EPSG:4326")
