"""The image processor of every model here: any number of bands, 8 and 16 bit, PyTorch operations only.

One class on purpose. A pair of PIL and torchvision back ends would differ by a grey level, reject 16-bit and
multi-band images, and divide a float image that already lies in [0, 1] by 255.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

IGNORE = 255  # the label of pixels that do not count: padding and unlabelled ground
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
FLOAT_RANGE = (-0.5, 1.5)  # [0, 1] with room for the overshoot of resampling and for clouds brighter than white
MAX_PIXELS = 2**28  # of a resized or padded batch, times its bands: 3 GB of RGB. Sizes may be a stranger's.
SETTINGS = ("do_resize", "size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
# What transformers writes into preprocessor_config.json or adds while loading, besides the settings.
BOOKKEEPING = frozenset({"auto_map", "image_processor_type", "processor_class", "feature_extractor_type"})

Picture = Image.Image | np.ndarray | Tensor


class Co2SImageProcessor(BaseImageProcessor):
    """Turns images of any size into one normalised, padded batch, and logits into maps of class ids.

    The number of bands N is the length of `image_mean`. Images are PIL, numpy or torch, (H, W, N) or (N, H, W).

    Args:
        do_resize: Resize to `size` (images antialiased bilinear, maps nearest). Off by default: the models take
            any size, and ground resolution carries meaning in remote sensing.
        size: `{"height": px, "width": px}` or `{"shortest_edge": px}`.
        do_rescale: Bring integer images to [0, 1]. Float images are taken to lie there already and are never scaled.
        rescale_factor: Factor for integer images; None means by dtype (uint8 / 255, uint16 / 65535).
        do_normalize: Subtract `image_mean` and divide by `image_std`.
        image_mean: Mean of each band on the [0, 1] scale (ImageNet RGB by default).
        image_std: Standard deviation of each band on the same scale.

    Raises:
        TypeError: An unknown setting.
        ValueError: Settings that contradict each other.
    """

    model_input_names = ["pixel_values"]
    rescale_factor: float | None = None  # type: ignore[assignment]

    def __init__(
        self,
        *,
        do_resize: bool = False,
        size: Mapping[str, int] | None = None,
        do_rescale: bool = True,
        rescale_factor: float | None = None,
        do_normalize: bool = True,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        **bookkeeping: Any,
    ) -> None:
        """Keep the settings and refuse those that cannot work."""
        _refuse_unknown(bookkeeping.keys() - BOOKKEEPING)
        super().__init__()
        self.do_resize = do_resize
        self.size = None if size is None else dict(size)
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = _floats("image_mean", image_mean)
        self.image_std = _floats("image_std", image_std)
        self.auto_map: dict[str, Any] | None = bookkeeping.get("auto_map")
        self._check_settings()

    def _check_settings(self) -> None:
        if len(self.image_mean) != len(self.image_std) or not self.image_mean or min(self.image_std) <= 0:
            raise ValueError(
                "image_mean and image_std need one number per band and every image_std above 0, "
                f"found image_mean {self.image_mean} and image_std {self.image_std}."
            )
        if self.do_resize and self.size is None:
            raise ValueError("do_resize=True needs a size: {'height': px, 'width': px} or {'shortest_edge': px}.")
        if self.size is not None:
            keys_known = self.size.keys() in ({"height", "width"}, {"shortest_edge"})
            if not keys_known or any(not isinstance(px, int) or px < 1 for px in self.size.values()):
                raise ValueError(
                    "size is {'height': px, 'width': px} or {'shortest_edge': px} with whole numbers from 1, "
                    f"found {self.size}."
                )
        if self.rescale_factor is not None and not self.rescale_factor > 0:
            raise ValueError(f"rescale_factor is a number above 0, or None for by dtype, found {self.rescale_factor}.")

    def to_dict(self) -> dict[str, Any]:
        """Exactly what `preprocessor_config.json` holds: the settings and how to find this class again."""
        entries: dict[str, Any] = {name: getattr(self, name) for name in SETTINGS}
        entries["image_processor_type"] = type(self).__name__
        if self.auto_map is not None:
            entries["auto_map"] = self.auto_map
        return entries

    def preprocess(
        self,
        images: Picture | Sequence[Picture],
        segmentation_maps: Picture | Sequence[Picture] | None = None,
        *,
        input_data_format: str | None = None,
        return_tensors: str | None = None,
        **overrides: Any,
    ) -> BatchFeature:
        """Prepare one image or a batch, with its maps if there are any. Calling the processor does the same.

        Images of different sizes are padded right and below to the largest: images with 0 after normalisation,
        maps with 255.

        Args:
            images: One image or several; a 4-D array or tensor is a batch.
            segmentation_maps: As many (H, W) maps of class ids, each of its image's size. Ids are kept as they are.
            input_data_format: "channels_first" or "channels_last" for arrays whose shape does not tell.
            return_tensors: "np" for numpy arrays; otherwise torch tensors.
            **overrides: `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`, `image_std` for this call.

        Returns:
            `pixel_values` (B, N, H, W) float32 and, given maps, `labels` (B, H, W) int64.

        Raises:
            TypeError: An unknown option, or an image that is neither PIL, numpy nor torch.
            ValueError: Wrong number of bands, values outside the range, NaN, or a map that does not fit its image.
        """
        _refuse_unknown(overrides.keys() - set(SETTINGS))
        if overrides.keys() & {"do_resize", "size"}:
            raise TypeError(
                "do_resize and size belong to the processor, because post-processing must know them too: "
                "construct it with them, or pass them to from_pretrained."
            )
        given = {name: value for name, value in overrides.items() if value is not None}
        processor = type(self)(**{**self.to_dict(), **given}) if given else self
        pictures = _as_list(images, batch_ndim=4)
        tensors = [processor._image(p, f"image {i}", input_data_format) for i, p in enumerate(pictures)]
        prepared = [processor._normalized(processor._resized(image)) for image in tensors]
        data = {"pixel_values": _pad_and_stack(prepared, 0.0)}
        if segmentation_maps is not None:
            maps = [_map_tensor(m, f"segmentation map {i}") for i, m in enumerate(_as_list(segmentation_maps, 3))]
            _check_maps_fit(maps, tensors)
            data["labels"] = _pad_and_stack([processor._resized(m) for m in maps], IGNORE)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _image(self, picture: Picture, name: str, layout: str | None) -> Tensor:
        """One image -> (N, H, W) float32, on [0, 1] unless `do_rescale` is off."""
        num_bands = len(self.image_mean)
        if isinstance(picture, Image.Image):
            picture, layout = np.asarray(_without_palette(picture, num_bands)), "channels_last"
        image = _bands_first(_tensor(picture, name), num_bands, name, layout)
        if image.numel() == 0:
            raise ValueError(f"{name} has no pixels: its shape is {tuple(image.shape)}.")
        if image.is_floating_point():
            _check_floats(image, name, self.do_rescale)
            return image.float()
        if not self.do_rescale:
            return image.float()
        if self.rescale_factor is not None:
            return image.float() * self.rescale_factor
        if image.dtype not in FULL_SCALE:
            raise ValueError(
                f"{name} is {image.dtype}, whose white is unknown; expected uint8, uint16 or floats in [0, 1]. "
                "Convert it, or set rescale_factor."
            )
        return image.float() / FULL_SCALE[image.dtype]

    def _resized(self, image: Tensor) -> Tensor:
        """Resize (N, H, W) floats bilinearly or an (H, W) map of ids to its nearest neighbours, if asked to."""
        if not self.do_resize or self.size is None:
            return image
        height, width = image.shape[-2:]
        if "shortest_edge" in self.size:
            scale = self.size["shortest_edge"] / min(height, width)
            target = (round(height * scale), round(width * scale))
        else:
            target = (self.size["height"], self.size["width"])
        _check_pixels(target[0] * target[1], f"size {self.size} makes {target[0]}x{target[1]}")
        if image.is_floating_point():
            return F.interpolate(image[None], size=target, mode="bilinear", align_corners=False, antialias=True)[0]
        # float64 holds every id up to 2^53 exactly; "nearest-exact" samples pixel centres, as bilinear does.
        return F.interpolate(image[None, None].double(), size=target, mode="nearest-exact")[0, 0].long()

    def _normalized(self, image: Tensor) -> Tensor:
        if not self.do_normalize:
            return image
        mean = image.new_tensor(self.image_mean)[:, None, None]
        return (image - mean) / image.new_tensor(self.image_std)[:, None, None]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | Tensor | None = None,
        *,
        return_scores: bool = False,
    ) -> list[Tensor] | list[tuple[Tensor, Tensor]]:
        """Logits -> one map of class ids per image.

        Args:
            outputs: The model's output, or a mapping with `logits` (B, C, H, W).
            target_sizes: (height, width) in px of each image as it was given to the processor. Without resizing the
                processor only padded right and below, so logits at least that large are cropped; all others are
                resized bilinearly. None keeps the size of the logits, padding included.
            return_scores: Also return the largest softmax probability of each pixel.

        Returns:
            B maps (height, width) int64, or B pairs (map, score (height, width) float32 in [0, 1]).

        Raises:
            ValueError: Not one target size per image.
        """
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
        if target_sizes is None:
            target_sizes = [tuple(logits.shape[-2:])] * len(logits)
        if len(target_sizes) != len(logits):
            raise ValueError(f"{len(logits)} images need as many target sizes, found {len(target_sizes)}.")
        fitted = [self._fit(one, int(h), int(w)) for one, (h, w) in zip(logits.float(), target_sizes, strict=True)]
        if not return_scores:
            return [one.argmax(dim=0) for one in fitted]
        scored = [one.softmax(dim=0).max(dim=0) for one in fitted]
        return [(best.indices, best.values) for best in scored]

    def _fit(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Logits (C, h, w) of the padded or resized image -> (C, height, width) of the image itself."""
        if not self.do_resize and height <= logits.shape[-2] and width <= logits.shape[-1]:
            return logits[:, :height, :width]
        return F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def _check_pixels(pixels: int, found: str) -> None:
    if pixels > MAX_PIXELS:
        raise ValueError(f"{found}, {pixels} pixels in one batch; expected at most {MAX_PIXELS}. Make smaller batches.")


def _refuse_unknown(names: Set[str]) -> None:
    if names:
        raise TypeError(f"Co2SImageProcessor has no setting {sorted(names)}; it knows {list(SETTINGS)}.")


def _floats(name: str, values: Sequence[float]) -> list[float]:
    if isinstance(values, (int, float)):
        raise ValueError(f"{name} needs one number per band as a list, found the single number {values}.")
    return [float(value) for value in values]


def _as_list(pictures: Picture | Sequence[Picture], batch_ndim: int) -> list[Picture]:
    """One picture, a batch array or a sequence -> a list that is not empty."""
    if isinstance(pictures, Image.Image):
        return [pictures]
    if isinstance(pictures, (np.ndarray, Tensor)):
        return list(pictures) if pictures.ndim == batch_ndim else [pictures]
    if not isinstance(pictures, Sequence) or isinstance(pictures, (str, bytes)):
        raise TypeError(
            f"expected a PIL image, a numpy array, a torch tensor or a list of them, found {type(pictures).__name__}. "
            "Open files first."
        )
    if not pictures:
        raise ValueError("expected at least one image, found an empty list.")
    return list(pictures)


def _tensor(picture: Any, name: str) -> Tensor:
    """A numpy array or a tensor -> a tensor of the same shape and type; boolean and complex arrays are refused."""
    if isinstance(picture, np.ndarray):
        if picture.dtype.kind not in "iuf":
            raise ValueError(f"{name} has dtype {picture.dtype}; expected integers or floats.")
        # A native-endian copy: torch takes neither big-endian TIFF data, nor negative strides, nor read-only arrays.
        return torch.from_numpy(np.array(picture, dtype=picture.dtype.newbyteorder("="), order="C"))
    if not isinstance(picture, Tensor):
        raise TypeError(f"{name} is a {type(picture).__name__}; expected a PIL image, a numpy array or a torch tensor.")
    if picture.dtype == torch.bool or picture.is_complex():
        raise ValueError(f"{name} has dtype {picture.dtype}; expected integers or floats.")
    return picture


def _without_palette(picture: Image.Image, num_bands: int) -> Image.Image:
    """Palette, grey and alpha PIL images -> RGB where three bands are expected; 16-bit and float ones stay."""
    if picture.mode.startswith(("I", "F")):
        return picture
    if num_bands != 3 and picture.mode not in ("P", "PA"):
        return picture
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise ValueError(f"Pillow makes no RGB of a picture of mode {picture.mode} ({error}). Convert it.") from error


def _bands_first(image: Tensor, num_bands: int, name: str, layout: str | None) -> Tensor:
    """(H, W), (H, W, N) or (N, H, W) -> (N, H, W); the layout is read off the number of bands."""
    if layout not in (None, "channels_first", "channels_last"):
        raise ValueError(f"input_data_format is 'channels_first' or 'channels_last', found {layout!r}.")
    shape = tuple(image.shape)
    if image.ndim == 2:
        image, layout = image[None], "channels_first"
    if image.ndim == 3 and layout is None and image.shape[0] == image.shape[2] == num_bands:
        raise ValueError(
            f"{name} of shape {shape} can be read as bands first and as bands last. Say which with input_data_format."
        )
    if image.ndim == 3 and layout != "channels_first" and image.shape[2] == num_bands:
        return image.permute(2, 0, 1)
    if image.ndim == 3 and layout != "channels_last" and image.shape[0] == num_bands:
        return image
    raise ValueError(
        f"{name}: expected {num_bands} band(s), the length of image_mean, found an array of shape {shape}"
        f"{'' if layout is None else ' read as ' + layout}. "
        "Select the bands, or construct the processor with image_mean and image_std of the right length."
    )


def _check_floats(image: Tensor, name: str, expect_unit_range: bool) -> None:
    low, high = (float(value) for value in image.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} contains NaN or infinite values. Replace the missing pixels first.")
    if expect_unit_range and (low < FLOAT_RANGE[0] or high > FLOAT_RANGE[1]):
        raise ValueError(
            f"{name} is a float image with values from {low:g} to {high:g}; expected floats in [0, 1]. "
            "Pass the uint8 or uint16 image, divide it by its full scale, or set do_rescale=False."
        )


def _map_tensor(picture: Picture, name: str) -> Tensor:
    """One map -> (H, W) int64 with its ids unchanged (of a palette image: the indices, not the colours)."""
    ids = _tensor(np.asarray(picture) if isinstance(picture, Image.Image) else picture, name)
    if ids.ndim != 2 or ids.is_floating_point():
        raise ValueError(f"{name}: expected (H, W) whole-number class ids, found {ids.dtype} {tuple(ids.shape)}.")
    return ids.long()


def _check_maps_fit(maps: Sequence[Tensor], images: Sequence[Tensor]) -> None:
    if len(maps) != len(images):
        raise ValueError(f"{len(images)} image(s) need as many segmentation maps, found {len(maps)}.")
    for index, (ids, image) in enumerate(zip(maps, images, strict=True)):
        if ids.shape != image.shape[-2:]:
            raise ValueError(
                f"segmentation map {index} is {tuple(ids.shape)} (H, W) but its image is {tuple(image.shape[-2:])}. "
                "Pass the map that belongs to the image, at its size."
            )


def _pad_and_stack(pictures: Sequence[Tensor], value: float) -> Tensor:
    """B tensors (..., h, w) -> (B, ..., H, W), padded right and below with `value`."""
    height, width = (max(picture.shape[side] for picture in pictures) for side in (-2, -1))
    _check_pixels(len(pictures) * height * width, f"{len(pictures)} image(s) padded to {height}x{width} are too large")
    padded = [F.pad(p, (0, width - p.shape[-1], 0, height - p.shape[-2]), value=value) for p in pictures]
    return torch.stack(padded)
