"""The charts of a report: AUROC of everything, ROC curves, histograms of normality."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluation.report.svg import Axes, Chart, Range, Series, legend, shortened, text_width
from evaluation.report.text import html_text
from model.metrics import rates, threshold_at_recall

_WIDTH, _PLOT = 400, (56, 374, 10, 250)  # left, right, top, bottom
_MAX_POINTS = 300
_BINS = 40
_OVERVIEW_WIDTH, _LABEL_CELLS, _BAND_GAP = 520, 26, 10


class Estimate(NamedTuple):
    """A value and what it may vary between; the bounds are equal where that is not known."""

    value: float
    low: float
    high: float


class Band(NamedTuple):
    """A target in the overview, with the AUROC of each evaluator."""

    name: str
    estimates: Mapping[str, Estimate]


class Histogram(NamedTuple):
    """Shares of the known and of the unknown images in equal bins of their normality.

    Attributes:
        known, unknown: float (40,).
        threshold: accepts 95 % of the known.
    """

    known: np.ndarray
    unknown: np.ndarray
    threshold: float

    @property
    def top(self) -> float:
        """The largest share."""
        return float(max(self.known.max(), self.unknown.max()))


def overview(bands: Sequence[Band], series: Mapping[str, Series]) -> Chart:
    """A dot for each target and evaluator at its AUROC, with a line for what it varies between."""
    cells = [shortened(band.name, _LABEL_CELLS) for band in bands]
    left, right = 14 + max(map(text_width, cells)), _OVERVIEW_WIDTH - 16
    names = dict.fromkeys(name for band in bands for name in band.estimates)
    key = legend([(series[name], name) for name in names], left, 4, right - left)
    lanes = max(len(band.estimates) for band in bands)
    lane = min(8, max(4.5, 80 / lanes))  # pixels per evaluator
    height = _BAND_GAP + lane * lanes
    top = key.height + 10
    axes = Axes(left, right, top, top + height * len(bands), _area_range(bands), Range(0, 1))
    parts = [key.body, axes.x_axis("AUROC")]
    if axes.x.low < 0.5 < axes.x.high:
        parts.append(f'<path class="axis" d="M{axes.at_x(0.5):.1f},{axes.top:g}V{axes.bottom:g}"/>')
    for number, (band, text) in enumerate(zip(bands, cells, strict=True)):
        y = top + number * height
        parts.append(
            f'<path class="grid" d="M{left:g},{y:g}H{right:g}"/>'
            f'<text x="{left - 6:g}" y="{y + height / 2 + 4:g}" text-anchor="end">'
            f"{html_text(text)}<title>{html_text(band.name)}</title></text>"
        )
        for place, (name, estimate) in enumerate(band.estimates.items()):
            middle = y + (_BAND_GAP + lane) / 2 + place * lane
            parts.append(_dot(axes, middle, series[name], f"{band.name}, {name}", estimate))
    return Chart("AUROC by target and evaluator", _OVERVIEW_WIDTH, axes.bottom + 40, "".join(parts))


def roc_chart(
    known: np.ndarray, scores: Mapping[str, np.ndarray], series: Mapping[str, Series]
) -> Chart:
    """ROC curves of the scores, each (T,), with the area in the legend; ``known`` bool (T,)."""
    left, right, top, bottom = _PLOT
    axes = Axes(*_PLOT, Range(0, 1), Range(0, 1))
    parts = [
        axes.x_axis("share of unknown accepted"),
        axes.y_axis("share of known accepted"),
        f'<path class="grid" d="M{left},{bottom}L{right},{top}"/>',
    ]
    entries = []
    for name, normality in scores.items():
        recall, false_rate = (np.append(0.0, values) for values in rates(known, normality))
        keep = np.unique(np.linspace(0, len(recall) - 1, _MAX_POINTS).astype(int))
        points = " ".join(
            f"{axes.at_x(x):.1f},{axes.at_y(y):.1f}"
            for x, y in zip(false_rate[keep].tolist(), recall[keep].tolist(), strict=True)
        )
        parts.append(
            f'<polyline class="curve" {series[name].stroke} points="{points}">'
            f"<title>{html_text(name)}</title></polyline>"
        )
        entries.append((series[name], f"{np.trapezoid(recall, false_rate):.3f} {name}"))
    key = legend(entries, left, bottom + 40, right - left)
    parts.append(key.body)
    return Chart("ROC curves, known is positive", _WIDTH, bottom + 46 + key.height, "".join(parts))


def normality_range(normality: Sequence[np.ndarray]) -> Range:
    """From the lowest to the highest of all scores."""
    low = min(float(values.min()) for values in normality)
    high = max(float(values.max()) for values in normality)
    return Range(low, high) if low < high else Range(low - 0.5, high + 0.5)


def histogram(known: np.ndarray, normality: np.ndarray, span: Range) -> Histogram:
    """Count the images, ``known`` and ``normality`` (T,), within ``span``."""
    normality = normality.astype(np.float64)  # 40 bins may be finer than float32
    shares = (
        np.histogram(normality[part], _BINS, span)[0] / part.sum() for part in (known, ~known)
    )
    of_known, of_unknown = shares
    return Histogram(of_known, of_unknown, threshold_at_recall(known, normality))


def histogram_chart(counted: Histogram, span: Range, top: float, series: Series) -> Chart:
    """The known images in the evaluator's color, the unknown ones in gray.

    ``top`` is the largest share that the axis has to hold, such as that of several histograms.
    """
    axes = Axes(*_PLOT, span, Range(0, 100 * top).rounded())
    parts = [
        axes.x_axis("normality"),
        axes.y_axis("share of images in %"),
        f'<path class="known" fill="{series.color}" d="{_steps(axes, counted.known)}"/>',
        f'<path class="unknown" d="{_steps(axes, counted.unknown)}"/>',
        f'<path class="threshold" d="M{axes.at_x(counted.threshold):.1f},{axes.bottom:g}'
        f'V{axes.top:g}"><title>95 % of the known lie at or above this line</title></path>',
    ]
    return Chart("normality of known and unknown images", _WIDTH, axes.bottom + 40, "".join(parts))


def _area_range(bands: Sequence[Band]) -> Range:
    estimates = [estimate for band in bands for estimate in band.estimates.values()]
    low, high = min(e.low for e in estimates), max(e.high for e in estimates)
    rounded = Range(low - 0.005, high + 0.005).rounded(8)
    return Range(max(0.0, rounded.low), min(1.0, rounded.high))


def _dot(axes: Axes, y: float, series: Series, name: str, estimate: Estimate) -> str:
    value, low, high = estimate
    spread = f" ({low:.3f} to {high:.3f})" if low < high else ""
    fill = 'class="hollow"' if series.dash else f'fill="{series.color}"'
    return (
        f"<g><title>{html_text(name)}: {value:.3f}{spread}</title>"
        f'<path {series.stroke} stroke-width="1.5" d="M{axes.at_x(max(low, 0)):.1f},{y:g}'
        f'H{axes.at_x(min(high, 1)):.1f}"/>'
        f'<circle {fill} stroke="{series.color}" cx="{axes.at_x(value):.1f}" cy="{y:g}" r="3"/></g>'
    )


def _steps(axes: Axes, shares: np.ndarray) -> str:
    """The outline of bars, bin by bin."""
    edges = np.linspace(axes.left, axes.right, len(shares) + 1)[1:]
    steps = "".join(
        f"V{axes.at_y(100 * share):.1f}H{edge:.1f}"
        for share, edge in zip(shares.tolist(), edges.tolist(), strict=True)
    )
    return f"M{axes.left:g},{axes.bottom:g}{steps}V{axes.bottom:g}Z"
