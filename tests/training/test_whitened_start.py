"""A similarity start in the space that is whitened by the training images."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch.nn import functional

from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import load_network
from model.relation import INITIAL_SCALE
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.selection import Selection
from runtime.checkpoint import load_weights
from runtime.distributed import Process
from tests.training.runs import assert_same_weights, logged

WHITENED = "--model.similarity_start=whitened"
SAYS_SO = "whitened by the covariance"
ALONE = Process(0, 0, 1, torch.device("cpu"))


def test_the_map_is_that_of_the_training_images_under_the_starting_backbone(
    train, pack_path, tmp_path, capsys
):
    assert train(WHITENED, "--data.domains=[day]", "--optimizer.lr=0", "--train.iterations=1") == 0
    assert SAYS_SO in capsys.readouterr().out
    pack, network = Pack(pack_path), load_network(tmp_path / "run", ALONE.device)
    rows = Selection(domains=("day",)).rows(pack)
    config = ExtractionConfig(InputConfig(device="cpu"))
    features = FeatureExtractor(network, pack, ALONE, config).run(rows).double().numpy()
    labels = pack.index.label[rows]
    means = {label: features[labels == label].mean(axis=0) for label in labels}
    residuals = features - np.stack([means[label] for label in labels])
    covariance = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    centered = features - features.mean(axis=0)
    products = centered @ np.linalg.inv(covariance) @ centered.T
    lengths = np.sqrt(np.diag(products))
    whitened = network.network.relation.whitening(torch.from_numpy(features))
    directions = functional.normalize(whitened, dim=1).numpy()
    np.testing.assert_allclose(
        directions @ directions.T, products / np.outer(lengths, lengths), atol=1e-3
    )


def test_the_start_has_the_scale_of_the_training_pairs(train, tmp_path):
    assert train(WHITENED, "--optimizer.lr=0", "--train.iterations=1") == 0
    assert train("--model.similarity_start=cosine", "--optimizer.lr=0", run="cosine") == 0
    scales = [
        load_weights(tmp_path / run).weights["relation.similarity_scale"]
        for run in ("run", "cosine")
    ]
    assert scales[0] != scales[1] == INITIAL_SCALE


def test_resuming_equals_an_uninterrupted_run_bit_for_bit_and_does_not_learn_again(
    train, tmp_path, capsys
):
    train(WHITENED)
    train(WHITENED, "--train.iterations=3", run="parts")
    capsys.readouterr()
    assert train(WHITENED, run="parts") == 0
    assert SAYS_SO not in capsys.readouterr().out
    assert_same_weights(tmp_path / "run", tmp_path / "parts", rtol=0, atol=0)


def test_bfloat16_begins_at_nearly_the_loss_of_float32(train, tmp_path):
    options = (WHITENED, "--train.iterations=1")
    train(*options)
    assert train(*options, "--train.precision=bfloat16", run="rounded") == 0
    exact, rounded = (logged(tmp_path / name)[0]["loss"] for name in ("run", "rounded"))
    assert rounded == pytest.approx(exact, rel=0.05)


def test_the_evaluator_validates_with_the_map_of_the_run(train, protocol_file, tmp_path):
    validation = [f"--validation.protocol={protocol_file}", "--train.iterations=1"]
    assert train(WHITENED, *validation, "--validation.evaluator=whitened-cosine") == 0
    assert 0 <= logged(tmp_path / "run")[-1]["auroc"] <= 1


def test_validation_without_a_map_is_one_line_before_the_first_step(
    train, protocol_file, tmp_path, error_line
):
    options = [f"--validation.protocol={protocol_file}", "--validation.evaluator=whitened-cosine"]
    assert train(*options) == 2
    assert "set model.similarity_start to whitened" in error_line()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_validation_by_an_evaluator_that_needs_a_classifier_is_one_line(
    train, protocol_file, error_line
):
    options = [f"--validation.protocol={protocol_file}", "--validation.evaluator=energy"]
    assert train(*options) == 2
    assert "validation.evaluator energy needs a classifier" in error_line()


def test_a_run_is_not_continued_with_another_start(train, capsys, error_line):
    train(WHITENED, "--train.iterations=1")
    capsys.readouterr()
    assert train("--model.similarity_start=cosine") == 2
    assert "was started with model.similarity_start whitened, now it is cosine" in error_line()


def test_a_dry_run_learns_nothing(train, tmp_path, capsys):
    assert train(WHITENED, "--dry-run") == 0
    assert SAYS_SO in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_cosine_start_has_no_map(train, tmp_path):
    assert train("--model.similarity_start=cosine", "--train.iterations=1", run="cosine") == 0
    assert train("--train.iterations=1", run="true") == 0
    assert_same_weights(tmp_path / "cosine", tmp_path / "true", rtol=0, atol=0)
    assert "relation.whitening.matrix" not in load_weights(tmp_path / "true").weights
