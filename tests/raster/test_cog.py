"""Class maps as files, from parts of raw bytes."""

import numpy as np

from co2s_hf.raster.cog import Part, opened, thinned, write_cog
from co2s_hf.raster.grid import Grid


def test_maps_are_put_together_from_parts(tmp_path):
    layers = np.random.default_rng(0).integers(0, 3, (2, 30, 20), dtype=np.uint8)
    parts = [Part(tmp_path / "a.raw", 0, 12), Part(tmp_path / "b.raw", 12, 18)]
    for part in parts:
        part.path.write_bytes(layers[:, part.top : part.top + part.rows].tobytes())
    grid = Grid(30, 20, (1, 0, 0, 0, 1, 0), None)
    write_cog(tmp_path / "map.tif", grid, parts, [1, 0], names=["x & y", "<z>"], tags={"a": '"1" < 2'})
    with opened(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(), layers[::-1])
        assert made.descriptions == ("x & y", "<z>") and made.tags()["a"] == '"1" < 2' and made.crs is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.raw", "b.raw", "map.tif"]
    assert thinned(tmp_path / "map.tif", 10).shape == (10, 6)
