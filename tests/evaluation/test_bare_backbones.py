"""Backbones without a relational module: from timm and a file, or of a classification run."""

import csv
import json
from dataclasses import asdict

import pytest
import torch
from huggingface_hub import constants

import evaluate
from evaluation.config import BARE_DEFAULT, RELATIONAL_DEFAULT
from evaluation.networks import unique_names
from model.backbone import backbone_preprocessing, create_backbone
from model.config import EVALUATORS, RELATIONAL
from model.network import Classifier
from runtime import checkpoint
from tests.evaluation.conftest import MODEL
from tests.evaluation.scores import assert_equal_scores, scores

BACKBONE = "test_byobnet"
SIZE = 64


@pytest.fixture(scope="module")
def backbone():
    """A small backbone of timm with random weights."""
    torch.manual_seed(0)
    return create_backbone(BACKBONE, image_size=SIZE)


@pytest.fixture(scope="module")
def weights(backbone, tmp_path_factory):
    """The backbone's weights as torchvision saves them: with a classifier, without counters."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    state = {n: t for n, t in backbone.state_dict().items() if "num_batches" not in n}
    torch.save({**state, "fc.weight": torch.zeros(1000, 8), "fc.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def classification_run(backbone, tmp_path_factory):
    """A run that has classified with the same backbone."""
    run = tmp_path_factory.mktemp("runs") / "classifier"
    network = Classifier(backbone, backbone.num_features, 4)
    config = {
        "task": "classification",
        "model": {"backbone": BACKBONE, "embed_dim": 768, "depth": 4},
        "input": {**asdict(backbone_preprocessing(BACKBONE)), "image_size": SIZE},
    }
    checkpoint.save(run, 3, weights=network.state_dict(), config=config, metrics={})
    return run


@pytest.fixture
def bare(arguments, weights):
    """Builds the arguments of an evaluation of the bare backbone alone."""

    def build(out="out", **options):
        given = {"checkpoint": None, "backbone": BACKBONE, "weights": weights, "image_size": SIZE}
        return arguments(out, **{**given, "target": "day", **options})

    return build


def results_of(out):
    return json.loads((out / "results.json").read_text())


def test_a_backbone_is_evaluated_by_distances_with_its_own_preprocessing(
    bare, weights, tmp_path, capsys
):
    assert evaluate.main(bare(image_size=None, crop_mode="squash")) == 0
    results = results_of(tmp_path / "out")
    (network,), (benchmark,) = results["networks"], results["benchmarks"]
    assert (network["name"], network["relational"]) == (f"{BACKBONE} (random.pth)", False)
    assert network["backbone"] == BACKBONE
    assert network["checkpoint"]["path"] == str(weights)
    own = backbone_preprocessing(BACKBONE)
    assert network["preprocessing"]["image_size"] == own.image_size
    assert network["preprocessing"]["std"] == list(own.std)
    assert network["preprocessing"]["crop_mode"] == "squash"
    assert benchmark["network"] == network["name"]
    assert tuple(benchmark["targets"][0]["evaluators"]) == BARE_DEFAULT
    shown = capsys.readouterr().out
    assert f"backbone {BACKBONE}: {weights}" in shown
    assert "random weights: backbone" in shown


def test_a_classifier_is_trained_on_it(bare, tmp_path):
    assert evaluate.main(bare(evaluators="all", classifier="full", budget=1)) == 0
    (benchmark,) = results_of(tmp_path / "out")["benchmarks"]
    left_out = {*RELATIONAL, "whitened-cosine"}
    assert set(benchmark["targets"][0]["evaluators"]) == {*EVALUATORS} - left_out


def test_a_classification_run_is_evaluated_as_its_backbone(
    bare, classification_run, tmp_path, capsys
):
    run = {"checkpoint": classification_run, "backbone": None, "weights": None}
    assert evaluate.main(bare("run", **run)) == 0
    assert "whose backbone is evaluated alone" in capsys.readouterr().out
    assert evaluate.main(bare("file")) == 0
    assert evaluate.main(bare("run-as-file", weights=classification_run)) == 0
    for other in ("file", "run-as-file"):
        assert_equal_scores(scores(tmp_path / "run"), scores(tmp_path / other))


def test_networks_with_and_without_relation_share_one_table(
    bare, run_folder, weights, tmp_path, capsys
):
    words = bare(
        checkpoint=run_folder,
        backbone=f"{BACKBONE} {MODEL.backbone}",
        weights=f"{weights} {run_folder}",
        target="all",
    )
    assert evaluate.main(words) == 0
    out, names = tmp_path / "out", ["run", f"{BACKBONE} (random.pth)", f"{MODEL.backbone} (run)"]
    results = results_of(out)
    assert [network["name"] for network in results["networks"]] == names
    assert [benchmark["network"] for benchmark in results["benchmarks"]] == names
    chosen = [tuple(b["targets"][0]["evaluators"]) for b in results["benchmarks"]]
    assert chosen == [RELATIONAL_DEFAULT, BARE_DEFAULT, BARE_DEFAULT]
    table = scores(out)
    assert len(table["key"]) == 3 * 60
    is_run = table["network"] == "run"
    assert not any(value is None for value in table["relation-logit.class"][is_run])
    assert all(value is None for value in table["relation-logit.class"][~is_run])
    compared = {
        (c["network"], c["evaluator"], c["baseline"]["network"], c["baseline"]["evaluator"])
        for c in results["comparisons"]
        if c["target"] is None
    }
    assert ("run", "cosine", "run", "relation-softmax") in compared
    assert (names[1], "cosine", "run", "cosine") in compared
    assert (names[2], "knn", names[2], "cosine") in compared
    with (out / "comparisons.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(results["comparisons"])
    with (out / "results.csv").open(newline="") as file:
        assert {row["network"] for row in csv.DictReader(file)} == set(names)
    for text in ((out / "results.md").read_text(), (out / "report.html").read_text()):
        assert all(f"{name}: cosine" in text for name in names[1:])
    shown = capsys.readouterr().out
    assert shown.count("known is positive") == 1
    assert "differences of AUROC" in shown
    assert max(map(len, shown.splitlines()[4:-1])) <= 80


def test_the_same_network_twice_does_not_differ(bare, run_folder, tmp_path):
    twice = {"checkpoint": f"{run_folder} {run_folder}", "backbone": None, "weights": None}
    assert evaluate.main(bare(evaluators="cosine", **twice)) == 0
    results = results_of(tmp_path / "out")
    assert [n["name"] for n in results["networks"]] == [str(run_folder), f"{run_folder} #2"]
    assert [b["features"]["extracted"] for b in results["benchmarks"]] == [48, 0]
    (comparison,) = results["comparisons"]
    assert comparison["auroc_difference"] == {"value": 0, "low": 0, "high": 0, "p_value": 1}


def test_names_are_as_short_as_they_can_be():
    names = [("a", "x/a"), ("b", "x/b"), ("a", "y/a"), ("a", "y/a")]
    assert unique_names(names) == ["x/a", "b", "y/a", "y/a #2"]


def test_a_relational_evaluator_is_computed_for_the_networks_that_have_a_relation(
    bare, run_folder, tmp_path, capsys
):
    named = "relation-logit euclidean"
    assert evaluate.main(bare(checkpoint=run_folder, evaluators=named)) == 0
    assert "has no relational module: relation-logit left out" in capsys.readouterr().out
    benchmarks = results_of(tmp_path / "out")["benchmarks"]
    chosen = [list(benchmark["targets"][0]["evaluators"]) for benchmark in benchmarks]
    assert chosen == [["relation-logit", "euclidean"], ["euclidean"]]


def test_whitened_cosine_learns_from_the_covariance_pack(bare, pack_path, tmp_path):
    pack = {"covariance_pack": pack_path, "covariance_domains": "night"}
    assert evaluate.main(bare(evaluators="all", **pack)) == 0
    (benchmark,) = results_of(tmp_path / "out")["benchmarks"]
    assert "whitened-cosine" in benchmark["targets"][0]["evaluators"]


def test_bfloat16_is_measured_on_the_cosines(bare, tmp_path):
    assert evaluate.main(bare(precision="bfloat16", evaluators="cosine")) == 0
    (benchmark,) = results_of(tmp_path / "out")["benchmarks"]
    assert 0 < benchmark["precision_error"] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": None}, "1 --weights for 0 --backbone"),
        ({"backbone": "test_resnet test_vit"}, "1 --weights for 2 --backbone; give one file for"),
        ({"backbone": None, "weights": None}, "add --checkpoint or --backbone"),
        ({"backbone": "resnet19"}, "--backbone: timm has no model 'resnet19'"),
        ({"backbone": "resnet18"}, "it is of a different architecture"),
        ({"backbone": "deit_tiny_patch16_224", "image_size": 40}, "choose 32 or 48"),
        ({"weights": "nowhere.pth"}, "no weights at nowhere.pth"),
        (
            {"evaluators": "cosine relation-knn"},
            "has no relational module for relation-knn; choose from cosine, euclidean, mahalanobis",
        ),
        ({"evaluators": "whitened-cosine"}, "give a pack of training images as --covariance-pack"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(bare, options, message, refusal):
    refused = {"checkpoint": "nowhere"} if options == {"backbone": None} else {}
    assert message in refusal(bare(**{**options, **refused}))


def test_a_bare_backbone_with_no_evaluator_left_is_refused(bare, run_folder, refusal):
    line = refusal(bare(checkpoint=run_folder, evaluators="relation-logit"))
    assert "random.pth) has no relational module for relation-logit; choose from" in line


def test_weights_that_cannot_be_fetched_are_one_line(bare, refusal, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    line = refusal(bare(weights=None))
    assert f"cannot fetch the weights of {BACKBONE} (" in line
    assert line.endswith("; without network access, give a file as --weights")
