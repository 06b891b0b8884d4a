"""The average of the weights over the steps: its values, and who takes it from a checkpoint."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from evaluate import main as evaluate
from evaluation.trained import load_network
from runtime.checkpoint import load_weights, newest, step_folders
from tests.training.runs import assert_same_weights, logged

DECAY = 0.55
AVERAGING = f"--train.ema={DECAY}"


def saved(run):
    """(trained, averaged) weights of each step, the first step's first."""
    files = ("weights.safetensors", "averaged.safetensors")
    return [[load_file(folder / file) for file in files] for folder in step_folders(run)[::-1]]


def test_the_average_of_the_parameters_grows_to_its_decay_and_buffers_are_copied(train, tmp_path):
    each = ["--checkpoint.every=1", "--train.iterations=4", "--checkpoint.keep=4"]
    assert train(AVERAGING, *each, "--model.backbone=test_resnet") == 0
    expected = {}
    steps = saved(tmp_path / "run")
    assert len(steps) == 4
    for step, (trained, averaged) in enumerate(steps, 1):
        decay = min(DECAY, 1 - step**-0.75)
        for name, now in trained.items():
            if "running_" in name or name.endswith("num_batches_tracked"):
                assert torch.equal(averaged[name], now), name
                continue
            before = expected.get(name, now)
            expected[name] = decay * before + (1 - decay) * now
            torch.testing.assert_close(averaged[name], expected[name], rtol=1e-5, atol=1e-6)


def test_resuming_continues_the_average_bit_for_bit(train, tmp_path):
    length = "--train.iterations=3"
    train(AVERAGING, length)
    train(AVERAGING, "--train.iterations=2", run="parts")
    assert train(AVERAGING, length, run="parts") == 0
    assert load_weights(tmp_path / "run").is_averaged
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)


def test_averaging_can_begin_and_end_when_a_run_is_resumed_and_trains_the_same(train, tmp_path):
    run = tmp_path / "run"
    train("--train.iterations=1")
    before = newest(run).weights
    assert train(AVERAGING, "--train.iterations=2") == 0
    found = newest(run)
    decay = 1 - 2**-0.75
    for name, now in found.weights.items():
        torch.testing.assert_close(found.averaged[name], decay * before[name] + (1 - decay) * now)
    assert train("--train.iterations=3") == 0
    assert newest(run).averaged is None
    train("--train.iterations=3", run="plain")
    assert_same_weights(run, tmp_path / "plain", rtol=0, atol=0)


def test_an_average_that_does_not_fit_the_network_is_one_line(train, tmp_path, capsys, error_line):
    train(AVERAGING, "--train.iterations=1")
    (folder,) = step_folders(tmp_path / "run")
    (folder / "checksums.json").unlink()
    save_file({"other": torch.zeros(1)}, folder / "averaged.safetensors")
    capsys.readouterr()
    assert train(AVERAGING, "--train.iterations=2") == 2
    assert f"{folder} lacks" in error_line()


def auroc(checkpoint, protocol, pack, out):
    options = ["--protocol", protocol, "--pack", pack, "--checkpoint", checkpoint, "--out", out]
    options += ["--target=night", "--evaluators=relation-softmax", "--device=cpu", "--no-cache"]
    assert evaluate([str(option) for option in [*options, "--resamples=1"]]) == 0
    content = json.loads((out / "results.json").read_text())
    return content["benchmarks"][0]["targets"][0]["evaluators"]["relation-softmax"]["auroc"]


def test_validation_and_evaluation_take_the_average(
    train, protocol_file, pack_path, tmp_path, capsys
):
    options = ["--optimizer.lr=3", "--train.ema=0.9", f"--validation.protocol={protocol_file}"]
    assert train(*options) == 0
    capsys.readouterr()
    run = tmp_path / "run"
    averaged = auroc(run, protocol_file, pack_path, tmp_path / "averaged")
    assert ", averaged weights" in capsys.readouterr().out
    trained_file = step_folders(run)[0] / "weights.safetensors"
    trained = auroc(trained_file, protocol_file, pack_path, tmp_path / "trained")
    assert averaged != trained
    assert logged(run)[-1]["auroc"] == pytest.approx(averaged, abs=1e-5)


def test_of_a_frozen_backbone_only_the_relation_is_averaged(train, tmp_path):
    options = ["--train.backbone=frozen", "--train.iterations=3"]
    options += [f"--train.feature_cache={tmp_path / 'features'}"]
    assert train(AVERAGING, "--train.views=1", *options) == 0
    found = newest(tmp_path / "run")
    differs = {n for n in found.weights if not torch.equal(found.weights[n], found.averaged[n])}
    assert differs
    assert all(name.startswith("relation.") for name in differs)
    own = load_network(tmp_path / "run", torch.device("cpu")).network.state_dict()
    assert all(torch.equal(own[name], found.averaged[name]) for name in own)


def test_the_decay_follows_the_number_of_devices(train, capsys):
    options = ["--train.recipe_ranks=4", "--train.global_batch=16", "--scale=linear", "--dry-run"]
    assert train("--train.ema=0.9999", *options) == 0
    out = capsys.readouterr().out
    ema = yaml.safe_load(out.split("\n\n")[0])["train"]["ema"]
    assert ema**4 == pytest.approx(0.9999)
    assert "ema 0.9999 -> 0.999975," in out
