"""Parity with SemiEarth's released purification of pseudo-labels: recordings of it against `training/purification`.

`FAMILY_GOLDEN` names a directory with vlmpp.json and vlmpp.safetensors; the default holds a part of the tensors. A case
without recordings is skipped, and the last test checks what must not be.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.purification.official import OfficialPurifier, parse_boxes, to_uint8

SUBSET = Path(__file__).parent / "goldens" / "family"
DIRECTORY = Path(os.environ.get("FAMILY_GOLDEN", SUBSET))
RECORDED = json.loads((DIRECTORY / "vlmpp.json").read_text())
TENSORS = load_file(DIRECTORY / "vlmpp.safetensors")
CASES = sorted(RECORDED["cases"])
MAPS = sorted(name for name in TENSORS if name.startswith("ground."))
TOLERANCE = 1e-6
ERRORS = []
REQUIRED = {"interval2_stale_cache", "mismatch_on_sam", "mismatch_off", "thr09_bbox05", "no_low_conf"}

pytestmark = pytest.mark.filterwarnings("error")


def ellipse(pixels, box):
    """Give the recording's best mask of a box: the ellipse in it."""
    left, top, right, bottom = box
    rows, columns = torch.arange(pixels.shape[0])[:, None], torch.arange(pixels.shape[1])
    across = (columns - (left + right) / 2) / ((right - left) / 2)
    along = (rows - (top + bottom) / 2) / ((bottom - top) / 2)
    return (across**2 + along**2 <= 1).float()


class Answers:
    """The recorded answers in the order of the calls."""

    def __init__(self, texts):
        self.texts, self.calls = texts, 0

    def __call__(self, pixels):
        self.calls += 1
        return self.texts[(self.calls - 1) % len(self.texts)]


def purifier(texts, **config):
    settings = {**RECORDED["defaults"], **config}
    return OfficialPurifier(
        RECORDED["class_names"],
        Answers(texts),
        ellipse if settings["use_sam"] else None,
        tau=settings["vlm_pp_conf_threshold"],
        bbox_confidence=settings["bbox_confidence"],
        interval=settings["qwen_inference_interval"],
        corrects=settings["use_vlm_on_mismatch"],
    )


def close(ours, recorded):
    error = (ours.double() - recorded.double()).abs().max().item()
    ERRORS.append(error)
    assert error <= TOLERANCE


def test_normalisation_is_undone_bit_by_bit():
    assert torch.equal(torch.from_numpy(to_uint8(TENSORS["to_pil.in"][0])), TENSORS["to_pil.out_u8"])


@pytest.mark.parametrize("number", range(len(RECORDED["parse"])))
def test_answers_are_parsed_as_released(number):
    one = RECORDED["parse"][number]
    found = {
        name: [list(box) for box in boxes] for name, boxes in parse_boxes(one["text"], RECORDED["class_names"]).items()
    }
    assert found == one["detections"]


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_detections(name):
    kind, number = name.removeprefix("ground.").split("_")
    ours = purifier([RECORDED["texts"][int(number)]], use_sam=kind == "sam")
    close(ours.ground(torch.zeros(3, RECORDED["H"], RECORDED["W"])), TENSORS[name])


@pytest.mark.parametrize("name", CASES)
def test_cases(name):
    case = RECORDED["cases"][name]
    if f"{name}.0.conf" not in TENSORS:
        pytest.skip(f"{DIRECTORY} holds no tensors of {name}")
    ours = purifier(case["texts_in_order"], **case["cfg"])
    for number, call in enumerate(case["calls"]):

        def recorded(key, number=number):
            return TENSORS.get(f"{name}.{number}.{key}")

        asked = ours.detect.calls
        confidence, labels = recorded("conf"), recorded("labels").long()
        images = torch.zeros(call["batch"], 3, RECORDED["H"], RECORDED["W"])
        refined_labels, refined = ours(images, labels, confidence)
        assert ours.detect.calls - asked == call["vlm_queries"]
        close(refined, recorded("refined_conf"))
        assert torch.equal(
            refined_labels, labels if recorded("refined_labels") is None else recorded("refined_labels").long()
        )
        if recorded("spatial_probs_used") is not None:
            close(ours.maps, recorded("spatial_probs_used"))
        if call["labels_changed"] is not None:
            assert (refined_labels != labels).sum() == call["labels_changed"]
        assert (refined != confidence).sum() == call["conf_changed"]


def test_nothing_required_is_missing():
    compared = {name for name in CASES if f"{name}.0.conf" in TENSORS}
    assert REQUIRED <= compared and {"ground.box_0", "ground.sam_0"} <= set(MAPS)
    print(f"largest error of {len(ERRORS)} comparisons: {max(ERRORS, default=0):.1e}")
    if DIRECTORY != SUBSET:
        assert compared == set(CASES) and len(MAPS) >= 8
