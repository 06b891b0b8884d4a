"""``report.html``: an overview, the results, the details of each target and their provenance."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.comparison import Comparison
from evaluation.networks import NamedNetwork
from evaluation.receipt import Receipt
from evaluation.report import comparisons as compared
from evaluation.report import table
from evaluation.report.details import Section, section_html
from evaluation.report.elements import document, evaluator, html_table
from evaluation.report.figures import Figures
from evaluation.report.svg import Series
from evaluation.report.text import html_text


def write_report(
    path: Path,
    results: Sequence[BenchmarkResult],
    comparisons: Sequence[Comparison],
    receipt: Receipt,
    figures: Figures,
) -> None:
    """Write the page; it needs no other file and no connection."""
    protocols = by_protocol(results)
    title = f"Evaluation: {', '.join(networks[0].protocol.name for networks in protocols)}"
    sections = _sections(results, figures)
    body = [f'<h1 id="top">{html_text(title)}</h1>', _head(receipt)]
    for networks, chart in zip(protocols, figures.overviews, strict=True):
        protocol = networks[0].protocol
        links = _links([s for s in sections if s.result.protocol is protocol])
        body += [
            f"<h2>{html_text(protocol.name)}</h2>",
            f'<figure class="overview wide">{chart.inline()}</figure>',
            _NOTE,
            _results_table(networks, links, figures.series),
            _comparisons([item for item in comparisons if item.benchmark == protocol.name]),
        ]
    body += ["<h2>Details</h2>", *(section_html(section, figures.series) for section in sections)]
    body.append(_receipt(results, receipt))
    path.write_text(document(title, body), encoding="utf-8", errors="backslashreplace")


_NOTE = (
    '<p class="note">Dots: AUROC, .5 is chance. Lines: the 95 % bootstrap interval; of repeated '
    "settings, one standard deviation to each side of the mean. In bold: the best of a target.</p>"
)


def _head(receipt: Receipt) -> str:
    networks = "".join(
        f"<li><b>{html_text(network.name)}</b>: {html_text(network.origin)}</li>"
        for network in receipt.networks
    )
    return (
        f'<ul class="head"><li>{receipt.date:%Y-%m-%d %H:%M %Z}</li>{networks}</ul>'
        "<p>Known is the positive class: a high normality means known. FPR95 is the share of "
        "unknown images accepted when 95 % of the known ones are; open-set accuracy and H-score "
        "are for the same threshold. Accuracy is closed-set, on the known images.</p>"
    )


def _sections(results: Sequence[BenchmarkResult], figures: Figures) -> list[Section]:
    several = len(results) > len(figures.overviews)
    parts = [
        (
            f"{result.protocol.name}: {target.name}{f', {result.network}' if several else ''}",
            *(result, target, charts),
        )
        for result, of_result in zip(results, figures.targets, strict=True)
        for target, charts in zip(result.targets, of_result, strict=True)
    ]
    return [Section(f"target-{number}", *part) for number, part in enumerate(parts, 1)]


def _links(sections: Sequence[Section]) -> dict[tuple[str, str], str]:
    """The sections of a protocol by network and label."""
    return {
        (section.result.network, table.label(section.target.name, group)): section.anchor
        for section in sections
        for group in (None, *section.target.rows.groups)
    }


def _results_table(
    networks: Sequence[BenchmarkResult],
    links: Mapping[tuple[str, str], str],
    series: Mapping[str, Series],
) -> str:
    rows: list[str] = []
    previous: tuple[str, str] = ("", "")
    several = len(networks) > 1
    for row in table.rows(networks):
        anchor, first = links.get((row.network, row.target)), row.target != previous[0]
        target = _linked(row.target, anchor) if first else ""
        network = _linked(row.network, anchor) if previous != row[:2] else ""
        cells = "".join(f'<td class="number">{_value(cell)}</td>' for cell in row.cells)
        rows.append(
            f'<tr{" class=first" if first else ""}><th scope="row">{target}</th>'
            f"{f'<td>{network}</td>' if several else ''}"
            f"<td>{evaluator(row.evaluator, series[row.evaluator])}</td>{cells}</tr>"
        )
        previous = row[:2]
    return html_table(table.headings(networks), rows, "networks" if several else "")


def _linked(name: str, anchor: str | None) -> str:
    text = html_text(name)
    return text if anchor is None else f'<a href="#{anchor}">{text}</a>'


def _value(cell: table.Cell) -> str:
    return f"<b>{cell.text}</b>" if cell.best else cell.text


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    rows = []
    for row in compared.rows(comparisons):
        names = "".join(f"<td>{html_text(cell)}</td>" for cell in row[1:3])
        numbers = "".join(f'<td class="number">{html_text(cell)}</td>' for cell in row[3:])
        rows.append(f'<tr><th scope="row">{html_text(row[0])}</th>{names}{numbers}</tr>')
    title = f"<summary>Differences of AUROC</summary><p>{compared.NOTE}</p>"
    return f"<details>{title}{html_table(compared.HEADINGS, rows, 'networks')}</details>"


def _receipt(results: Sequence[BenchmarkResult], receipt: Receipt) -> str:
    packs = {
        str(pack.path): pack.manifest.fingerprint
        for result in results
        for pack in result.pack.members
    }
    lines = [
        ("command", receipt.command),
        *(line for network in receipt.networks for line in _origin(network)),
        *((f"pack {path} sha256", sha256) for path, sha256 in packs.items()),
    ]
    rows = [
        f'<tr><th scope="row">{html_text(name)}</th><td><code>{html_text(value)}</code></td></tr>'
        for name, value in lines
    ]
    rest = {name: value for name, value in receipt.plain().items() if name != "command"}
    dump = html.escape(json.dumps(rest, indent=1))
    return (
        f"<h2>Receipt</h2>{html_table((), rows, 'receipt')}"
        f"<details><summary>Configuration and versions</summary><pre>{dump}</pre></details>"
    )


def _origin(network: NamedNetwork) -> list[tuple[str, str]]:
    """The lines of the receipt that say where a network comes from."""
    found = network.provenance
    lines = [
        ("network", network.name),
        ("weights", "published with timm" if found.path is None else str(found.path)),
        ("step", "not known" if found.step is None else str(found.step)),
        ("weights sha256", found.sha256),
    ]
    if found.untrained:
        lines.append(("random weights", " and ".join(found.untrained)))
    return lines
