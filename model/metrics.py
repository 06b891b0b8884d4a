"""Metrics of how well a normality score separates known from unknown; known is positive throughout.

The functions take ``known``, bool (N,), and ``normality``, float (N,), high for known. Those that
also judge the predicted class take ``test_class``, int64 (N,), the known class of each sample or -1
where it is unknown, and ``predicted``, int64 (N,), the predicted known class. They raise ValueError
where a metric is undefined: known or unknown samples are missing, or a score is NaN.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


class Rates(NamedTuple):
    """The ROC curve with every distinct score as the threshold, in descending order.

    Attributes:
        recall: (n,), the fraction of the known accepted.
        false_rate: (n,), the fraction of the unknown accepted.
    """

    recall: np.ndarray
    false_rate: np.ndarray


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class OpenSet(NamedTuple):
    """Decisions over the known classes and "unknown", at one threshold.

    Attributes:
        accuracy: the fraction of all samples decided correctly: known ones that are accepted with
            the correct class, unknown ones that are rejected.
        h_score: harmonic mean of the fraction of the known decided correctly and the fraction of
            the unknown decided correctly (Fu et al., Learning to Detect Open Classes for Universal
            Domain Adaptation, ECCV 2020); 0 if both are.
    """

    accuracy: float
    h_score: float


def auroc(known: np.ndarray, normality: np.ndarray) -> float:
    """Area under the ROC curve; equal scores count half."""
    _check(known, normality)
    return float(roc_auc_score(known, normality))


def fpr95(known: np.ndarray, normality: np.ndarray) -> float:
    """False positive rate at 95 % recall: the fraction of unknown samples accepted by the highest
    threshold that accepts at least 95 % of the known ones."""
    recall, false_rate = rates(known, normality)
    return float(false_rate[np.argmax(recall >= 0.95)])


def fpr95_original(known: np.ndarray, normality: np.ndarray) -> float:
    """FPR95 by the rule behind the published ReSeND numbers.

    Takes the threshold whose recall is closest to 95 %, even if below it; ties go to the lowest
    threshold.
    """
    recall, false_rate = rates(known, normality)
    to_full_recall = int(np.argmax(recall == 1.0)) + 1
    recall, false_rate = recall[:to_full_recall][::-1], false_rate[:to_full_recall][::-1]
    return float(false_rate[np.argmin(np.abs(recall - 0.95))])


def rates(known: np.ndarray, normality: np.ndarray) -> Rates:
    """Recall of the known and false positive rate of the unknown at every threshold."""
    _check(known, normality)
    accepted_known, accepted_unknown = _accepted(normality, known, ~known)
    return Rates(accepted_known / known.sum(), accepted_unknown / (~known).sum())


def aupr_known(known: np.ndarray, normality: np.ndarray) -> float:
    """Average precision with known as the positive class."""
    _check(known, normality)
    return float(average_precision_score(known, normality))


def aupr_unknown(known: np.ndarray, normality: np.ndarray) -> float:
    """Average precision with unknown as the positive class, detected by low normality."""
    _check(known, normality)
    return float(average_precision_score(~known, -normality))


def auroc_interval(
    known: np.ndarray,
    normality: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the AUROC; known and unknown are resampled separately.

    It depends on the two sets of scores, not on their order.
    """
    _check(known, normality)
    _, ranks = np.unique(normality, return_inverse=True)
    generator = np.random.default_rng(seed)
    areas = np.empty(resamples)
    known_ranks, unknown_ranks = np.sort(ranks[known]), np.sort(ranks[~known])
    for number in range(resamples):
        positives = _resampled_counts(known_ranks, ranks.max() + 1, generator)
        negatives = _resampled_counts(unknown_ranks, ranks.max() + 1, generator)
        below = np.cumsum(negatives) - 0.5 * negatives
        areas[number] = positives @ below / (len(known_ranks) * len(unknown_ranks))
    tail = (1 - level) / 2
    low, high = np.quantile(areas, (tail, 1 - tail))
    return Interval(float(low), float(high))


def threshold_at_recall(known: np.ndarray, normality: np.ndarray, recall: float = 0.95) -> float:
    """The highest threshold that accepts at least the fraction ``recall`` of the known."""
    thresholds = np.unique(normality)[::-1]
    return float(thresholds[np.argmax(rates(known, normality).recall >= recall)])


def closed_set_accuracy(test_class: np.ndarray, predicted: np.ndarray) -> float:
    """Fraction of known samples whose predicted class is correct."""
    known = test_class >= 0
    if not known.any():
        raise ValueError("no known sample, so there is no closed-set accuracy")
    return float((predicted[known] == test_class[known]).mean())


def oscr(test_class: np.ndarray, normality: np.ndarray, predicted: np.ndarray) -> float:
    """Area under the open-set classification rate curve (Dhamija et al. 2018, arXiv 1811.04110).

    The curve is the correct classification rate, the fraction of the known that are accepted with
    the correct class, over the fraction of the unknown that are accepted. Equal scores count half,
    as in the AUROC, which it equals if all known samples are classified correctly.
    """
    known = test_class >= 0
    _check(known, normality)
    correct, wrong = _accepted(normality, known & (predicted == test_class), ~known)
    correct_rate, false_rate = (
        np.append(0, counts) / total
        for counts, total in ((correct, known.sum()), (wrong, wrong[-1]))
    )
    return float(np.trapezoid(correct_rate, false_rate))


def open_set(
    test_class: np.ndarray, normality: np.ndarray, predicted: np.ndarray, recall: float = 0.95
) -> OpenSet:
    """Open-set accuracy and H-score at ``threshold_at_recall``."""
    known = test_class >= 0
    accepted = normality >= threshold_at_recall(known, normality, recall)
    correct = np.where(known, accepted & (predicted == test_class), ~accepted)
    of_known, of_unknown = float(correct[known].mean()), float(correct[~known].mean())
    total = of_known + of_unknown
    return OpenSet(float(correct.mean()), 2 * of_known * of_unknown / total if total else 0.0)


def _accepted(normality: np.ndarray, *kinds: np.ndarray) -> list[np.ndarray]:
    """How many samples of each kind, bool (N,), are accepted, with every distinct score as the
    threshold, in descending order."""
    order = np.argsort(-normality, kind="stable")
    last_of_score = np.append(np.diff(normality[order]) != 0, True)
    return [np.cumsum(kind[order])[last_of_score] for kind in kinds]


def _resampled_counts(
    ranks: np.ndarray, num_ranks: int, generator: np.random.Generator
) -> np.ndarray:
    drawn = ranks[generator.integers(len(ranks), size=len(ranks))]
    return np.bincount(drawn, minlength=num_ranks)


def _check(known: np.ndarray, normality: np.ndarray) -> None:
    if known.dtype != bool or known.shape != normality.shape or known.ndim != 1:
        raise ValueError("known must be bool (N,) and normality float (N,)")
    if known.all() or not known.any():
        kind = "unknown" if known.all() else "known"
        raise ValueError(f"there is no {kind} sample; AUROC and FPR95 need known and unknown ones")
    if np.isnan(normality).any():
        raise ValueError(f"{int(np.isnan(normality).sum())} scores are NaN")
