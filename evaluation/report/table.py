"""The table of results in the terminal, the Markdown file and the report."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from evaluation.benchmark import BenchmarkResult
from evaluation.report.text import plain
from evaluation.results import LOWER_IS_BETTER, ByEvaluator, common_groups, means, settings

MEAN, STD = "mean", "std"
VALUES = {
    "auroc": "AUROC",
    "interval": "95 % interval",
    "fpr95": "FPR95",
    "fpr95_original": "FPR95 (original rule)",
    "aupr_known": "AUPR known",
    "aupr_unknown": "AUPR unknown",
    "accuracy": "accuracy of known",
    "oscr": "OSCR",
    "open_set_accuracy": "open-set accuracy",
    "h_score": "H-score",
}
_TERMINAL = {
    "auroc": "AUROC",
    "interval": "95 % CI",
    "fpr95": "FPR95",
    "accuracy": "accuracy",
}
_TERMINAL_OF_NETWORKS = {name: _TERMINAL[name] for name in ("auroc", "fpr95")}


class Cell(NamedTuple):
    """A value as text, and whether it is the best of its target."""

    text: str
    best: bool


class Row(NamedTuple):
    """One evaluator of one network on one target or setting, or on a group of its classes.

    Attributes:
        target: label of the target, setting or mean.
        network, evaluator: their names.
        cells: by the columns ``VALUES``.
    """

    target: str
    network: str
    evaluator: str
    cells: tuple[Cell, ...]

    def names(self, networks: Sequence[BenchmarkResult]) -> tuple[str, ...]:
        """The cells in front of the values; that of the network only where there are several."""
        return (self.target, *([self.network] if len(networks) > 1 else []), self.evaluator)


class _Part(NamedTuple):
    """The metrics behind rows of one label, and whether the best of them means anything."""

    label: str
    metrics: ByEvaluator
    comparable: bool = True


def rows(networks: Sequence[BenchmarkResult], *, repetitions: bool = True) -> list[Row]:
    """The rows of the networks on one protocol; those of one target follow one another.

    After each target come its groups of unknown classes, after the targets mean and standard
    deviation over each repeated setting, then the means over everything. ``repetitions`` is
    whether the targets that repeat a setting are there themselves.
    """
    parts: dict[str, list[tuple[str, _Part]]] = {}
    for each in networks:
        for part in _parts(each, repetitions):
            parts.setdefault(part.label, []).append((each.network, part))
    return [row for of_label in parts.values() for row in _rows(of_label)]


def headings(networks: Sequence[BenchmarkResult]) -> tuple[str, ...]:
    """The names of the columns, with one for the network where there are several."""
    return (*Row("target", "network", "evaluator", ()).names(networks), *VALUES.values())


def terminal_table(networks: Sequence[BenchmarkResult]) -> Table:
    """The columns that fit 80 characters, without the repetitions of a setting; ``networks`` are
    the results of one protocol."""
    several = len(networks) > 1
    table = Table(
        title=Text(f"{plain(networks[0].protocol.name)}: known is positive"),
        caption=None if several else "accuracy: closed-set, on known images",
    )
    table.add_column("target")
    if several:
        table.add_column("network", overflow="fold")
    table.add_column("evaluator", no_wrap=True)
    columns = _TERMINAL_OF_NETWORKS if several else _TERMINAL
    for heading in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    places = [list(VALUES).index(column) for column in columns]
    previous: tuple[str, ...] = ()
    for row in rows(networks, repetitions=False):
        *labels, evaluator = row.names(networks)
        if previous and previous[0] != row.target:
            table.add_section()
        table.add_row(
            *(
                "" if tuple(labels[:place]) == previous[:place] else Text(plain(label))
                for place, label in enumerate(labels, 1)
            ),
            evaluator,
            *(Text(row.cells[p].text, "bold" if row.cells[p].best else "") for p in places),
        )
        previous = tuple(labels)
    return table


def label(name: str, group: str | None) -> str:
    """What a target or setting is called, or a group of its unknown classes."""
    return name if group is None else f"{name}: {group}"


def _parts(benchmark: BenchmarkResult, repetitions: bool) -> Iterator[_Part]:
    targets = benchmark.targets
    repeated = settings(targets)
    names = {name for setting in repeated for name in setting.targets}
    for target in targets:
        if repetitions or target.name not in names:
            for group in (None, *target.rows.groups):
                yield _Part(label(target.name, group), target.metrics(group))
    for setting in repeated:
        name = label(setting.name, setting.group)
        yield _Part(f"{name}: {MEAN}", setting.mean)
        yield _Part(f"{name}: {STD}", setting.std, comparable=False)
    if len(targets) - len(names) + len({setting.name for setting in repeated}) > 1:
        for group in (None, *common_groups(targets)):
            yield _Part(label(MEAN, group), means(targets, group))


def _rows(parts: Sequence[tuple[str, _Part]]) -> list[Row]:
    """The rows of the networks' parts of one label."""
    name, _, comparable = parts[0][1]
    names = [(network, evaluator) for network, part in parts for evaluator in part.metrics]
    metrics = [values for _, part in parts for values in part.metrics.values()]
    columns = [_cells(column, metrics, comparable) for column in VALUES]
    return [
        Row(name, *of_row, cells)
        for of_row, cells in zip(names, zip(*columns, strict=True), strict=True)
    ]


def _cells(column: str, metrics: Sequence[dict[str, float]], comparable: bool) -> list[Cell]:
    """A column; nothing is best where all are equal."""
    texts = [_text(values, column) for values in metrics]
    best = min(texts) if column in LOWER_IS_BETTER else max(texts)
    marked = comparable and column != "interval" and len(set(texts)) > 1
    return [Cell(text, marked and text == best) for text in texts]


def _text(metrics: dict[str, float], column: str) -> str:
    if column != "interval":
        return f"{metrics[column]:.4f}"
    if "auroc_low" not in metrics:
        return ""
    return f"{metrics['auroc_low']:.3f}-{metrics['auroc_high']:.3f}"
