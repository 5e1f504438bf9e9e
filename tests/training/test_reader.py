"""What is kept of decoded images, in memory or on disk, changes nothing that a training sees."""

import numpy as np
import pytest
import torch
from PIL import Image

from co2s_hf.data.folders import Sample
from co2s_hf.data.label_map import LabelMap
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import EncodedImage, NoData, Reading
from co2s_hf.raster.write import write_image, write_mask
from tests.training.tiny_runs import tensors_of
from training.batches import SemiDataset, train_loader
from training.pools import FilePool, LabelledPool
from training.reader import ImageReader
from training.tile_cache import TileCache
from training.views import ViewNeeds


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of 30 x 22 px by their kind, and a mask."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    rgba = rng.integers(0, 256, (30, 22, 4), dtype=np.uint8)
    rgba[:5, :, 3] = 0
    write_image(folder / "rgb.png", rgba[..., :3])
    write_image(folder / "grey.png", rgba[..., :1])
    write_image(folder / "16bit.png", rng.integers(0, 2**16, (30, 22, 1), dtype=np.uint16))
    Image.fromarray(rgba).save(folder / "alpha.png")
    Image.fromarray(rgba[..., :3]).save(folder / "rgb.jpg")
    write_mask(folder / "mask.png", rng.integers(0, 3, (30, 22), dtype=np.uint8))
    return folder


RGB = Reading(count=3)


def tiles(folder, limit_bytes=2**24):
    return TileCache(folder / "tiles", limit_bytes=limit_bytes)


def assert_same(one, two):
    assert one.dtype == two.dtype and one.shape == two.shape and torch.equal(one, two)


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.5])
@pytest.mark.parametrize(
    ("name", "bands", "nodata"),
    [("rgb.png", 3, None), ("rgb.jpg", 3, 7), ("grey.png", 1, 9), ("16bit.png", 1, None), ("alpha.png", 3, None)],
)
def test_images_come_back_as_they_were(name, bands, nodata, scale, files, tmp_path):
    reading = Reading(count=bands, nodata=None if nodata is None else NoData(nodata))
    plain = ImageReader(scale, 0, reading)
    image, valid = plain.image(files / name)
    assert (valid is None) == (name in ("rgb.png", "16bit.png", "rgb.jpg")) or nodata is not None
    for reader in (
        ImageReader(scale, 2**20, reading),
        *(ImageReader(scale, 0, reading, tiles(tmp_path)),) * 2,
    ):
        for _ in range(2):
            again, counts = reader.image(files / name)
            assert_same(again, image)
            assert (counts is None) == (valid is None)
            if valid is not None:
                assert_same(counts, valid)
    assert len(list((tmp_path / "tiles").iterdir())) == 1


def test_options_do_not_mix(files, tmp_path):
    shapes = []
    readings = (RGB, Reading(count=4), Reading(count=3, nodata=NoData(0)), Reading(count=3, nodata=NoData(0, within=2)))
    others = (Reading(count=3, scale=0.5), Reading(count=3, offset=0.5))
    for scale, reading in ((1.0, RGB), (0.5, RGB), *((1.0, reading) for reading in (*readings[1:], *others))):
        for _ in range(2):
            shapes.append(ImageReader(scale, 0, reading, tiles(tmp_path)).image(files / "alpha.png")[0].shape)
    assert shapes == [(3, 30, 22)] * 2 + [(3, 15, 11)] * 2 + [(4, 30, 22)] * 2 + [(3, 30, 22)] * 8
    assert len(list((tmp_path / "tiles").iterdir())) == 7


def test_labels_come_back_as_they_were(files, tmp_path):
    maps = (None, LabelMap(((0, 2), (1, 1), (2, 0))), LabelMap(((0, 255), (1, 1), (2, 0))))
    for label_map in maps:
        sample = Sample(files / "rgb.png", files / "mask.png", "s", label_map)
        expected = ImageReader(0.5, 0, RGB).labels(sample)
        for _ in range(2):
            assert_same(ImageReader(0.5, 0, RGB, tiles(tmp_path)).labels(sample), expected)
    assert len(list((tmp_path / "tiles").iterdir())) == len(maps)


def test_with_tiles_nothing_is_kept_in_memory(files, tmp_path, monkeypatch):
    reader = ImageReader(1.0, 2**20, RGB, tiles(tmp_path))
    reader.image(files / "rgb.png")
    assert not reader.cache
    monkeypatch.setattr("training.reader.read_raster", None)  # would fail
    assert reader.image(files / "rgb.png")[0].shape == (3, 30, 22)


def test_images_of_a_stream_are_not_kept(files, tmp_path):
    reader = ImageReader(1.0, 2**20, RGB, tiles(tmp_path))
    reader.image(EncodedImage("one", (files / "rgb.png").read_bytes()))
    assert not reader.cache and not list((tmp_path / "tiles").iterdir())


def test_a_file_of_other_bands_is_named(files):
    with pytest.raises(RasterError, match=r"grey\.png has 1 band; expected 3"):
        ImageReader(1.0, 0, RGB).image(files / "grey.png")


# ---- the batches that come of it ----


def batches(files, cache, start_step=0, **options):
    """Six batches of a data set whose images are cropped at random."""
    images = [Sample(files / name, files / "mask.png", name) for name in ("rgb.png", "rgb.jpg", "alpha.png")]
    dataset = SemiDataset(
        LabelledPool(images, seed=0),
        FilePool(images, seed=0),
        crop_px=16,
        seed=3,
        views=ViewNeeds(unlabelled=True, partner="other"),
        mean=[0.5] * 3,
        std=[0.25] * 3,
        image_scale=0.8,
        **cache,
    )
    return list(train_loader(dataset, batch_size=2, start_step=start_step, total_steps=6, **options))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_tiles_and_workers_change_no_batch(num_workers, files, tmp_path):
    """Two workers start with an empty folder, so that both make every entry, at once or after each other."""
    expected = batches(files, {"cache_bytes": 0})
    for start_step in (0, 2):  # the second time from entries that are there, as a resumed run
        found = batches(files, {"tiles": tiles(tmp_path)}, start_step, num_workers=num_workers)
        for one, two in zip(found, expected[start_step:], strict=True):
            for (name, tensor), (_, other) in zip(tensors_of(one).items(), tensors_of(two).items(), strict=True):
                assert torch.equal(tensor, other), name
    assert {path.suffix for path in (tmp_path / "tiles").iterdir()} == {".safetensors"}


def test_a_cache_without_room_changes_no_batch(files, tmp_path):
    with pytest.warns(UserWarning, match="is full"):
        found = batches(files, {"tiles": tiles(tmp_path, limit_bytes=4000)})
    for one, two in zip(found, batches(files, {}), strict=True):
        assert torch.equal(one.u_s1, two.u_s1) and torch.equal(one.x, two.x)
