"""Differences of AUROCs as tables in the terminal, the files and the report."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from evaluation.comparison import Comparison, Score
from evaluation.report.table import MEAN
from evaluation.report.text import csv_cell, markdown_cell, plain

HEADINGS = ("target", "score", "compared with", "diff", "95 % CI", "p")
NOTE = (
    "AUROC minus that of the other score, with a 95 % interval and a two-sided p-value, by a "
    "bootstrap of the same test images for both."
)


def rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """The values of ``HEADINGS`` as text."""
    several = _has_several_networks(comparisons)
    return [
        (
            MEAN if item.target is None else item.target,
            _name(item.score, several),
            _name(item.baseline, several),
            f"{item.auroc.value:+.4f}",
            f"{item.auroc.low:+.3f}, {item.auroc.high:+.3f}",
            f"{item.auroc.p_value:.3f}",
        )
        for item in comparisons
    ]


def plain_comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison as an entry of ``results.json``."""
    return {
        "benchmark": comparison.benchmark,
        "target": comparison.target,
        **asdict(comparison.score),
        "baseline": asdict(comparison.baseline),
        "auroc_difference": comparison.auroc._asdict(),
    }


def write_csv(path: Path, comparisons: Sequence[Comparison]) -> None:
    """A row per comparison; the target of a mean is called mean."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        baseline = ("baseline_network", "baseline_evaluator")
        numbers = ("auroc_difference", "low", "high", "p_value")
        writer.writerow(("benchmark", "target", "network", "evaluator", *baseline, *numbers))
        for item in comparisons:
            target = MEAN if item.target is None else item.target
            names = (item.benchmark, target, *_parts(item.score), *_parts(item.baseline))
            writer.writerow((*map(csv_cell, names), *item.auroc))


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The table of one protocol, with its note."""
    rule = ("---",) * 3 + ("---:",) * 3
    cells = ([markdown_cell(cell) for cell in row] for row in rows(comparisons))
    lines = "\n".join(f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *cells))
    return f"{NOTE}\n\n{lines}\n"


def terminal_comparisons(comparisons: Sequence[Comparison]) -> Table:
    """Those of one protocol, of the means where there are any, in 80 characters; with several
    networks, a row per score."""
    shown = [item for item in comparisons if item.target is None] or comparisons
    table = Table(title=Text(f"{plain(shown[0].benchmark)}: differences of AUROC"))
    what = "of the means over the targets, " if shown[0].target is None else ""
    table.caption = f"{what}with p-values of a bootstrap"
    if _has_several_networks(shown):
        _fill_by_score(table, shown)
        return table
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="left" if heading in HEADINGS[:3] else "right")
    for row in rows(shown):
        table.add_row(*(Text(plain(cell)) for cell in row[1:]))
    return table


def _fill_by_score(table: Table, comparisons: Sequence[Comparison]) -> None:
    """A row per score: its difference from the first network's, and from the first evaluator's."""
    table.add_column("network", overflow="fold")
    table.add_column("evaluator", no_wrap=True)
    for heading in ("minus 1st\nnetwork", "p", "minus 1st\nevaluator", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    found: dict[Score, dict[bool, Comparison]] = {}
    for item in comparisons:
        same_network = item.score.network == item.baseline.network
        found.setdefault(item.score, {})[same_network] = item
    previous: str | None = None
    for score, of_score in found.items():
        if previous not in (None, score.network):
            table.add_section()
        cells = []
        for same_network in (False, True):
            auroc = of_score[same_network].auroc if same_network in of_score else None
            cells += [f"{auroc.value:+.4f}", f"{auroc.p_value:.3f}"] if auroc else ["", ""]
        name = "" if score.network == previous else plain(score.network)
        table.add_row(Text(name), score.evaluator, *cells)
        previous = score.network


def _has_several_networks(comparisons: Sequence[Comparison]) -> bool:
    return len({score.network for item in comparisons for score in _scores(item)}) > 1


def _name(score: Score, several_networks: bool) -> str:
    return f"{score.network}: {score.evaluator}" if several_networks else score.evaluator


def _scores(comparison: Comparison) -> tuple[Score, Score]:
    return comparison.score, comparison.baseline


def _parts(score: Score) -> tuple[str, str]:
    return score.network, score.evaluator
