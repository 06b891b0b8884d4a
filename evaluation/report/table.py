"""The table of results in the terminal, the Markdown file and the report."""

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


def terminal_table(benchmark: BenchmarkResult) -> Table:
    """The columns that fit 80 characters, without the repetitions of a setting."""
    table = Table(
        title=Text(f"{plain(benchmark.protocol.name)}: known is positive"),
        caption="accuracy: closed-set, on known images",
    )
    for column, heading in _TERMINAL.items():
        text = column in ("target", "evaluator")
        table.add_column(heading, justify="left" if text else "right", no_wrap=column != "target")
    places = [list(HEADINGS).index(column) for column in _TERMINAL]
    previous = None
    for row in rows(benchmark, repetitions=False):
        if previous not in (None, row[0]):
            table.add_section()
        cells = [Text(plain(row[place])) for place in places]
        table.add_row("" if row[0] == previous else cells[0], *cells[1:])
        previous = row[0]
    return table


def _cell(metrics: dict[str, float], column: str) -> str:
    if column != "interval":
        return f"{metrics[column]:.4f}"
    if "auroc_low" not in metrics:
        return ""
    return f"{metrics['auroc_low']:.3f}-{metrics['auroc_high']:.3f}"
