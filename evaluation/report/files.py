"""Results as JSON, CSV, Markdown and Parquet files."""

import csv
import json
from collections.abc import Sequence
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
from evaluation.results import KNOWN_IS_POSITIVE, METRICS, means, settings
from pipelines.pack import Pack


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
    """A row per protocol, network, target and evaluator, then mean and standard deviation over each
    repeated setting; the means over everything come last."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        counts = ("references", "tests", "known", "unknown")
        writer.writerow(
            (
                *("benchmark", "target", "setting", "network", "evaluator", "positive"),
                *counts,
                *METRICS,
            )
        )
        for benchmark in benchmarks:
            name, network = csv_cell(benchmark.protocol.name), csv_cell(benchmark.network)
            for target in benchmark.targets:
                for evaluator, result in target.evaluators.items():
                    writer.writerow(
                        (
                            *(name, csv_cell(target.name), csv_cell(target.setting or "")),
                            *(network, evaluator, "known"),
                            *(target.counts[count] for count in counts),
                            *(result.metrics[metric] for metric in METRICS),
                        )
                    )
            summaries = [
                (what, csv_cell(setting.name), values)
                for setting in settings(benchmark.targets)
                for what, values in ((table.MEAN, setting.mean), (table.STD, setting.std))
            ]
            summaries.append((table.MEAN, "", means(benchmark.targets)))
            for what, setting_name, of_evaluators in summaries:
                for evaluator, values in of_evaluators.items():
                    writer.writerow(
                        (
                            *(name, what, setting_name, network, evaluator, "known"),
                            *([""] * len(counts)),
                            *(values.get(metric, "") for metric in METRICS),
                        )
                    )


def write_markdown(
    path: Path, benchmarks: Sequence[BenchmarkResult], comparisons: Sequence[Comparison]
) -> None:
    """Two tables per protocol, of the results and of the differences, ready to paste."""
    parts = [
        "Known is positive; all values are fractions of 1, the interval is a 95 % bootstrap.\n"
    ]
    for networks in by_protocol(benchmarks):
        header, labels = table.headings(networks), 3 if len(networks) > 1 else 2
        rule = tuple("---" if number < labels else "---:" for number in range(len(header)))
        cells = (
            [markdown_cell(cell) for cell in (row[0], *([network] * (labels - 2)), *row[1:])]
            for network, row in table.network_rows(networks)
        )
        lines = "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *cells))
        name = networks[0].protocol.name
        parts.append(f"## {markdown_cell(name)}\n\n{lines}\n")
        if of_protocol := [item for item in comparisons if item.benchmark == name]:
            parts.append(compared.markdown(of_protocol))
    path.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")


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
                "evaluators": {name: result.metrics for name, result in target.evaluators.items()},
            }
            for target in benchmark.targets
        ],
        "settings": [asdict(setting) for setting in settings(benchmark.targets)],
        "mean": means(benchmark.targets),
    }
