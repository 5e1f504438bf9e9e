"""Scores from confusion matrices, and what a sample says of a whole map."""

import math

import numpy as np
import pytest

from co2s_hf.geo.accuracy import ClassScores, sample_estimates, stratified_estimates

# Olofsson et al. 2014, section 5, table 8: deforestation, forest gain, stable forest, stable non-forest.
POINTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000.0, 150_000, 3_200_000, 6_450_000])
HECTARES = 0.09  # of a pixel of 30 m


def test_scores_by_hand():
    scores = ClassScores(np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]]))
    assert scores.overall_accuracy == 0.7
    np.testing.assert_allclose(scores.users_accuracy, [6 / 8, 1 / 2, np.nan])
    np.testing.assert_allclose(scores.producers_accuracy, [6 / 7, 1 / 3, np.nan])
    np.testing.assert_allclose(scores.f1, [12 / 15, 2 / 5, np.nan])
    np.testing.assert_allclose(scores.iou, [6 / 9, 1 / 4, np.nan])
    assert math.isnan(ClassScores(np.zeros((2, 2), np.int64)).overall_accuracy)


def test_the_worked_example_of_olofsson_et_al():
    found = sample_estimates(POINTS, PIXELS)
    table_9 = [
        [0.0176, 0, 0.0013, 0.0011],
        [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    np.testing.assert_allclose(found.proportions, table_9, atol=5e-5)
    np.testing.assert_allclose(found.overall_accuracy.value, 0.95, atol=0.005)
    np.testing.assert_allclose(found.overall_accuracy.margin, 0.02, atol=0.005)
    np.testing.assert_allclose(found.users_accuracy.value, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(found.users_accuracy.margin, [0.07, 0.10, 0.04, 0.02], atol=0.005)
    np.testing.assert_allclose(found.producers_accuracy.value, [0.75, 0.85, 0.93, 0.96], atol=0.005)
    area = found.area_share.times(PIXELS.sum())
    assert round(area.value[0]) == 235_086 and round(area.margin[0]) == 68_418
    hectares = area.times(HECTARES)
    assert round(hectares.value[0]) == 21_158 and round(hectares.margin[0]) == 6_158
    assert found.sampled_share == 1


def test_the_error_of_producers_accuracy_is_equation_7():
    found = sample_estimates(POINTS, PIXELS).producers_accuracy
    n = POINTS.sum(axis=1)
    for j in range(4):
        total = sum(PIXELS[i] * POINTS[i, j] / n[i] for i in range(4))
        users, producers = POINTS[j, j] / n[j], PIXELS[j] * POINTS[j, j] / n[j] / total
        own = PIXELS[j] ** 2 * (1 - producers) ** 2 * users * (1 - users) / (n[j] - 1)
        shares = [(PIXELS[i], POINTS[i, j] / n[i], n[i]) for i in range(4) if i != j]
        others = sum(pixels**2 * share * (1 - share) / (points - 1) for pixels, share, points in shares)
        assert found.standard_error[j] == pytest.approx(math.sqrt((own + producers**2 * others) / total**2))


def test_estimates_meet_the_truth_and_their_errors_the_scatter():
    rng = np.random.default_rng(0)
    truth = np.array([[0.05, 0.02, 0.00], [0.01, 0.25, 0.04], [0.03, 0.00, 0.60]])  # shares of the area
    weights, draws = truth.sum(axis=1), 2000
    rows = [rng.multinomial(400, cells / cells.sum(), draws) for cells in truth]
    found = [sample_estimates(counts, weights) for counts in np.stack(rows, axis=1)]
    expected = {
        "overall_accuracy": np.trace(truth),
        "users_accuracy": np.diag(truth) / weights,
        "producers_accuracy": np.diag(truth) / truth.sum(axis=0),
        "area_share": truth.sum(axis=0),
    }
    for name, value in expected.items():
        values = np.array([getattr(one, name).value for one in found])
        errors = np.array([getattr(one, name).standard_error for one in found])
        np.testing.assert_allclose(values.mean(axis=0), value, atol=0.005)
        np.testing.assert_allclose(np.sqrt(np.square(errors).mean(axis=0)), values.std(axis=0), rtol=0.08)


def test_strata_with_one_point_or_none():
    found = sample_estimates(np.array([[8, 2, 0], [0, 1, 0], [0, 0, 0]]), [60.0, 20, 20])
    assert found.sampled_share == 0.8
    np.testing.assert_allclose(found.area_share.value, [0.75 * 0.8, 0.75 * 0.2 + 0.25, 0])
    assert np.isnan(found.overall_accuracy.standard_error) and found.overall_accuracy.value == pytest.approx(0.85)
    np.testing.assert_allclose(found.users_accuracy.standard_error, [math.sqrt(0.8 * 0.2 / 9), np.nan, np.nan])


# Stehman 2014, section 4: 10 points in each of four strata that are not the classes of the map.
STEHMAN_REFERENCE = "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"
STEHMAN_MAP = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"
STEHMAN_AREAS = [40_000, 30_000, 20_000, 10_000]


def stehman_counts():
    counts = np.zeros((4, 4, 4), int)
    for index, (mapped, true) in enumerate(zip(STEHMAN_MAP, STEHMAN_REFERENCE, strict=True)):
        counts[index // 10, "ABCD".index(mapped), "ABCD".index(true)] += 1
    return counts


def test_the_worked_example_of_stehman():
    found = stratified_estimates(stehman_counts(), STEHMAN_AREAS)
    cells = [[0.23, 0.04, 0.04, 0], [0.12, 0.27, 0.08, 0], [0, 0.02, 0.06, 0.04], [0, 0.01, 0.02, 0.07]]
    np.testing.assert_allclose(found.proportions, cells)
    assert found.overall_accuracy.value == pytest.approx(0.63) and found.sampled_share == 1
    assert found.overall_accuracy.standard_error == pytest.approx(0.085, abs=5e-4)
    # mapaccuracy and mapac, two packages for R, print the same.
    np.testing.assert_allclose(found.users_accuracy.value, [0.7419, 0.5745, 0.5, 0.7], atol=5e-5)
    np.testing.assert_allclose(found.users_accuracy.standard_error, [0.1646, 0.1248, 0.2152, 0.1528], atol=6e-5)
    np.testing.assert_allclose(found.producers_accuracy.value[:3], [0.6571, 0.7941, 0.3], atol=5e-5)
    np.testing.assert_allclose(found.producers_accuracy.standard_error[:3], [0.1477, 0.1166, 0.1504], atol=6e-5)
    np.testing.assert_allclose(found.area_share.value, [0.35, 0.34, 0.2, 0.11])
    np.testing.assert_allclose(found.area_share.standard_error[[0, 2]], [0.082, 0.064], atol=5e-4)


def test_strata_that_are_the_classes_of_the_map_give_the_estimates_of_olofsson_et_al():
    by_class = np.stack([np.where(np.arange(4)[:, None] == one, POINTS, 0) for one in range(4)])
    found, expected = stratified_estimates(by_class, PIXELS), sample_estimates(POINTS, PIXELS)
    np.testing.assert_allclose(found.proportions, expected.proportions)
    for name in ("overall_accuracy", "users_accuracy", "producers_accuracy", "area_share"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(one.value, other.value)
        np.testing.assert_allclose(one.standard_error, other.standard_error)


def test_intervals_of_strata_of_an_older_map_hold_the_truth():
    rng = np.random.default_rng(0)
    areas, truth = np.array([6.0, 3, 1]), rng.dirichlet(np.ones(9), 3).reshape(3, 3, 3)
    cells = np.tensordot(areas / areas.sum(), truth, 1)
    draws = [np.stack([rng.multinomial(200, one.ravel()).reshape(3, 3) for one in truth]) for _ in range(1000)]
    found = [stratified_estimates(counts, areas) for counts in draws]
    for name, value in (
        ("overall_accuracy", np.trace(cells)),
        ("users_accuracy", np.diag(cells) / cells.sum(axis=1)),
        ("producers_accuracy", np.diag(cells) / cells.sum(axis=0)),
        ("area_share", cells.sum(axis=0)),
    ):
        held = [np.abs(getattr(one, name).value - value) <= getattr(one, name).margin for one in found]
        assert np.all(np.abs(np.mean(held, axis=0) - 0.95) < 0.03), name


def test_strata_of_their_own_with_one_point_or_none():
    counts = stehman_counts()
    counts[3] = 0
    found = stratified_estimates(counts, STEHMAN_AREAS)
    assert found.sampled_share == pytest.approx(0.9) and found.area_share.value.sum() == pytest.approx(1)
    counts[3, 3, 3] = 1
    found = stratified_estimates(counts, STEHMAN_AREAS)
    assert np.isnan(found.overall_accuracy.standard_error) and found.overall_accuracy.value == pytest.approx(0.66)
    for shape, areas in (((1, 2, 2), [1.0, 2]), ((1, 2, 2), [0.0]), ((1, 2, 2), [math.inf])):
        with pytest.raises(ValueError, match="expected"):
            stratified_estimates(np.ones(shape, int), areas)


def test_samples_that_are_none():
    with pytest.raises(ValueError, match="no point on the map"):
        sample_estimates(np.zeros((2, 2), int), [1.0, 1])
    with pytest.raises(ValueError, match="has points but no area"):
        sample_estimates(np.eye(2, dtype=int), [1.0, 0])


@pytest.mark.parametrize("mapped", [[], [1.0], [[1.0, 1], [1, 1]]])
def test_samples_of_other_shapes_are_refused(mapped):
    with pytest.raises(ValueError, match=r"counts are \(2, 2\) and mapped is .*expected \(N, N\)"):
        sample_estimates(np.eye(2, dtype=int), mapped)


@pytest.mark.parametrize("mapped", [[1.0, math.nan], [math.inf, 1.0], [-1.0, 1]])
def test_areas_that_are_none_are_refused(mapped):
    with pytest.raises(ValueError, match="negative or not finite"):
        sample_estimates(np.eye(2, dtype=int), mapped)
