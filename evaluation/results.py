"""Evaluation results as dataclasses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    "oscr",
    "open_set_accuracy",
    "h_score",
)
_AVERAGED = tuple(name for name in METRICS if name not in ("auroc_low", "auroc_high"))


@dataclass(frozen=True)
class EvaluatorResult:
    """One evaluator on one target.

    Attributes:
        normality: float32 (T,), in the order of the target's test rows.
        predicted: int64 (T,), known classes.
        metrics: by the names of ``METRICS``; ``auroc_low`` and ``auroc_high`` bound the 95 %
            bootstrap interval of the AUROC, ``accuracy`` is closed-set, on the known images;
            ``open_set_accuracy`` and ``h_score`` are at 95 % recall of the known.
    """

    normality: np.ndarray
    predicted: np.ndarray
    metrics: dict[str, float]


@dataclass(frozen=True)
class TargetResult:
    """All evaluators on one target.

    Attributes:
        name: the target's name.
        setting: what it repeats, or None.
        rows: the references that were used, and the tests.
        evaluators: the results by evaluator name.
        seconds: duration of the scoring.
        pairs: relational pairs scored.
    """

    name: str
    setting: str | None
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
        metrics.oscr(test_class, normality, predicted),
        *metrics.open_set(test_class, normality, predicted),
    )
    return EvaluatorResult(normality, predicted, dict(zip(METRICS, values, strict=True)))


@dataclass(frozen=True)
class SettingResult:
    """Targets that repeat one setting.

    Attributes:
        name: the setting's.
        targets: the names of its targets, two or more.
        mean, std: each evaluator's metrics, the mean over the targets and the sample standard
            deviation (divisor n - 1).
    """

    name: str
    targets: tuple[str, ...]
    mean: dict[str, dict[str, float]]
    std: dict[str, dict[str, float]]


def settings(targets: Sequence[TargetResult]) -> list[SettingResult]:
    """The settings that two or more of the targets repeat."""
    return [
        SettingResult(
            name,
            tuple(target.name for target in repeated),
            _over([_metrics(target) for target in repeated], np.mean),
            _over([_metrics(target) for target in repeated], partial(np.std, ddof=1)),
        )
        for name in dict.fromkeys(target.setting for target in targets)
        for repeated in [[target for target in targets if target.setting == name]]
        if name is not None and len(repeated) > 1
    ]


def means(targets: Sequence[TargetResult]) -> dict[str, dict[str, float]]:
    """Each evaluator's metrics, the mean over the targets, a repeated setting counting once."""
    repeated = settings(targets)
    names = {name for setting in repeated for name in setting.targets}
    single = [_metrics(target) for target in targets if target.name not in names]
    return _over([*(setting.mean for setting in repeated), *single], np.mean)


def _metrics(target: TargetResult) -> dict[str, dict[str, float]]:
    return {name: result.metrics for name, result in target.evaluators.items()}


def _over(
    values: Sequence[dict[str, dict[str, float]]], summary: Callable[[list[float]], Any]
) -> dict[str, dict[str, float]]:
    """Each evaluator's metrics, a ``summary`` of those in ``values``."""
    return {
        evaluator: {
            metric: float(summary([value[evaluator][metric] for value in values]))
            for metric in _AVERAGED
        }
        for evaluator in values[0]
    }
