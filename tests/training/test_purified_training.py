"""Purification from the cache on disk to the trained weights: scores that tell the truth, that lie, that abstain."""

import pytest
import torch

from co2s_hf.data.synthetic import CLASSES, draw_scene
from co2s_hf.raster.write import write_image, write_mask
from tests.training.tiny_runs import STAND_INS, tiny_arguments
from training.purification.cache import RegionCache
from training.purification.calibration import Calibration
from training.train_semi import main

pytestmark = pytest.mark.filterwarnings(STAND_INS)

SIZE_PX, CELL_PX, NUM_CLASSES = 96, 4, len(CLASSES)
SURE = 8.0  # logit of the class that a score names
# Everything a scorer is sure of counts, from the first step on.
SETTINGS = dict(tau=0.95, c_relabel=0.95, margin=0.0, lambda_peak=1.0)
TRAINING = dict(
    model="dinov2_dpt",
    config=dict(window_px=SIZE_PX),
    scenes=None,
    classes=list(CLASSES),
    labelled=["s0.png"],
    validation=["s1?.png"],
    max_steps=30,
    eval_every=30,
    save_every=30,
    crop_px=48,
    batch_size=4,
    scale_range=[0.75, 1.5],
    lr=3e-3,
    threshold=0.95,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes s0 to s13 with their truth: s0 labelled, s10 to s13 for validation, the others without masks."""
    folder, truth = tmp_path_factory.mktemp("scenes"), {}
    (folder / "images").mkdir(), (folder / "labels").mkdir()
    for i in range(14):
        image, labels = draw_scene(3, i, SIZE_PX, weather=0.2, season=0.5)
        write_image(folder / "images" / f"s{i}.png", image)
        truth[f"s{i}.png"] = torch.from_numpy(labels).long()
        if i == 0 or i >= 10:
            write_mask(folder / "labels" / f"s{i}.png", labels)
    return folder, truth


def oracle(label):
    return label


def liar(label):
    return (label + 1) % NUM_CLASSES


def abstainer(label):
    return torch.full_like(label, -1)


def write_cache(folder, scenes, word):
    """Score cells of a few pixels, as a model would that says `word` of their truth; -1 abstains."""
    images, truth = scenes
    cache = RegionCache(folder, {"names": list(CLASSES), "scorer": word.__name__})
    side = SIZE_PX // CELL_PX
    regions = torch.arange(side**2).view(side, side).repeat_interleave(CELL_PX, 0).repeat_interleave(CELL_PX, 1)
    for name, labels in truth.items():
        middle = labels[CELL_PX // 2 :: CELL_PX, CELL_PX // 2 :: CELL_PX].reshape(-1)
        said = word(middle)
        scores = torch.zeros(len(said), NUM_CLASSES)
        scores[torch.arange(len(said)), said.clamp(min=0)] = SURE
        scores[said < 0] = torch.nan
        cache.write(images / "images" / name, regions, scores)
    precision = (1.0,) * NUM_CLASSES
    cache.keep_calibration(Calibration(1.0, (0.0,) * NUM_CLASSES, precision, 1.0, 1.0, ()))
    return str(folder)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """FixMatch, and SemiEarth with each of the scorers: their metrics and folders."""
    runs = {}
    for name, word in (("fixmatch", None), ("oracle", oracle), ("liar", liar), ("abstainer", abstainer)):
        folder = tmp_path_factory.mktemp(name)
        purify = None if word is None else write_cache(folder / "scores", scenes, word)
        changes = (
            dict(method="fixmatch") if word is None else dict(method="semiearth", purify=purify, purifier=SETTINGS)
        )
        arguments = tiny_arguments(folder, data_dir=str(scenes[0]), **{**TRAINING, **changes})
        runs[name] = main(arguments), folder / "run"
    return runs


def mean_iou(metrics):
    return metrics["history"][-1]["dino"]["mean_iou"]


def test_truth_raises_and_lies_lower_the_result(trained):
    scores = {name: mean_iou(metrics) for name, (metrics, _) in trained.items()}

    assert scores["oracle"] > scores["fixmatch"] + 0.03
    assert scores["liar"] < scores["fixmatch"] - 0.03


def test_who_abstains_changes_nothing(trained):
    (plain, one), (abstained, two) = trained["fixmatch"], trained["abstainer"]
    weights = [folder / "model" / "model.safetensors" for folder in (one, two)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for first, second in zip(plain["losses"], abstained["losses"], strict=True):
        assert first == {name: second[name] for name in first}
        assert second["purified_dino_abstained"] == second["purified_dino_asked"]
        assert second["purified_dino_admitted"] == 0
