"""Training in one process, from the command line's arguments to what lies in the run's folder."""

import json
import math

import pytest
import torch
import yaml

from evaluate import main as evaluate
from model.config import ModelConfig, Preprocessing
from model.network import build_network
from runtime.checkpoint import load_weights, newest, step_folders
from tests.common import TINY_MODEL
from tests.training.runs import assert_same_weights, logged
from training.cost import training_cost


def test_a_run_logs_each_measure_and_saves_what_loads_again(train, tmp_path):
    assert train("--log.tensorboard=true", "--optimizer.name=lars") == 0
    records = logged(tmp_path / "run")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["lr"] for record in records[:3]] == [0, 0.005, 0.01]
    for name in (
        "loss",
        "accuracy_same",
        "accuracy_different",
        "gradient_norm",
        "trust_min",
        "trust_median",
        "pairs_per_second",
        "images_per_second",
        "data_wait_share",
        "memory_gib",
    ):
        assert math.isfinite(records[-1][name]), name
    assert 0 <= records[-1]["data_wait_share"] <= 1
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    folders = [folder.name for folder in step_folders(tmp_path / "run")]
    assert folders == ["step-00000006", "step-00000003"]
    found = load_weights(tmp_path / "run")
    assert found.config["model"]["backbone"] == TINY_MODEL["backbone"]
    assert any(name.startswith("relation.") for name in found.weights)


def test_the_share_of_the_peak_is_logged_where_the_peak_is_known(train, tmp_path):
    peak, options = 1e-3, ["--train.iterations=1", "--train.accumulate=2"]
    train(*options, f"--log.peak_tflops={peak}")
    (record,) = logged(tmp_path / "run")
    config = ModelConfig(**TINY_MODEL, similarity_start=True)
    network = build_network(config, Preprocessing(image_size=32))
    flops = training_cost(network, 16, (3, 32, 32), 1).flops
    found = record["mfu"] * peak * 1e12 * 8 / record["pairs_per_second"]
    assert found == pytest.approx(flops, rel=1e-2)
    train(*options, run="unknown")
    assert "mfu" not in logged(tmp_path / "unknown")[-1]


def test_resuming_equals_an_uninterrupted_run_bit_for_bit(train, tmp_path):
    train()
    train("--train.iterations=3", run="parts")
    assert train(run="parts") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)
    one, other = (newest(tmp_path / name).training["optimizer"] for name in ("run", "parts"))
    for a, b in zip(one["state"].values(), other["state"].values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])
    losses = [[record["loss"] for record in logged(tmp_path / name)] for name in ("run", "parts")]
    assert losses[0] == losses[1]


def test_a_finished_run_is_left_as_it_is(train, tmp_path, capsys):
    train("--train.iterations=2")
    before = load_weights(tmp_path / "run").weights
    assert train("--train.iterations=2") == 0
    assert "after step 2" in capsys.readouterr().out
    after = load_weights(tmp_path / "run").weights
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_accumulated_parts_equal_the_whole_step(train, tmp_path):
    train()
    train("--train.accumulate=4", run="parts")
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=1e-4, atol=1e-5)


def test_classification_warms_up_the_backbone_of_a_relation(train, tmp_path):
    assert train("--task=classification", "--train.iterations=2", run="warm") == 0
    assert "accuracy" in logged(tmp_path / "warm")[-1]
    options = [f"--model.backbone_weights={tmp_path / 'warm'}", "--optimizer.lr=0"]
    assert train("--train.iterations=1", *options) == 0
    warm, relation = (load_weights(tmp_path / name).weights for name in ("warm", "run"))
    shared = [name for name in warm if name.startswith("backbone.")]
    assert shared
    assert all(torch.equal(warm[name], relation[name]) for name in shared)


def test_gradients_are_clipped_only_when_asked(train, tmp_path):
    options = ["--train.iterations=3", "--optimizer.weight_decay=0"]
    train(*options)
    train(*options, "--train.clip=1e-9", run="clipped")
    moved, start = (
        load_weights(tmp_path / "run").weights,
        load_weights(tmp_path / "clipped").weights,
    )
    train(*options, "--optimizer.lr=0", run="still")
    assert_same_weights(tmp_path / "clipped", tmp_path / "still", rtol=0, atol=2e-6)
    assert any(not torch.allclose(moved[name], start[name], atol=1e-5) for name in moved)


def test_bfloat16_keeps_float32_weights_and_nearly_the_loss(train, tmp_path):
    train("--train.iterations=2")
    assert train("--train.iterations=2", "--train.precision=bfloat16", run="half") == 0
    weights = load_weights(tmp_path / "half").weights
    assert {value.dtype for value in weights.values()} == {torch.float32}
    exact, half = (logged(tmp_path / name)[0]["loss"] for name in ("run", "half"))
    assert half == pytest.approx(exact, rel=0.05)


def test_without_a_compiler_training_goes_on_with_a_line(train, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no compiler here\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    assert train("--train.compile=true", "--train.iterations=1") == 0
    assert "train.compile is ignored: torch.compile fails on this machine (no compiler here)\n" in (
        capsys.readouterr().out
    )


def test_validation_is_logged_and_keeps_the_best_checkpoint(train, protocol_file, tmp_path):
    options = ["--checkpoint.every=1", "--checkpoint.keep=1", "--optimizer.lr=0.1"]
    assert train(f"--validation.protocol={protocol_file}", *options) == 0
    areas = {r["step"]: r["auroc"] for r in logged(tmp_path / "run") if "auroc" in r}
    assert list(areas) == [1, 2, 3, 4, 5, 6]
    kept = {int(folder.name[-8:]) for folder in step_folders(tmp_path / "run")}
    assert 6 in kept
    assert max(areas.values()) in {round(areas[step], 6) for step in kept}


def test_each_evaluator_of_validation_is_measured_as_evaluation_does(
    train, protocol_file, pack_path, tmp_path
):
    names = ["cosine", "relation-logit"]
    options = [f"--validation.evaluators={json.dumps(names)}", "--train.iterations=2"]
    assert train(f"--validation.protocol={protocol_file}", *options) == 0
    measured, run = logged(tmp_path / "run")[-1], tmp_path / "run"
    options = ["--protocol", protocol_file, "--pack", pack_path, "--checkpoint", run, "--no-cache"]
    options += ["--out", tmp_path / "out", "--device=cpu", "--resamples=1"]
    options += ["--evaluators", "relation-softmax", *names]
    assert evaluate([str(option) for option in options]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    evaluated = results["benchmarks"][0]["targets"][0]["evaluators"]
    assert set(evaluated) == {"relation-softmax", *names}
    for evaluator, metrics in evaluated.items():
        for metric in ("auroc", "fpr95", "aupr_known", "aupr_unknown", "accuracy"):
            for of in (evaluator, f"{evaluator}/night"):
                found = measured[f"validation/{metric}/{of}"]
                assert found == pytest.approx(metrics[metric], abs=1e-5), (metric, of)
    assert measured["auroc"] == measured["validation/auroc/relation-softmax"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--validation.evaluators=[cosine, nearest]", "no evaluator is called nearest; choose"),
        ("--validation.targets=[dusk]", "dusk"),
    ],
)
def test_a_mistake_in_validation_is_one_line_before_the_first_step(
    train, protocol_file, tmp_path, error_line, option, words
):
    assert train(f"--validation.protocol={protocol_file}", option) == 2
    assert words in error_line()
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("best", "validated", "words"),
    [
        ("aurocs", True, "EVALUATOR: relation-softmax, cosine; TARGET: night"),
        ("validation/auroc/knn", True, "choose from accuracy_same, accuracy_different, auroc, "),
        ("validation/auroc/cosine/dusk", True, "TARGET: night"),
        ("validation/fpr95/cosine", True, "METRIC: auroc, aupr_known, aupr_unknown, accuracy;"),
        ("validation/auroc/cosine", False, "others need validation.protocol"),
    ],
)
def test_checkpoints_are_not_chosen_by_what_is_not_measured(
    train, protocol_file, error_line, best, validated, words
):
    validation = [f"--validation.protocol={protocol_file}", "--validation.evaluators=[cosine]"]
    options = [*validation[: 2 * validated], f"--checkpoint.best={best}"]
    assert train(*options, "--dry_run=true") == 2
    assert words in error_line()


@pytest.mark.parametrize(
    "best", ["auroc", "validation/accuracy/cosine", "validation/auroc/cosine/night"]
)
def test_checkpoints_can_be_chosen_by_each_validation_metric(train, protocol_file, tmp_path, best):
    options = [f"--validation.protocol={protocol_file}", "--validation.evaluators=[cosine]"]
    assert train(*options, f"--checkpoint.best={best}", "--train.iterations=1") == 0
    assert best in logged(tmp_path / "run")[-1]


def test_checkpoints_can_be_chosen_by_the_accuracy_in_training(train, tmp_path):
    assert train("--task=classification", "--checkpoint.best=accuracy", "--train.iterations=1") == 0
    (folder,) = step_folders(tmp_path / "run")
    assert "accuracy" in json.loads((folder / "metrics.json").read_text())


def test_old_evaluator_names_of_a_recipe_work_with_a_hint(train, protocol_file, capsys):
    options = [f"--validation.protocol={protocol_file}", "--train.iterations=1"]
    assert train("--validation.evaluator=knn-normalised", *options) == 2
    hint, error = capsys.readouterr().err.splitlines()
    assert hint.startswith("hint: knn-normalised is now knn-normalized;")
    assert "knn-normalized needs 50 neighbors" in error


@pytest.mark.parametrize("bug", [ValueError, RuntimeError])
def test_a_bug_in_building_the_network_shows_its_traceback(train, monkeypatch, bug):
    def broken(*arguments, **options):
        raise bug("shapes do not match")

    monkeypatch.setattr("training.task.build_network", broken)
    with pytest.raises(bug, match="shapes do not match"):
        train()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_float16_images_train_and_validate(train, tmp_path, protocol_file, precision):
    options = ["--train.iterations=1", f"--validation.protocol={protocol_file}"]
    assert train(*options) == 0
    options += ["--input.dtype=float16", f"--train.precision={precision}"]
    assert train(*options, run="half") == 0
    exact, half = (
        {name: value for record in logged(tmp_path / run) for name, value in record.items()}
        for run in ("run", "half")
    )
    for name in ("loss", "auroc"):
        assert half[name] == pytest.approx(exact[name], abs=0.05), name


def test_divergence_stops_with_step_keys_and_last_good_checkpoint(
    train, tmp_path, capsys, error_line
):
    train("--train.iterations=3")
    capsys.readouterr()
    options = ["--optimizer.lr=1e30", "--log.every=100", "--checkpoint.every=100"]
    assert train("--train.iterations=12", *options) == 1
    line = error_line()
    report = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert f"at step {report['step']}" in line
    assert report["anchors"][0] in line
    assert len(report["anchors"]) == len(report["partners"]) == 8
    assert "step-00000003" in line
    assert step_folders(tmp_path / "run")[0].name == "step-00000003"


def test_dry_run_prints_configuration_and_sizes_and_trains_nothing(train, tmp_path, capsys):
    assert train("--dry-run") == 0
    out = capsys.readouterr().out
    resolved = yaml.safe_load(out.split("\n\n")[0])
    assert resolved["train"]["global_batch"] == 8
    for words in ("5 classes", "6 steps of 8 pairs", "parameters", "GiB"):
        assert words in out
    assert not (tmp_path / "run").exists()


def test_linear_rule_follows_the_number_of_devices_and_is_printed(train, capsys):
    options = ["--train.recipe_ranks=4", "--train.global_batch=16", "--scale=linear"]
    assert train("--dry-run", *options, "--schedule.warmup=100", "--train.iterations=1000") == 0
    out = capsys.readouterr().out
    resolved = yaml.safe_load(out.split("\n\n")[0])
    assert resolved["train"]["global_batch"] == 4
    assert resolved["optimizer"]["lr"] == pytest.approx(0.0025)
    assert resolved["train"]["iterations"] == 4000
    assert resolved["schedule"]["warmup"] == 400
    assert "16 -> 4 pairs per step: lr 0.01 -> 0.0025, steps 1000 -> 4000" in out
    assert train("--dry-run", *options, "--train.accumulate=4") == 0
    resolved = yaml.safe_load(capsys.readouterr().out.split("\n\n")[0])
    assert resolved["train"]["global_batch"] == 16
    assert resolved["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.backbone=resnet0"], "resnet0"),
        (["--model.embed_dim=50", "--model.num_heads=3"], "embed_dim"),
        (["--data.pack=nowhere"], "nowhere"),
        (["--data.domains=[dusk]"], "dusk"),
        (["--model.backbone_weights=none.pth"], "none.pth"),
        (["--train.accumulate=3"], "multiple of 3"),
        (["--optimizer.name=adam"], "optimizer.name"),
        (["--train.speed=3"], "train.speed"),
        (["--validation.protocol=none.yaml"], "none.yaml"),
        (["--log.samples=1"], "log.samples needs log.tensorboard or log.wandb"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(train, error_line, options, words):
    assert train(*options) == 2
    assert words in error_line()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seed=1"], "seed"),
        (["--data.num_negatives=5"], "data.num_negatives"),
        (["--train.global_batch=4"], "train.global_batch"),
        (["--model.depth=2"], "model.depth"),
        (["--resume=never"], "--resume auto"),
    ],
)
def test_another_run_is_not_continued(train, capsys, error_line, options, words):
    train("--train.iterations=1")
    capsys.readouterr()
    assert train(*options) == 2
    assert words in error_line()
