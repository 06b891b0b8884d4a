"""SVG charts: axes with round ticks, legends, colors; inside the page or as files of their own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from evaluation.report.text import html_text, plain

# Each has a contrast of 3 or more to white and to the page's dark paper.
_COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#c0589c", "#b8860b",
    "#8b62d9", "#128da0", "#cf3f46", "#6b8e23", "#9a6a4f",
)  # fmt: skip
_DASHES = ("", "6 3", "2 2")
_CHARACTER, _LINE = 6.2, 16  # pixels per character of a label, per line of a legend


class Theme(NamedTuple):
    """Colors of text, of axes and their labels, of grid lines and of the background."""

    ink: str
    soft: str
    line: str
    paper: str


LIGHT = Theme("#1c1c1c", "#5f5f5f", "#d5d5d5", "#ffffff")
DARK = Theme("#e6e6e6", "#a0a0a0", "#444444", "#16181b")


class Series(NamedTuple):
    """The color and the dashes by which a chart tells one evaluator from others."""

    color: str
    dash: str

    @staticmethod
    def of(number: int) -> "Series":
        """Of the ``number``-th evaluator; 30 differ."""
        dash = _DASHES[number // len(_COLORS) % len(_DASHES)]
        return Series(_COLORS[number % len(_COLORS)], dash)

    @property
    def stroke(self) -> str:
        """The attributes of a line."""
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        return f'stroke="{self.color}"{dash}'


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        label: what it shows, for readers who do not see it.
        width, height: in pixels.
        body: SVG elements.
    """

    label: str
    width: float
    height: float
    body: str

    def inline(self) -> str:
        """The element for a page that has ``chart_style``."""
        return f"<svg {self._box()}>{self.body}</svg>"

    def standalone(self) -> str:
        """The content of an SVG file, with the colors of the light theme."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" '
            f'height="{self.height:g}" {self._box()}><style>{chart_style(LIGHT)}</style>'
            f"{self.body}</svg>\n"
        )

    def _box(self) -> str:
        label = html_text(self.label)
        return f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{label}"'


def chart_style(theme: Theme) -> str:
    """The style sheet of charts."""
    return (
        f"svg text{{fill:{theme.soft};font:11px sans-serif}}"
        f"svg .axis{{stroke:{theme.soft};fill:none}}svg .grid{{stroke:{theme.line}}}"
        f"svg .threshold{{stroke:{theme.ink};stroke-dasharray:4 3}}"
        f"svg .hollow{{fill:{theme.paper}}}"
        f"svg .unknown{{fill:{theme.soft};fill-opacity:.3;stroke:{theme.soft}}}"
        "svg .curve{fill:none;stroke-width:1.8}svg .known{fill-opacity:.5}"
    )


class Range(NamedTuple):
    """The values that an axis spans."""

    low: float
    high: float

    def rounded(self, most: int = 5) -> "Range":
        """Widened to the next round numbers."""
        step = self._step(most)
        return Range(math.floor(self.low / step) * step, math.ceil(self.high / step) * step)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers inside, multiples of 1, 2 or 5 times a power of 10; about ``most``."""
        step = self._step(most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _step(self, most: int) -> float:
        least = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(least))
        return next(f * power for f in (1, 2, 5, 10) if f * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Axes:
    """The rectangle in which values are drawn, and what its sides span.

    Attributes:
        left, right, top, bottom: in pixels.
        x, y: what the lower and the left side span.
    """

    left: float
    right: float
    top: float
    bottom: float
    x: Range
    y: Range

    def at_x(self, value: float) -> float:
        """The place of a value of x, in pixels."""
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return self.left + share * (self.right - self.left)

    def at_y(self, value: float) -> float:
        """The place of a value of y, in pixels."""
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return self.bottom - share * (self.bottom - self.top)

    def x_axis(self, label: str) -> str:
        """The lower side with round numbers, and lines through them."""
        marks = "".join(
            f'<path class="grid" d="M{self.at_x(tick):.1f},{self.top:g}V{self.bottom:g}"/>'
            f'<text x="{self.at_x(tick):.1f}" y="{self.bottom + 15:g}" text-anchor="middle">'
            f"{_number(tick)}</text>"
            for tick in self.x.ticks()
        )
        return (
            f'{marks}<path class="axis" d="M{self.left:g},{self.bottom:g}H{self.right:g}"/>'
            f'<text x="{(self.left + self.right) / 2:g}" y="{self.bottom + 32:g}" '
            f'text-anchor="middle">{label}</text>'
        )

    def y_axis(self, label: str) -> str:
        """The left side with round numbers."""
        marks = "".join(
            f'<text x="{self.left - 5:g}" y="{self.at_y(tick) + 4:.1f}" text-anchor="end">'
            f"{_number(tick)}</text>"
            for tick in self.y.ticks()
        )
        middle = (self.top + self.bottom) / 2
        return (
            f'{marks}<path class="axis" d="M{self.left:g},{self.top:g}V{self.bottom:g}"/>'
            f'<text x="11" y="{middle:g}" text-anchor="middle" '
            f'transform="rotate(-90 11 {middle:g})">{label}</text>'
        )


class Legend(NamedTuple):
    """Lines that name the series of a chart, and their height in pixels."""

    body: str
    height: float


def legend(entries: Sequence[tuple[Series, str]], left: float, top: float, width: float) -> Legend:
    """The ``entries`` in as many columns as fit."""
    texts = [shortened(text, int((width - 24) / _CHARACTER)) for _, text in entries]
    needed = 34 + max(text_width(text) for text in texts)
    columns = min(max(1, int(width / needed)), len(entries))
    lines = math.ceil(len(entries) / columns)
    parts = []
    for number, ((series, full), text) in enumerate(zip(entries, texts, strict=True)):
        x = left + number // lines * width / columns
        y = top + number % lines * _LINE + _LINE / 2
        parts.append(
            f'<path class="curve" {series.stroke} d="M{x:.1f},{y:g}h18"/>'
            f'<text x="{x + 23:.1f}" y="{y + 4:g}">{html_text(text)}'
            f"<title>{html_text(full)}</title></text>"
        )
    return Legend("".join(parts), lines * _LINE)


def shortened(text: str, cells: int) -> str:
    """``text``, cut to the width of so many characters."""
    text = plain(text)
    return text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"


def text_width(text: str) -> float:
    """About how wide a label is, in pixels."""
    return cell_len(text) * _CHARACTER


def _number(value: float) -> str:
    return f"{value + 0.0:.10g}"  # + 0.0 takes the sign off a zero
