"""Semi-supervised land-cover segmentation as Hugging Face Transformers models.

Importing the package makes its models known to the Auto classes and to `pipeline`, without `trust_remote_code`.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForSemanticSegmentation

from .configuration_co2s import Co2SConfig
from .image_processing_co2s import Co2SImageProcessor
from .modeling_co2s import Co2SForSemanticSegmentation, Co2SOutput

__version__ = "0.1.0.dev0"

AutoConfig.register("co2s", Co2SConfig, exist_ok=True)
AutoModel.register(Co2SConfig, Co2SForSemanticSegmentation, exist_ok=True)
AutoModelForSemanticSegmentation.register(Co2SConfig, Co2SForSemanticSegmentation, exist_ok=True)
AutoImageProcessor.register(
    Co2SConfig, image_processor_classes={"pil": Co2SImageProcessor, "torchvision": Co2SImageProcessor}, exist_ok=True
)

# Only what is registered here is copied, with the files it imports, into the folder of a saved model.
Co2SConfig.register_for_auto_class()
Co2SForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
Co2SImageProcessor.register_for_auto_class()

__all__ = ["Co2SConfig", "Co2SForSemanticSegmentation", "Co2SImageProcessor", "Co2SOutput", "__version__"]
