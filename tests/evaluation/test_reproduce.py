"""Published settings evaluated on an imitation: a tiny tree of PACS, a tiny run and backbone."""

import csv
import json
from dataclasses import asdict
from itertools import cycle

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from published_trees import make_pacs

import evaluate
from evaluation.__main__ import main as evaluation
from evaluation.reproduction.published import PublishedNetwork, load_published
from evaluation.reproduction.reproduced import ReproducedRow
from model.backbone import create_backbone
from model.config import ModelConfig, ObjectiveConfig
from model.network import build_network
from runtime import checkpoint
from sharding.__main__ import main as sharding
from tests.common import ROOT

PUBLISHED = ROOT / "configs" / "published" / "results.yaml"
BACKBONE = "test_resnet"
MODEL = ModelConfig(backbone=BACKBONE, embed_dim=12, depth=1, num_heads=2, head="mlp")
BASELINE = {"backbone": BACKBONE}
HINGE = {"objective": {"name": "hinge", "margin": 0.01}, "model": {"head": "mlp"}}

SETTING = {
    **{"classifier": "head", "budget": 2, "neighbors": 2},
    **{"shots": 2, "seed": 3, "with_replacement": True},
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """A folder with a pack of PACS, of two images per class and domain."""
    folder = tmp_path_factory.mktemp("imitation")
    rng, files = np.random.default_rng(0), []
    for number in range(5):
        files.append(folder / f"{number}.jpg")
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((36 + number, 34)).save(files[-1])
    following = cycle(files)
    make_pacs(folder / "tree", lambda path: path.hardlink_to(next(following)), 2)
    words = ["--root", str(folder / "tree"), "--out", str(folder / "packs" / "a"), "--workers", "1"]
    assert sharding(["pack", "pacs", *words]) == 0
    return folder / "packs"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with the follow-up's hinge and head, and random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "hinge"
    config = {
        "model": asdict(MODEL),
        "objective": asdict(ObjectiveConfig("hinge", margin=0.01)),
        "input": {"image_size": 32},
    }
    weights = build_network(MODEL).state_dict()
    checkpoint.save(folder, 1, weights=weights, config=config, metrics={})
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """NAME=FILE of a backbone with random weights."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(create_backbone(BACKBONE).state_dict(), file)
    return f"{BACKBONE}={file}"


def imitated():
    """Published results of the imitation: PACS, of which there is a pack, and DTD without one."""
    protocols = {"Photo": "pacs_dg", "Sketch": "pacs_dg", "Texture": "dtd"}
    targets = {
        name: {"protocol": str(ROOT / "configs" / "benchmarks" / f"{file}.yaml"), "target": name}
        for name, file in protocols.items()
    }
    run = {"source": "paper", "evaluator": "relation-softmax", "metrics": ["auroc"]}
    bare = {"source": "script", "evaluator": "euclidean", "metrics": ["auroc", "fpr95"]}
    return {
        "sources": {"paper": "the paper, table 1", "script": "its script"},
        "networks": {
            "baseline": BASELINE,
            "hinge": {"run": HINGE},
            "BCE": {"run": {"objective": {"name": "bce"}}},
        },
        "tables": {
            "Distances": {
                "runs": ["relation-softmax"],
                "backbones": ["euclidean"],
                "targets": targets,
                "results": [
                    {**run, "values": {"hinge": {"Photo": [0], "Texture": [0.6]}}},
                    {**run, "values": {"BCE": {"Photo": [0.7]}}},
                    {**bare, "values": {"baseline": {"Photo": [0.5, 0.9]}}},
                ],
            },
            "Few shots": {
                "backbones": ["msp", "knn-normalized"],
                "setting": SETTING,
                "targets": {"Photo": {**targets["Photo"]}},
            },
        },
    }


@pytest.fixture
def words(packs, run, backbone, tmp_path):
    """Builds the arguments of the command."""

    def build(content=None, **options):
        path = tmp_path / "published.yaml"
        path.write_text(yaml.safe_dump(content or imitated()))
        given = {
            "packs": packs,
            "runs": run,
            "backbones": backbone,
            "out": tmp_path / "out",
            "published": path,
            "cache": tmp_path / "cache",
            "device": "cpu",
            **options,
        }
        pairs = [(f"--{name}", str(value)) for name, value in given.items() if value is not None]
        return ["reproduce", *(word for pair in pairs for word in pair)]

    return build


def rows_of(out):
    with (out / "reproduction.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_published_settings_are_evaluated_beside_their_published_results(words, tmp_path, capsys):
    assert evaluation(words()) == 0
    rows = rows_of(tmp_path / "out")
    photo = {row["network"]: row for row in rows if row["target"] == "Photo"}
    ours = photo["hinge"]
    measured = float(ours["auroc_measured"])
    assert float(ours["auroc_difference"]) == measured  # the published one is 0
    assert ours["published_in_interval"] == str(float(ours["auroc_low"]) <= 0)
    assert (ours["source"], ours["fpr95_rule"]) == ("the paper, table 1", "fpr95_original")
    assert ours["fpr95_measured"]
    assert not ours["fpr95_published"]
    (bare,) = (r for r in rows if r["target"] == "Photo" and r["evaluator"] == "euclidean")
    assert (bare["auroc_published"], bare["fpr95_rule"]) == ("0.5", "fpr95")
    expected = float(bare["fpr95_measured"]) - 0.9
    assert float(bare["fpr95_difference"]) == pytest.approx(expected)
    unpublished = [row for row in rows if row["target"] == "Sketch"]
    assert [row["auroc_published"] for row in unpublished] == ["", ""]
    assert all(row["auroc_measured"] for row in unpublished)
    shown = capsys.readouterr().out
    assert "Distances" in shown
    assert "hinge" in (tmp_path / "out" / "reproduction.md").read_text()


def test_the_result_is_that_of_evaluate_with_the_published_setting(
    words, packs, backbone, arguments, tmp_path
):
    assert evaluation(words(runs=None)) == 0
    name, _, weights = backbone.partition("=")
    protocol = ROOT / "configs" / "benchmarks" / "pacs_dg.yaml"
    subject = {"protocol": protocol, "pack": packs / "a", "target": "Photo", "checkpoint": None}
    network = {"backbone": name, "weights": weights, "evaluators": "msp knn-normalized"}
    assert evaluate.main(arguments("evaluated", **{**subject, **network, **SETTING})) == 0
    results = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    (target,) = results["benchmarks"][0]["targets"]
    rows = {r["evaluator"]: r for r in rows_of(tmp_path / "out") if r["table"] == "Few shots"}
    assert rows.keys() == target["evaluators"].keys()
    for evaluator, metrics in target["evaluators"].items():
        assert float(rows[evaluator]["auroc_measured"]) == metrics["auroc"]
        assert float(rows[evaluator]["fpr95_measured"]) == metrics["fpr95_original"]


def test_what_is_missing_is_listed(words, packs, tmp_path, capsys):
    assert evaluation(words()) == 0
    notes = {
        (row["target"], row["network"]): row["note"]
        for row in rows_of(tmp_path / "out")
        if not row["auroc_measured"]
    }
    assert notes == {
        ("Photo", "BCE"): "no such network given",
        ("Texture", "hinge"): "no pack of dtd",
    }
    command = f"python -m sharding pack dtd --root TREE --out {packs / 'dtd'}"
    assert f"missing pack: {command}" in capsys.readouterr().out
    assert command in (tmp_path / "out" / "reproduction.md").read_text()


def test_a_setting_that_cannot_be_evaluated_is_named_and_the_others_are(words, tmp_path):
    published = imitated()
    broken = yaml.safe_load((ROOT / "configs" / "benchmarks" / "pacs_dg.yaml").read_text())
    broken["targets"]["Photo"]["reference"] = []
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(broken))
    published["tables"]["Distances"]["targets"]["Photo"]["protocol"] = str(path)
    assert evaluation(words(published)) == 1
    rows = rows_of(tmp_path / "out")
    failed = [row for row in rows if "names no references" in row["note"]]
    assert {(row["table"], row["target"]) for row in failed} == {("Distances", "Photo")}
    assert any(row["target"] == "Sketch" and row["auroc_measured"] for row in rows)


def test_a_published_auroc_outside_the_interval_is_marked(words, tmp_path, capsys):
    published = imitated()
    (results, *_) = published["tables"]["Distances"]["results"]
    results["values"] = {"hinge": {"Photo": [0], "Sketch": [0.5]}}
    assert evaluation(words(published)) == 0
    for row in rows_of(tmp_path / "out"):
        if row["auroc_published"] and row["auroc_measured"]:
            value = float(row["auroc_published"])
            inside = float(row["auroc_low"]) <= value <= float(row["auroc_high"])
            assert row["published_in_interval"] == str(inside)
    marked = [line for line in capsys.readouterr().out.splitlines() if "0.0000 │ +" in line]
    assert all("*" in line for line in marked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": None, "backbones": None}, "no network given; add --runs or --backbones"),
        ({"packs": "nowhere"}, "there is no folder nowhere"),
        ({"runs": "nowhere"}, "nowhere"),
        ({"backbones": "resnet19"}, "timm has no model 'resnet19'"),
        ({"backbones": f"{BACKBONE}=nowhere.pth"}, "no weights at nowhere.pth"),
        ({"published": "nowhere.yaml"}, "cannot read nowhere.yaml"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, options, message, error_line):
    assert evaluation(words(**options)) == 2
    assert message in error_line()


def test_tables_are_replaced_only_when_asked(words, tmp_path, error_line):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reproduction.csv").touch()
    assert evaluation(words()) == 2
    assert "give --overwrite" in error_line()


def test_two_packs_of_one_data_set_are_refused(words, packs, tmp_path, error_line):
    for name in ("a", "b"):
        (tmp_path / "two" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "two" / name).symlink_to(packs / "a")
    assert evaluation(words(packs=tmp_path / "two")) == 2
    assert "both packs of pacs" in error_line()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["networks"]["hinge"].update(backbone="resnet18"), "either backbone or run"),
        (lambda c: c["tables"]["Distances"].update(runs=["best"]), "best, which is no evaluator"),
        (lambda c: c["tables"]["Distances"].update(runs=["msp"]), "msp needs another classifier"),
        (
            lambda c: c["tables"]["Distances"]["targets"]["Photo"].update(target="Video"),
            "has no target Video",
        ),
        (
            lambda c: c["tables"]["Distances"]["results"][0].update(metrics=["auroc", "fpr95"]),
            "Photo needs 2 numbers",
        ),
        (
            lambda c: c["tables"]["Distances"]["results"][0].update(values={"new": {"Photo": [0]}}),
            "there is no network new",
        ),
        (
            lambda c: c["tables"]["Distances"]["results"][0].update(source="rumor"),
            "there is no source rumor",
        ),
        (
            lambda c: c["tables"]["Distances"]["results"][0].update(
                values={"BCE": {"Photo": [68.8]}}
            ),
            "auroc is a number (68.8), expected a number from 0 to 1",
        ),
    ],
)
def test_a_wrong_file_of_published_results_is_one_line(words, change, message, error_line):
    published = imitated()
    change(published)
    assert evaluation(words(published)) == 2
    assert message in error_line()


def test_the_published_results_are_complete():
    """The settings of three tables, and every result whose source is public."""
    tables = {table.name: table for table in load_published(PUBLISHED)}
    counts = {
        name: {target.name: len(target.results) for target in table.targets}
        for name, table in tables.items()
    }
    assert counts["Within a domain"] == {"Texture": 11, "Real": 10, "Sketch": 10, "Painting": 10}
    assert list(counts["Across domains"].values()) == [10] * 6
    assert list(counts["Several source domains"]) == ["ArtPainting", "Cartoon", "Photo", "Sketch"]
    texture = tables["Within a domain"].targets[0].results
    best = next(r for r in texture if r.network.name == "hinge, m = 0.01")
    assert best.metrics == {"auroc": 0.688, "fpr95_original": 0.885}


def test_the_follow_ups_averages_are_those_of_the_results():
    """The README of the follow-up's code gives, for each row, the mean over the targets."""
    averages = {
        "Within a domain": {
            "MSE, c = 1": (0.660, 0.868),
            "MSE, c = 10": (0.702, 0.846),
            "MSE, c = 50": (0.695, 0.854),
            "BCE": (0.642, 0.892),
            "BCE, focal": (0.652, 0.876),
            "CE": (0.617, 0.911),
            "CE, focal": (0.680, 0.863),
            "hinge, m = 1": (0.612, 0.867),
            "hinge, m = 0.1": (0.677, 0.868),
            "hinge, m = 0.01": (0.711, 0.841),
        },
        "Across domains": {
            "MSE, c = 1": (0.601, 0.922),
            "MSE, c = 10": (0.645, 0.911),
            "MSE, c = 50": (0.639, 0.906),
            "BCE": (0.622, 0.917),
            "BCE, focal": (0.633, 0.913),
            "CE": (0.617, 0.923),
            "CE, focal": (0.639, 0.922),
            "hinge, m = 1": (0.573, 0.913),
            "hinge, m = 0.1": (0.583, 0.928),
            "hinge, m = 0.01": (0.641, 0.905),
        },
    }
    for table in load_published(PUBLISHED)[:2]:
        found: dict[str, list[tuple[float, float]]] = {}
        for result in (result for target in table.targets for result in target.results):
            if result.evaluator == "relation-softmax":
                values = result.metrics["auroc"], result.metrics["fpr95_original"]
                found.setdefault(result.network.name, []).append(values)
        means = {network: tuple(np.mean(values, axis=0)) for network, values in found.items()}
        assert means.keys() == averages[table.name].keys()
        for network, expected in averages[table.name].items():
            assert means[network] == pytest.approx(expected, abs=0.0011)


def test_a_run_is_recognized_by_its_settings():
    network = PublishedNetwork("hinge", run=HINGE)
    given = {"objective": {"name": "hinge", "margin": 0.01, "gamma": 3.0}, "model": {"head": "mlp"}}
    assert network.is_run_with(given)
    for other in ({}, {**given, "model": {"head": "linear"}}, {**given, "model": None}):
        assert not network.is_run_with(other)


def test_nothing_agrees_where_nothing_was_measured():
    row = ReproducedRow("table", "target", note="no pack")
    assert (row.agrees, row.difference("auroc")) == (None, None)
