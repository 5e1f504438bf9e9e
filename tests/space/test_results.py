import numpy as np
import pytest
import rasterio
from PIL import Image

from results import Result
from scene_file import read_header


@pytest.fixture
def scene(geotiff, pixels):
    return read_header(geotiff(pixels), max_megabytes=1, max_megapixels=1)


@pytest.fixture
def result(scene, tmp_path):
    """CLIP sees a road everywhere, DINOv3 and the fusion a sea in the left half."""
    road = np.zeros((120, 150), np.uint8)
    half = road.copy()
    half[:, :75] = 1
    maps = {"Fused": half, "CLIP": road, "DINOv3": half}
    return Result(scene, "data:photo", maps, ["road", "sea"], "user/model", tmp_path / "files")


def test_two_students_can_be_compared_and_one_prediction_not(result, scene, tmp_path):
    assert result.views == ["Fused", "CLIP", "DINOv3", "Side by side", "Disagreement"]
    one = Result(scene, "", {"Prediction": result.maps["CLIP"]}, result.classes, "m", tmp_path / "one")
    assert one.views == ["Prediction"] and "Disputed" not in one.show("Prediction").table


def test_a_view_comes_with_its_own_table_and_files(result):
    fused, clip = result.show("Fused"), result.show("CLIP")
    assert "9,000" in fused.table and "18,000" in clip.table  # pixels of the road
    assert "90.00" in fused.table and "Areas: plane" in fused.table  # hectares of 10 m pixels
    assert fused.png.name == "scene_fused_mask.png" and clip.geotiff.name == "scene_clip_mask.tif"
    with Image.open(clip.png) as image, rasterio.open(fused.geotiff) as file:
        assert np.array_equal(np.array(image), result.maps["CLIP"])
        assert np.array_equal(file.read(1), result.maps["Fused"]) and file.tags()["PREDICTION"] == "Fused"


def test_side_by_side_shows_both_students(result):
    shown = result.show("Side by side")
    assert shown.stage.index("CLIP") < shown.stage.index("DINOv3")
    assert "100.0 % | 50.0 %" in shown.legend and "0.0 % | 50.0 %" in shown.legend
    assert shown.png == result.show("Fused").png


def test_disagreement_is_shown_and_counted(result):
    shown = result.show("Disagreement")
    assert "CLIP and DINOv3 differ <b>50.0 %</b>" in shown.legend
    assert "100.0 %" in shown.table  # of the sea


def test_files_can_be_removed(result):
    png = result.show("Fused").png
    assert png.exists()
    result.remove_files()
    assert not result.folder.exists()
