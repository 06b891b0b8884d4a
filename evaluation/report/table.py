"""The table of results in the terminal, the Markdown file and the report."""

from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from evaluation.benchmark import BenchmarkResult
from evaluation.report.text import plain
from evaluation.results import ByEvaluator, common_groups, means, settings

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
    "oscr": "OSCR",
    "open_set_accuracy": "open-set accuracy",
    "h_score": "H-score",
}
_TERMINAL = {
    "target": "target",
    "evaluator": "evaluator",
    "auroc": "AUROC",
    "interval": "95 % interval",
    "fpr95": "FPR95",
    "accuracy": "accuracy",
}


_VALUES = tuple(HEADINGS)[2:]
_LOWER_IS_BETTER = ("fpr95", "fpr95_original")


class Cell(NamedTuple):
    """A value as text, and whether it is the best of the target's evaluators."""

    text: str
    best: bool


class Row(NamedTuple):
    """The values of ``HEADINGS`` for one evaluator on one target, setting or group of these."""

    target: str
    evaluator: str
    cells: tuple[Cell, ...]


def rows(benchmark: BenchmarkResult, *, repetitions: bool = True) -> list[Row]:
    """A row for each target and evaluator, and for each group of the target's unknown classes.

    Mean and standard deviation over each repeated setting follow, and the means over everything;
    ``repetitions`` is whether the targets that repeat a setting are there themselves.
    """
    targets = benchmark.targets
    repeated = settings(targets)
    names = {name for setting in repeated for name in setting.targets}
    found = [
        row
        for target in targets
        if repetitions or target.name not in names
        for group in (None, *target.rows.groups)
        for row in _rows(_label(target.name, group), target.metrics(group))
    ]
    for setting in repeated:
        label = _label(setting.name, setting.group)
        found += _rows(f"{label}: {MEAN}", setting.mean)
        found += _rows(f"{label}: {STD}", setting.std, mark_best=False)
    if len(targets) - len(names) + len({setting.name for setting in repeated}) > 1:
        for group in (None, *common_groups(targets)):
            found += _rows(_label(MEAN, group), means(targets, group))
    return found


def terminal_table(benchmark: BenchmarkResult) -> Table:
    """The columns that fit 80 characters, without the repetitions of a setting."""
    table = Table(
        title=Text(f"{plain(benchmark.protocol.name)}: known is positive"),
        caption="accuracy: closed-set, on known images",
    )
    for column, heading in _TERMINAL.items():
        text = column in ("target", "evaluator")
        table.add_column(heading, justify="left" if text else "right", no_wrap=column != "target")
    places = [_VALUES.index(column) for column in list(_TERMINAL)[2:]]
    previous = None
    for row in rows(benchmark, repetitions=False):
        if previous not in (None, row.target):
            table.add_section()
        cells = [
            Text(cell.text, "bold" if cell.best else "")
            for cell in (row.cells[place] for place in places)
        ]
        label = "" if row.target == previous else Text(plain(row.target))
        table.add_row(label, row.evaluator, *cells)
        previous = row.target
    return table


def _label(name: str, group: str | None) -> str:
    return name if group is None else f"{name}: {group}"


def _rows(label: str, values: ByEvaluator, *, mark_best: bool = True) -> list[Row]:
    columns = [_cells(column, values, mark_best) for column in _VALUES]
    cells = zip(*columns, strict=True)
    return [Row(label, *row) for row in zip(values, cells, strict=True)]


def _cells(column: str, values: ByEvaluator, mark_best: bool) -> list[Cell]:
    """A column of ``values``; nothing is best where all evaluators are equal."""
    texts = [_text(metrics, column) for metrics in values.values()]
    best = min(texts) if column in _LOWER_IS_BETTER else max(texts)
    comparable = mark_best and column != "interval" and len(set(texts)) > 1
    return [Cell(text, comparable and text == best) for text in texts]


def _text(metrics: dict[str, float], column: str) -> str:
    if column != "interval":
        return f"{metrics[column]:.4f}"
    if "auroc_low" not in metrics:
        return ""
    return f"{metrics['auroc_low']:.3f}-{metrics['auroc_high']:.3f}"
