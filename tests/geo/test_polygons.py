"""Polygons of a class map: whole across blocks, and their areas those of the pixels."""

import numpy as np
import pytest
import rasterio
import shapely
from pyogrio.raw import read

from co2s_hf.geo.polygons import PolygonSettings, polygon_areas, write_polygons
from co2s_hf.raster.areas import GroundAreas, class_areas, ground_areas
from co2s_hf.raster.cog import blocks, opened
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid

CLASSES = ["sea", "land", "road"]


@pytest.fixture
def traced(write_scene, tmp_path):
    """Writes a class map and its polygons; gives grid, areas of the map, summary and features."""

    def trace(classes, settings=None, block_px=7, **scene):
        path = write_scene("classes.tif", classes[None].astype(np.uint8), nodata=255, **scene)
        with opened(path) as dataset:
            grid = Grid.of(dataset)
        ground, file = ground_areas(grid), tmp_path / "out.gpkg"
        summary = write_polygons(file, path, grid, ground, CLASSES, settings or PolygonSettings(), block_px=block_px)
        meta, _, geometry, fields = read(file)
        table = dict(zip(meta["fields"], fields, strict=True))
        return class_areas(blocks(path, 100), CLASSES, ground), summary, meta, shapely.from_wkb(geometry), table

    return trace


@pytest.fixture
def random_classes():
    classes = np.random.default_rng(0).integers(0, 3, (6, 9)).repeat(4, 0).repeat(3, 1)
    classes[5:9, 3:20] = 255
    return classes


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)),
        ("EPSG:4326", rasterio.Affine(0.01, 0, 10, 0, -0.01, 60)),
        ("EPSG:32633", rasterio.Affine(3, 4, 500_000, 4, -3, 5_200_000)),
        ("EPSG:3413", rasterio.Affine(60_000, 0, -900_000, 0, -70_000, 1_000_000)),  # varies along both axes
    ],
)
def test_areas_add_up_to_those_of_the_raster(traced, random_classes, crs, transform):
    areas, summary, meta, polygons, table = traced(random_classes, crs=crs, transform=transform)
    assert summary.written == len(polygons) and shapely.is_valid(polygons).all()
    assert meta["crs"] == crs and list(table) == ["class_id", "class", "area_m2", "area_ha"]
    for area in areas:
        of_class = table["class_id"] == area.class_id
        assert table["area_m2"][of_class].sum() == pytest.approx(area.area_m2, rel=1e-12)
        assert set(table["class"][of_class]) == {area.name}
        if crs == "EPSG:32633":
            assert shapely.area(polygons[of_class]).sum() == pytest.approx(area.area_m2, rel=1e-9)


def test_blocks_leave_no_seam(traced, random_classes):
    found = []
    for block_px in (5, 7, 100):
        *_, polygons, table = traced(random_classes, block_px=block_px)
        found.append({(c, shapely.normalize(p).wkt) for c, p in zip(table["class_id"], polygons, strict=True)})
        assert len(found[-1]) == len(polygons)
    assert found[0] == found[1] == found[2]


def test_holes_count_where_they_are():
    ring = shapely.Polygon([(0, 0), (5, 0), (5, 4), (0, 4)], [[(1, 1), (2, 1), (2, 3), (1, 3)]])
    rows, columns = np.array([0.0, 1.5, 4]), np.array([0.0, 2.5, 5])
    ground = GroundAreas("", rows, columns, np.array([[1.0, 2, 3], [2, 5, 1], [4, 4, 9]]))
    pixels = ground.pixel_m2(slice(0, 4), slice(0, 5))
    expected = [pixels.sum() - pixels[1:3, 1].sum(), pixels[:, 0].sum()]
    np.testing.assert_allclose(polygon_areas(np.array([ring, shapely.box(0, 0, 1, 4)]), ground), expected)
    assert polygon_areas(np.array([], object), ground).tolist() == []


def test_small_polygons_are_left_out_and_counted(traced):
    classes = np.zeros((10, 10), int)
    classes[4, 4], classes[7, 7:9] = 1, 1  # 4 and 8 m2
    areas, summary, _, polygons, table = traced(classes, PolygonSettings(min_area_m2=5))
    assert sorted(table["area_m2"]) == [8, 388] and summary.left_out == {1: (1, 4.0)}
    assert areas[1].area_m2 == 12 and len(shapely.get_rings(polygons)) == 4


def test_outlines_move_by_the_tolerance_and_areas_stay(traced):
    classes = (np.add.outer(np.arange(20), np.arange(20)) > 19).astype(int)  # stairs
    areas, _, _, polygons, table = traced(classes, PolygonSettings(simplify_m=4))
    assert shapely.get_num_coordinates(polygons).max() < 10
    assert sorted(table["area_m2"]) == pytest.approx(sorted(area.area_m2 for area in areas[:2]))


def test_no_crs_no_areas(traced, random_classes):
    _, summary, meta, polygons, table = traced(random_classes, placed=False)
    assert meta["crs"] is None and summary.written == len(polygons) and np.isnan(table["area_m2"]).all()
    with pytest.raises(RasterError, match="no CRS"):
        traced(random_classes, PolygonSettings(min_area_m2=1), placed=False)


def test_many_features_are_appended(traced, monkeypatch):
    monkeypatch.setattr("co2s_hf.geo.polygons.FEATURES_AT_ONCE", 3)
    _, summary, *_, table = traced(np.indices((12, 12)).sum(0) % 2, block_px=4)
    assert summary.written == 144 == len(table["class_id"])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["min_area_m2", "simplify_m"])
def test_settings_that_are_no_lengths(name, value):
    with pytest.raises(RasterError, match=f"--{name} is {value}; expected 0 or more"):
        PolygonSettings(**{name: value})
