"""Tests of `co2s_hf.image_processing_co2s`."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ImageSegmentationPipeline, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from co2s_hf import image_processing_co2s
from co2s_hf.image_processing_co2s import IMAGENET_MEAN, IMAGENET_STD, Co2SImageProcessor

MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]


def scene(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)


def plain(bands: int = 3, **settings) -> Co2SImageProcessor:
    """A processor that only scales, so that values can be read off."""
    return Co2SImageProcessor(do_normalize=False, image_mean=[0.0] * bands, image_std=[1.0] * bands, **settings)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_uint8_is_divided_by_255_and_imagenet_normalised():
    image = scene(5, 7)
    pixels = Co2SImageProcessor()(image)["pixel_values"]
    expected = (torch.tensor(image).permute(2, 0, 1) / 255 - MEAN) / STD
    assert pixels.shape == (1, 3, 5, 7) and pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[0], expected)


def test_uint16_is_divided_by_65535():
    image = np.full((4, 6, 3), 13107, dtype=np.uint16)
    torch.testing.assert_close(plain()(image)["pixel_values"], torch.full((1, 3, 4, 6), 0.2))


def test_rescale_factor_overrides_the_dtype_of_integers():
    image = np.full((4, 6, 3), 5000, dtype=np.uint16)
    expected = torch.full((1, 3, 4, 6), 0.5)
    torch.testing.assert_close(plain(rescale_factor=1e-4)(image)["pixel_values"], expected)
    torch.testing.assert_close(plain()(image.astype(np.int32), rescale_factor=1e-4)["pixel_values"], expected)


@pytest.mark.parametrize("rescale_factor", [None, 1 / 255])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_never_divided(dtype, rescale_factor):
    image = np.full((4, 6, 3), 0.75, dtype=dtype)
    pixels = plain(rescale_factor=rescale_factor)(image)["pixel_values"]
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.full((1, 3, 4, 6), 0.75))


def test_without_rescaling_values_stay():
    image = scene(4, 6)
    pixels = plain(do_rescale=False)(image)["pixel_values"]
    assert torch.equal(pixels[0], torch.tensor(image).permute(2, 0, 1).float())
    assert float(plain(do_rescale=False)(np.full((4, 6, 3), 200.0))["pixel_values"].max()) == 200


def test_every_kind_of_input_gives_the_same_numbers():
    image = scene(5, 7)
    processor = Co2SImageProcessor()
    expected = processor(image)["pixel_values"]
    bands_first = np.moveaxis(image, -1, 0)
    same = [
        Image.fromarray(image),
        [image],
        (torch.tensor(image),),
        bands_first,
        image[None],
        torch.tensor(bands_first.copy())[None],
        np.ascontiguousarray(image[::-1])[::-1],
        image.astype(np.float64) / 255,
        (image.astype(np.uint16) * 257).astype(">u2"),  # big-endian, as GeoTIFF readers give it
    ]
    for pictures in same:
        torch.testing.assert_close(processor(pictures)["pixel_values"], expected)


def test_grey_palette_and_alpha_pil_images_become_rgb():
    grey = Image.fromarray(scene(5, 7)[..., 0])
    pixels = plain()(grey)["pixel_values"]
    assert torch.equal(pixels[0, 0], pixels[0, 2])
    palette = Image.new("P", (7, 5), 1)
    palette.putpalette([0, 0, 0, 255, 51, 0])
    torch.testing.assert_close(plain()(palette)["pixel_values"][0, :, 0, 0], torch.tensor([1.0, 0.2, 0.0]))
    assert plain()(Image.new("RGBA", (7, 5)))["pixel_values"].shape == (1, 3, 5, 7)


def test_multi_band_images_use_mean_and_std_of_each_band():
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    processor = Co2SImageProcessor(image_mean=mean, image_std=std)
    image = torch.rand(6, 4, 5, generator=torch.Generator().manual_seed(0))
    pixels = processor([image, image.permute(1, 2, 0).numpy()])["pixel_values"]
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(pixels, torch.stack([expected, expected]))


def test_one_band_needs_no_band_axis():
    assert plain(bands=1)(scene(4, 6)[..., 0])["pixel_values"].shape == (1, 1, 4, 6)


def test_input_data_format_settles_an_ambiguous_shape():
    image = scene(3, 5)[:, :, :3]  # (3, 5, 3)
    pixels = plain()(image, input_data_format="channels_last")["pixel_values"]
    assert torch.equal(pixels[0], torch.tensor(image).permute(2, 0, 1) / 255)
    assert torch.equal(plain()(image, input_data_format="channels_first")["pixel_values"][0], torch.tensor(image) / 255)


def test_return_tensors():
    assert isinstance(Co2SImageProcessor()(scene(4, 6), return_tensors="np")["pixel_values"], np.ndarray)
    assert isinstance(Co2SImageProcessor()(scene(4, 6), return_tensors="pt")["pixel_values"], torch.Tensor)


def test_input_is_left_alone():
    image = torch.rand(3, 4, 6)
    before = image.clone()
    Co2SImageProcessor()(image)
    assert torch.equal(image, before)


# ---- batches, maps, resizing -----------------------------------------------------------------------------------------


def test_batch_is_padded_right_and_below_after_normalising():
    small, large = scene(4, 9), scene(6, 5)
    maps = [np.full((4, 9), 3, dtype=np.uint8), np.full((6, 5), 254, dtype=np.int32)]
    batch = Co2SImageProcessor()([small, large], maps)
    alone = Co2SImageProcessor()(small)["pixel_values"][0]
    assert batch["pixel_values"].shape == (2, 3, 6, 9)
    assert torch.equal(batch["pixel_values"][0, :, :4], alone)
    assert not batch["pixel_values"][0, :, 4:].any() and not batch["pixel_values"][1, :, :, 5:].any()
    assert batch["labels"].dtype == torch.int64 and batch["labels"].shape == (2, 6, 9)
    assert (batch["labels"][0, :4] == 3).all() and (batch["labels"][0, 4:] == 255).all()
    assert (batch["labels"][1, :, :5] == 254).all() and (batch["labels"][1, :, 5:] == 255).all()


def test_ids_of_maps_stay_as_they_are():
    ids = np.array([[0, 1, 254], [255, 7, 300]], dtype=np.uint16)
    image = scene(2, 3)
    assert Co2SImageProcessor()(image, ids)["labels"].tolist() == [ids.tolist()]
    assert Co2SImageProcessor()(image, torch.tensor(ids.astype(np.int64)))["labels"].tolist() == [ids.tolist()]
    palette = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)).convert("P")
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
    assert Co2SImageProcessor()(image, palette)["labels"].tolist() == [np.asarray(palette).tolist()]


def test_resize_is_antialiased_for_images_and_nearest_for_maps():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[:, 2:] = 255
    ids = np.array([[1, 1, 9, 9]] * 4)
    batch = plain(do_resize=True, size={"height": 2, "width": 2})(image, ids)
    # The antialiased triangle filter at scale 2 weighs four neighbouring columns 3, 3, 1 (out of 7 at the border).
    torch.testing.assert_close(batch["pixel_values"][0, 0, 0], torch.tensor([1 / 7, 6 / 7]))
    assert batch["labels"].tolist() == [[[1, 9], [1, 9]]]


def test_shortest_edge_keeps_the_proportions():
    processor = plain(do_resize=True, size={"shortest_edge": 6})
    batch = processor([scene(4, 5), scene(8, 4)], [np.zeros((4, 5), int), np.zeros((8, 4), int)])
    assert batch["pixel_values"].shape == (2, 3, 12, 8)
    assert batch["labels"][0, :6].eq(0).all() and batch["labels"][0, 6:].eq(255).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            scene(5, 7, bands=4),
            r"image 0: expected 3 band\(s\).*found an array of shape \(5, 7, 4\).*construct the proc",
        ),
        (scene(5, 7)[..., 0], r"expected 3 band\(s\).*\(5, 7\)"),
        (scene(3, 7), r"\(3, 7, 3\) can be read as bands first and as bands last.*input_data_format"),
        (
            np.full((4, 6, 3), 200.0),
            r"image 0 is a float image with values from 200 to 200; expected floats in \[0, 1\]",
        ),
        (np.full((4, 6, 3), -2.0), "values from -2 to -2"),
        (np.full((4, 6, 3), np.nan), "image 0 contains NaN or infinite values"),
        (np.zeros((4, 6, 3), dtype=np.int16), "image 0 is torch.int16, whose white is unknown"),
        (np.zeros((4, 6, 3), dtype=bool), "image 0 has dtype bool"),
        (torch.zeros(3, 4, 6, dtype=torch.bool), "image 0 has dtype torch.bool"),
        (np.zeros((0, 6, 3), dtype=np.uint8), "image 0 has no pixels"),
        ([], "found an empty list"),
        (Image.fromarray(np.zeros((4, 6), dtype=np.uint16)), r"expected 3 band\(s\).*\(4, 6\)"),
    ],
)
def test_refuses_images(image, message):
    with pytest.raises(ValueError, match=message):
        Co2SImageProcessor()(image)


def test_refuses_things_that_are_no_images():
    with pytest.raises(TypeError, match="found str. Open files first"):
        Co2SImageProcessor()("scene.png")
    with pytest.raises(TypeError, match="image 1 is a str"):
        Co2SImageProcessor()([scene(5, 7), "scene.png"])
    with pytest.raises(ValueError, match="'channels_first' or 'channels_last', found 'HWC'"):
        Co2SImageProcessor()(scene(5, 7), input_data_format="HWC")


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.zeros((7, 5), int), r"segmentation map 0 is \(7, 5\) \(H, W\) but its image is \(5, 7\)"),
        ([np.zeros((5, 7), int)] * 2, r"1 image\(s\) need as many segmentation maps, found 2"),
        (np.zeros((5, 7)), r"segmentation map 0: expected \(H, W\) whole-number class ids, found torch.float64"),
        (Image.new("RGB", (7, 5)), r"segmentation map 0: expected \(H, W\).*\(5, 7, 3\)"),
    ],
)
def test_refuses_maps(maps, message):
    with pytest.raises(ValueError, match=message):
        Co2SImageProcessor()(scene(5, 7), maps)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"do_resise": True}, TypeError, r"no setting \['do_resise'\]; it knows \['do_resize'"),
        ({"reduce_labels": True}, TypeError, "no setting"),
        ({"do_resize": True}, ValueError, "do_resize=True needs a size"),
        ({"size": {"longest_edge": 3}}, ValueError, "'shortest_edge': px} with whole numbers from 1, found"),
        ({"size": {"height": 0, "width": 4}}, ValueError, "found {'height': 0"),
        ({"image_mean": [0.5]}, ValueError, "one number per band"),
        ({"image_mean": 0.5}, ValueError, "image_mean needs one number per band as a list"),
        ({"image_std": [0.0, 1.0, 1.0]}, ValueError, "every image_std above 0"),
        ({"rescale_factor": 0.0}, ValueError, "rescale_factor is a number above 0"),
    ],
)
def test_refuses_settings(settings, error, message):
    with pytest.raises(error, match=message):
        Co2SImageProcessor(**settings)


def test_refuses_unknown_options_of_a_call():
    with pytest.raises(TypeError, match=r"no setting \['do_pad'\]"):
        Co2SImageProcessor()(scene(5, 7), do_pad=None)
    with pytest.raises(TypeError, match="do_resize and size belong to the processor"):
        Co2SImageProcessor()(scene(5, 7), do_resize=True)


def test_settings_of_a_call_last_for_that_call():
    processor = Co2SImageProcessor()
    image = scene(5, 7)
    raw = processor(image, do_normalize=False, do_rescale=False)["pixel_values"]
    assert torch.equal(raw[0], torch.tensor(image).permute(2, 0, 1).float())
    assert processor.do_normalize and processor.do_rescale


# ---- post-processing -------------------------------------------------------------------------------------------------


def logits_of(ids: torch.Tensor, num_classes: int) -> torch.Tensor:
    """(B, H, W) ids -> (B, C, H, W) logits that are 4 for the id and 0 elsewhere."""
    return torch.nn.functional.one_hot(ids, num_classes).movedim(-1, 1) * 4.0


def test_maps_of_padded_images_are_cropped():
    ids = torch.arange(2 * 6 * 9).reshape(2, 6, 9) % 4
    outputs = {"logits": logits_of(ids, 4)}
    maps = Co2SImageProcessor().post_process_semantic_segmentation(outputs, target_sizes=[(4, 9), (6, 5)])
    assert torch.equal(maps[0], ids[0, :4]) and torch.equal(maps[1], ids[1, :, :5])
    assert maps[0].dtype == torch.int64
    whole = Co2SImageProcessor().post_process_semantic_segmentation(SimpleNamespace(**outputs))
    assert torch.equal(torch.stack(whole), ids)


def test_maps_of_resized_images_are_resized():
    ids = torch.tensor([[[0, 0, 1, 1], [2, 2, 3, 3]]])
    outputs = SemanticSegmenterOutput(logits=logits_of(ids, 4).bfloat16())
    resizing = Co2SImageProcessor(do_resize=True, size={"height": 2, "width": 4})
    assert resizing.post_process_semantic_segmentation(outputs, [(2, 2)])[0].tolist() == [[0, 1], [2, 3]]
    larger = Co2SImageProcessor().post_process_semantic_segmentation(outputs, torch.tensor([[4, 8]]))[0]
    assert torch.equal(larger, ids[0].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_scores_are_the_largest_probabilities():
    outputs = {"logits": torch.tensor([0.0, 3.0]).log1p().reshape(1, 2, 1, 1)}
    ((ids, score),) = Co2SImageProcessor().post_process_semantic_segmentation(outputs, return_scores=True)
    assert ids.tolist() == [[1]]
    torch.testing.assert_close(score, torch.tensor([[0.8]]))


def test_refuses_too_few_target_sizes():
    with pytest.raises(ValueError, match="2 images need as many target sizes, found 1"):
        Co2SImageProcessor().post_process_semantic_segmentation({"logits": torch.zeros(2, 3, 4, 4)}, [(4, 4)])


# ---- inside transformers ---------------------------------------------------------------------------------------------


class BrightnessConfig(PreTrainedConfig):
    model_type = "co2s_test_brightness"


class BrightnessModel(PreTrainedModel):
    """Class 1 where the normalised red band is positive, class 0 elsewhere."""

    config_class = BrightnessConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.post_init()

    def forward(self, pixel_values):
        red = pixel_values[:, :1] * self.scale
        return SemanticSegmenterOutput(logits=torch.cat([-red, red], dim=1))


def test_works_in_the_stock_pipeline():
    image = np.zeros((5, 8, 3), dtype=np.uint8)
    image[:, 3:] = 255
    model = BrightnessModel(BrightnessConfig(id2label={0: "dark", 1: "bright"}, label2id={"dark": 0, "bright": 1}))
    segment = ImageSegmentationPipeline(model=model.eval(), image_processor=Co2SImageProcessor(), device="cpu")
    found = {entry["label"]: np.asarray(entry["mask"]) for entry in segment(Image.fromarray(image))}
    assert found.keys() == {"dark", "bright"}
    np.testing.assert_array_equal(found["bright"], image[..., 0])


def test_settings_survive_saving(tmp_path):
    settings = dict(
        do_resize=True,
        size={"shortest_edge": 8},
        rescale_factor=1e-4,
        do_normalize=False,
        image_mean=[0.1, 0.2, 0.3, 0.4],
        image_std=[1.0, 2.0, 3.0, 4.0],
    )
    Co2SImageProcessor(**settings).save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "preprocessor_config.json").read_text())
    entries.pop("auto_map", None)  # there once the package has registered the class
    assert entries == {**settings, "do_rescale": True, "image_processor_type": "Co2SImageProcessor"}
    loaded = Co2SImageProcessor.from_pretrained(tmp_path)
    assert {name: loaded.to_dict()[name] for name in entries} == entries
    assert Co2SImageProcessor.from_pretrained(tmp_path, do_resize=False).do_resize is False


def test_default_settings_survive_saving(tmp_path):
    Co2SImageProcessor().save_pretrained(tmp_path)
    loaded = Co2SImageProcessor.from_pretrained(tmp_path)
    assert loaded.rescale_factor is None and loaded.size is None
    image = scene(5, 7)
    assert torch.equal(loaded(image)["pixel_values"], Co2SImageProcessor()(image)["pixel_values"])


def test_auto_class_finds_a_registered_processor(tmp_path):
    AutoImageProcessor.register(BrightnessConfig, image_processor_classes={"pil": Co2SImageProcessor}, exist_ok=True)
    Co2SImageProcessor(rescale_factor=1e-4).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is Co2SImageProcessor and loaded.rescale_factor == 1e-4


def test_the_address_of_the_code_survives_saving(tmp_path):
    auto_map = {"AutoImageProcessor": "image_processing_co2s.Co2SImageProcessor"}
    Co2SImageProcessor(auto_map=auto_map).save_pretrained(tmp_path)
    assert Co2SImageProcessor.from_pretrained(tmp_path).to_dict()["auto_map"] == auto_map


def test_the_file_ships_alone():
    tree = ast.parse(Path(image_processing_co2s.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {n for i in imports for n in ([i.module] if isinstance(i, ast.ImportFrom) else [a.name for a in i.names])}
    assert {name.split(".")[0] for name in names} == {"collections", "numpy", "PIL", "torch", "transformers", "typing"}


def test_batches_beyond_memory_are_refused():
    with pytest.raises(ValueError, match="makes 1000000x1000000, 1000000000000 pixels in one batch; expected at most"):
        Co2SImageProcessor(do_resize=True, size={"height": 10**6, "width": 10**6})(scene(4, 4))
    with pytest.raises(ValueError, match="padded to 100000x100000 are too large"):
        Co2SImageProcessor()([scene(1, 100_000), scene(100_000, 1)])


def test_modes_that_pillow_does_not_convert_are_named():
    with pytest.raises(ValueError, match="no RGB of a picture of mode La"):
        Co2SImageProcessor()(Image.new("La", (4, 4)))
