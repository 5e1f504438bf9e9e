import pickle

import numpy as np
import pytest

from co2s_hf.data.folders import Sample
from co2s_hf.raster.image import EncodedImage, Reading
from co2s_hf.raster.read import read_raster
from co2s_hf.raster.write import write_image
from tests.training.tiny_runs import encode, write_shards
from training.pools import WINDOW, FilePool, ImageStream, LabelledPool, StreamError

RNG = np.random.default_rng(0)


# ---- LabelledPool ----


def test_rare_classes_are_drawn_more_often(tmp_path):
    samples = [Sample(tmp_path / f"{i}.png", tmp_path / f"{i}m.png", str(i)) for i in range(3)]
    # Classes of 90, 9 and 1 % of the pixels; one that never occurs.
    pixels = dict(zip((s.image for s in samples), ([500, 0, 0, 0], [400, 90, 0, 0], [0, 0, 10, 0]), strict=True))
    pool = LabelledPool(samples, seed=0, class_pixels=pixels, temperature=0.5)
    drawn = [pool.draw(k, np.random.default_rng(k)) for k in range(3000)]
    wanted = [[c for _, c in drawn].count(c) / 3000 for c in range(4)]
    odds = np.exp([(1 - share) / 0.5 for share in (0.9, 0.09, 0.01)])
    assert wanted == pytest.approx([*odds / odds.sum(), 0], abs=0.03)
    assert all(pixels[sample.image][c] > 0 for sample, c in drawn)
    assert LabelledPool(samples, seed=0).draw(0, RNG)[1] is None
    with pytest.raises(ValueError, match="There are 0 labelled images"):
        LabelledPool([], seed=0)


# ---- FilePool ----


def test_an_image_is_shown_as_often_as_its_area(tmp_path):
    samples = [Sample(tmp_path / f"{i}.png", None, str(i)) for i in range(4)]
    pool = FilePool(samples, areas=[100, 300, 200, 400], seed=1)
    drawn = [int(pool.draw(k, RNG)[0].stem) for k in range(480)]
    assert [drawn.count(i) / 480 for i in range(4)] == pytest.approx([0.1, 0.3, 0.2, 0.4], abs=0.02)
    assert all(drawn[k] != drawn[k ^ 1] for k in range(480))
    assert len({tuple(drawn[k : k + 4]) for k in range(0, 480, 4)}) > 10
    assert len({tuple(sorted(drawn[k : k + 2])) for k in range(0, 480, 2)}) == 6
    assert drawn == [int(FilePool(samples, areas=[1, 3, 2, 4], seed=1).draw(k, RNG)[0].stem) for k in range(480)]
    with pytest.raises(ValueError, match="There are 1 areas of 4 images"):
        FilePool(samples, areas=[1], seed=1)
    with pytest.raises(ValueError, match="There is no unlabelled image, and no image that is labelled in part"):
        FilePool([], seed=1)
    alone = FilePool([], partly_labelled=[(samples[0], 0.01)], seed=1)
    assert all(alone.draw(k, RNG) == (samples[0].image, samples[0]) for k in range(9))


# ---- ImageStream ----


def picture(number):
    """4 x 5 px whose colour is a number."""
    return np.full((4, 5, 3), (number % 256, number // 256, 0), np.uint8)


def shown(image):
    red, green, _ = read_raster(image).pixels[:, 0, 0].tolist()
    return red + 256 * green


def numbers(stream, places):
    return [shown(stream[place]) for place in places]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("pool") / "shards", [picture(i) for i in range(300)])


def test_a_stream_shows_every_image_once_in_a_pass_and_never_ends(shards):
    stream = ImageStream([shards], seed=0, batch_size=2)
    stream.check(Reading(count=3))
    seen = numbers(stream, range(3 * WINDOW))
    assert set(seen) == set(range(300))
    assert max(seen.count(number) for number in set(seen)) == 2
    assert seen[:100] != sorted(seen[:100])


def test_a_number_is_one_image_wherever_reading_starts(shards):
    whole = numbers(ImageStream([shards], seed=3, batch_size=2), range(400))
    later = ImageStream([f"{shards}/*.tar"], seed=3, batch_size=2)
    assert numbers(later, range(390, 400)) == whole[390:]
    assert numbers(later, [5, 391]) == [whole[5], whole[391]]  # back, and forth
    assert numbers(pickle.loads(pickle.dumps(later)), [17]) == [whole[17]]  # as a worker process gets it
    assert whole != numbers(ImageStream([shards], seed=4, batch_size=2), range(400))


def test_processes_share_the_images(shards):
    ranks = [ImageStream([shards], seed=0, batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    seen = [
        [shown(stream.draw(4 * step + 2 * rank + i, RNG)[0]) for step in range(60) for i in (0, 1)]
        for rank, stream in enumerate(ranks)
    ]
    assert len(set(seen[0])) == len(set(seen[1])) == 120 and not set(seen[0]) & set(seen[1])


def test_parquet_and_folders_are_streams_too(tmp_path):
    import datasets

    rows = {"picture": [{"bytes": encode(picture(i)), "path": f"{i}.png"} for i in range(12)], "place": ["a"] * 12}
    table = datasets.Dataset.from_dict(
        rows, features=datasets.Features(picture=datasets.Image(), place=datasets.Value("string"))
    )
    table.to_parquet(tmp_path / "pool.parquet")
    for i in range(12):
        (tmp_path / "folder").mkdir(exist_ok=True)
        write_image(tmp_path / "folder" / f"{i}.png", picture(i))
    for source in (tmp_path / "pool.parquet", tmp_path / "folder"):
        stream = ImageStream([str(source)], seed=0, batch_size=2)
        assert sorted(set(numbers(stream, range(WINDOW)))) == list(range(12))
        assert isinstance(stream[0], EncodedImage) and "bytes" not in repr(stream[0])


def test_refuses_streams_without_images(tmp_path, shards):
    with pytest.raises(StreamError, match="matches no file; expected .tar, .parquet, .arrow files"):
        ImageStream([str(tmp_path / "*.tar")], seed=0, batch_size=2)
    with pytest.raises(StreamError, match="cannot be streamed"):
        ImageStream([str(tmp_path / "nothing")], seed=0, batch_size=2)
    with pytest.raises(StreamError, match="has the columns .*expected tiff.*--stream_column"):
        ImageStream([shards], "tiff", seed=0, batch_size=2)
    with pytest.raises(StreamError, match="first image of .*tile00.* has 3 bands; expected 4"):
        ImageStream([shards], seed=0, batch_size=2).check(Reading(count=4))
    write_shards(tmp_path / "few", [picture(0)], shards=1)
    with pytest.raises(StreamError, match="has no image for process 1 of 2"):
        ImageStream([str(tmp_path / "few")], seed=0, batch_size=2, rank=1, world_size=2)[0]
    (tmp_path / "few" / "more.parquet").write_bytes(b"")
    with pytest.raises(StreamError, match="has files of .parquet, .tar; expected one format"):
        ImageStream([str(tmp_path / "few")], seed=0, batch_size=2)
