"""The section of the page on one target of one network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.benchmark import BenchmarkResult
from evaluation.report.elements import evaluator, html_table
from evaluation.report.figures import TargetFigures
from evaluation.report.mistakes import Mistake, confusion, most_confident, nearest, thumbnail
from evaluation.report.svg import Series
from evaluation.report.text import html_text
from evaluation.results import TargetResult

_FULL_CONFUSION = 15  # classes; with more, the most frequent confusions are listed
_LISTED = 20


@dataclass(frozen=True)
class Section:
    """What is shown of a target.

    Attributes:
        anchor: the section's id in the page.
        title: its heading.
        result: of the network on the protocol.
        target: one of its targets, the most telling evaluator first.
        charts: of the target.
    """

    anchor: str
    title: str
    result: BenchmarkResult
    target: TargetResult
    charts: TargetFigures


def section_html(section: Section, series: Mapping[str, Series]) -> str:
    """The charts, and the confusions and mistakes of the first evaluator."""
    target = section.target
    histograms = "".join(
        f"<figure>{chart.inline()}<figcaption>{evaluator(name, series[name])}</figcaption></figure>"
        for name, chart in section.charts.histograms.items()
    )
    first = html_text(next(iter(target.evaluators)))
    return (
        f'<section id="{section.anchor}"><h3>{html_text(section.title)}'
        f'<a class="up" href="#top" title="to the top">↑</a></h3>'
        f"<p>{_counts(section)}</p>"
        f'<div class="charts"><figure>{section.charts.roc.inline()}<figcaption>ROC and AUROC'
        f"</figcaption></figure>{histograms}</div>"
        '<p class="note">Known images in the color of the evaluator, unknown ones in gray; the '
        "dashed line accepts 95 % of the known. Hover over a curve for its name.</p>"
        f"<h4>Confusions of {first} at 95 % recall</h4>{_confusions(target)}"
        f"<h4>Most confident mistakes of {first}</h4>{_mistakes(section)}</section>"
    )


def _counts(section: Section) -> str:
    pack, target = section.result.pack, section.target
    counts, missing = target.counts, target.rows.left_out
    numbers = np.unique(pack.index.domain[target.rows.test])
    domains = html_text(" and ".join(pack.manifest.domains[number] for number in numbers))
    left_out = f" {missing} listed images, rejected by packing, are left out." if missing else ""
    return (
        f"{counts['known']} known and {counts['unknown']} unknown test images of {domains}, "
        f"{counts['references']} references of {len(target.rows.known)} known classes.{left_out}"
    )


def _confusions(target: TargetResult) -> str:
    result = next(iter(target.evaluators.values()))
    names = [*target.rows.known, "unknown"]
    counts = confusion(target.rows.test_class, result, len(target.rows.known))
    if len(names) > _FULL_CONFUSION + 1:
        return _listed_confusions(counts, names)
    rows = []
    for number, name in enumerate(names):
        total = max(1, int(counts[number].sum()))
        cells = "".join(
            f'<td class="number{" right" if column == number else ""}" '
            f'style="--share:{count / total * 100:.0f}%">{count or "·"}</td>'
            for column, count in enumerate(counts[number].tolist())
        )
        rows.append(f'<tr><th scope="row">{html_text(name)}</th>{cells}</tr>')
    note = '<p class="note">Rows: what an image shows. Columns: what it was taken for.</p>'
    return note + html_table(("", *names), rows, "confusion")


def _listed_confusions(counts: np.ndarray, names: list[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    rows = [
        f"<tr><td>{html_text(names[truth])}</td><td>{html_text(names[given])}</td>"
        f'<td class="number">{wrong[truth, given]}</td>'
        f'<td class="number">{wrong[truth, given] / counts[truth].sum():.0%}</td></tr>'
        for truth, given in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[truth, given]
    ]
    note = f'<p class="note">The {len(rows)} most frequent ones.</p>'
    return note + html_table(("shows", "taken for", "images", "of its class"), rows)


def _mistakes(section: Section) -> str:
    target = section.target
    found = most_confident(target.rows.test_class, next(iter(target.evaluators.values())))
    if not found:
        return "<p>None.</p>"
    parts = [
        '<p class="note">Left: the image. Right: of the references of the nearest class, the one '
        "whose features have the highest cosine similarity to it.</p>"
    ]
    for known, heading in (
        (False, "Unknown, taken for known"),
        (True, "Known, taken for unknown"),
    ):
        cards = "".join(_mistake(section, mistake) for mistake in found if mistake.known == known)
        if cards:
            parts.append(f'<h5>{heading}</h5><div class="cards">{cards}</div>')
    return "".join(parts)


def _mistake(section: Section, mistake: Mistake) -> str:
    rows, pack = section.target.rows, section.result.pack
    features = section.result.extraction.features
    row = int(rows.test[mistake.position])
    members = rows.reference[rows.reference_class == mistake.predicted]
    feature = features.of(rows.test[mistake.position : mistake.position + 1])[0]
    example = int(members[nearest(feature, features.of(members))])
    shows = html_text(rows.test_name[mistake.position])
    taken_for = html_text(rows.known[mistake.predicted])
    key, example_key = (html_text(key) for key in pack.keys(np.array([row, example])))
    return (
        f'<figure class="card"><img src="{thumbnail(pack, row)}" alt="{shows}" title="{key}">'
        f'<img src="{thumbnail(pack, example)}" alt="{taken_for}" title="{example_key}">'
        f"<figcaption><b>{shows}</b>, nearest <b>{taken_for}</b><br>"
        f"normality {mistake.normality:.4g}</figcaption></figure>"
    )
