import doctest
import math

import pytest
import torch

from training.parts import losses
from training.parts.losses import (
    IGNORE,
    confident_cross_entropy,
    cross_entropy,
    distillation_loss,
    reduce_confident,
    stability_loss,
)
from training.parts.pseudo_labels import PseudoLabels


def random_logits(seed=0, dtype=torch.float32, shape=(2, 3, 4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def random_pseudo(seed=0, weight=None):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (2, 4, 5), generator=generator)
    confidence, valid = torch.rand(2, 4, 5, generator=generator), torch.rand(2, 4, 5, generator=generator) > 0.2
    return PseudoLabels(label, confidence, valid, weight)


def test_docstring_examples():
    results = doctest.testmod(losses)
    assert results.attempted > 0 and results.failed == 0


def test_cross_entropy_is_a_mean_over_labelled_pixels():
    logits, labels = random_logits(), torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2] = IGNORE
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nothing_to_learn_is_zero_with_zero_gradient(dtype):
    logits = (random_logits() * 200).detach().to(dtype).requires_grad_()
    nothing, nowhere = torch.full((2, 4, 5), IGNORE), torch.zeros(2, 4, 5, dtype=torch.bool)
    pseudo = PseudoLabels(torch.zeros_like(nothing), torch.ones(2, 4, 5), nowhere)
    for loss in (
        cross_entropy(logits, nothing),
        stability_loss(logits, logits, nowhere),
        confident_cross_entropy(logits, pseudo, threshold=0.5),
        confident_cross_entropy(logits, pseudo, threshold=0.5, mode="pixelratio"),
        confident_cross_entropy(logits, pseudo, threshold=0.5, mode="pixelavg"),
    ):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.dtype == torch.float32 and loss.item() == 0 and torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    labels = torch.tensor([[[1]]])
    logits = torch.tensor([60000.0, 0.0]).view(1, 2, 1, 1).to(dtype).requires_grad_()
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert loss.item() == float(logits[0, 0].detach())  # log-sum-exp of the two, minus 0
    assert torch.isfinite(logits.grad).all()


def test_values_of_the_three_confidence_modes():
    loss = torch.tensor([[[1.0, 2.0]], [[4.0, 8.0]]])
    confidence = torch.tensor([[[0.9, 0.2]], [[0.6, 0.7]]])
    valid = torch.tensor([[[True, True]], [[True, False]]])
    values = {
        "pixelwise": (1 + 4) / 3,
        "pixelratio": (3 * 1 / 2 + 12 * 1 / 1) / 3,  # the 8 on padding is counted, as released
        "pixelavg": 15 * ((0.9 + 0.2) / 2 + 0.6) / 3,
    }
    for mode, value in values.items():
        assert reduce_confident(loss, confidence, valid, threshold=0.5, mode=mode).item() == pytest.approx(value)


def test_confidence_threshold_is_inclusive():
    one = torch.ones(1, 1, 1)
    assert reduce_confident(one, one * 0.5, one.bool(), threshold=0.5).item() == 1


def test_weight_scales_the_loss_of_a_pixel():
    logits, pseudo = random_logits(), random_pseudo()
    plain = confident_cross_entropy(logits, pseudo, threshold=0.3)
    halved = confident_cross_entropy(logits, random_pseudo(weight=torch.full((2, 4, 5), 0.5)), threshold=0.3)
    torch.testing.assert_close(halved, plain / 2)


def test_stability_value_by_hand():
    student, teacher = torch.tensor([math.log(3), 0.0]), torch.tensor([0.0, 0.0])  # (3/4, 1/4) and (1/2, 1/2)
    logits = [t.view(1, 2, 1, 1).expand(1, 2, 1, 2) for t in (student, teacher)]
    loss = stability_loss(*logits, torch.tensor([[[True, False]]]))
    assert loss.item() == pytest.approx(2 * 0.25**2 / 2)


def test_stability_teaches_only_the_student():
    student, teacher = random_logits(0), random_logits(1)
    stability_loss(student, teacher, torch.ones(2, 4, 5, dtype=torch.bool)).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_distillation_weighs_teachers_alike_and_teaches_only_the_student():
    student = [random_logits(seed, torch.float64, (2, tokens, width)) for seed, tokens, width in ((0, 3, 2), (1, 5, 4))]
    teachers = [torch.zeros_like(one).requires_grad_() for one in student]
    loss = distillation_loss(student, teachers)
    assert loss.item() == pytest.approx(sum(one.square().mean().item() for one in student) / 2)
    loss.backward()
    torch.testing.assert_close(student[1].grad, student[1].detach() / (2 * 5 * 4))  # 2 x / count / 2 teachers
    assert all(one.grad is None for one in teachers)
    assert torch.autograd.gradcheck(lambda *x: distillation_loss(x, teachers), tuple(student))


def test_distillation_of_half_precision_and_of_nothing():
    large = torch.full((1, 2, 3), 300.0, dtype=torch.float16)  # its square is beyond float16
    assert distillation_loss([large], [torch.zeros_like(large)]).item() == 90000
    nothing = torch.zeros(0, 2, 3, requires_grad=True)
    loss = distillation_loss([nothing], [nothing])
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("mode", ["pixelwise", "pixelratio", "pixelavg"])
def test_gradients(mode):
    logits = random_logits(dtype=torch.float64, shape=(1, 3, 2, 2))
    teacher, labels = random_logits(1, torch.float64, (1, 3, 2, 2)).detach(), torch.tensor([[[0, 1], [2, IGNORE]]])
    mask = labels != 1
    pseudo = PseudoLabels(labels % 3, torch.tensor([[[0.9, 0.4], [0.6, 0.8]]]), mask)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, labels), logits)
    assert torch.autograd.gradcheck(lambda x: stability_loss(x, teacher, mask), logits)
    assert torch.autograd.gradcheck(lambda x: confident_cross_entropy(x, pseudo, threshold=0.5, mode=mode), logits)


@pytest.mark.parametrize("valid_in_first", [7, 0])
def test_averaged_counts_make_the_mean_over_processes_the_joint_loss(valid_in_first):
    logits, teacher = random_logits(), random_logits(1).detach()
    valid = torch.zeros(2, 20, dtype=torch.bool)
    valid[0, :valid_in_first], valid[1, 3:] = True, True
    valid = valid.view(2, 4, 5)
    labels = torch.where(valid, 1, IGNORE)
    pseudo = PseudoLabels(labels % 3, random_pseudo().confidence, valid)

    def total(rows, average_count):
        part = PseudoLabels(pseudo.label[rows], pseudo.confidence[rows], pseudo.valid[rows])
        return (
            cross_entropy(logits[rows], labels[rows], average_count=average_count)
            + stability_loss(logits[rows], teacher[rows], valid[rows], average_count=average_count)
            + confident_cross_entropy(logits[rows], part, threshold=0.3, average_count=average_count)
            + confident_cross_entropy(logits[rows], part, threshold=0.3, mode="pixelratio", average_count=average_count)
        )

    mean_count = valid.sum() / 2  # every count here is the number of valid pixels
    joint = total(slice(0, 2), lambda count: count)
    processes = [total(slice(i, i + 1), lambda count: mean_count) for i in range(2)]
    mean = sum(processes) / 2
    torch.testing.assert_close(mean, joint)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (mean, joint)))


def test_fractional_mean_counts_are_not_clamped():
    logits = torch.zeros(1, 2, 1, 1)
    loss = cross_entropy(logits, torch.tensor([[[0]]]), average_count=lambda count: count / 4)  # 1 pixel, 4 processes
    assert loss.item() == pytest.approx(4 * math.log(2))


def test_refusals():
    logits, mask = torch.zeros(2, 3, 4, 5), torch.ones(2, 4, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"labels must be \(B, H, W\) = \(2, 4, 5\).*got \(2, 5, 4\)"):
        cross_entropy(logits, torch.zeros(2, 5, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"mask must be .* got \(2, 1, 4, 5\)"):
        stability_loss(logits, logits, mask[:, None])
    with pytest.raises(ValueError, match=r"student's shape \(2, 3, 4, 5\), got \(2, 2, 4, 5\)"):
        stability_loss(logits, logits[:, :2], mask)
    features = torch.zeros(1, 2, 3)
    for targets, found in (([], r"\[\]"), ([features[:, :1]], r"\[\(1, 1, 3\)\]")):
        with pytest.raises(ValueError, match=rf"shaped as translated \[\(1, 2, 3\)\], got {found}"):
            distillation_loss([features], targets)
    with pytest.raises(ValueError, match="at least one teacher"):
        distillation_loss([], [])
    with pytest.raises(ValueError, match="pixelwise, pixelratio, pixelavg; got 'pixel'"):
        reduce_confident(logits[:, 0], logits[:, 0], mask, threshold=0.5, mode="pixel")
