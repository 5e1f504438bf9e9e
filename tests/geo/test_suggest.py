"""Tiles through a model: what is looked at, and what comes first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from co2s_hf.geo.labelled import Labelled
from co2s_hf.geo.suggest import SuggestSettings, suggest
from co2s_hf.geo.suggestion_files import fields_of
from co2s_hf.geo.tiles import cut_tiles
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.grid import Grid
from tests.geo.pixel_model import PixelModel, pixel_processor


@given(height=st.integers(1, 70), width=st.integers(1, 70), tile_px=st.integers(1, 40))
def test_tiles_cover_everything_and_are_of_one_size(height, width, tile_px):
    seen = np.zeros((height, width), int)
    tiles = cut_tiles(Grid(height, width, (1, 0, 0, 0, 1, 0), None), "a", tile_px)
    for tile in tiles:
        assert seen[tile.rows, tile.columns].shape == (min(height, tile_px), min(width, tile_px))
        seen[tile.rows, tile.columns] += 1
    assert seen.min() == 1
    assert len(tiles) == -(-height // tile_px) * -(-width // tile_px)


def suggestions(*paths, model=None, labelled=None, **settings):
    model = model or PixelModel().eval()
    settings = SuggestSettings(**{"tile_px": 10, **settings})
    return suggest([str(path) for path in paths], model, pixel_processor(), settings, labelled)


def places(found):
    return [(one.tile.path[-5], one.tile.rows.start, one.tile.columns.start) for one in found.chosen]


@pytest.fixture
def scene(write_scene):
    """Tiles of 10 px; gray, on which both students agree, but for four: two of water, one of road, one weak."""
    pixels = np.full((3, 30, 40), 0.5, np.float32)
    pixels[0, :10, :10] = pixels[0, 10:20, 30:] = 1
    pixels[1, 20:, 10:20] = 0.9
    pixels[2, 20:, 20:30] = 0.55
    return write_scene("a.tif", pixels)


def test_disputed_tiles_come_first_and_the_same_one_late(scene):
    found = suggestions(scene, count=4)
    assert places(found) == [("a", 0, 0), ("a", 20, 10), ("a", 20, 20), ("a", 10, 30)]
    assert [one.rank for one in found.chosen] == [1, 2, 3, 4] and found.tiles == 12
    first, last = found.chosen[0], found.chosen[-1]
    assert first.score == first.summary.disagreement == pytest.approx(last.summary.disagreement) and last.score < 1e-6
    assert first.summary.differing == 1 and first.data_share == 1
    assert places(suggestions(scene, count=2, diversity=0)) == [("a", 0, 0), ("a", 10, 30)]


def test_what_is_labelled_is_left_out_and_what_resembles_it_comes_late(scene):
    labelled = Labelled(tiles=[(str(scene), 0, 0, 10, 10)])
    found = suggestions(scene, labelled=labelled, count=3)
    assert places(found)[:2] == [("a", 20, 10), ("a", 20, 20)] and (found.tiles, found.labelled) == (11, 1)


def test_batches_over_scenes_of_several_sizes_change_nothing(write_scene, scene):
    rng = np.random.default_rng(0)
    sizes = {"b": (10, 33), "c": (7, 9), "d": (25, 25)}
    others = [write_scene(f"{name}.tif", rng.random((3, *size)).astype(np.float32)) for name, size in sizes.items()]
    model = PixelModel().eval()
    one = suggestions(scene, *others, model=model, batch=1, count=40)
    assert model.seen == 12 + 4 + 1 + 9
    many = suggestions(scene, *others, batch=5, count=40)
    assert places(one) == places(many)
    assert [a.score for a in one.chosen] == pytest.approx([b.score for b in many.chosen], abs=1e-6)
    # Of tiles that were moved back to end at the border, none is chosen beside one that it overlaps.
    for index, first in enumerate(one.chosen):
        for second in one.chosen[index + 1 :]:
            a, b = first.tile, second.tile
            apart = a.path != b.path or a.rows.stop <= b.rows.start or b.rows.stop <= a.rows.start
            assert apart or a.columns.stop <= b.columns.start or b.columns.stop <= a.columns.start


def test_tiles_without_data_are_left_out_and_nodata_is_not_counted(write_scene):
    pixels = np.full((3, 10, 40), 0.5, np.float32)
    pixels[0, :, :6] = 1
    pixels[:, :, 6:10] = pixels[:, :, 14:30] = np.nan
    model = PixelModel().eval()
    found = suggestions(write_scene("a.tif", pixels), model=model)
    assert places(found) == [("a", 0, 0), ("a", 0, 30)] and (found.tiles, found.empty, model.seen) == (2, 2, 2)
    assert found.chosen[0].data_share == pytest.approx(0.6) and found.chosen[0].summary.differing == 1
    alone = suggestions(write_scene("a.tif", pixels[:, :, :6]))
    assert found.chosen[0].summary.disagreement == pytest.approx(alone.chosen[0].summary.disagreement)


def test_one_student_is_asked_how_sure_it_is(write_scene, scene):
    alone, abstaining = PixelModel().eval(), PixelModel().eval()
    alone.students = alone.predictions = {"dino": "logits"}
    abstaining.predictions = {"clip": "clip_logits", "fused": "logits"}
    for model in (alone, abstaining):
        found = suggestions(scene, model=model, count=2)
        assert found.chosen[0].summary.disagreement == pytest.approx(1) and np.isnan(found.chosen[0].summary.differing)


def test_what_cannot_be_looked_at(write_scene, scene):
    with pytest.raises(RasterError, match="has 3 bands; expected 4, as the model"):
        suggestions(scene, model=PixelModel(4).eval())
    with pytest.raises(RasterError, match="values.*--scale"):
        suggestions(write_scene("b.tif", np.full((3, 9, 9), 4000, np.float32)))
    with pytest.raises(RasterError, match="None of 1 tiles is left.*0 are labelled, 1 hold data in less than 50%"):
        suggestions(write_scene("b.tif", np.full((3, 9, 9), np.nan, np.float32)))
    with pytest.raises(RasterError, match="None of 12 tiles is left to be labelled: 12 are labelled"):
        suggestions(scene, labelled=Labelled(stems={"a"}))


def test_a_few_bytes_cannot_ask_for_any_number_of_tiles():
    with pytest.raises(RasterError, match="has 1000000000000 tiles of 10 px; expected at most 1000000"):
        cut_tiles(Grid(10**7, 10**7, (1, 0, 0, 0, 1, 0), None), "a", 10)


def test_tiles_of_another_resolution_are_named_in_pixels_of_the_file(write_scene):
    """Pixels of 2 m looked at in 4 m, as in training: a tile of 10 px is one of 20 px in the file."""
    pixels = np.full((3, 40, 60), 127, np.uint8)
    pixels[0, 20:, 40:] = 250
    path, said = write_scene("a.tif", pixels), []
    model = PixelModel(training_images={"gsd_m": 4.0}).eval()
    found = suggest(
        [str(path)], model, pixel_processor(), SuggestSettings(tile_px=10, gsd="training", count=9), say=said.append
    )
    assert found.tiles == 6 and found.chosen[0].tile.box == (20, 40, 40, 60) and not any("training" in x for x in said)
    assert fields_of(found.chosen[0], ["a", "b", "c"])["height"] == 20
    labelled = Labelled(tiles=[(str(path), 20, 40, 40, 60)])
    again = suggest([str(path)], model, pixel_processor(), SuggestSettings(tile_px=10, gsd=4.0, count=9), labelled)
    assert (again.tiles, again.labelled) == (5, 1)
    suggest([str(path)], model, pixel_processor(), SuggestSettings(tile_px=10), say=said.append)
    assert any("a.tif: pixels are 2 m, in training 4 m (2.0 times finer)" in one for one in said)


def test_scenes_of_several_types_go_through_the_model_together(write_scene):
    unit = np.random.default_rng(0).integers(0, 256, (3, 10, 20)).astype(np.uint8)
    paths = [write_scene("a.tif", unit), write_scene("b.tif", (unit / 255).astype(np.float32))]
    alone, together = suggestions(paths[0], count=9), suggestions(*paths, count=9)
    one, other = (
        [x.summary.disagreement for x in together.chosen if x.tile.path.endswith(name)] for name in ("a.tif", "b.tif")
    )
    assert sorted(one) == pytest.approx(sorted(other), abs=1e-6) and len(one) == len(alone.chosen) == 2


def test_bright_and_scaled_values_are_looked_at_and_wrong_ones_refused_ahead(write_scene):
    dn = np.random.default_rng(0).integers(100, 9000, (3, 10, 20)).astype(np.uint16)
    dn[0, 3] = 15001
    path, model = write_scene("a.tif", dn), PixelModel().eval()
    assert suggestions(path, scale=1e-4, offset=-0.1).tiles == 2
    good = write_scene("b.tif", dn.astype(np.uint8))
    with pytest.raises(RasterError, match="band 1 has values from .* scaled by 1 plus -0.1.*--scale"):
        suggestions(good, path, model=model, offset=-0.1)
    assert model.seen == 0
