"""The folder of an unfinished map."""

import numpy as np
import pytest

from co2s_hf.geo.windows import Band
from co2s_hf.geo.work import FileCarry, WorkFolder
from co2s_hf.raster.errors import RasterError

BAND = Band(3, range(1, 2), 4, 6)


def work(folder, **task):
    return WorkFolder(folder, "map", {"model": "a", **task}, layers=2, width=5)


def test_a_band_counts_once_it_is_whole(tmp_path):
    one = work(tmp_path)
    one.begin(resume=False)
    with pytest.raises(KeyError), one.writing(BAND) as writer:
        writer.write(slice(4, 5), slice(0, 2), np.ones((2, 1, 2), np.uint8))
        raise KeyError
    assert one.missing([BAND]) == [BAND] and [path.name for path in one.folder.iterdir()] == ["task.json"]
    layers = np.arange(20, dtype=np.uint8).reshape(2, 2, 5)
    with one.writing(BAND) as writer:
        writer.write(slice(4, 6), slice(0, 2), layers[..., :2])
        assert one.missing([BAND]) == [BAND]
        writer.write(slice(4, 5), slice(2, 5), layers[:, :1, 2:])
        writer.write(slice(5, 6), slice(2, 5), layers[:, 1:, 2:])
    assert one.missing([BAND]) == [] and one.part(BAND).path.read_bytes() == layers.tobytes()
    assert sorted(path.name for path in one.folder.iterdir()) == ["band_000003.raw", "band_000003.sha256", "task.json"]


@pytest.mark.parametrize("ending", [".raw", ".sha256"])
@pytest.mark.parametrize("change", ["flip", "cut", "empty", "gone"])
def test_a_band_that_has_changed_is_predicted_again(tmp_path, ending, change):
    one = work(tmp_path)
    one.begin(resume=False)
    with one.writing(BAND) as writer:
        writer.write(slice(4, 6), slice(0, 5), np.ones((2, 2, 5), np.uint8))
    path = one.part(BAND).path.with_suffix(ending)
    data = path.read_bytes()
    changed = {"flip": data[:9] + bytes([data[9] ^ 128]) + data[10:], "cut": data[:-1], "empty": b""}
    path.unlink() if change == "gone" else path.write_bytes(changed[change])
    assert one.missing([BAND]) == [BAND]


@pytest.mark.parametrize("content", [b"", b"[", b"\xff", b"[]", b"{}", b'{"model": "a"}', b"[" * 100_000])
def test_a_damaged_task_is_refused_and_can_be_replaced(tmp_path, content):
    one = work(tmp_path)
    one.begin(resume=False)
    (one.folder / "task.json").write_bytes(content)
    with pytest.raises(RasterError, match="task.json is damaged, .* start over with --force"):
        one.begin(resume=True)
    one.begin(resume=False, force=True)
    assert one.begun() == {"model": "a"}


def test_only_the_same_task_goes_on(tmp_path):
    work(tmp_path, nodata=float("nan")).begin(resume=True)  # the first one of several may find nothing
    work(tmp_path, nodata=float("nan")).begin(resume=True)
    with pytest.raises(RasterError, match="is an unfinished run. Go on with --resume"):
        work(tmp_path).begin(resume=False)
    with pytest.raises(RasterError, match="of another task .model a, not b; nodata nan, not None."):
        work(tmp_path, model="b").begin(resume=True)
    work(tmp_path, model="b").begin(resume=False, force=True)
    assert work(tmp_path).begun() == {"model": "b"}


def test_sums_wait_in_a_file(tmp_path):
    carry = FileCarry(tmp_path, 4 * 12)
    first, second = np.arange(12, dtype=np.int32).reshape(2, 3, 2), np.full((1, 2, 3), 7, np.int32)
    carry.store(0, first)
    carry.store(1, second)
    carry.store(0, first + 1)
    np.testing.assert_array_equal(carry.load(0), first + 1)
    np.testing.assert_array_equal(carry.load(1), second)
    carry.store(1, None)
    assert carry.load(1) is None and carry.load(2) is None and list(tmp_path.iterdir()) == []
    carry.close()
