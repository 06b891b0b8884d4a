"""What the command says and does about the cost of relations."""

import json

import pytest

import evaluate
from evaluation import cost


@pytest.fixture
def computed(arguments, tmp_path, capsys):
    """Runs the command; returns the result of its first target, and what it said."""

    def run(**options):
        assert evaluate.main(arguments(target="day", **options)) == 0
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        return results["benchmarks"][0]["targets"][0], capsys.readouterr().out

    return run


def test_all_evaluators_say_what_they_cost_before_they_are_computed(computed):
    target, said = computed(evaluators="all")
    pairs = 30 * (3 + 15 + 18)  # 30 tests; 3 means, 5 of 6 references of each class, all 18
    assert target["relational_pairs"] == pairs
    assert f"{pairs:,} relational pairs, about 1 min at" in said


@pytest.mark.parametrize(("asked", "kept"), [("all", False), ("all relation-knn", True)])
def test_all_leaves_relation_knn_out_above_its_budget_unless_it_is_named(
    computed, monkeypatch, asked, kept
):
    monkeypatch.setitem(cost.AFFORDABLE, "cpu", 539)
    target, said = computed(evaluators=asked)
    assert ("relation-knn" in target["evaluators"]) == kept
    note = "relation-knn is left out: it would compare 540 pairs per process, and all includes it"
    assert (note in said) != kept


def test_the_top_classes_alone_are_compared_and_their_pairs_counted(computed):
    target, _ = computed(evaluators="relation-logit significant-logit", top=2)
    assert target["relational_pairs"] == 30 * (2 + 2 * 5)


@pytest.mark.parametrize("evaluators", ["relation-logit", "all"])
def test_more_top_classes_than_are_known_are_refused(arguments, refusal, tmp_path, evaluators):
    line = refusal(arguments(evaluators=evaluators, top=4))
    assert "top is 4, but there are 3 known classes; choose between 1 and 3" in line
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
