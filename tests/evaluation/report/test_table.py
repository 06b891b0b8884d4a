"""Which values of the table are the best."""

from dataclasses import replace

import pytest
from rich.text import Text

from evaluation.report.table import VALUES, rows, terminal_table


@pytest.fixture
def networks(results):
    """Two networks with two evaluators each, of one target."""
    target = results[0].targets[0]
    cosine = target.evaluators["cosine"]

    def network(name, **aurocs):
        evaluators = {
            evaluator: replace(cosine, metrics={**cosine.metrics, "auroc": area, "fpr95": area})
            for evaluator, area in aurocs.items()
        }
        only = replace(target, evaluators=evaluators)
        return replace(results[0], network=name, targets=[only])

    return [network("a", cosine=0.7, knn=0.9), network("b", cosine=0.90001, knn=0.6)]


def best(found, column):
    place = list(VALUES).index(column)
    return [(row.network, row.evaluator) for row in found if row.cells[place].best]


def test_the_best_of_all_networks_is_marked_and_equal_ones_are(networks):
    found = rows(networks)
    assert best(found, "auroc") == [("a", "knn"), ("b", "cosine")]


def test_of_a_false_positive_rate_the_lowest_is_the_best(networks):
    assert best(rows(networks), "fpr95") == [("b", "knn")]


def test_nothing_is_the_best_where_all_are_equal_or_alone(networks):
    found = rows(networks)
    assert best(found, "accuracy") == best(found, "interval") == []
    alone = replace(
        networks[0].targets[0], evaluators=dict([*networks[0].targets[0].evaluators.items()][:1])
    )
    assert best(rows([replace(networks[0], targets=[alone])]), "auroc") == []


def test_a_deviation_is_never_the_best(networks):
    repeated = [
        replace(network, targets=[replace(network.targets[0], name=n, setting="s") for n in "xy"])
        for network in networks
    ]
    found = rows(repeated)
    assert best([row for row in found if row.target == "s: mean"], "auroc")
    assert not best([row for row in found if row.target == "s: std"], "auroc")


def test_the_best_is_bold_in_the_terminal(networks):
    column = terminal_table(networks).columns[3]
    cells = [cell for cell in column.cells if isinstance(cell, Text)]
    assert [cell.plain for cell in cells if cell.style == "bold"] == ["0.9000", "0.9000"]
