"""Ground areas: of the plane, of the ellipsoid, and of projections that stretch."""

import numpy as np
import pytest
from pyproj import CRS, Geod

from co2s_hf.geo.areas import class_areas, ground_areas
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid

WGS84 = CRS("EPSG:4326").to_wkt()


def grid(crs, transform, height=6, width=5):
    return Grid(height, width, transform, None if crs is None else CRS(crs).to_wkt())


@pytest.mark.parametrize("latitude", [0.0, -8.3, 47.0, 89.0])
def test_pixels_in_degrees_have_the_area_that_geodesics_enclose(latitude):
    step = 0.01
    ground = ground_areas(grid("EPSG:4326", (step, 0, 10.0, 0, -step, latitude)))
    for row in (0, 5):
        top = latitude - row * step
        steps = np.linspace(0, step, 50)  # a parallel is no geodesic, many short ones are nearly one
        x = np.concatenate([10 + steps, 10 + steps[::-1]])
        y = np.concatenate([np.full(50, top), np.full(50, top - step)])
        expected = abs(Geod(ellps="WGS84").polygon_area_perimeter(x, y)[0])
        assert ground.pixel_m2[row] == pytest.approx(expected, rel=1e-6)
    assert ground.gsd_m == pytest.approx(np.sqrt(ground.pixel_m2[3]))


def test_projected_pixels_have_the_area_of_the_plane_in_the_units_of_the_crs():
    ground = ground_areas(grid("EPSG:26914", (3, 4, 500_000, 4, -3, 5_200_000)))  # rotated, sides of 5 m
    assert ground.pixel_m2 == pytest.approx(25.0) and ground.method == "plane of the projection"
    feet = ground_areas(grid("EPSG:2263", (10, 0, 1_000_000, 0, -10, 200_000)))  # US survey feet
    assert feet.pixel_m2 == pytest.approx((10 * 1200 / 3937) ** 2)


def test_web_maps_are_corrected():
    ground = ground_areas(grid("EPSG:3857", (4, 0, 19_474_932, 0, -4, -4_794_130), height=3))
    y = (-4_794_130 - 4 * 1.5) / 6_378_137
    latitude = 2 * np.arctan(np.exp(y)) - np.pi / 2
    assert ground.pixel_m2[1] == pytest.approx(16 * np.cos(latitude) ** 2, rel=0.01)
    assert "corrected" in ground.method


def test_without_a_crs_there_are_only_pixels():
    ground = ground_areas(grid(None, (1, 0, 0, 0, 1, 0)))
    assert ground.pixel_m2 is None and ground.gsd_m is None
    (area,) = class_areas([(0, 0, np.zeros((6, 5), np.uint8))], ["sea"], ground)
    assert (area.pixels, area.area_m2, area.area_ha) == (30, None, None)


def test_rotated_degrees_are_refused():
    with pytest.raises(RasterError, match="rotated and in degrees"):
        ground_areas(grid("EPSG:4326", (0.01, 0.001, 10, 0.001, -0.01, 47)))


def test_areas_add_up_over_blocks_row_by_row():
    ground = ground_areas(grid("EPSG:4326", (1, 0, 10.0, 0, -1, 60.0), height=4, width=3))
    classes = np.array([[0, 0, 255], [1, 0, 0], [1, 1, 255], [255, 255, 0]], np.uint8)
    blocks = [(0, 0, classes[:2, :2]), (0, 2, classes[:2, 2:]), (2, 0, classes[2:, :2]), (2, 2, classes[2:, 2:])]
    sea, land, none = class_areas(blocks, ["sea", "land", "none"], ground)
    one, two, three, four = ground.pixel_m2
    assert (sea.pixels, land.pixels, none.pixels) == (5, 3, 0)
    assert sea.area_m2 == pytest.approx(2 * one + 2 * two + four) and land.area_m2 == pytest.approx(two + 2 * three)
    assert sea.area_ha == pytest.approx(sea.area_m2 / 10_000) and none.area_m2 == 0


def test_degrees_beyond_a_pole_are_refused():
    with pytest.raises(RasterError, match="reaches latitudes of 80 to 230, beyond a pole"):
        ground_areas(grid("EPSG:4326", (1, 0, 0, 0, 30, 80), height=5))
    # Centres on the poles are usual.
    assert ground_areas(grid("EPSG:4326", (1, 0, 0, 0, -1, 90.5), height=181)).method.startswith("ellipsoid")


def test_what_is_no_crs_is_refused():
    with pytest.raises(RasterError, match="'nonsense' is no CRS that PROJ knows"):
        ground_areas(Grid(6, 5, (1, 0, 0, 0, 1, 0), "nonsense"))
