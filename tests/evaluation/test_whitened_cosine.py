"""Cosine after whitening, by the checkpoint's map or by one that is learned from a pack."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import evaluate
from evaluation import whitening
from evaluation.extractor import ExtractionConfig, FeatureExtractor
from evaluation.trained import load_network
from evaluation.training_images import TrainingImages
from evaluation.whitening import learn_whitening
from model.config import EVALUATORS, WITH_IMAGES
from model.network import build_network
from pipelines.config import InputConfig
from pipelines.pack import Pack
from pipelines.packs import joined
from pipelines.selection import Selection
from runtime import checkpoint
from runtime.__main__ import main as exchange
from runtime.errors import ConfigError
from sharding.__main__ import main as pack_main
from tests.evaluation.conftest import ALONE, MODEL
from tests.evaluation.scores import assert_equal_scores, scores

LEARNED = {"evaluators": "whitened-cosine cosine", "target": "day"}


def extractor(run_folder, pack_path) -> FeatureExtractor:
    config = ExtractionConfig(InputConfig(device="cpu"), batch_size=8)
    return FeatureExtractor(load_network(run_folder, ALONE.device), Pack(pack_path), ALONE, config)


@pytest.fixture
def whitened_run(run_folder, pack_path, tmp_path):
    """The run of ``run_folder`` with a whitened start, learned from the domain night."""
    model = replace(MODEL, similarity_start="whitened")
    network = build_network(model)
    weights = load_file(run_folder / "checkpoints" / "step-00000001" / "weights.safetensors")
    network.load_state_dict(weights, strict=False)
    rows = Selection(domains=("night",)).rows(Pack(pack_path))
    learned = learn_whitening(extractor(run_folder, pack_path), rows)
    network.relation.whitening.load_state_dict(learned.state_dict())
    config = {"model": asdict(model), "input": {"image_size": 48}}
    run = tmp_path / "whitened"
    checkpoint.save(run, 1, weights=network.state_dict(), config=config, metrics={})
    return run


def test_the_map_of_a_checkpoint_and_one_learned_from_its_images_score_alike(
    arguments, pack_path, whitened_run, tmp_path
):
    assert evaluate.main(arguments("stored", checkpoint=whitened_run, **LEARNED)) == 0
    pack = {"covariance_pack": pack_path, "covariance_domains": "night"}
    assert evaluate.main(arguments("learned", **LEARNED, **pack)) == 0
    assert_equal_scores(scores(tmp_path / "stored"), scores(tmp_path / "learned"))
    configuration = json.loads((tmp_path / "learned" / "results.json").read_text())["configuration"]
    assert configuration["covariance_pack"] == str(pack_path)
    assert configuration["covariance_domains"] == ["night"]
    both = scores(tmp_path / "stored")
    assert not np.allclose(both["whitened-cosine.normality"], both["cosine.normality"])


def test_the_pack_that_is_given_comes_before_the_map_of_the_checkpoint(
    arguments, pack_path, whitened_run, tmp_path
):
    pack = {
        "covariance_pack": pack_path,
        "covariance_domains": "night",
        "covariance_classes": "dog eel",
    }
    assert evaluate.main(arguments("stored", checkpoint=whitened_run, **LEARNED)) == 0
    assert evaluate.main(arguments("given", checkpoint=whitened_run, **LEARNED, **pack)) == 0
    name = "whitened-cosine.normality"
    assert not np.allclose(scores(tmp_path / "given")[name], scores(tmp_path / "stored")[name])


def test_all_evaluators_of_features_are_computed_where_there_are_a_map_and_a_classifier(
    arguments, whitened_run, tmp_path
):
    options = {"evaluators": "all", "classifier": "head", "target": "day"}
    assert evaluate.main(arguments(checkpoint=whitened_run, **options)) == 0
    columns = [name for name in scores(tmp_path / "out") if name.endswith(".normality")]
    assert columns == [f"{name}.normality" for name in EVALUATORS if name not in WITH_IMAGES]


def test_a_map_of_another_width_is_refused(arguments, whitened_run, refusal):
    found = checkpoint.load_weights(whitened_run)
    narrow = {"relation.whitening.matrix": torch.eye(8), "relation.whitening.mean": torch.zeros(8)}
    shutil.rmtree(whitened_run)
    weights = found.weights | narrow
    checkpoint.save(whitened_run, 1, weights=weights, config=found.config, metrics={})
    line = refusal(arguments(checkpoint=whitened_run))
    assert "has a different shape of relation.whitening.mean, relation.whitening.matrix" in line


def test_the_original_has_no_place_for_a_whitened_start(whitened_run, tmp_path, error_line):
    assert exchange(["export", str(whitened_run), "--out", str(tmp_path / "original")]) == 2
    assert "has a similarity start, for which the original has no place" in error_line()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a pack of training images as --covariance-pack"),
        ({"covariance_domains": "night"}, "needs their --covariance-pack"),
        ({"evaluators": "cosine", "covariance_pack": "PACK"}, "add it to --evaluators"),
        ({"covariance_pack": "PACK"}, "30 of the 60 images of --covariance-pack are tests of"),
        ({"covariance_pack": "PACK", "covariance_domains": "noon"}, "no domain noon"),
        ({"covariance_pack": "nowhere"}, "nowhere is not a complete pack"),
    ],
)
def test_what_cannot_be_learned_is_one_line(arguments, pack_path, options, message, refusal):
    options = {key: pack_path if value == "PACK" else value for key, value in options.items()}
    assert message in refusal(arguments(**{**LEARNED, **options}))


@pytest.fixture
def few(image_tree, tmp_path):
    """A pack with one image of each class."""
    for source in image_tree.glob("day/*/0.jpg"):
        target = tmp_path / "tree" / source.relative_to(image_tree)
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    words = ["pack", "imagefolder", "--root", str(tmp_path / "tree"), "--out"]
    assert pack_main([*words, str(tmp_path / "few")]) == 0
    return tmp_path / "few"


def test_one_image_of_each_class_is_refused(arguments, few, refusal):
    line = refusal(arguments(covariance_pack=few, **LEARNED))
    assert f"{few}: the features of the same class differ in too few ways" in line


def test_tests_are_found_in_the_member_that_is_the_training_pack(few, pack_path):
    own = Pack(pack_path)
    both = joined([Pack(few), own])
    images = TrainingImages(own, np.arange(8, 20))
    images.check_apart(
        both, np.arange(0, 13), "a protocol"
    )  # the few, and the first eight of the pack
    with pytest.raises(ConfigError, match="2 of the 12 images of --covariance-pack are tests of a"):
        images.check_apart(both, np.arange(0, 15), "a protocol")


def test_of_too_many_images_every_class_gives_as_many(run_folder, pack_path, monkeypatch):
    monkeypatch.setattr(whitening, "MAX_IMAGES", 20)
    taken = []
    given = FeatureExtractor.extract
    monkeypatch.setattr(
        FeatureExtractor, "extract", lambda self, rows: taken.append(rows) or given(self, rows)
    )
    pack = Pack(pack_path)
    learn_whitening(extractor(run_folder, pack_path), Selection().rows(pack))
    (rows,) = taken
    assert (np.diff(rows) > 0).all()
    assert np.bincount(pack.index.label[rows]).tolist() == [4] * 5
    assert np.bincount(pack.index.domain[rows]).tolist() == [10, 10]
