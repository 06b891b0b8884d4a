"""Evaluators that need a classifier: which is trained on the references of each target."""

import pytest

import evaluate
from model.config import WITH_CLASSIFIER
from tests.evaluation.scores import assert_equal_scores, scores

SOME = {"evaluators": "msp energy nnguide cosine"}


def test_all_with_a_classifier_are_scored_and_training_again_gives_the_same(arguments, tmp_path):
    options = {"classifier": "head", "evaluators": " ".join(WITH_CLASSIFIER), "target": "day"}
    for out in ("one", "two"):
        assert evaluate.main(arguments(out, **options)) == 0
    assert_equal_scores(scores(tmp_path / "one"), scores(tmp_path / "two"))
    assert {f"{name}.normality" for name in WITH_CLASSIFIER} <= set(scores(tmp_path / "one"))


def test_the_budget_changes_what_the_classifier_says_and_nothing_else(arguments, tmp_path):
    for out, budget in (("short", 1), ("long", 300)):
        assert evaluate.main(arguments(out, classifier="head", budget=budget, **SOME)) == 0
    short, long = scores(tmp_path / "short"), scores(tmp_path / "long")
    assert (long["msp.normality"] > short["msp.normality"]).all()
    assert (long["cosine.normality"] == short["cosine.normality"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluators": "cosine msp"}, "msp needs a classifier of the known classes; add --class"),
        ({"evaluators": "cosine", "classifier": "head"}, "no evaluator reads the --classifier"),
        ({"evaluators": "msp", "classifier": "tail"}, "argument --classifier: invalid choice"),
        ({"evaluators": "msp", "classifier": "head", "budget": 0}, "--budget: invalid number '0'"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments, options, message, refusal):
    assert message in refusal(arguments(**options))


def test_one_known_class_is_refused(arguments, protocol_file, tmp_path, refusal):
    text = protocol_file.read_text()
    alone = tmp_path / "alone.yaml"
    alone.write_text(text.replace("- cat\n", "").replace("- ant\n", "").replace("*id001", "[bee]"))
    line = refusal(arguments(protocol=alone, evaluators="msp", classifier="head"))
    assert "protocol Animals: a classifier needs two known classes and there is one" in line
