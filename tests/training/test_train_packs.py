"""Training on several packs at once."""

import shutil
from copy import deepcopy

import pytest
import yaml

from pipelines.pack import Pack
from pipelines.packs import JoinedPacks
from runtime.checkpoint import load_weights, newest
from tests.common import tiny_run
from tests.training.runs import assert_same_weights, logged
from train_ddp import main


@pytest.fixture
def packs(pack_path, insects_path):
    """Entries of ``data.packs``."""
    return [
        {"pack": str(pack_path), "domains": ["day"]},
        {"pack": str(insects_path), "weight": 2},
    ]


@pytest.fixture
def train_on(tmp_path):
    """Trains on ``packs``; ``data`` has further keys of ``data``."""

    def command(packs, *options, run="run", **data):
        config = {
            **tiny_run(tmp_path, model={"similarity_start": True}),
            "data": {"packs": packs, "num_negatives": 3, **data},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return main(["--config", str(path), "--out", str(tmp_path / run), *options])

    return command


def test_resuming_on_several_packs_equals_an_uninterrupted_run(
    train_on, packs, insects_path, tmp_path, capsys
):
    assert train_on(packs) == 0
    assert "54 images of 8 classes" in capsys.readouterr().out
    train_on(packs, "--train.iterations=3", run="parts")
    moved = [packs[0], {**packs[1], "pack": str(shutil.copytree(insects_path, tmp_path / "moved"))}]
    assert train_on(moved, run="parts") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)
    losses = [[record["loss"] for record in logged(tmp_path / name)] for name in ("run", "parts")]
    assert losses[0] == losses[1]
    both = JoinedPacks([Pack(pack["pack"]) for pack in packs])
    assert newest(tmp_path / "run").training["pack"] == both.manifest.fingerprint


def test_classes_of_one_name_are_one_where_they_are_merged(train_on, packs, tmp_path, capsys):
    assert train_on(packs, "--task=classification", "--train.iterations=1", merge_classes=True) == 0
    assert "54 images of 7 classes" in capsys.readouterr().out
    assert load_weights(tmp_path / "run").config["data"]["merge_classes"] is True


def test_validation_uses_the_packs_of_the_protocols_data_sets(
    train_on, packs, protocol_file, tmp_path
):
    protocol = yaml.safe_load(protocol_file.read_text())
    target = protocol["targets"]["night"]
    protocol["targets"]["dusk"] = {**target, "test": [{"dataset": "insects", "domains": ["dusk"]}]}
    protocol_file.write_text(yaml.safe_dump(protocol))
    options = [f"--validation.protocol={protocol_file}", "--train.iterations=1"]
    assert train_on(packs, *options) == 0
    measured, name = logged(tmp_path / "run")[-1], "validation/auroc/relation-softmax"
    areas = [measured[f"{name}/{target}"] for target in ("night", "dusk")]
    assert all(0 <= area <= 1 for area in areas)
    assert measured["auroc"] == measured[name] == pytest.approx(sum(areas) / 2, abs=1e-5)


def test_a_protocol_that_needs_another_pack_is_refused_before_the_first_step(
    train, protocol_file, error_line, tmp_path
):
    protocol = yaml.safe_load(protocol_file.read_text())
    protocol["targets"]["night"]["test"].append({"dataset": "insects"})
    protocol_file.write_text(yaml.safe_dump(protocol))
    assert train(f"--validation.protocol={protocol_file}") == 2
    assert "needs exactly one pack of insects, 0 of the given packs match" in error_line()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "data", "words"),
    [
        (lambda one, other: [one, {**other, "weight": 3}], {}, "started with data.packs"),
        (lambda one, other: [{**one, "domains": None}, other], {}, "started with data.packs"),
        (lambda one, other: [one, other], {"merge_classes": True}, "the pack's fingerprint"),
        (lambda one, other: [one], {}, "started with data.packs"),
        (
            lambda one, other: [{**other, "weight": 1}, {**one, "domains": None, "weight": 2}],
            {},
            "data.packs",
        ),
    ],
    ids=["weight", "selection", "merged", "fewer", "order"],
)
def test_another_run_on_several_packs_is_not_continued(
    train_on, packs, capsys, error_line, change, data, words
):
    train_on(packs, "--train.iterations=1")
    capsys.readouterr()
    assert train_on(change(*packs), **data) == 2
    assert words in error_line()


def test_a_run_on_one_pack_is_not_continued_on_several(train, packs, train_on, capsys, error_line):
    train("--train.iterations=1")
    capsys.readouterr()
    assert train_on(packs) == 2
    assert "started with data.packs []" in error_line()


@pytest.mark.parametrize(
    ("change", "data", "words"),
    [
        (lambda one, other: [], {}, "set either data.pack or data.packs"),
        (lambda one, other: [one, other], {"pack": "packs/demo"}, "and not both"),
        (lambda one, other: [one, other], {"classes": ["bee"]}, "data.classes excludes data.packs"),
        (lambda one, other: [one, deepcopy(one)], {}, "are the same pack; name it once"),
        (lambda one, other: [one, {**other, "heavy": 1}], {}, "Option 'heavy' is not accepted"),
        (lambda one, other: [one, {"weight": 1}], {}, "required: pack"),
        (lambda one, other: [one, other["pack"]], {}, "data.packs must be a list of {pack, "),
        (lambda one, other: [one, {**other, "domains": "day"}], {}, "data.packs.domains must be"),
        (lambda one, other: [one, {**other, "weight": "much"}], {}, "data.packs.weight must be"),
        (lambda one, other: [one, {**other, "weight": 0}], {}, "above 0 and up to 1000, not 0"),
        (lambda one, other: [one, {**other, "weight": -1}], {}, "data.packs.weight must be"),
        (lambda one, other: [one, {**other, "weight": 1001}], {}, "data.packs.weight must be"),
        (lambda one, other: [one, {**other, "weight": float("nan")}], {}, "not nan"),
        (lambda one, other: [one, {**other, "weight": float("inf")}], {}, "not inf"),
        (
            lambda one, other: [one, {**other, "classes": ["ant"]}],
            {},
            "insects: the pack has no cl",
        ),
        (lambda one, other: [one, {**other, "classes": []}], {}, "no image is selected"),
        (lambda one, other: [one, {"pack": "nowhere"}], {}, "nowhere is not a complete pack"),
    ],
)
def test_a_mistake_in_several_packs_is_one_line(train_on, packs, error_line, change, data, words):
    assert train_on(change(*packs), **data) == 2
    assert words in error_line()


def test_merging_needs_several_packs(train, error_line):
    assert train("--data.merge_classes=true") == 2
    assert "data.merge_classes needs data.packs" in error_line()
