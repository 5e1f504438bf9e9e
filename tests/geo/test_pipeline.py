"""The second pipeline task; the stock one stays as it is."""

import rasterio
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from co2s_hf import Co2SImageProcessor, LandCoverPipeline


def test_the_task_maps_a_scene(tiny_model, write_scene, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    Co2SImageProcessor().save_pretrained(tmp_path / "model")
    mapper = pipeline("land-cover-segmentation", model=str(tmp_path / "model"))
    assert isinstance(mapper, LandCoverPipeline)
    path = write_scene()
    made = mapper(str(path), output=tmp_path / "out", overlap_px=8, disagreement=True, with_polygons=False)
    with rasterio.open(path) as scene, rasterio.open(made.classes) as classes:
        assert (classes.shape, classes.transform, classes.crs) == (scene.shape, scene.transform, scene.crs)
    assert ".disagreement.tif" in made.files and ".polygons.gpkg" not in made.files
    assert PIPELINE_REGISTRY.check_task("image-segmentation")[1]["impl"] is not LandCoverPipeline
