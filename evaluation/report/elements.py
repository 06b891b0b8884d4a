"""Elements of pages, and the page around them."""

from collections.abc import Iterable, Sequence

from evaluation.report.style import STYLE
from evaluation.report.svg import Series
from evaluation.report.text import html_text


def document(title: str, body: Iterable[str]) -> str:
    """A page of the elements ``body``, which needs no other file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html_text(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


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
