"""Which scores are compared with which, per target and as a mean."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation.comparison import Score, compare
from evaluation.results import means, measure

FIRST, SECOND = "first", "second"


def with_scores(result, network, names, seed):
    """A result of ``network`` with a random score for each of ``names`` on each target."""
    generator = np.random.default_rng(seed)
    targets = []
    for target in result.targets:
        test_class = target.rows.test_class
        scores = {
            name: generator.normal(size=len(test_class)) + 0.3 * (test_class >= 0) for name in names
        }
        nothing = np.zeros(len(test_class), dtype=np.int64)
        evaluators = {
            name: measure(test_class, score, nothing, resamples=2) for name, score in scores.items()
        }
        targets.append(replace(target, evaluators=evaluators))
    return replace(result, network=network, targets=targets)


@pytest.fixture
def networks(results):
    """Two networks that share two of their three evaluators each."""
    return [
        with_scores(results[0], FIRST, ("relation-logit", "cosine", "knn"), 0),
        with_scores(results[0], SECOND, ("cosine", "euclidean", "knn"), 1),
    ]


def test_scores_are_compared_with_the_first_network_and_the_first_evaluator(networks):
    pairs = [(c.score, c.baseline) for c in compare(networks, 9) if c.target == "day"]
    assert pairs == [
        (Score(FIRST, "cosine"), Score(FIRST, "relation-logit")),
        (Score(FIRST, "knn"), Score(FIRST, "relation-logit")),
        (Score(SECOND, "cosine"), Score(FIRST, "cosine")),
        (Score(SECOND, "euclidean"), Score(SECOND, "cosine")),
        (Score(SECOND, "knn"), Score(FIRST, "knn")),
        (Score(SECOND, "knn"), Score(SECOND, "cosine")),
    ]


def test_the_differences_are_those_of_the_table(networks):
    first, second = networks
    found = {
        (c.target, c.score, c.baseline): c.auroc
        for c in compare(networks, 99)
        if c.score == Score(SECOND, "knn") and c.baseline.network == FIRST
    }
    values = [
        target.evaluators["knn"].metrics["auroc"] for each in networks for target in each.targets
    ]
    assert [difference.value for difference in found.values()] == pytest.approx(
        [
            values[2] - values[0],
            values[3] - values[1],
            means(second.targets)["knn"]["auroc"] - means(first.targets)["knn"]["auroc"],
        ]
    )
    for difference in found.values():
        assert difference.low <= difference.value <= difference.high


def test_a_repeated_setting_counts_once_in_the_mean_difference(networks):
    repeated = [
        replace(
            each,
            targets=[
                *(replace(t, name=f"{t.name} again", setting="twice") for t in each.targets),
                *each.targets[:1],
            ],
        )
        for each in networks
    ]
    found = next(
        c.auroc
        for c in compare(repeated, 9)
        if c.target is None and c.score == Score(SECOND, "cosine")
    )
    first, second = (means(each.targets)["cosine"]["auroc"] for each in repeated)
    assert found.value == pytest.approx(second - first)


def test_the_mean_of_independent_targets_is_known_better_than_each(networks):
    of_knn = [c for c in compare(networks, 400) if c.score == Score(SECOND, "knn")]
    widths = {
        c.target: c.auroc.high - c.auroc.low for c in of_knn if c.baseline == Score(FIRST, "knn")
    }
    assert widths[None] < 0.85 * min(widths["day"], widths["night"])


def test_a_mean_over_repetitions_on_the_same_tests_is_known_no_better(networks):
    repeated = [
        replace(each, targets=[replace(each.targets[0], name=name, setting="s") for name in "xyz"])
        for each in networks
    ]
    pair = Score(SECOND, "knn"), Score(FIRST, "knn")
    found = [c.auroc for c in compare(repeated, 50) if (c.score, c.baseline) == pair]
    once, mean = found[0], found[-1]
    assert mean == pytest.approx(once)


def test_one_evaluator_of_one_network_is_compared_with_nothing(results):
    assert compare(results, 9) == []
