import numpy as np
import pytest

from model import metrics

# Twenty known and ten unknown, with ties inside and across the kinds.
KNOWN_SCORES = [9, 9, 8, 8, 8, 7, 7, 6, 6, 6, 5, 5, 5, 5, 4, 4, 3, 3, 2, 1]
UNKNOWN_SCORES = [8, 6, 5, 4, 3, 3, 2, 2, 1, 0]
KNOWN = np.array([True] * 20 + [False] * 10)
NORMALITY = np.array(KNOWN_SCORES + UNKNOWN_SCORES, dtype=float)


def test_auroc_counts_ties_half():
    wins = sum((k > u) + 0.5 * (k == u) for k in KNOWN_SCORES for u in UNKNOWN_SCORES)
    assert metrics.auroc(KNOWN, NORMALITY) == pytest.approx(wins / 200)
    assert metrics.auroc(KNOWN, NORMALITY) == pytest.approx(0.7475)


def test_fpr95_takes_the_first_threshold_that_reaches_the_recall():
    # At 2 recall is 19/20 and eight of ten unknown are accepted.
    assert metrics.fpr95(KNOWN, NORMALITY) == pytest.approx(0.8)


def test_fpr95_rules_agree_where_the_recall_is_hit_exactly():
    assert metrics.fpr95_original(KNOWN, NORMALITY) == pytest.approx(0.8)


def test_original_rule_takes_the_nearest_recall_even_below():
    known = np.array([True] * 17 + [False] * 4)
    # Recall 16/17 = .941 at 2, 1 at 1: the first is nearer to .95, the second is the first above.
    normality = np.array([3.0] * 15 + [2.0, 1.0] + [2.5, 1.0, 1.0, 0.5])
    assert metrics.fpr95_original(known, normality) == pytest.approx(0.25)
    assert metrics.fpr95(known, normality) == pytest.approx(0.75)


def test_original_rule_takes_the_lowest_threshold_of_equal_recall():
    known = np.array([True] * 20 + [False] * 4)
    # Recall is 19/20 from 5 down to 2: three thresholds; the lowest accepts three unknown.
    normality = np.array([9.0] * 18 + [5.0, 1.0] + [4.0, 3.0, 2.0, 0.0])
    assert metrics.fpr95_original(known, normality) == pytest.approx(0.75)
    assert metrics.fpr95(known, normality) == pytest.approx(0.0)


def test_original_rule_ignores_thresholds_below_the_first_full_recall():
    known = np.array([True, True, False, False])
    assert metrics.fpr95_original(known, np.array([4.0, 3.0, 2.0, 1.0])) == 0.0


def test_average_precision_equals_its_definition():
    known = np.array([True, False, True, False])
    normality = np.array([4.0, 3.0, 2.0, 1.0])
    assert metrics.aupr_known(known, normality) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.aupr_unknown(known, normality) == pytest.approx((1 + 2 / 3) / 2)


def test_perfect_and_reversed_scores_reach_the_bounds():
    perfect = KNOWN.astype(float)
    assert metrics.auroc(KNOWN, perfect) == 1
    assert metrics.fpr95(KNOWN, perfect) == metrics.fpr95_original(KNOWN, perfect) == 0
    assert metrics.auroc(KNOWN, -perfect) == 0
    assert metrics.fpr95(KNOWN, -perfect) == 1


def test_metrics_do_not_depend_on_the_order():
    order = np.random.default_rng(0).permutation(len(KNOWN))
    for metric in (
        metrics.auroc,
        metrics.fpr95,
        metrics.fpr95_original,
        metrics.aupr_known,
        metrics.aupr_unknown,
        metrics.auroc_interval,
    ):
        assert metric(KNOWN, NORMALITY) == metric(KNOWN[order], NORMALITY[order])


def test_interval_holds_the_auroc_and_narrows_with_more_samples():
    low, high = metrics.auroc_interval(KNOWN, NORMALITY)
    assert low < metrics.auroc(KNOWN, NORMALITY) < high
    many = metrics.auroc_interval(np.tile(KNOWN, 25), np.tile(NORMALITY, 25))
    assert (many[1] - many[0]) * 4 < high - low


def test_interval_is_that_of_auroc_on_resampled_sets():
    generator = np.random.default_rng(1)
    areas = []
    for _ in range(1000):
        known = generator.choice(KNOWN_SCORES, 20)
        unknown = generator.choice(UNKNOWN_SCORES, 10)
        areas.append(metrics.auroc(KNOWN, np.concatenate((known, unknown)).astype(float)))
    expected = np.quantile(areas, (0.025, 0.975))
    assert metrics.auroc_interval(KNOWN, NORMALITY) == pytest.approx(expected, abs=0.03)


def test_closed_set_accuracy_counts_the_known_only():
    test_class = np.array([0, 1, 2, -1, -1])
    assert metrics.closed_set_accuracy(test_class, np.array([0, 1, 0, 0, 1])) == pytest.approx(
        2 / 3
    )
    with pytest.raises(ValueError, match="no known sample"):
        metrics.closed_set_accuracy(np.array([-1]), np.array([0]))


def scored_classes(seed=0):
    """40 samples of three known classes and of unknown ones, with many equal scores."""
    generator = np.random.default_rng(seed)
    test_class = generator.integers(-1, 3, 40)
    normality = generator.integers(0, 12, 40) + 2.0 * (test_class >= 0)
    return test_class, normality, generator.integers(0, 3, 40)


def test_oscr_compares_each_known_with_each_unknown_sample():
    test_class, normality, predicted = scored_classes()
    wins = [
        (c == p) * ((n > other) + 0.5 * (n == other))
        for c, n, p in zip(test_class, normality, predicted, strict=True)
        if c >= 0
        for other in normality[test_class < 0]
    ]
    assert metrics.oscr(test_class, normality, predicted) == pytest.approx(np.mean(wins))


def test_oscr_is_the_auroc_if_every_class_is_right_and_0_if_none_is():
    test_class, normality, _ = scored_classes()
    area = metrics.auroc(test_class >= 0, normality)
    assert metrics.oscr(test_class, normality, test_class) == pytest.approx(area)
    assert metrics.oscr(test_class, normality, test_class + 1) == 0


@pytest.mark.parametrize("recall", [0.95, 0.7])
def test_open_set_decisions_are_counted_one_by_one(recall):
    test_class, normality, predicted = scored_classes()
    threshold = metrics.threshold_at_recall(test_class >= 0, normality, recall)
    right = {True: [], False: []}
    for c, n, p in zip(test_class, normality, predicted, strict=True):
        right[c >= 0].append(n >= threshold and c == p if c >= 0 else n < threshold)
    known, unknown = np.mean(right[True]), np.mean(right[False])
    assert 0 < unknown < 1
    accuracy, h_score = metrics.open_set(test_class, normality, predicted, recall)
    assert accuracy == pytest.approx(np.mean(right[True] + right[False]))
    assert h_score == pytest.approx(2 / (1 / known + 1 / unknown))


def test_the_h_score_is_0_if_nothing_is_right():
    test_class, normality = np.array([0, 0, -1]), np.array([1.0, 2.0, 3.0])
    assert metrics.open_set(test_class, normality, np.ones(3, dtype=int)) == (0, 0)


@pytest.mark.parametrize("metric", [metrics.oscr, metrics.open_set])
def test_open_set_metrics_that_do_not_exist_are_refused(metric):
    for test_class, kind in (([0, 1], "unknown"), ([-1, -1], "known")):
        with pytest.raises(ValueError, match=f"no {kind} sample"):
            metric(np.array(test_class), np.array([1.0, 2.0]), np.array([0, 1]))


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.fpr95, metrics.auroc_interval])
def test_metrics_that_do_not_exist_are_refused(metric):
    with pytest.raises(ValueError, match="no unknown sample"):
        metric(np.array([True, True]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="no known sample"):
        metric(np.array([False, False]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="1 scores are NaN"):
        metric(np.array([True, False]), np.array([1.0, np.nan]))
