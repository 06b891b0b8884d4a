"""``report.html``: results, mistakes and provenance in one file."""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.comparison import Comparison
from evaluation.networks import NamedNetwork
from evaluation.receipt import Receipt
from evaluation.report import comparisons as compared
from evaluation.report import table
from evaluation.report.charts import histogram, roc_chart
from evaluation.report.mistakes import Mistake, confusion, most_confident, thumbnail, typical
from evaluation.report.text import html_text
from evaluation.results import TargetResult

_FULL_CONFUSION = 15  # classes; with more, the most frequent confusions are listed
_LISTED = 20
_PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b",
    "#56b4e9", "#7f3c8d", "#6b6b6b", "#e73f74", "#4b8b3b",
)  # fmt: skip


def write_report(
    path: Path,
    benchmarks: Sequence[BenchmarkResult],
    comparisons: Sequence[Comparison],
    receipt: Receipt,
) -> None:
    """Write the page; it needs no other file and no connection."""
    protocols = by_protocol(benchmarks)
    names = ", ".join(networks[0].protocol.name for networks in protocols)
    body = [
        f"<h1>Evaluation: {html_text(names)}</h1>",
        "<p>Known is the positive class: a high normality means known. An AUROC of .5 is chance. "
        "FPR95 is the share of unknown images accepted when 95 % of the known ones are. "
        "Accuracy is closed-set, on the known images.</p>",
        *(_protocol(networks, comparisons) for networks in protocols),
        _receipt(benchmarks, receipt),
    ]
    path.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation: {html_text(names)}</title><style>{_style()}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n",
        encoding="utf-8",
        errors="backslashreplace",
    )


def _protocol(networks: Sequence[BenchmarkResult], comparisons: Sequence[Comparison]) -> str:
    """The results of one protocol: tables of all networks, then each target of each network."""
    name = networks[0].protocol.name
    of_protocol = [item for item in comparisons if item.benchmark == name]
    heading = f"<h2>{html_text(name)}</h2>{_results_table(networks)}{_comparisons(of_protocol)}"
    return heading + "".join(
        _target(network, target, of_network=len(networks) > 1)
        for network in networks
        for target in network.targets
    )


def _results_table(networks: Sequence[BenchmarkResult]) -> str:
    rows, previous, several = [], None, len(networks) > 1
    for network, row in table.network_rows(networks):
        first = row[0] != previous
        cells = "".join(f'<td class="number">{html_text(cell)}</td>' for cell in row[2:])
        label = html_text(row[0]) if first else ""
        rows.append(
            f'<tr{" class=first" if first else ""}><th scope="row">{label}</th>'
            f"{f'<td>{html_text(network)}</td>' if several else ''}"
            f"<td>{html_text(row[1])}</td>{cells}</tr>"
        )
        previous = row[0]
    return _table(table.headings(networks), rows, "networks" if several else "")


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""
    rows = []
    for row in compared.rows(comparisons):
        names = "".join(f"<td>{html_text(cell)}</td>" for cell in row[1:3])
        numbers = "".join(f'<td class="number">{html_text(cell)}</td>' for cell in row[3:])
        rows.append(f'<tr><th scope="row">{html_text(row[0])}</th>{names}{numbers}</tr>')
    title = f"<summary>Differences of AUROC</summary><p>{compared.NOTE}</p>"
    return f"<details>{title}{_table(compared.HEADINGS, rows, 'networks')}</details>"


def _target(benchmark: BenchmarkResult, target: TargetResult, *, of_network: bool) -> str:
    known = target.rows.test_class >= 0
    counts = target.counts
    scores = {name: result.normality for name, result in target.evaluators.items()}
    legend = "".join(
        f'<li><span class="swatch" style="background:{_color(number)}"></span>{html_text(name)}'
        f" {result.metrics['auroc']:.3f}</li>"
        for number, (name, result) in enumerate(target.evaluators.items())
    )
    histograms = "".join(
        f"<figure>{histogram(known, normality)}<figcaption>{html_text(name)}</figcaption></figure>"
        for name, normality in scores.items()
    )
    first = next(iter(target.evaluators))
    missing = target.rows.left_out
    left_out = f" {missing} listed images, rejected by packing, are left out." if missing else ""
    return (
        f"<h3>{html_text(benchmark.protocol.name)}: {html_text(target.name)}"
        f"{f', {html_text(benchmark.network)}' if of_network else ''}</h3>"
        f"<p>{counts['known']} known and {counts['unknown']} unknown test images of "
        f"{_domains(benchmark, target)}, {counts['references']} references of "
        f"{len(target.rows.known)} known classes.{left_out}</p>"
        f'<div class="charts"><figure>{roc_chart(known, scores)}'
        f"<figcaption>ROC and AUROC<ul class=legend>{legend}</ul></figcaption></figure>"
        f"{histograms}</div>"
        '<p class="note"><span class="swatch known"></span> known '
        '<span class="swatch unknown"></span> unknown; the dashed line accepts 95 % of the known. '
        "Hover over a curve for its name.</p>"
        f"<h4>Confusions of {html_text(first)} at 95 % recall</h4>{_confusions(target)}"
        f"<h4>Most confident mistakes of {html_text(first)}</h4>{_mistakes(benchmark, target)}"
    )


def _domains(benchmark: BenchmarkResult, target: TargetResult) -> str:
    pack = benchmark.pack
    numbers = np.unique(pack.index.domain[target.rows.test])
    return html_text(" and ".join(pack.manifest.domains[number] for number in numbers))


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
    return note + _table(("", *names), rows, "confusion")


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
    return note + _table(("shows", "taken for", "images", "of its class"), rows)


def _mistakes(benchmark: BenchmarkResult, target: TargetResult) -> str:
    found = most_confident(target.rows.test_class, next(iter(target.evaluators.values())))
    if not found:
        return "<p>None.</p>"
    parts = [
        '<p class="note">Left: the image. Right: a typical reference of the nearest class.</p>'
    ]
    for known, heading in (
        (False, "Unknown, taken for known"),
        (True, "Known, taken for unknown"),
    ):
        cards = "".join(
            _mistake(benchmark, target, mistake) for mistake in found if mistake.known == known
        )
        if cards:
            parts.append(f'<h5>{heading}</h5><div class="cards">{cards}</div>')
    return "".join(parts)


def _mistake(benchmark: BenchmarkResult, target: TargetResult, mistake: Mistake) -> str:
    pack, row = benchmark.pack, int(target.rows.test[mistake.position])
    members = target.rows.reference[target.rows.reference_class == mistake.predicted]
    example = int(members[typical(benchmark.extraction.features.of(members))])
    shows = html_text(target.rows.test_name[mistake.position])
    nearest = html_text(target.rows.known[mistake.predicted])
    key, example_key = (html_text(key) for key in pack.keys(np.array([row, example])))
    return (
        f'<figure class="card"><img src="{thumbnail(pack, row)}" alt="{shows}" title="{key}">'
        f'<img src="{thumbnail(pack, example)}" alt="{nearest}" title="{example_key}">'
        f"<figcaption><b>{shows}</b>, nearest <b>{nearest}</b><br>"
        f"normality {mistake.normality:.4g}</figcaption></figure>"
    )


def _receipt(benchmarks: Sequence[BenchmarkResult], receipt: Receipt) -> str:
    packs = {
        str(pack.path): pack.manifest.fingerprint
        for benchmark in benchmarks
        for pack in benchmark.pack.members
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
        f"<h2>Receipt</h2>{_table((), rows, 'receipt')}"
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


def _table(headings: Iterable[str], rows: Sequence[str], kind: str = "") -> str:
    head = "".join(f'<th scope="col">{html_text(heading)}</th>' for heading in headings)
    return (
        f'<div class="wide"><table class="{kind}">'
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _color(number: int) -> str:
    return _PALETTE[number % len(_PALETTE)]


def _style() -> str:
    series = "".join(f".series-{n}{{stroke:{color}}}" for n, color in enumerate(_PALETTE))
    return _STYLE + series


_STYLE = """
:root{--ink:#1c1c1c;--soft:#666;--line:#d5d5d5;--paper:#fff;--known:#0072b2;--unknown:#d55e00}
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#a0a0a0;--line:#444;--paper:#16181b}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px}
h2{margin-top:2.2em;border-bottom:2px solid var(--line)}h3{margin-top:2em}h5{margin:1em 0 .4em}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:left;font-weight:normal}thead th{color:var(--soft)}
tr.first>*{border-top:1px solid var(--line)}.number,thead th:nth-child(n+3){text-align:right}
.networks thead th:nth-child(3){text-align:left}
.confusion thead th{text-align:right}.confusion td{background:color-mix(in srgb,
var(--unknown) calc(var(--share)*.7),transparent)}.confusion td.right{background:
color-mix(in srgb,var(--known) calc(var(--share)*.5),transparent)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:16px}
figure{margin:0}figcaption{text-align:center}svg{width:100%;height:auto}
svg text{fill:var(--soft);font-size:11px}.axis{stroke:var(--soft);fill:none}
.curve{fill:none;stroke-width:1.8}.chance{stroke:var(--line)}
.threshold{stroke:var(--ink);stroke-dasharray:4 3}
rect.known,.swatch.known{fill:var(--known);background:var(--known);fill-opacity:.55}
rect.unknown,.swatch.unknown{fill:var(--unknown);background:var(--unknown);fill-opacity:.55}
.swatch{display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 .8em}
.legend{list-style:none;padding:0;margin:4px 0;text-align:left;columns:2}
.legend li{white-space:nowrap}
.note,.legend{color:var(--soft);font-size:13px}.legend{font-size:12px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(215px,1fr));gap:14px}
.card{font-size:12.5px}.card img{height:100px;width:100px;
object-fit:contain;margin-right:4px}.card figcaption{text-align:left}
.wide td{white-space:nowrap}.receipt td{white-space:normal;word-break:break-all}
code,pre{font-size:12.5px}pre{overflow-x:auto}
"""
