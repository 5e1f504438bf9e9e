"""Semi-supervised land-cover segmentation as Hugging Face Transformers models."""

__version__ = "0.1.0.dev0"
