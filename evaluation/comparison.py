"""Which network and which evaluator is better: differences of AUROCs on the same test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.results import TargetResult, settings
from model.paired_bootstrap import Difference, difference, resampled_aurocs


@dataclass(frozen=True)
class Score:
    """An evaluator of a network."""

    network: str
    evaluator: str


@dataclass(frozen=True)
class Comparison:
    """A score beside another on the same test images.

    Attributes:
        benchmark: the protocol's name.
        target: the target's name; None for the mean over the protocol's targets.
        score: what is compared.
        baseline: what it is compared with.
        auroc: of the score minus that of the baseline.
    """

    benchmark: str
    target: str | None
    score: Score
    baseline: Score
    auroc: Difference


@dataclass(frozen=True)
class _Areas:
    """AUROCs of S scores, on all images and in B resamples.

    Attributes:
        scores: S of them.
        value: float64 (S,).
        resampled: float64 (S, B).
    """

    scores: Sequence[Score]
    value: np.ndarray
    resampled: np.ndarray

    def difference(self, score: Score, baseline: Score) -> Difference:
        first, second = self.scores.index(score), self.scores.index(baseline)
        value = float(self.value[first] - self.value[second])
        return difference(value, self.resampled[first] - self.resampled[second])


def compare(results: Sequence[BenchmarkResult], resamples: int) -> list[Comparison]:
    """Compare each evaluator with the same one of the first network, and with the first evaluator
    of the same network; per target, and as a mean over the targets where there are several.

    The targets of a mean are resampled independently of each other, except that those with the
    same tests, such as few-shot draws, share their resamples; a repeated setting counts once, as in
    ``means``.

    Args:
        results: those of one protocol follow one another, with the same targets.
        resamples: of the bootstrap.
    """
    found = []
    for networks in by_protocol(results):
        name, pairs = networks[0].protocol.name, _pairs(networks)
        if not pairs:
            continue
        targets = networks[0].targets
        per_target = [_areas(networks, number, resamples) for number in range(len(targets))]
        areas: list[tuple[str | None, _Areas]] = [
            (target.name, of_target) for target, of_target in zip(targets, per_target, strict=True)
        ]
        if len(targets) > 1:
            areas.append((None, _mean(per_target, _weights(targets))))
        found += [
            Comparison(name, target, *pair, of_target.difference(*pair))
            for target, of_target in areas
            for pair in pairs
        ]
    return found


def _pairs(networks: Sequence[BenchmarkResult]) -> list[tuple[Score, Score]]:
    """Each score with what it is compared with: the other network first."""
    first, pairs = networks[0], []
    for result in networks:
        names = list(result.targets[0].evaluators)
        for name in names:
            score = Score(result.network, name)
            if result is not first and name in first.targets[0].evaluators:
                pairs.append((score, Score(first.network, name)))
            if name != names[0]:
                pairs.append((score, Score(result.network, names[0])))
    return pairs


def _areas(networks: Sequence[BenchmarkResult], number: int, resamples: int) -> _Areas:
    """Those of all scores on target ``number``; equal tests have equal resamples."""
    targets = networks[0].targets
    known = targets[number].rows.test_class >= 0
    results = {
        Score(result.network, name): of_evaluator
        for result in networks
        for name, of_evaluator in result.targets[number].evaluators.items()
    }
    value = np.array([result.metrics["auroc"] for result in results.values()])
    normality = np.stack([result.normality for result in results.values()])
    seed = next(place for place, t in enumerate(targets) if _same_tests(t, targets[number]))
    resampled = resampled_aurocs(known, normality, resamples=resamples, seed=seed)
    return _Areas(list(results), value, resampled)


def _same_tests(first: TargetResult, second: TargetResult) -> bool:
    return np.array_equal(first.rows.test, second.rows.test) and np.array_equal(
        first.rows.test_class, second.rows.test_class
    )


def _mean(areas: Sequence[_Areas], weights: np.ndarray) -> _Areas:
    value = np.tensordot(weights, np.stack([of_target.value for of_target in areas]), 1)
    resampled = sum(w * of_target.resampled for w, of_target in zip(weights, areas, strict=True))
    return _Areas(areas[0].scores, value, np.asarray(resampled))


def _weights(targets: Sequence[TargetResult]) -> np.ndarray:
    """The share of each target in the mean, float64 (n,)."""
    repeated = {name: setting for setting in settings(targets) for name in setting.targets}
    share = [1 / len(repeated[t.name].targets) if t.name in repeated else 1.0 for t in targets]
    return np.array(share) / sum(share)
