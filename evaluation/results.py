"""Evaluation results as dataclasses."""

from dataclasses import dataclass

import numpy as np

from evaluation.protocol import ProtocolRows
from model import metrics

KNOWN_IS_POSITIVE = "known is the positive class; normality is high for known"

METRICS = (
    "auroc",
    "auroc_low",
    "auroc_high",
    "fpr95",
    "fpr95_original",
    "aupr_known",
    "aupr_unknown",
    "accuracy",
)
_AVERAGED = tuple(name for name in METRICS if name not in ("auroc_low", "auroc_high"))


@dataclass(frozen=True)
class EvaluatorResult:
    """One evaluator on one target.

    Attributes:
        normality: float32 (T,), in the order of the target's test rows.
        predicted: int64 (T,), known classes.
        metrics: by the names of ``METRICS``; ``auroc_low`` and ``auroc_high`` bound the 95 %
            bootstrap interval of the AUROC, ``accuracy`` is closed-set, on the known images.
    """

    normality: np.ndarray
    predicted: np.ndarray
    metrics: dict[str, float]


@dataclass(frozen=True)
class TargetResult:
    """All evaluators on one target.

    Attributes:
        name: the target's name.
        rows: the references that were used, and the tests.
        evaluators: the results by evaluator name.
        seconds: duration of the scoring.
        pairs: relational pairs scored.
    """

    name: str
    rows: ProtocolRows
    evaluators: dict[str, EvaluatorResult]
    seconds: float
    pairs: int

    @property
    def counts(self) -> dict[str, int]:
        known, tests = int((self.rows.test_class >= 0).sum()), len(self.rows.test)
        return {
            "references": len(self.rows.reference),
            "tests": tests,
            "known": known,
            "unknown": tests - known,
        }


def measure(
    test_class: np.ndarray, normality: np.ndarray, predicted: np.ndarray, *, resamples: int
) -> EvaluatorResult:
    """The metrics of one evaluator's scores; ``resamples`` is for the bootstrap.

    Raises:
        ValueError: there is no known or no unknown image, or a score is NaN.
    """
    known = test_class >= 0
    low, high = metrics.auroc_interval(known, normality, resamples=resamples)
    values = (
        metrics.auroc(known, normality),
        low,
        high,
        metrics.fpr95(known, normality),
        metrics.fpr95_original(known, normality),
        metrics.aupr_known(known, normality),
        metrics.aupr_unknown(known, normality),
        metrics.closed_set_accuracy(test_class, predicted),
    )
    return EvaluatorResult(normality, predicted, dict(zip(METRICS, values, strict=True)))


def means(targets: list[TargetResult]) -> dict[str, dict[str, float]]:
    """Each evaluator's metrics, averaged over the targets."""
    return {
        evaluator: {
            metric: float(np.mean([t.evaluators[evaluator].metrics[metric] for t in targets]))
            for metric in _AVERAGED
        }
        for evaluator in targets[0].evaluators
    }
