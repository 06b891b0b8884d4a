"""The bootstrap of AUROCs on the same images, against a plain one, and what it concludes."""

import numpy as np
import pytest

from model import metrics
from model.paired_bootstrap import difference, resampled_aurocs

RNG = np.random.default_rng(0)
KNOWN = np.arange(60) % 3 > 0
SCORES = np.round(RNG.normal(size=(3, 60)) + KNOWN * [[0.5], [1.0], [1.5]], 1)  # with ties


def slowly(known, scores, resamples, seed):
    """Draws the images by name and compares every known one with every unknown one."""
    generator = np.random.default_rng(seed)
    areas = []
    for _ in range(resamples):
        chosen = []
        for images in (np.flatnonzero(known), np.flatnonzero(~known)):
            chosen.append(images[generator.integers(len(images), size=len(images))])
        first, second = chosen
        areas.append(
            [
                np.mean([(s[k] > s[u]) + 0.5 * (s[k] == s[u]) for k in first for u in second])
                for s in scores
            ]
        )
    return np.array(areas).T


def test_the_areas_are_those_of_a_plain_bootstrap():
    found = resampled_aurocs(KNOWN, SCORES, resamples=5, seed=3)
    np.testing.assert_allclose(found, slowly(KNOWN, SCORES, 5, 3), rtol=1e-12)


def test_the_order_of_the_other_scores_changes_nothing():
    found = resampled_aurocs(KNOWN, SCORES, resamples=4)
    np.testing.assert_array_equal(resampled_aurocs(KNOWN, SCORES[::-1], resamples=4), found[::-1])


def test_the_same_images_tell_more_than_other_images():
    nearly = SCORES[0] + RNG.normal(size=60) * 0.1
    first, second = resampled_aurocs(KNOWN, np.stack([SCORES[0], nearly]), resamples=300)
    (other,) = resampled_aurocs(KNOWN, nearly[None], resamples=300, seed=1)
    assert np.std(first - second) < np.std(first - other) / 3


def test_the_difference_of_equal_scores_is_nothing():
    (area,) = resampled_aurocs(KNOWN, SCORES[:1], resamples=20)
    assert difference(0.0, area - area) == (0.0, 0.0, 0.0, 1.0)


def test_a_clear_difference_has_the_smallest_p_value_and_an_interval_without_zero():
    perfect, (bad, good) = KNOWN.astype(float), SCORES[[0, 2]]
    areas = resampled_aurocs(KNOWN, np.stack([perfect, bad, good]), resamples=99)
    value = 1 - metrics.auroc(KNOWN, bad)
    found = difference(value, areas[0] - areas[1])
    assert 0 < found.low < found.value < found.high
    assert found.p_value == pytest.approx(2 / 100)
    back = difference(-value, areas[1] - areas[0])
    assert (back.low, back.high, back.p_value) == (-found.high, -found.low, found.p_value)


def test_the_p_value_holds_its_level_where_there_is_no_difference():
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(60):
        scores = generator.normal(size=(2, 60)) + KNOWN
        first, second = resampled_aurocs(KNOWN, scores, resamples=49)
        value = metrics.auroc(KNOWN, scores[0]) - metrics.auroc(KNOWN, scores[1])
        p_values.append(difference(value, first - second).p_value)
    # Uniform: 6 of 60 below a tenth are expected, with a standard deviation of 2.3.
    assert 1 <= np.sum(np.array(p_values) <= 0.1) <= 14
