"""Elements of the page."""

from collections.abc import Iterable, Sequence

from evaluation.report.svg import Series
from evaluation.report.text import html_text


def html_table(headings: Iterable[str], rows: Sequence[str], kind: str = "") -> str:
    """A table that scrolls where it is too wide; ``rows`` are elements, ``kind`` is its class."""
    head = "".join(f'<th scope="col">{html_text(heading)}</th>' for heading in headings)
    return (
        f'<div class="wide"><table class="{kind}">'
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def evaluator(name: str, series: Series) -> str:
    """The name of an evaluator, with its line as in the charts."""
    line = f'<path class="curve" {series.stroke} d="M0,4h18"/>'
    return f'<svg class="key" viewBox="0 0 18 8">{line}</svg>{html_text(name)}'
