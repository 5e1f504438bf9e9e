"""Ground areas against geodesics, for CRSs of any kind and at any place."""

import math

import numpy as np
import pytest
import rasterio
from pyproj import CRS, Geod, Transformer
from pyproj.database import query_crs_info
from pyproj.enums import PJType
from pyproj.exceptions import ProjError

from co2s_hf.raster.areas import GroundAreas, class_areas, ground_areas
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid

SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m +type=crs"
ROTATED_POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +datum=WGS84 +type=crs"
BOUND = "+proj=utm +zone=33 +ellps=bessel +towgs84=577,90,463,5,1,4,2 +type=crs"


def grid(crs, transform, height=6, width=5):
    return Grid(height, width, transform, None if crs is None else CRS(crs).to_wkt())


def base(crs):
    """The geographic CRS under any other, and the horizontal one."""
    while crs.is_compound or crs.is_bound:
        crs = crs.sub_crs_list[0] if crs.is_compound else crs.source_crs
    root = crs
    while root.source_crs is not None:
        root = root.source_crs
    return crs, root


def geodesic_area(crs, transform, rows, columns, points=40):
    """Square metres inside the outline of a block of pixels, by `pyproj.Geod`."""
    crs, root = base(CRS(crs))
    ahead, ones = np.linspace(0, 1, points, endpoint=False), np.ones(points)
    across = np.concatenate([ahead, ones, 1 - ahead, 0 * ones]) * (columns.stop - columns.start) + columns.start
    down = np.concatenate([0 * ones, ahead, ones, 1 - ahead]) * (rows.stop - rows.start) + rows.start
    a, b, c, d, e, f = transform
    places = a * across + b * down + c, d * across + e * down + f
    if root != crs:
        places = Transformer.from_crs(crs, root, always_xy=True).transform(*places)
    degrees = np.degrees(np.array(places) * root.axis_info[0].unit_conversion_factor)
    geod = Geod(a=root.ellipsoid.semi_major_metre, b=root.ellipsoid.semi_minor_metre)
    return abs(geod.polygon_area_perimeter(*degrees)[0])


def pixel_error(ground, crs, transform, row, column, size=1):
    """Relative error of the area of pixels; 0.09 % are allowed where the plane of a projection is taken."""
    rows, columns = slice(row, row + size), slice(column, column + size)
    error = ground.pixel_m2(rows, columns).sum() / geodesic_area(crs, transform, rows, columns) - 1
    return error / 10 if ground.method == "plane of the projection" else error


@pytest.mark.parametrize("latitude", [0.0, -8.3, 47.0, 89.0])
def test_pixels_in_degrees_have_the_area_that_geodesics_enclose(latitude):
    transform = (0.01, 0, 10.0, 0, -0.01, latitude)
    ground = ground_areas(grid("EPSG:4326", transform))
    for row in (0, 5):
        assert abs(pixel_error(ground, "EPSG:4326", transform, row, 2)) < 1e-6
    assert ground.gsd_m == pytest.approx(math.sqrt(ground.pixel_m2(slice(3, 4), slice(2, 3))[0, 0]))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:27572", (10, 0, 600_000, 0, -10, 2_500_000)),  # meridian of Paris, grads
        ("EPSG:4807", (1e-4, 0, 2, 0, -1e-4, 52)),  # the same in degrees of 400
        ("EPSG:2263", (10, 0, 1_000_000, 0, -10, 200_000)),  # US survey feet
        ("EPSG:2048", (10, 0, -50_000, 0, -10, 3_700_000)),  # axes to the west and the south
        ("EPSG:26914", (6, 8, 600_000, 8, -6, 5_200_000)),  # rotated
        ("EPSG:4326", (1e-4, 2e-5, 10, 2e-5, -1e-4, 47)),  # rotated degrees
        ("EPSG:7415", (10, 0, 100_000, 0, -10, 500_000)),  # with heights
        ("EPSG:3857", (40, 0, 20_000_000, 0, -40, -4_794_130)),  # across the antimeridian
        ("EPSG:3413", (2000, 0, -1_000_000, 0, -2000, 1_000_000)),  # with the pole inside
        ("EPSG:5514", (10, 0, -700_000, 0, -10, -1_000_000)),
        ("EPSG:32633", (1000, 0, -400_000, 0, -1000, 5_000_000)),  # far beyond the zone
        (BOUND, (10, 0, 600_000, 0, -10, 6_500_000)),
        (ROTATED_POLE, (0.01, 0, -5, 0, -0.01, 5)),
        (SINUSOIDAL, (463.3127, 0, -20_015_109.354, 0, -463.3127, 7_783_653.638)),  # over the edge of the globe
    ],
)
def test_any_crs_at_any_place(crs, transform):
    height, width = 1000, 900
    for wkt in (CRS(crs).to_wkt(), rasterio.crs.CRS.from_user_input(crs).to_wkt()):
        ground = ground_areas(Grid(height, width, transform, wkt))
        for row, column in ((0, 0), (0, 890), (990, 0), (990, 890), (500, 450), (123, 777)):
            assert abs(pixel_error(ground, crs, transform, row, column, 10)) < 1e-4


def random_errors(seed, count):
    """Errors at random places of random CRSs of the registry, and why others were left out."""
    rng = np.random.default_rng(seed)
    kinds = [PJType.PROJECTED_CRS, PJType.GEOGRAPHIC_2D_CRS, PJType.COMPOUND_CRS]
    infos = [one for one in query_crs_info(auth_name="EPSG", pj_types=kinds) if not one.deprecated]
    errors, left_out = {}, {}
    for info in (infos[index] for index in rng.permutation(len(infos))[:count]):
        crs = CRS.from_epsg(int(info.code))
        horizontal, root = base(crs)
        if info.area_of_use is None or not root.is_geographic:
            left_out[info.code] = "no area of use" if root.is_geographic else "no longitudes and latitudes"
            continue
        west, south, east, north = info.area_of_use.bounds
        unit = root.axis_info[0].unit_conversion_factor
        meridian = root.prime_meridian
        longitude = rng.uniform(west, east if east > west else east + 360)
        longitude = np.radians(longitude) - meridian.longitude * meridian.unit_conversion_factor
        x, y = longitude / unit, np.radians(rng.uniform(south, north)) / unit
        gsd, angle = 10 ** rng.uniform(-0.5, 2.5), rng.choice([0.0, rng.uniform(0, 2 * np.pi)])
        try:
            if root != horizontal:
                x, y = Transformer.from_crs(root, horizontal, always_xy=True).transform(x, y, errcheck=True)
            else:
                gsd /= 6.4e6
        except ProjError as error:
            left_out[info.code] = f"PROJ has no formulas: {error}"
            continue
        step = gsd / horizontal.axis_info[0].unit_conversion_factor
        (a, b), (d, e) = step * np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
        (height, width), (row, column) = rng.integers(500, 3000, 2), rng.integers(0, 300, 2)
        transform = (a, b, x - a * column - b * row, d, e, y - d * column - e * row)
        ground = ground_areas(Grid(int(height), int(width), transform, crs.to_wkt()))
        if ground.density is None:
            left_out[info.code] = ground.method
        else:
            size = max(1, int(50 / (gsd if root != horizontal else gsd * 6.4e6)))  # geodesics round millimetres
            errors[info.code] = pixel_error(ground, crs, transform, int(row), int(column), size)
    return errors, left_out


def test_random_crs_of_the_registry():
    errors, left_out = random_errors(0, 60)
    assert len(errors) >= 57 and max(map(abs, errors.values())) < 1e-4


@pytest.mark.slow
def test_every_crs_of_the_registry():
    errors, left_out = random_errors(1, 100_000)
    print(f"{len(errors)} CRSs, largest error {max(map(abs, errors.values())):.2g}; left out: {left_out}")
    assert len(errors) >= 5000 and max(map(abs, errors.values())) < 1e-4
    assert len(left_out) < 0.02 * len(errors)


def test_projected_pixels_have_the_area_of_the_plane_where_that_is_true():
    ground = ground_areas(grid("EPSG:26914", (3, 4, 500_000, 4, -3, 5_200_000)))  # rotated, sides of 5 m
    assert (ground.pixel_m2(slice(0, 6), slice(0, 5)) == 25).all() and ground.method == "plane of the projection"
    feet = ground_areas(grid("EPSG:2263", (10, 0, 1_000_000, 0, -10, 200_000)))  # US survey feet
    assert feet.pixel_m2(slice(0, 1), slice(0, 1)) == pytest.approx((10 * 1200 / 3937) ** 2)
    edge = ground_areas(grid("EPSG:32633", (2, 0, 800_000, 0, -2, 5_000_000)))
    assert edge.gsd_m == 2 and edge.pixel_m2(slice(0, 1), slice(0, 1)) == pytest.approx(4 * 0.99859, rel=1e-4)


def test_web_maps_are_corrected():
    ground = ground_areas(grid("EPSG:3857", (4, 0, 19_474_932, 0, -4, -4_794_130), height=3))
    y = (-4_794_130 - 4 * 1.5) / 6_378_137
    latitude = 2 * np.arctan(np.exp(y)) - np.pi / 2
    assert ground.pixel_m2(slice(1, 2), slice(0, 5)) == pytest.approx(16 * np.cos(latitude) ** 2, rel=0.01)
    assert "corrected" in ground.method


def test_equal_area_projections_keep_the_plane():
    ground = ground_areas(grid("EPSG:3035", (10, 0, 4_000_000, 0, -10, 3_000_000), 20_000, 10_000))
    np.testing.assert_allclose(ground.pixel_m2(slice(0, 50), slice(9000, 9100)), 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("crs", "transform", "said"),
    [
        (None, (1, 0, 0, 0, 1, 0), "no CRS: pixels only"),
        ('LOCAL_CS["site",UNIT["metre",1]]', (1, 0, 0, 0, 1, 0), "without a place on the ground: pixels only"),
        ("EPSG:4978", (1, 0, 0, 0, 1, 0), "without a place on the ground: pixels only"),
        ("EPSG:2303", (1, 0, 0, 0, 1, 0), "PROJ cannot tell where it lies: pixels only"),  # no formulas in PROJ
        ("EPSG:3035", (1e6, 0, -1e7, 0, -1e6, 1.5e7), "beyond what ETRS89-extended / LAEA Europe does"),
        ("ESRI:54009", (1e6, 0, -1.8e7, 0, -1e6, 9e6), "beyond what World_Mollweide does"),
        ("EPSG:2154", (5000, 0, 6e5, 0, -5000, 1.7e7), "beyond what RGF93 v1 / Lambert-93 does"),  # the cone's apex
    ],
)
def test_what_has_no_ground_has_pixels_only(crs, transform, said):
    ground = ground_areas(grid(crs, transform, 1500, 30))
    assert ground.pixel_m2(slice(0, 1), slice(0, 1)) is None and ground.gsd_m is None and said in ground.method
    (area,) = class_areas([(0, 0, np.zeros((6, 5), np.uint8))], ["sea"], ground)
    assert (area.pixels, area.area_m2, area.area_ha) == (30, None, None)


def test_areas_add_up_over_blocks():
    ground = ground_areas(grid("EPSG:3413", (80_000, 0, -100_000, 0, -90_000, 200_000), height=4, width=3))
    classes = np.array([[0, 0, 255], [1, 0, 0], [1, 1, 255], [255, 255, 0]], np.uint8)
    blocks = [(0, 0, classes[:2, :2]), (0, 2, classes[:2, 2:]), (2, 0, classes[2:, :2]), (2, 2, classes[2:, 2:])]
    sea, land, none = class_areas(blocks, ["sea", "land", "none"], ground)
    pixels = ground.pixel_m2(slice(0, 4), slice(0, 3))
    assert (sea.pixels, land.pixels, none.pixels) == (5, 3, 0)
    assert sea.area_m2 == pytest.approx(pixels[classes == 0].sum(), rel=1e-12)
    assert land.area_m2 == pytest.approx(pixels[classes == 1].sum(), rel=1e-12)
    assert sea.area_ha == pytest.approx(sea.area_m2 / 10_000) and none.area_m2 == 0


@pytest.mark.parametrize("pixel_m", [2, 30, 3000])  # counted in large tiles, in small ones, or added up
def test_large_blocks_hold_what_their_pixels_do(pixel_m):
    height, width = 700, 900
    ground = ground_areas(grid("EPSG:3413", (pixel_m, 0, -1e6, 0, -pixel_m, 1e6), 2 * height, 2 * width))
    block = (np.add.outer(np.arange(height), 2 * np.arange(width)) // 400 % 3).astype(np.uint8)
    found = class_areas([(height, width, block)], ["a", "b", "c"], ground)
    pixels = ground.pixel_m2(slice(height, 2 * height), slice(width, 2 * width))
    for area in found:
        assert area.area_m2 == pytest.approx(pixels[block == area.class_id].sum(), rel=2e-5)


def test_rectangles_are_sums_of_pixels():
    nodes = np.array([0.0, 0.4, 3, 7.5, 12]), np.array([0.0, 5, 6.1, 9])
    ground = GroundAreas("", *nodes, np.random.default_rng(0).uniform(1, 2, (5, 4)))
    pixels = ground.pixel_m2(slice(0, 12), slice(0, 9))
    np.testing.assert_allclose(ground.pixel_m2(slice(3, 7), slice(5, 6)), pixels[3:7, 5:6])
    rows, columns = np.indices((13, 10)).reshape(2, -1)
    expected = [pixels[:row, :column].sum() for row, column in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(ground.before(rows, columns), expected, atol=1e-9)


def test_the_whole_globe():
    ground = ground_areas(grid("EPSG:4326", (1, 0, -180.5, 0, -1, 90.5), height=181, width=360))
    surface = 510_065_621_724_078  # m2 of WGS 84
    assert ground.before(np.array([181]), np.array([360]))[0] == pytest.approx(surface, rel=1e-6)
    cap = math.pi * (0.5 * 111_694) ** 2 / 360  # of one of the pixels that lie half beyond the pole
    assert ground.pixel_m2(slice(0, 1), slice(7, 8))[0, 0] == pytest.approx(cap, rel=1e-4)
    plane = ground_areas(grid("EPSG:32662", (20_000, 0, -20_037_508.34, 0, -20_000, 10_018_754.17), 1001, 2003))
    assert plane.pixel_m2(slice(500, 501), slice(0, 1))[0, 0] == pytest.approx(4e8, rel=0.01)


def test_degrees_beyond_a_pole_are_refused():
    with pytest.raises(RasterError, match="reaches latitudes of 80 to 230, beyond a pole; expected -90 to 90"):
        ground_areas(grid("EPSG:4326", (1, 0, 0, 0, 30, 80), height=5))


def test_what_is_no_crs_is_refused():
    with pytest.raises(RasterError, match="'nonsense' is no CRS that PROJ knows"):
        ground_areas(Grid(6, 5, (1, 0, 0, 0, 1, 0), "nonsense"))
