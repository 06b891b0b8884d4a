"""The table of results in the terminal, the Markdown file and the report."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from evaluation.benchmark import BenchmarkResult
from evaluation.report.text import plain
from evaluation.results import means, settings

MEAN, STD = "mean", "std"
HEADINGS = {
    "target": "target",
    "evaluator": "evaluator",
    "auroc": "AUROC",
    "interval": "95 % interval",
    "fpr95": "FPR95",
    "fpr95_original": "FPR95 (original rule)",
    "aupr_known": "AUPR known",
    "aupr_unknown": "AUPR unknown",
    "accuracy": "accuracy of known",
}
_TERMINAL = {
    "target": "target",
    "evaluator": "evaluator",
    "auroc": "AUROC",
    "interval": "95 % interval",
    "fpr95": "FPR95",
    "accuracy": "accuracy",
}
_TERMINAL_OF_NETWORKS = {
    name: _TERMINAL[name] for name in ("target", "evaluator", "auroc", "fpr95")
}


def rows(benchmark: BenchmarkResult, *, repetitions: bool = True) -> list[tuple[str, ...]]:
    """The values of ``HEADINGS`` as text for each target and evaluator.

    Mean and standard deviation over each repeated setting follow, and the means over everything;
    ``repetitions`` is whether the targets that repeat a setting are there themselves.
    """
    repeated = settings(benchmark.targets)
    names = {name for setting in repeated for name in setting.targets}
    found = [
        (target.name, evaluator, result.metrics)
        for target in benchmark.targets
        for evaluator, result in target.evaluators.items()
        if repetitions or target.name not in names
    ]
    for setting in repeated:
        for what, values in ((MEAN, setting.mean), (STD, setting.std)):
            found += [(f"{setting.name}: {what}", *item) for item in values.items()]
    if len(benchmark.targets) - len(names) + len(repeated) > 1:
        found += [(MEAN, name, values) for name, values in means(benchmark.targets).items()]
    return [
        (target, evaluator, *(_cell(metrics, column) for column in list(HEADINGS)[2:]))
        for target, evaluator, metrics in found
    ]


def network_rows(
    networks: Sequence[BenchmarkResult], *, repetitions: bool = True
) -> list[tuple[str, tuple[str, ...]]]:
    """The rows of several networks on one protocol, each with the network's name; those of one
    target follow one another."""
    found = [
        (each.network, row) for each in networks for row in rows(each, repetitions=repetitions)
    ]
    targets = list(dict.fromkeys(row[0] for _, row in found))
    return sorted(found, key=lambda item: targets.index(item[1][0]))


def headings(networks: Sequence[BenchmarkResult]) -> tuple[str, ...]:
    """``HEADINGS``, with a column for the network where there are several."""
    target, *others = HEADINGS.values()
    return (target, "network", *others) if len(networks) > 1 else (target, *others)


def terminal_table(networks: Sequence[BenchmarkResult]) -> Table:
    """The columns that fit 80 characters, without the repetitions of a setting; ``networks`` are
    the results of one protocol."""
    several = len(networks) > 1
    table = Table(
        title=Text(f"{plain(networks[0].protocol.name)}: known is positive"),
        caption=None if several else "accuracy: closed-set, on known images",
    )
    columns = _TERMINAL_OF_NETWORKS if several else _TERMINAL
    for column, heading in columns.items():
        text = column in ("target", "evaluator")
        table.add_column(heading, justify="left" if text else "right", no_wrap=column != "target")
        if several and column == "target":
            table.add_column("network", overflow="fold")
    places = [list(HEADINGS).index(column) for column in columns]
    previous: tuple[str | None, str | None] = (None, None)
    for network, row in network_rows(networks, repetitions=False):
        if previous[0] not in (None, row[0]):
            table.add_section()
        target, *cells = [Text(plain(row[place])) for place in places]
        labels = [Text() if row[0] == previous[0] else target]
        if several:
            labels.append(Text() if (row[0], network) == previous else Text(plain(network)))
        table.add_row(*labels, *cells)
        previous = (row[0], network)
    return table


def _cell(metrics: dict[str, float], column: str) -> str:
    if column != "interval":
        return f"{metrics[column]:.4f}"
    if "auroc_low" not in metrics:
        return ""
    return f"{metrics['auroc_low']:.3f}-{metrics['auroc_high']:.3f}"
