"""Recomputing activations in the backward pass: less memory, the same training."""

import pytest
import torch

from model.backbone import checkpoint_activations, create_backbone
from tests.memory import PeakMemory
from tests.training.runs import assert_same_weights, logged

CHECKPOINTING = "--train.activation_checkpointing=true"
GROUPS = ["--data.sampling.kind=classes", "--data.sampling.classes=3", "--data.sampling.groups=4"]


@pytest.mark.parametrize(
    "options", [["--train.accumulate=2"], [*GROUPS, "--train.pairs_at_once=5"]], ids=" ".join
)
def test_weights_and_running_statistics_are_those_of_training_without(train, tmp_path, options):
    options = [*options, "--train.iterations=2", "--model.backbone=test_resnet"]
    assert train(*options) == 0
    assert train(CHECKPOINTING, *options, run="less") == 0
    assert_same_weights(tmp_path / "run", tmp_path / "less", rtol=0, atol=0)
    losses = [[record["loss"] for record in logged(tmp_path / run)] for run in ("run", "less")]
    assert losses[0] == losses[1]


def test_fewer_activations_are_kept():
    backbone = create_backbone("test_vit", image_size=160).train()
    images, peaks = torch.randn(8, 3, 160, 160), []
    for recompute in (False, True):
        if recompute:
            checkpoint_activations(backbone)
        with PeakMemory() as peak:
            backbone(images).sum().backward()
        backbone.zero_grad()
        peaks.append(peak.bytes)
    assert peaks[1] < 0.5 * peaks[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.backbone=dla46_c"], "train.activation_checkpointing with dla46_c: the backbone"),
        (["--train.backbone=frozen"], "train.activation_checkpointing needs train.backbone"),
    ],
)
def test_a_backbone_that_cannot_recompute_is_one_line(train, error_line, options, words):
    assert train(CHECKPOINTING, "--dry-run", *options) == 2
    assert words in error_line()


def test_a_dry_run_says_that_its_estimate_is_without(train, capsys):
    assert train(CHECKPOINTING, "--dry-run") == 0
    assert "half in bfloat16, before activation checkpointing" in capsys.readouterr().out
