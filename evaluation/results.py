"""Evaluation results as dataclasses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
LOWER_IS_BETTER = ("fpr95", "fpr95_original")
ByEvaluator = dict[str, dict[str, float]]
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
        groups: the metrics of the known images and the unknown ones of each group, by its name.
    """

    normality: np.ndarray
    predicted: np.ndarray
    metrics: dict[str, float]
    groups: ByEvaluator = field(default_factory=dict)


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

    def group_counts(self, group: str) -> dict[str, int]:
        """The counts without the unknown images of other groups."""
        unknown = int(self.rows.groups[group].sum())
        return self.counts | {"tests": self.counts["known"] + unknown, "unknown": unknown}

    def metrics(self, group: str | None = None) -> ByEvaluator:
        """Each evaluator's metrics; of one ``group`` of unknown classes, or of all tests."""
        return {
            name: result.metrics if group is None else result.groups[group]
            for name, result in self.evaluators.items()
        }


def measure(
    test_class: np.ndarray,
    normality: np.ndarray,
    predicted: np.ndarray,
    *,
    groups: Mapping[str, np.ndarray] | None = None,
    resamples: int,
) -> EvaluatorResult:
    """The metrics of one evaluator's scores (T,).

    Args:
        test_class: int64 (T,), the known class of each image, or -1 where it is unknown.
        normality: float32 (T,).
        predicted: int64 (T,), known classes.
        groups: bool (T,), the images of each group of unknown classes, by its name.
        resamples: of the bootstrap.

    Raises:
        ValueError: there is no known or no unknown image, or a score is NaN.
    """
    kept = {name: (test_class >= 0) | group for name, group in (groups or {}).items()}
    return EvaluatorResult(
        normality,
        predicted,
        _measure(test_class, normality, predicted, resamples),
        {
            name: _measure(test_class[part], normality[part], predicted[part], resamples)
            for name, part in kept.items()
        },
    )


def _measure(
    test_class: np.ndarray, normality: np.ndarray, predicted: np.ndarray, resamples: int
) -> dict[str, float]:
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
    return dict(zip(METRICS, values, strict=True))


@dataclass(frozen=True)
class SettingResult:
    """Targets that repeat one setting.

    Attributes:
        name: the setting's.
        group: the group of unknown classes, or None for all tests.
        targets: the names of its targets, two or more.
        mean, std: each evaluator's metrics, the mean over the targets and the sample standard
            deviation (divisor n - 1).
    """

    name: str
    group: str | None
    targets: tuple[str, ...]
    mean: ByEvaluator
    std: ByEvaluator


def settings(targets: Sequence[TargetResult]) -> list[SettingResult]:
    """The settings that two or more of the targets repeat, each as a whole and by group."""
    return [
        SettingResult(
            name,
            group,
            tuple(target.name for target in repeated),
            _over([target.metrics(group) for target in repeated], np.mean),
            _over([target.metrics(group) for target in repeated], partial(np.std, ddof=1)),
        )
        for name in dict.fromkeys(target.setting for target in targets)
        for repeated in [[target for target in targets if target.setting == name]]
        if name is not None and len(repeated) > 1
        for group in (None, *common_groups(repeated))
    ]


def means(targets: Sequence[TargetResult], group: str | None = None) -> ByEvaluator:
    """Each evaluator's metrics, the mean over the targets, a repeated setting counting once.

    A ``group`` has to be one of the ``common_groups``.
    """
    repeated = [setting for setting in settings(targets) if setting.group == group]
    names = {name for setting in repeated for name in setting.targets}
    single = [target.metrics(group) for target in targets if target.name not in names]
    return _over([*(setting.mean for setting in repeated), *single], np.mean)


def common_groups(targets: Sequence[TargetResult]) -> list[str]:
    """The groups of unknown classes that all targets have."""
    return [name for name in targets[0].rows.groups if all(name in t.rows.groups for t in targets)]


def _over(values: Sequence[ByEvaluator], summary: Callable[[list[float]], Any]) -> ByEvaluator:
    """Each evaluator's metrics, a ``summary`` of those in ``values``."""
    return {
        evaluator: {
            metric: float(summary([value[evaluator][metric] for value in values]))
            for metric in _AVERAGED
        }
        for evaluator in values[0]
    }
