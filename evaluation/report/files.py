"""Results as JSON, CSV, Markdown and Parquet files."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.benchmark import BenchmarkResult, by_protocol
from evaluation.comparison import Comparison
from evaluation.receipt import Receipt
from evaluation.report import comparisons as compared
from evaluation.report import table
from evaluation.report.text import csv_cell, markdown_cell, plain
from evaluation.results import (
    KNOWN_IS_POSITIVE,
    METRICS,
    ByEvaluator,
    common_groups,
    means,
    settings,
)
from pipelines.pack import Pack

_COUNTS = ("references", "tests", "known", "unknown")


def write_json(
    path: Path,
    benchmarks: Sequence[BenchmarkResult],
    comparisons: Sequence[Comparison],
    receipt: Receipt,
) -> None:
    """All metrics, counts and times, and their provenance."""
    content = {
        "positive": KNOWN_IS_POSITIVE,
        **receipt.plain(),
        "benchmarks": [_benchmark(benchmark) for benchmark in benchmarks],
        "comparisons": [compared.plain_comparison(item) for item in comparisons],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # Bytes of a file name that are not UTF-8 become \udcXX, an escape that JSON knows.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_csv(path: Path, benchmarks: Sequence[BenchmarkResult]) -> None:
    """A row per protocol, network, target, group of unknown classes and evaluator, then mean and
    standard deviation over each repeated setting; the means over everything come last."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        labels = ("benchmark", "target", "setting", "group", "network", "evaluator", "positive")
        writer.writerow((*labels, *_COUNTS, *METRICS))
        for benchmark in benchmarks:
            for names, counts, of_evaluators in _csv_parts(benchmark):
                names = (benchmark.protocol.name, *names, benchmark.network)
                for evaluator, values in of_evaluators.items():
                    writer.writerow(
                        (
                            *(csv_cell(name or "") for name in names),
                            *(evaluator, "known"),
                            *(counts.get(count, "") for count in _COUNTS),
                            *(values.get(metric, "") for metric in METRICS),
                        )
                    )


def _csv_parts(
    benchmark: BenchmarkResult,
) -> Iterator[tuple[tuple[str | None, ...], dict[str, int], ByEvaluator]]:
    """Target, setting and group of each part of the table, its counts and metrics."""
    targets = benchmark.targets
    for target in targets:
        yield (target.name, target.setting, None), target.counts, target.metrics()
        for group in target.rows.groups:
            names = target.name, target.setting, group
            yield names, target.group_counts(group), target.metrics(group)
    for setting in settings(targets):
        yield (table.MEAN, setting.name, setting.group), {}, setting.mean
        yield (table.STD, setting.name, setting.group), {}, setting.std
    yield (table.MEAN, None, None), {}, means(targets)
    for group in common_groups(targets):
        yield (table.MEAN, None, group), {}, means(targets, group)


def write_markdown(
    path: Path, benchmarks: Sequence[BenchmarkResult], comparisons: Sequence[Comparison]
) -> None:
    """Two tables per protocol, of the results and of the differences, ready to paste."""
    parts = [
        "Known is positive; all values are fractions of 1, the interval is a 95 % bootstrap.\n"
    ]
    for networks in by_protocol(benchmarks):
        header = table.headings(networks)
        rule = tuple("---:" if name in table.VALUES.values() else "---" for name in header)
        rows = (
            (*map(markdown_cell, row.names(networks)), *map(_markdown_value, row.cells))
            for row in table.rows(networks)
        )
        lines = "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))
        name = networks[0].protocol.name
        parts.append(f"## {markdown_cell(name)}\n\n{lines}\n")
        if of_protocol := [item for item in comparisons if item.benchmark == name]:
            parts.append(compared.markdown(of_protocol))
    path.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


def _markdown_value(cell: table.Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text


def write_scores(path: Path, benchmarks: Sequence[BenchmarkResult]) -> None:
    """A row per protocol, network, target and test image: what it shows and how it was scored.

    Columns: benchmark, network, target, key, domain, class, known, and for each evaluator
    ``<evaluator>.normality`` (float32) and ``<evaluator>.class``, null where that network has no
    such score.
    """
    tables = [
        _score_table(benchmark, number)
        for benchmark in benchmarks
        for number in range(len(benchmark.targets))
    ]
    with path.open("wb") as file:  # pyarrow takes only paths that are UTF-8
        pq.write_table(pa.concat_tables(tables, promote_options="default"), file)


def _score_table(benchmark: BenchmarkResult, number: int) -> pa.Table:
    target, pack = benchmark.targets[number], benchmark.pack
    manifest, index = pack.manifest, pack.index
    known = np.array(target.rows.known, dtype=object)
    columns: dict[str, Any] = {
        "benchmark": [benchmark.protocol.name] * len(target.rows.test),
        "network": [plain(benchmark.network)] * len(target.rows.test),
        "target": [target.name] * len(target.rows.test),
        "key": pack.keys(target.rows.test),
        "domain": np.array(manifest.domains, dtype=object)[index.domain[target.rows.test]],
        "class": target.rows.test_name,
        "known": target.rows.test_class >= 0,
    }
    for evaluator, result in target.evaluators.items():
        columns[f"{evaluator}.normality"] = result.normality
        columns[f"{evaluator}.class"] = known[result.predicted]
    return pa.table(columns).replace_schema_metadata({"positive": KNOWN_IS_POSITIVE})


def _pack(pack: Pack) -> dict[str, str]:
    manifest = pack.manifest
    return {"path": str(pack.path), "dataset": manifest.dataset, "sha256": manifest.fingerprint}


def _benchmark(benchmark: BenchmarkResult) -> dict[str, Any]:
    protocol, pack = benchmark.protocol, benchmark.pack
    return {
        "name": protocol.name,
        "network": benchmark.network,
        "dataset": protocol.dataset,
        "known": protocol.known,
        "pack": {
            **_pack(pack),
            "members": [_pack(member) for member in pack.members if member is not pack],
        },
        "features": {
            "images": len(benchmark.extraction.features.rows),
            "extracted": benchmark.extraction.computed,
            "seconds": round(benchmark.extraction.seconds, 3),
        },
        "precision_error": benchmark.logit_error,
        "targets": [
            {
                "name": target.name,
                "setting": target.setting,
                "known": target.rows.known,
                "counts": target.counts,
                "left_out": target.rows.left_out,
                "seconds": round(target.seconds, 3),
                "relational_pairs": target.pairs,
                "evaluators": target.metrics(),
                "groups": [
                    {
                        "name": group,
                        "counts": target.group_counts(group),
                        "evaluators": target.metrics(group),
                    }
                    for group in target.rows.groups
                ],
            }
            for target in benchmark.targets
        ],
        "settings": [asdict(setting) for setting in settings(benchmark.targets)],
        "mean": means(benchmark.targets),
        "group_means": {
            group: means(benchmark.targets, group) for group in common_groups(benchmark.targets)
        },
    }
