"""Line and bar charts as SVG text, colored by the page's style sheet."""

from collections.abc import Mapping

import numpy as np

from evaluation.report.text import html_text
from model.metrics import rates, threshold_at_recall

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 400, 300, 56, 40, 10, 26
_MAX_POINTS = 300
_BINS = 40


def roc_chart(known: np.ndarray, scores: Mapping[str, np.ndarray]) -> str:
    """ROC curves, one per score; ``known`` bool (T,), each score (T,).

    The n-th curve has the class ``series-n``.
    """
    parts = [_frame("share of unknown accepted", "share of known accepted", (0, 1), (0, 1))]
    parts.append(f'<line class="chance" {_line(0, 0, 1, 1)}/>')
    for number, (name, normality) in enumerate(scores.items()):
        recall, false_rate = rates(known, normality)
        keep = np.unique(np.linspace(0, len(recall) - 1, _MAX_POINTS).astype(int))
        x, y = (np.concatenate(([0.0], values[keep])) for values in (false_rate, recall))
        points = " ".join(
            f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)
        )
        parts.append(
            f'<polyline class="curve series-{number}" points="{points}">'
            f"<title>{html_text(name)}</title></polyline>"
        )
    return _svg("ROC curves, known is positive", parts)


def histogram(known: np.ndarray, normality: np.ndarray) -> str:
    """Shares of known and of unknown images (T,) by normality, with the 95 % recall threshold."""
    normality = normality.astype(np.float64)  # 40 bins may be finer than float32
    low, high = float(normality.min()), float(normality.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = [np.histogram(normality[part], _BINS, (low, high))[0] for part in (known, ~known)]
    shares = [count / count.sum() for count in counts]
    top = max(float(share.max()) for share in shares)
    parts = [_frame("normality", "share of images in %", (low, high), (0, 100 * top))]
    for kind, share in zip(("known", "unknown"), shares, strict=True):
        for number, value in enumerate(share.tolist()):
            if value:
                x, y = _x(number / _BINS), _y(value / top)
                width = _x(1 / _BINS) - _x(0)
                parts.append(
                    f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                    f'height="{_y(0) - y:.1f}"/>'
                )
    threshold = (threshold_at_recall(known, normality) - low) / (high - low)
    parts.append(
        f'<line class="threshold" {_line(threshold, 0, threshold, 1)}>'
        "<title>95 % of the known lie at or above this line</title></line>"
    )
    return _svg("normality of known and unknown images", parts)


def _frame(
    x_label: str, y_label: str, x_range: tuple[float, float], y_range: tuple[float, float]
) -> str:
    parts = [f'<path class="axis" d="M{_x(0)},{_y(1)} V{_y(0)} H{_x(1)}"/>']
    for step in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = x_range[0] + step * (x_range[1] - x_range[0])
        y = y_range[0] + step * (y_range[1] - y_range[0])
        parts.append(
            f'<text x="{_x(step):.1f}" y="{_y(0) + 15}" text-anchor="middle">{x:.3g}</text>'
            f'<text x="{_x(0) - 5}" y="{_y(step) + 4:.1f}" text-anchor="end">{y:.3g}</text>'
        )
    middle = (_y(0) + _y(1)) / 2
    parts.append(
        f'<text x="{(_x(0) + _x(1)) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{x_label}</text>'
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">'
        f"{y_label}</text>"
    )
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"'


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def _svg(label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )
