import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform as warp

from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from co2s_hf.raster.ids import read_ids
from co2s_hf.raster.read import open_image, quiet

UTM = "EPSG:32633"


def north_up(x, y, side):
    """As rasterio's `from_origin`, which warns with the newest affine."""
    return Affine(side, 0, x, 0, -side, y)


PLACE = north_up(500_000, 5_000_000, 2)


def geotiff(path, values, **options):
    values = np.asarray(values)
    bands = values if values.ndim == 3 else values[None]
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with quiet(), rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
        file.write(bands)
    return path


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"])
def test_ids_of_every_type_are_int64_and_nodata_is_none(tmp_path, dtype):
    nodata = 2**24 if dtype == "float32" else int(np.iinfo(dtype).max) if dtype[-2:] != "64" else 255
    path = geotiff(tmp_path / "m.tif", np.array([[0, 7], [nodata, 1]], dtype), nodata=nodata)
    found = read_ids(path)
    assert found.values.dtype == np.int64 and found.known.tolist() == [[True, True], [False, True]]
    assert found.values[found.known].tolist() == [0, 7, 1]


def test_ids_stand_as_in_the_file(tmp_path):
    path = geotiff(tmp_path / "m.tif", np.array([[-32768, -9999, 3]], np.int16), nodata=-32768)
    found = read_ids(path)
    assert found.values.tolist() == [[-32768, -9999, 3]] and found.known.tolist() == [[False, True, True]]
    big = read_ids(geotiff(tmp_path / "b.tif", np.array([[2**53 + 1, -(2**63)]], np.int64)))
    assert big.values.tolist() == [[2**53 + 1, -(2**63)]]


def test_what_is_no_id_is_refused(tmp_path):
    for values, message in (
        (np.float32([[0.5]]), "holds 0.5; expected whole numbers"),
        (np.uint64([[2**63]]), "holds the id 9223372036854775808; expected ids of 64 bits"),
        (np.float64([[1e30]]), "holds the id 1000000000000000.*; expected ids of 64 bits"),
        (np.zeros((2, 1, 1), np.uint8), "holds 2 bands of uint8; expected a mask"),
        (np.zeros((3, 1, 1), np.uint16), "holds 3 bands of uint16; expected a mask"),
    ):
        with pytest.raises(RasterError, match=rf"m\.tif {message}"):
            read_ids(geotiff(tmp_path / "m.tif", values))
    path = geotiff(tmp_path / "m.tif", np.float32([[np.nan, 2]]))
    assert read_ids(path).known.tolist() == [[False, True]] and read_ids(path).values.tolist() == [[0, 2]]


def test_the_largest_uint64_may_mean_no_label(tmp_path):
    path = geotiff(tmp_path / "m.tif", np.uint64([[2**64 - 1, 4]]))
    (tmp_path / "m.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>18446744073709551615</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    found = read_ids(path)
    assert found.values.tolist() == [[0, 4]] and found.known.tolist() == [[False, True]]


def test_one_bit_masks_are_read_as_gdal_reads_them(tmp_path):
    for photometric in ("MINISWHITE", "MINISBLACK"):
        path = geotiff(tmp_path / f"{photometric}.tif", np.uint8([[0, 1, 1]]), nbits=1, photometric=photometric)
        assert read_ids(path).values.tolist() == [[0, 1, 1]]


def test_palettes_give_indices_and_colours_colours(tmp_path):
    image = Image.fromarray(np.uint8([[0, 2]]))
    image.putpalette([9, 9, 9, 1, 1, 1, 5, 6, 7])
    image.save(tmp_path / "p.png")
    assert read_ids(tmp_path / "p.png").values.tolist() == [[0, 2]]
    colours = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    Image.fromarray(colours).save(tmp_path / "c.png")
    found = read_ids(tmp_path / "c.png")
    assert found.values.dtype == np.uint8 and np.array_equal(found.values, colours)


def test_transparency_in_a_mask_is_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "alpha.png")
    image = Image.fromarray(np.uint8([[0, 1]]))
    image.putpalette([9, 9, 9, 1, 1, 1])
    image.save(tmp_path / "palette.png", transparency=0)
    for name in ("alpha", "palette"):
        with pytest.raises(RasterError, match=rf"{name}\.png is partly transparent; expected .* Give the transparent"):
            read_ids(tmp_path / f"{name}.png")
    Image.fromarray(np.full((1, 1, 4), 255, np.uint8)).save(tmp_path / "opaque.png")
    assert read_ids(tmp_path / "opaque.png").values.tolist() == [[[255, 255, 255]]]


def test_nodata_of_a_palette_is_no_label(tmp_path):
    path = tmp_path / "m.tif"
    with (
        quiet(),
        rasterio.open(
            path, "w", driver="GTiff", count=1, height=1, width=3, dtype="uint8", photometric="PALETTE", nodata=1
        ) as file,
    ):
        file.write(np.uint8([[[0, 1, 2]]]))
        file.write_colormap(1, {i: (i, 9, 9, 255) for i in range(3)})
    found = read_ids(path)
    assert found.values.tolist() == [[0, 1, 2]] and found.known.tolist() == [[True, False, True]]


IDS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def image_grid(tmp_path, crs=UTM, place=PLACE, size=8):
    with open_image(
        geotiff(tmp_path / "image.tif", np.zeros((size, size), np.uint8), crs=crs, transform=place)
    ) as file:
        return file.grid


def test_a_mask_that_lies_elsewhere_is_laid_on_its_image(tmp_path):
    grid = image_grid(tmp_path)
    same = read_ids(geotiff(tmp_path / "m.tif", IDS, crs=UTM, transform=PLACE), onto=grid)
    assert not same.moved and np.array_equal(same.values, IDS) and same.known.all()

    shifted = geotiff(tmp_path / "m.tif", IDS, crs=UTM, transform=north_up(500_008, 5_000_000, 2))  # half a tile
    found = read_ids(shifted, onto=grid)
    assert found.moved and np.array_equal(found.values[:, 4:], IDS[:, :4])
    assert found.known[:, 4:].all() and not found.known[:, :4].any()

    nodata = read_ids(
        geotiff(tmp_path / "m.tif", IDS, crs=UTM, transform=north_up(500_008, 5_000_000, 2), nodata=0), onto=grid
    )
    assert not nodata.known[0, 4] and nodata.known[0, 5]

    coarse = read_ids(
        geotiff(tmp_path / "m.tif", IDS[:4, :4], crs=UTM, transform=north_up(500_000, 5_000_000, 4)), onto=grid
    )
    assert coarse.moved and np.array_equal(coarse.values, np.repeat(np.repeat(IDS[:4, :4], 2, 0), 2, 1))

    without = read_ids(geotiff(tmp_path / "m.tif", IDS, transform=north_up(500_008, 5_000_000, 2)), onto=grid)
    assert np.array_equal(without.values[:, 4:], IDS[:, :4])  # taken to be in the CRS of the image


def test_a_mask_in_another_crs_is_laid_on_its_image(tmp_path):
    grid = image_grid(tmp_path)
    transform = north_up(14.9990, 45.1550, 1e-5)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 250, (600, 600), np.uint8)
    found = read_ids(geotiff(tmp_path / "m.tif", values, crs="EPSG:4326", transform=transform), onto=grid)
    rows, columns = np.mgrid[:8, :8]
    x, y = 500_000 + 2 * (columns.ravel() + 0.5), 5_000_000 - 2 * (rows.ravel() + 0.5)
    longitude, latitude = warp(UTM, "EPSG:4326", x, y)
    column, row = (np.array(longitude) - transform.c) / 1e-5, (transform.f - np.array(latitude)) / 1e-5
    assert found.moved and found.known.all()
    np.testing.assert_array_equal(found.values.ravel(), values[row.astype(int), column.astype(int)])


def test_what_does_not_fit_is_refused(tmp_path):
    grid = image_grid(tmp_path)
    far = geotiff(tmp_path / "far.tif", IDS, crs=UTM, transform=north_up(600_000, 5_000_000, 2))
    with pytest.raises(RasterError, match=r"far\.tif and its image do not overlap on the ground"):
        read_ids(far, onto=grid)
    unplaced = geotiff(tmp_path / "unplaced.tif", IDS[:4])
    with pytest.raises(RasterError, match=r"unplaced\.tif is 8x4 .*; its image is 8x8"):
        read_ids(unplaced, onto=grid)
    assert not read_ids(geotiff(tmp_path / "m.tif", IDS), onto=grid).moved
    assert read_ids(far, onto=Grid(8, 8)).known.all()  # an image that does not say where it lies
