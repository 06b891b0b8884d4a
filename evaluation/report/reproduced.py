"""The tables of published and measured results: in the terminal, as Markdown and as CSV."""

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.report.text import csv_cell, markdown_cell, plain
from evaluation.reproduction.reproduced import ReproducedRow
from runtime.errors import ConfigError, first_line
from runtime.files import write_atomically

FILES = ("reproduction.csv", "reproduction.md")
DIFFERS = "*"
_LEGEND = (
    "ours: measured here; diff: ours - published. "
    f"{DIFFERS}: the published AUROC is outside our 95 % interval. "
    "FPR95 is by the rule of the published number, or else of the original code."
)
_LABELS = ("target", "network", "evaluator")
_NUMBERS = ("AUROC", "published", "diff", "FPR95", "published", "diff")
_WIDTH = 120


def check_out(out: Path, overwrite: bool) -> None:
    """Create ``out``; ConfigError where that fails, or it holds tables and ``overwrite`` is off."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        existing = any((out / name).exists() for name in FILES)
    except OSError as error:
        raise _cannot_write(out, error) from error
    if existing and not overwrite:
        raise ConfigError(f"{out} holds tables; choose another --out, or give --overwrite")


def write_tables(out: Path, rows: Sequence[ReproducedRow], commands: Sequence[str]) -> None:
    """Write the files; ConfigError where that fails."""
    try:
        for name, text in zip(FILES, (_csv(rows), _markdown(rows, commands)), strict=True):
            write_atomically(out / name, text.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise _cannot_write(out, error) from error
    print(f"tables in {plain(str(out))}")


def print_tables(rows: Sequence[ReproducedRow], commands: Sequence[str]) -> None:
    """Print each table, why evaluations failed, and ``commands``, which make the missing packs."""
    console = Console(width=_WIDTH)
    with console.capture() as captured:  # printed by us: rich exits when a pipe is closed
        for name, of_table in groupby(rows, lambda row: row.table):
            console.print(_terminal_table(name, list(of_table)))
    print(captured.get(), end="")
    print(_LEGEND)
    for reason in dict.fromkeys(row.note for row in rows if row.failed):
        print(plain(f"failed: {reason}"))
    for command in commands:
        print(plain(f"missing pack: {command}"))


def _cannot_write(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write to {out}: {first_line(error)}; choose another --out")


def _terminal_table(name: str, rows: Sequence[ReproducedRow]) -> Table:
    table = Table(title=Text(plain(name)))
    for heading in _LABELS:
        table.add_column(heading, overflow="fold", no_wrap=heading != "network")
    for heading in _NUMBERS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for target, of_target in groupby(rows, lambda row: row.target):
        for number, row in enumerate(of_target):
            note = "failed" if row.failed else _note(row)
            texts = ("" if number else target, row.network, row.evaluator, *_cells(row), note)
            table.add_row(*(Text(plain(text)) for text in texts))
        table.add_section()
    return table


def _note(row: ReproducedRow) -> str:
    """Why nothing was measured, or which published network the measured one is compared with."""
    if row.note or row.published is None:
        return row.note
    return f"published: {row.published.network.name}"


def _cells(row: ReproducedRow) -> list[str]:
    """The numbers as text: of AUROC and FPR95 the measured, the published and their difference."""
    published = row.published.metrics if row.published else {}
    cells = []
    for metric in ("auroc", row.fpr95):
        difference = row.difference(metric)
        mark = DIFFERS if metric == "auroc" and row.agrees is False else ""
        cells += [
            "" if row.measured is None else f"{row.measured[metric]:.4f}",
            f"{published[metric]:.4f}" if metric in published else "",
            "" if difference is None else f"{difference:+.4f}{mark}",
        ]
    return cells


def _markdown(rows: Sequence[ReproducedRow], commands: Sequence[str]) -> str:
    lines = ["# Published and measured results", "", _LEGEND, ""]
    headings = (*_LABELS, *_NUMBERS, "source", "note")
    for name, of_table in groupby(rows, lambda row: row.table):
        lines += [f"## {markdown_cell(name)}", "", _markdown_row(headings)]
        lines.append(_markdown_row(["---"] * 3 + ["--:"] * len(_NUMBERS) + ["---"] * 2))
        for row in of_table:
            source = row.published.source if row.published else ""
            texts = (row.target, row.network, row.evaluator, *_cells(row), source, _note(row))
            lines.append(_markdown_row([markdown_cell(text) for text in texts]))
        lines.append("")
    if commands:
        lines += ["Missing packs:", "", "```", *map(plain, commands), "```", ""]
    return "\n".join(lines)


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _csv(rows: Sequence[ReproducedRow]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    numbers = [
        f"{name}_{kind}"
        for name in ("auroc", "fpr95")
        for kind in ("measured", "published", "difference")
    ]
    names = ("table", *_LABELS, *numbers, "auroc_low", "auroc_high")
    writer.writerow(
        (*names, "published_in_interval", "fpr95_rule", "published_network", "source", "note")
    )
    for row in rows:
        published = row.published.metrics if row.published else {}
        measured = row.measured or {}
        values = [
            value
            for metric in ("auroc", row.fpr95)
            for value in (measured.get(metric), published.get(metric), row.difference(metric))
        ]
        labels = (row.table, row.target, row.network, row.evaluator)
        origin = (row.published.network.name, row.published.source) if row.published else ("", "")
        writer.writerow(
            [
                *map(csv_cell, labels),
                *values,
                *(measured.get("auroc_low"), measured.get("auroc_high")),
                *(row.agrees, row.fpr95),
                *map(csv_cell, (*origin, row.note)),
            ]
        )
    return file.getvalue()
