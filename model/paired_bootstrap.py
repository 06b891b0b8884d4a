"""Is one score better than another? A bootstrap of AUROCs on the same resampled images."""

from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """The difference of two AUROCs.

    Attributes:
        value: on all images.
        low, high: 95 % percentile interval.
        p_value: two-sided, of the hypothesis that there is no difference.
    """

    value: float
    low: float
    high: float
    p_value: float


class _Order(NamedTuple):
    """A score of P known and Q unknown images in ascending order.

    Attributes:
        known: int64 (P,), the known images, the lowest score first.
        unknown: int64 (Q,), the unknown images, the lowest score first.
        lower: int64 (P,), how many of the unknown are below each of the known.
        not_higher: int64 (P,), how many are below it or equal.
    """

    known: np.ndarray
    unknown: np.ndarray
    lower: np.ndarray
    not_higher: np.ndarray


def resampled_aurocs(
    known: np.ndarray, normality: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """The AUROCs, float64 (S, B), of S scores of the same images in the same B resamples.

    Each resample draws as many known and then as many unknown images as there are, with
    replacement. Equal scores count half.

    Args:
        known: bool (N,), of which some and not all are true.
        normality: float (S, N), high for known; no NaN.
        resamples: B.
        seed: what the draws follow from.
    """
    generator = np.random.default_rng(seed)
    orders = [_order(score[known], score[~known]) for score in normality]
    areas = np.empty((len(orders), resamples))
    for number in range(resamples):
        known_counts = _draw(int(known.sum()), generator)
        unknown_counts = _draw(int((~known).sum()), generator)
        for score, order in enumerate(orders):
            areas[score, number] = _auroc(order, known_counts, unknown_counts)
    return areas


def difference(value: float, resampled: np.ndarray) -> Difference:
    """The difference ``value`` of two AUROCs, judged by that in B resamples, float (B,).

    The p-value inverts the percentile interval: twice the smaller share of the resamples on either
    side of zero, one counted in addition (Davison and Hinkley 1997, section 4.2), so that it is
    never below 2 / (B + 1).
    """
    low, high = np.quantile(resampled, (0.025, 0.975))
    resampled = resampled.round(12)  # a mean over targets is seldom exactly zero
    tail = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
    return Difference(value, float(low), float(high), p_value)


def _order(positives: np.ndarray, negatives: np.ndarray) -> _Order:
    known, unknown = np.argsort(positives), np.argsort(negatives)
    positives, negatives = positives[known], negatives[unknown]
    lower, not_higher = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    return _Order(known, unknown, lower, not_higher)


def _draw(count: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of ``count`` images is drawn, int64 (count,)."""
    return np.bincount(generator.integers(count, size=count), minlength=count)


def _auroc(order: _Order, known_counts: np.ndarray, unknown_counts: np.ndarray) -> float:
    """The AUROC of the images, each as often as it was drawn."""
    below = np.zeros(len(unknown_counts) + 1, dtype=np.int64)
    np.cumsum(unknown_counts[order.unknown], out=below[1:])
    wins = known_counts[order.known] @ (below[order.lower] + below[order.not_higher])
    return wins / (2 * len(known_counts) * len(unknown_counts))
