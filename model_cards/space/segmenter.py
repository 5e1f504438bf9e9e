"""Models by their names, through the Auto classes alone, and the class maps that they make of an image."""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, BaseImageProcessor, PreTrainedConfig

from co2s_hf.raster.image import Raster
from segmentation_view import NO_DATA, ClassMap

MODEL_TYPES = ("co2s", "dinov2_dpt")  # what this page knows how to show
# Field of the output -> what the page calls it. The DPT model gives the first one only.
VIEWS = {"logits": "Fused", "clip_logits": "CLIP", "dinov3_logits": "DINOv3"}
ONLY_VIEW = "Prediction"
MAX_CLASSES = 255  # class maps are 8 bit, and 255 is ground without data

logger = logging.getLogger(__name__)


class ModelError(ValueError):
    """A model cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Segmenter:
    """A loaded model, shared by all users and never changed."""

    name: str
    model: Any
    processor: Any

    @property
    def classes(self) -> list[str]:
        """Class names in the order of their ids."""
        labels = self.model.config.id2label
        return [str(labels[index]) for index in sorted(labels)]

    @property
    def num_bands(self) -> int:
        """How many bands an image must have."""
        return len(self.processor.image_mean)

    @property
    def bands(self) -> list[str] | None:
        """Names of the bands, where the model knows them."""
        return getattr(self.model.config, "bands", None)

    @torch.inference_mode()
    def segment(self, raster: Raster) -> dict[str, ClassMap]:
        """Class maps by the model's own sliding window.

        Args:
            raster: with the model's bands.

        Returns:
            What the page calls a prediction -> (H, W) uint8 class ids, 255 without data. With two students their
            fusion comes first.
        """
        pixels = raster.input
        # What is no uint8 any more is scaled already.
        options = {} if pixels.dtype == np.uint8 else {"do_rescale": False}
        inputs = self.processor(pixels, input_data_format="channels_first", return_tensors="pt", **options)
        # Pixels without data are the mean of the training images to the model, as in training.
        known = torch.from_numpy(raster.valid)
        pixel_values = inputs["pixel_values"].masked_fill(~known, 0.0)
        outputs = self.model(pixel_values=pixel_values.to(self.model.device))
        found = {title: outputs.get(field) for field, title in VIEWS.items()}
        maps = {}
        for title, logits in found.items():
            if logits is not None:
                (ids,) = self.processor.post_process_semantic_segmentation(
                    {"logits": logits}, target_sizes=[raster.valid.shape]
                )
                maps[title] = np.where(raster.valid, ids.cpu().numpy(), NO_DATA).astype(np.uint8)
        return maps if len(maps) > 1 else {ONLY_VIEW: maps["Fused"]}


class Segmenters:
    """The last few models that were asked for, kept in memory."""

    def __init__(self, keep: int = 2):
        """Keep this many models."""
        self._keep = keep
        self._loaded: OrderedDict[str, Segmenter] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Segmenter:
        """The model of a folder, or of a Hub id with or without `@revision`.

        Raises:
            ModelError: there is none, it cannot be loaded, or it is of another kind.
        """
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = _load(name)
                while len(self._loaded) > self._keep:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _load(name: str) -> Segmenter:
    source, _, revision = name.partition("@")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        config = PreTrainedConfig.get_config_dict(source, **options)[0]
        kind = config.get("model_type")
    except Exception as error:  # the Hub and the file system fail in many ways, and each means the same to a user
        logger.warning("no configuration of %s", name, exc_info=error)
        raise ModelError(f"{name} cannot be found. Check the spelling, user/model, and that it is public.") from error
    if kind not in MODEL_TYPES:
        raise ModelError(f"{name} is a {kind} model; this page shows models of {' and '.join(MODEL_TYPES)}.")
    try:
        _check_code(source, config, options)
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=True, **options)
        model = AutoModelForSemanticSegmentation.from_pretrained(source, trust_remote_code=True, **options)
    except ModelError:
        raise
    except Exception as error:
        logger.warning("could not load %s", name, exc_info=error)
        raise ModelError(f"{name} cannot be loaded; files may be missing or of another version.") from error
    if model.config.num_labels > MAX_CLASSES:
        raise ModelError(f"{name} has {model.config.num_labels} classes; this page shows up to {MAX_CLASSES}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Segmenter(name, model.eval().to(device), processor)


def _check_code(source: str, config: dict[str, Any], options: dict[str, Any]) -> None:
    """`ModelError` where a model brings code of another repository: whoever chose the model has not chosen that one."""
    processor = BaseImageProcessor.get_image_processor_dict(source, **options)[0]
    for value in [value for file in (config, processor) for value in (file.get("auto_map") or {}).values()]:
        entries = [value] if isinstance(value, str) else value
        for repository in {str(entry).rpartition("--")[0] for entry in entries} - {"", source}:
            raise ModelError(f"{source} runs code of {repository}, another repository; this page does not.")


__all__ = ["ModelError", "Segmenter", "Segmenters"]
