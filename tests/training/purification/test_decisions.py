import doctest
import math
from dataclasses import replace

import pytest
import torch

from training.parts.losses import confident_cross_entropy
from training.parts.pseudo_labels import PseudoLabels
from training.purification import decisions
from training.purification.decisions import PurifierSettings, purify
from training.purification.regions import boundary_band, find_regions

NAN = [math.nan] * 3
SETTINGS = PurifierSettings()
SHARES = ["low", "asked", "abstained", "agreed", "relabelled", "doubted", "vetoed", "admitted"]


def one_pixel(confidence, q, *, label=0, region=0, settings=SETTINGS, threshold=0.95, admission_weight=0.5):
    """Purify a pixel of class `label`; returns label, confidence, weight and the names of the shares that are 1."""
    pseudo = PseudoLabels(torch.tensor([[[label]]]), torch.tensor([[[confidence]]]), torch.tensor([[[True]]]))
    purified, shares = purify(
        pseudo,
        torch.tensor([[[region]]]),
        torch.tensor([[q]]),
        settings=settings,
        threshold=threshold,
        admission_weight=admission_weight,
    )
    assert list(shares) == SHARES and all(value.ndim == 0 for value in shares.values())
    weight = None if purified.weight is None else purified.weight.item()
    return purified.label.item(), purified.confidence.item(), weight, {n for n, value in shares.items() if value == 1}


def test_docstring_examples():
    results = doctest.testmod(decisions)
    assert results.attempted > 0 and results.failed == 0


def test_agreement_admits_with_the_blended_confidence_as_weight():
    # a = 0.35 / 0.7 = 0.5; c' = 0.5 * 0.35 + 0.5 * 0.8 = 0.575; weight = 0.5 * 0.575
    label, confidence, weight, shares = one_pixel(0.35, [0.8, 0.15, 0.05])
    assert (label, confidence) == (0, 1.0) and weight == pytest.approx(0.2875)
    assert shares == {"low", "asked", "agreed", "admitted"}


def test_correction_takes_class_and_probability_of_the_model():
    label, confidence, weight, shares = one_pixel(0.35, [0.1, 0.8, 0.1])
    assert (label, confidence) == (1, 1.0) and weight == pytest.approx(0.4)
    assert shares == {"low", "asked", "relabelled", "admitted"}


def test_weights_of_the_two_cases_are_apart():
    settings = replace(SETTINGS, agree_weight=0.5, relabel_weight=0.25)
    assert one_pixel(0.35, [0.8, 0.15, 0.05], settings=settings)[2] == pytest.approx(0.14375)
    assert one_pixel(0.35, [0.1, 0.8, 0.1], settings=settings)[2] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "confidence, q",
    [
        (0.35, [0.59, 0.3, 0.11]),  # agrees, not enough
        (0.35, [0.2, 0.69, 0.11]),  # another class, not sure enough
        (0.5, [0.1, 0.8, 0.1]),  # the teacher is too sure for a correction
    ],
)
def test_doubt_blends_and_does_not_admit(confidence, q):
    label, blended, weight, shares = one_pixel(confidence, q)
    share = confidence / 0.7
    assert label == 0 and blended == pytest.approx(share * confidence + (1 - share) * q[0]) and weight == 1
    assert shares == {"low", "asked", "doubted"}


def test_a_narrow_lead_is_doubt():
    settings = replace(SETTINGS, t_relabel=0.5, margin=0.3)
    assert "doubted" in one_pixel(0.35, [0.3, 0.55, 0.15], settings=settings)[3]


def test_doubt_never_crosses_the_threshold():
    settings = replace(SETTINGS, t_agree=1.0)
    assert one_pixel(0.05, [0.9, 0.1, 0.0], settings=settings, threshold=0.5)[1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "changes",
    [{"q": NAN}, {"region": -1}, {"settings": replace(SETTINGS, barred=(1,))}],
    ids=["abstains", "no region", "barred"],
)
def test_without_an_opinion_nothing_changes(changes):
    label, confidence, weight, shares = one_pixel(**{"confidence": 0.35, "q": [0.1, 0.8, 0.1], **changes})
    assert (label, weight) == (0, 1.0) and confidence == pytest.approx(0.35)
    assert shares == ({"low"} if "region" in changes else {"low", "asked", "abstained"})


def test_background_is_confirmed_and_never_corrected_to():
    settings = replace(SETTINGS, background=(1,))
    assert "doubted" in one_pixel(0.35, [0.1, 0.8, 0.1], settings=settings)[3]
    assert "agreed" in one_pixel(0.35, [0.1, 0.8, 0.1], label=1, settings=settings)[3]


@pytest.mark.parametrize("confidence", [0.7, 0.8, 0.95, 0.99])
def test_pixels_from_tau_on_are_not_touched(confidence):
    label, same, weight, shares = one_pixel(confidence, [0.0, 1.0, 0.0])
    assert (label, weight) == (0, 1.0) and same == pytest.approx(confidence) and shares == set()


def test_a_threshold_below_tau_takes_its_place():
    assert one_pixel(0.5, [0.9, 0.1, 0.0], threshold=0.4)[3] == set()
    share = 0.3 / 0.4
    expected = 0.5 * (share * 0.3 + (1 - share) * 0.9)
    assert one_pixel(0.3, [0.9, 0.1, 0.0], threshold=0.4)[2] == pytest.approx(expected)


def test_a_veto_takes_confident_pixels_out_if_it_is_wanted():
    settings = replace(SETTINGS, veto=True)
    label, confidence, weight, shares = one_pixel(0.97, [0.04, 0.9, 0.06], settings=settings)
    assert (label, weight) == (0, 0.0) and confidence == pytest.approx(0.97) and shares == {"vetoed"}
    assert one_pixel(0.97, [0.06, 0.9, 0.04], settings=settings)[2] == 1
    assert one_pixel(0.97, [0.04, 0.9, 0.06], settings=replace(settings, barred=(1,)))[2] == 1
    assert one_pixel(0.97, [0.04, 0.9, 0.06], settings=replace(settings, background=(1,)))[2] == 1
    assert one_pixel(0.8, [0.04, 0.9, 0.06], settings=settings)[2] == 1  # neither confident nor uncertain
    assert one_pixel(0.97, [0.04, 0.9, 0.06])[2] == 1  # off by default


def test_admission_by_threshold_leaves_weights_alone():
    settings = replace(SETTINGS, admission="threshold")
    label, confidence, weight, shares = one_pixel(0.35, [0.01, 0.98, 0.01], settings=settings)
    assert label == 1 and confidence == pytest.approx(0.98) and weight is None and "admitted" in shares
    label, confidence, weight, shares = one_pixel(0.35, [0.98, 0.01, 0.01], settings=settings)
    assert label == 0 and confidence == pytest.approx(0.665) and weight is None and "admitted" not in shares


def test_weights_that_were_there_are_kept():
    pseudo = PseudoLabels(*random_pseudo()[:3], weight=torch.full((2, 16, 16), 0.5))
    purified, _ = purify(pseudo, *random_opinions(), settings=SETTINGS, threshold=0.9, admission_weight=0.5)
    assert set(purified.weight[purified.confidence < 1].unique().tolist()) == {0.5}
    assert (purified.weight[purified.confidence == 1] < 0.5).any()


def random_pseudo(seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (2, 16, 16), generator=generator)
    confidence = 0.34 + 0.66 * torch.rand(2, 16, 16, generator=generator)
    valid = torch.rand(2, 16, 16, generator=generator) > 0.1
    return label, confidence, valid


def random_opinions(seed=1):
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randint(-1, 5, (2, 16, 16), generator=generator)
    return regions, (4 * torch.randn(2, 5, 3, generator=generator)).softmax(2)


def loss_and_gradient(pseudo, mode):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 16, 16, generator=generator).requires_grad_()
    loss = confident_cross_entropy(logits, pseudo, threshold=0.9, mode=mode)
    loss.backward()
    return loss, logits.grad


@pytest.mark.parametrize("mode", ["pixelwise", "pixelratio", "pixelavg"])
@pytest.mark.parametrize("silenced", ["no weight", "all abstain", "no regions", "no rows"])
@pytest.mark.parametrize("admission", ["weight", "threshold"])
def test_silence_is_the_same_to_the_last_bit(mode, silenced, admission):
    pseudo = PseudoLabels(*random_pseudo())
    regions, scores = random_opinions()
    if silenced == "all abstain":
        scores = torch.full_like(scores, torch.nan)
    if silenced in ("no regions", "no rows"):
        regions = torch.full_like(regions, -1)
    if silenced == "no rows":
        scores = scores[:, :0]
    purified, shares = purify(
        pseudo,
        regions,
        scores,
        settings=PurifierSettings(veto=True, admission=admission),
        threshold=0.9,
        admission_weight=0.0 if silenced == "no weight" else 0.5,
    )
    assert shares["admitted"] == 0
    for plain, same in zip(loss_and_gradient(pseudo, mode), loss_and_gradient(purified, mode), strict=True):
        assert torch.equal(plain, same)


def test_admitted_pixels_reach_the_loss():
    pseudo = PseudoLabels(*random_pseudo())
    purified, shares = purify(pseudo, *random_opinions(), settings=SETTINGS, threshold=0.9, admission_weight=0.5)
    assert shares["agreed"] > 0 and shares["relabelled"] > 0
    assert shares["admitted"] == pytest.approx((shares["agreed"] + shares["relabelled"]).item())
    plain, plain_gradient = loss_and_gradient(pseudo, "pixelwise")
    loss, gradient = loss_and_gradient(purified, "pixelwise")
    added = (gradient != 0).any(1) & (plain_gradient == 0).all(1)
    assert loss > plain and added.sum() == round((shares["admitted"] * pseudo.valid.sum()).item())
    assert torch.equal(gradient.movedim(1, 3)[~added], plain_gradient.movedim(1, 3)[~added])


def test_the_same_question_gets_the_same_answer():
    first, second = (
        purify(
            PseudoLabels(*random_pseudo()), *random_opinions(), settings=SETTINGS, threshold=0.9, admission_weight=0.5
        )[0]
        for _ in range(2)
    )
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("label", "confidence", "weight"))


def scene():
    """Three classes in stripes; the teacher errs, unsure of itself, along their boundaries."""
    truth = torch.arange(48).div(16, rounding_mode="floor").expand(1, 48, 48)
    label, confidence = truth.clone(), torch.full((1, 48, 48), 0.97)
    label[..., 16:22], confidence[..., 16:22] = 0, 0.4  # wrong
    confidence[..., 32:36] = 0.45  # right
    return truth, PseudoLabels(label, confidence, torch.ones(1, 48, 48, dtype=torch.bool))


def answers(regions, truth, shift):
    """(1, R, 3) probabilities of a scorer that names the most frequent true class of a region, plus `shift`."""
    rows = []
    for region in range(int(regions.max()) + 1):
        answer = (truth[regions == region].mode().values + shift) % 3
        rows.append(torch.full((3,), 0.05).index_fill(0, answer, 0.9))
    return torch.stack(rows)[None]


def band_accuracy(pseudo, truth):
    band = boundary_band(truth, pseudo.valid, 8) & (pseudo.confidence >= 0.95)
    return (pseudo.label == truth)[band].float().mean().item(), int(band.sum())


def purified_by(shift, source):
    truth, pseudo = scene()
    regions = find_regions(pseudo.label, pseudo.confidence, pseudo.valid, source=source, min_area_px=16)
    scores = answers(regions, truth, shift)
    purified, _ = purify(pseudo, regions, scores, settings=SETTINGS, threshold=0.95, admission_weight=0.5)
    return truth, pseudo, purified


@pytest.mark.parametrize("source", ["boundary", "uncertain"])
def test_truth_raises_the_accuracy_at_boundaries_and_lies_lower_it(source):
    truth, pseudo, purified = purified_by(0, source)
    accuracy, pixels = band_accuracy(pseudo, truth)
    told, more_pixels = band_accuracy(purified, truth)
    assert accuracy == 1 and told == 1 and more_pixels > pixels  # nothing but truth is added
    everything = (pseudo.label == truth).float().mean()
    assert (purified.label == truth).float().mean() > everything
    truth, pseudo, lied_to = purified_by(1, source)
    assert band_accuracy(lied_to, truth)[0] < accuracy
    assert (lied_to.label == truth).float().mean() < everything


def test_refuses_settings_that_make_no_sense():
    for changes, message in (
        ({"source": "sam"}, "source must be one of boundary, uncertain, label"),
        ({"admission": "always"}, "admission must be one of weight, threshold"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"t_agree": 1.5}, "t_agree is 1.5, expected a probability"),
        ({"t_veto_own": 0.95}, "expected a tau above 0, and t_veto_own below"),
        ({"lambda_peak": -1.0}, "lambda_peak is -1.0"),
        ({"max_regions": 0}, "max_regions is 0"),
        ({"barred": (-1,)}, "expected class ids from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PurifierSettings(**changes)


def test_refuses_what_does_not_fit_together():
    pseudo = PseudoLabels(*random_pseudo())
    regions, scores = random_opinions()
    options = {"settings": SETTINGS, "threshold": 0.9, "admission_weight": 0.5}
    with pytest.raises(ValueError, match="regions must be"):
        purify(pseudo, regions[:, :8], scores, **options)
    with pytest.raises(ValueError, match="scores must be"):
        purify(pseudo, regions, scores[:1], **options)
    with pytest.raises(ValueError, match="names class 3, but there are 3 classes"):
        purify(pseudo, regions, scores, **{**options, "settings": PurifierSettings(barred=(3,))})
