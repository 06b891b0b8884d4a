"""A published result beside the one that was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.reproduction.published import PublishedResult


@dataclass(frozen=True)
class ReproducedRow:
    """A row of a table, of which either side may be missing.

    Attributes:
        table, target: where the row belongs.
        network, evaluator: what was evaluated; empty where neither side has a result.
        published: what is published for it.
        measured: what was measured, by the names of ``METRICS``.
        note: why nothing was measured.
        failed: whether it was evaluated in vain.
    """

    table: str
    target: str
    network: str = ""
    evaluator: str = ""
    published: PublishedResult | None = None
    measured: Mapping[str, float] | None = None
    note: str = ""
    failed: bool = False

    @property
    def fpr95(self) -> str:
        """The name of the FPR95 in the table: by the rule of the published one, if there is one,
        and otherwise by that of the original."""
        first_rule = self.published is not None and "fpr95" in self.published.metrics
        return "fpr95" if first_rule else "fpr95_original"

    def difference(self, metric: str) -> float | None:
        """Measured minus published; None where one of them is missing."""
        if self.published is None or self.measured is None:
            return None
        if metric not in self.published.metrics:
            return None
        return self.measured[metric] - self.published.metrics[metric]

    @property
    def agrees(self) -> bool | None:
        """Whether the published AUROC is in the 95 % interval of the measured one; None where one
        of them is missing."""
        if self.published is None or self.measured is None:
            return None
        if (published := self.published.metrics.get("auroc")) is None:
            return None
        return self.measured["auroc_low"] <= published <= self.measured["auroc_high"]
