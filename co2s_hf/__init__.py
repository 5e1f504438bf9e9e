"""Semi-supervised land-cover segmentation as Hugging Face Transformers models.

Importing the package makes its models known to the Auto classes and to `pipeline`, without `trust_remote_code`.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from .configuration_co2s import Co2SConfig
from .configuration_dinov2_dpt import Dinov2DPTConfig
from .geo.pipeline import LandCoverPipeline
from .geo.pipeline import register as _register_pipeline
from .image_processing_co2s import Co2SImageProcessor
from .modeling_co2s import Co2SForSemanticSegmentation, Co2SOutput
from .modeling_dinov2_dpt import Dinov2DPTForSemanticSegmentation, Dinov2DPTOutput

__version__ = "0.1.0.dev0"

for _config, _model in (
    (Co2SConfig, Co2SForSemanticSegmentation),
    (Dinov2DPTConfig, Dinov2DPTForSemanticSegmentation),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
    AutoModelForSemanticSegmentation.register(_config, _model, exist_ok=True)
    AutoImageProcessor.register(
        _config, image_processor_classes={"pil": Co2SImageProcessor, "torchvision": Co2SImageProcessor}, exist_ok=True
    )
    # Only what is registered here is copied, with the files it imports, into the folder of a saved model.
    _config.register_for_auto_class()
    _model.register_for_auto_class("AutoModelForSemanticSegmentation")
Co2SImageProcessor.register_for_auto_class()
_register_pipeline()

__all__ = [
    "Co2SConfig",
    "Co2SForSemanticSegmentation",
    "Co2SImageProcessor",
    "Co2SOutput",
    "Dinov2DPTConfig",
    "Dinov2DPTForSemanticSegmentation",
    "Dinov2DPTOutput",
    "LandCoverPipeline",
    "__version__",
]
