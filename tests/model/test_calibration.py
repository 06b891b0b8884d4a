"""Scale and offset of a similarity start."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.calibration import calibrate, draw_pairs
from model.config import ModelConfig, ObjectiveConfig
from model.relation import RelationalTransformer

WIDTH, CLASSES, IMAGES = 128, 40, 10


@pytest.fixture
def images():
    """Features of overlapping classes in a space of many dimensions, and their classes."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(CLASSES).repeat_interleave(IMAGES)
    centers = torch.randn(CLASSES, WIDTH, generator=generator)
    return 0.4 * centers[classes] + torch.randn(len(classes), WIDTH, generator=generator), classes


def relation(start="cosine"):
    config = ModelConfig(embed_dim=8, depth=1, num_heads=1, similarity_start=start)
    return RelationalTransformer(WIDTH, config).eval()


def test_pairs_are_of_one_class_or_of_two_as_they_say(images):
    _, classes = images
    pairs = draw_pairs(classes, 3)
    assert torch.equal(classes[pairs.left] != classes[pairs.right], pairs.different)
    assert (pairs.left != pairs.right).all()
    positive = int((~pairs.different).sum())
    assert positive == CLASSES * (IMAGES - 1)
    assert int(pairs.different.sum()) == pytest.approx(3 * positive, rel=0.05)


@pytest.mark.parametrize(("name", "slope"), [("bce", 1.0), ("mse", 10.0)])
def test_the_starting_logit_is_the_log_odds_that_two_images_differ(images, name, slope):
    features, classes = images
    network = relation()
    calibrate(network, features, classes, 3, ObjectiveConfig(name))
    pairs = draw_pairs(classes, 3)
    with torch.no_grad():
        logits = slope * network(features[pairs.left], features[pairs.right])
    probability, different = torch.sigmoid(logits).numpy(), pairs.different.numpy()
    for part in np.array_split(np.argsort(probability), 4):
        assert probability[part].mean() == pytest.approx(different[part].mean(), abs=0.05)


def test_calibration_lowers_the_loss_of_the_start(images):
    features, classes = images
    pairs = draw_pairs(classes, 3)

    def loss(network):
        with torch.no_grad():
            logits = network(features[pairs.left], features[pairs.right])
        return functional.binary_cross_entropy_with_logits(logits, pairs.different.float())

    network = relation()
    before = loss(network)
    calibrate(network, features, classes, 3, ObjectiveConfig("bce"))
    assert loss(network) < 0.5 * before


def test_classes_without_any_overlap_get_a_finite_scale():
    classes = torch.arange(4).repeat_interleave(3)
    features = torch.eye(WIDTH)[classes]
    network = relation()
    calibrate(network, features, classes, 3, ObjectiveConfig("bce"))
    assert 0 < network.similarity_scale < 1000
