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

HEADINGS = ("target", "score", "compared with", "difference", "95 % interval", "p")
NOTE = (
    "AUROC minus that of the other score, with a 95 % interval and a two-sided p-value, by a "
    "bootstrap of the same test images for both."
)


def rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """The values of ``HEADINGS`` as text."""
    several = len({score.network for item in comparisons for score in _scores(item)}) > 1
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
    """Those of one protocol: of the means where there are any, else of its target."""
    means = [item for item in comparisons if item.target is None]
    name = plain(comparisons[0].benchmark)
    kind = "mean over the targets, " if means else ""
    table = Table(title=Text(f"{name}: differences of AUROC"), caption=f"{kind}bootstrap")
    for heading in HEADINGS[1:]:
        if heading in HEADINGS[:3]:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows(means or comparisons):
        table.add_row(*(Text(plain(cell)) for cell in row[1:]))
    return table


def _name(score: Score, several_networks: bool) -> str:
    return f"{score.network}: {score.evaluator}" if several_networks else score.evaluator


def _scores(comparison: Comparison) -> tuple[Score, Score]:
    return comparison.score, comparison.baseline


def _parts(score: Score) -> tuple[str, str]:
    return score.network, score.evaluator
