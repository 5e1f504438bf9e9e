"""`pipeline("land-cover-segmentation")`: a scene of any size to the files of its map.

A task of its own: keyed as "image-segmentation" it would take the stock pipeline's place, and ask everybody for
`trust_remote_code`.
"""

import os
from pathlib import Path
from typing import Any

from transformers import AutoModelForSemanticSegmentation, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .maps import predict_scene
from .outputs import SceneMap
from .predict import PredictSettings
from .scene import open_scene

TASK = "land-cover-segmentation"


class LandCoverPipeline(Pipeline):
    """Maps scenes; each is a path that GDAL opens.

    Call it with `output`, the folder of the maps, and any argument of `co2s_hf.geo.maps.predict_scene`: fields of
    `PredictSettings`, such as `overlap_px=128`, by their names. The result is a `SceneMap`.
    """

    # The processor works on windows, inside `predict_scene`.
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = True  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, options, {}

    def preprocess(self, scene: str | os.PathLike[str]) -> dict[str, Any]:  # type: ignore[override]
        """Name the scene; nothing is read yet."""
        return {"scene": os.fspath(scene)}

    def _forward(self, inputs: dict[str, Any], *, output: str | Path, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        fields = {name: options.pop(name) for name in PredictSettings.__dataclass_fields__ if name in options}
        path = inputs["scene"]
        settings = PredictSettings(**fields)
        with open_scene(path, settings, self.model.config) as scene:
            made = predict_scene(
                scene,
                self.model,
                self.image_processor,
                output,
                Path(path).stem,
                settings=settings,
                **options,
            )
        return {"map": made}

    def postprocess(self, outputs: dict[str, Any]) -> SceneMap | None:  # type: ignore[override]
        """The finished map."""
        made: SceneMap | None = outputs["map"]
        return made


def register() -> None:
    """Make the task known to `transformers.pipeline`."""
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=LandCoverPipeline, pt_model=AutoModelForSemanticSegmentation, type="image"
    )


__all__ = ["LandCoverPipeline", "TASK", "register"]
