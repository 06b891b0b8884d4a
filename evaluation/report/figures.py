"""The charts of an evaluation, for the page and as files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.report.charts import (
    Band,
    Estimate,
    histogram,
    histogram_chart,
    normality_range,
    overview,
    roc_chart,
)
from evaluation.report.svg import Chart, Series
from evaluation.report.table import MEAN
from evaluation.results import means, settings
from model.config import EVALUATORS

_MAX_NAME = 40  # characters of each name in that of a file


@dataclass(frozen=True)
class TargetFigures:
    """The charts of a target: ROC curves, and the histogram of each evaluator."""

    roc: Chart
    histograms: Mapping[str, Chart]


@dataclass(frozen=True)
class Figures:
    """All charts.

    Attributes:
        series: the color of each evaluator, the same in all charts.
        overviews: one per protocol.
        targets: those of the targets of each result.
    """

    series: Mapping[str, Series]
    overviews: Sequence[Chart]
    targets: Sequence[Sequence[TargetFigures]]

    @staticmethod
    def draw(results: Sequence[BenchmarkResult]) -> "Figures":
        """Draw the charts; those of one network on one protocol are on the same scales."""
        names = [name for r in results for target in r.targets for name in target.evaluators]
        ordered = sorted(set(names), key=EVALUATORS.index)  # the same colors in other reports
        series = {name: Series.of(place) for place, name in enumerate(ordered)}
        overviews = [overview(_bands(networks), series) for networks in by_protocol(results)]
        return Figures(series, overviews, [_targets(result, series) for result in results])


def most_telling_first(result: BenchmarkResult) -> BenchmarkResult:
    """``result`` with its evaluators in the order of their mean AUROC, the highest first."""
    areas = {name: values["auroc"] for name, values in means(result.targets).items()}
    order = sorted(areas, key=lambda name: -areas[name])
    targets = [
        replace(target, evaluators={name: target.evaluators[name] for name in order})
        for target in result.targets
    ]
    return replace(result, targets=targets)


def write_figures(folder: Path, results: Sequence[BenchmarkResult], figures: Figures) -> None:
    """Write each chart as an SVG file of its own, which needs no other file."""
    folder.mkdir()
    written: set[str] = set()
    for name, chart in _named(results, figures):
        unique, number = name, 1
        while unique in written:
            number += 1
            unique = f"{name}-{number}"
        written.add(unique)
        (folder / f"{unique}.svg").write_text(chart.standalone(), encoding="utf-8")


def _named(results: Sequence[BenchmarkResult], figures: Figures) -> Iterator[tuple[str, Chart]]:
    """The charts with names of letters, digits and hyphens, which need not differ."""
    several = len(results) > len(figures.overviews)
    for networks, chart in zip(by_protocol(results), figures.overviews, strict=True):
        yield _slug(networks[0].protocol.name, "overview"), chart
    for result, of_result in zip(results, figures.targets, strict=True):
        for target, charts in zip(result.targets, of_result, strict=True):
            names = (result.protocol.name, result.network if several else "", target.name)
            yield _slug(*names, "roc"), charts.roc
            for evaluator, chart in charts.histograms.items():
                yield _slug(*names, "histogram", evaluator), chart


def _slug(*names: str) -> str:
    parts = [re.sub(r"[^a-z0-9]+", "-", n.lower()).strip("-")[:_MAX_NAME] for n in names]
    return "-".join(part for part in parts if part)


def _targets(result: BenchmarkResult, series: Mapping[str, Series]) -> list[TargetFigures]:
    """One axis of shares for all histograms, and one of normality for those of an evaluator."""
    scores = [{n: r.normality for n, r in t.evaluators.items()} for t in result.targets]
    known = [target.rows.test_class >= 0 for target in result.targets]
    spans = {name: normality_range([of_target[name] for of_target in scores]) for name in scores[0]}
    counted = [
        {name: histogram(part, of_target[name], span) for name, span in spans.items()}
        for part, of_target in zip(known, scores, strict=True)
    ]
    top = max(found.top for of_target in counted for found in of_target.values())
    return [
        TargetFigures(
            roc_chart(part, of_target, series),
            {n: histogram_chart(bins[n], span, top, series[n]) for n, span in spans.items()},
        )
        for part, of_target, bins in zip(known, scores, counted, strict=True)
    ]


def _bands(networks: Sequence[BenchmarkResult]) -> list[Band]:
    """Those of one target follow one another."""
    found = [(name, each.network, area) for each in networks for name, area in _areas(each).items()]
    names = list(dict.fromkeys(name for name, _, _ in found))
    return [
        Band(f"{name}, {network}" if len(networks) > 1 else name, areas)
        for name, network, areas in sorted(found, key=lambda item: names.index(item[0]))
    ]


def _areas(result: BenchmarkResult) -> dict[str, dict[str, Estimate]]:
    """AUROCs by target, or by the setting that targets repeat; the mean if there are several."""
    repeated = [setting for setting in settings(result.targets) if setting.group is None]
    names = {name for setting in repeated for name in setting.targets}
    areas = {
        target.name: {name: _interval(values) for name, values in target.metrics().items()}
        for target in result.targets
        if target.name not in names
    }
    for setting in repeated:
        areas[setting.name] = {
            name: _around(values["auroc"], setting.std[name]["auroc"])
            for name, values in setting.mean.items()
        }
    if len(areas) > 1:
        mean = means(result.targets)
        areas[MEAN] = {name: _around(values["auroc"], 0) for name, values in mean.items()}
    return areas


def _interval(metrics: Mapping[str, float]) -> Estimate:
    return Estimate(metrics["auroc"], metrics["auroc_low"], metrics["auroc_high"])


def _around(mean: float, deviation: float) -> Estimate:
    return Estimate(mean, mean - deviation, mean + deviation)
