"""Scores by a classifier against pytorch-ood, whose scores are high for outliers, and where it has
no answer against the formula written out slowly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_ood import detector as peers
from torch import nn

from model.classifier import LinearClassifier, train_classifier
from model.classifier_scores import CLASSIFIER_SCORES, Classified, guided_energy, guides
from model.config import WITH_CLASSIFIER, EvaluatorOptions, ModelConfig
from model.errors import EvaluatorError
from model.evaluators import References, evaluate
from model.neighbors import best_references
from model.relation import RelationalTransformer

K, D, R, T = 5, 12, 60, 25
GENERATOR = torch.Generator().manual_seed(0)


def draw(count: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Features without negative values, as after a ReLU, and their classes."""
    classes = torch.arange(count) % K
    noise = torch.randn(count, D, generator=GENERATOR)
    return (scale * torch.eye(K, D)[classes] + noise).relu(), classes


FEATURES, CLASSES = draw(R, 4)
TESTS, _ = draw(T, 2)
CLASSIFIER = train_classifier(FEATURES, CLASSES, K, 100)
RUN = Classified(CLASSIFIER, FEATURES, CLASSES, TESTS)


def nnguide(run: Classified) -> torch.Tensor:
    found = best_references(run.tests, run.references, {"nnguide": guides(run)}, 1 << 20)
    return guided_energy(run, found["nnguide"])


SCORES = {**CLASSIFIER_SCORES, "nnguide": nnguide}


@pytest.fixture
def head():
    """The classifier as a module, which the detectors of pytorch-ood take."""
    layer = nn.Linear(D, K)
    layer.weight.data, layer.bias.data = CLASSIFIER.weight, CLASSIFIER.bias
    return layer


def outlier_scores(name: str, head: nn.Linear) -> torch.Tensor:
    """The scores of ``TESTS`` by pytorch-ood."""
    of_logits = {
        "msp": peers.MaxSoftmax,
        "max-logit": peers.MaxLogit,
        "energy": peers.EnergyBased,
        "gen": peers.GEN,
    }
    if name in of_logits:
        return of_logits[name](None).predict_logits(head(TESTS))
    if name == "gradnorm":
        return peers.GradNorm(head, param_filter=lambda name: name == "weight").predict(TESTS)
    if name == "react":
        clipped = peers.ReAct(nn.Identity(), head, percentile=0.9)
        clipped.fit_feature_maps(FEATURES, CLASSES)
        return clipped.predict_feature_maps(TESTS)
    fitted = {
        "vim": lambda: peers.ViM(None, D // 2, CLASSIFIER.weight, CLASSIFIER.bias),
        "nnguide": lambda: peers.NNGuide(nn.Identity(), head),
        "she": lambda: peers.SHE(nn.Identity(), head),
        "fdbd": lambda: peers.fDBD(nn.Identity(), head),
    }[name]()
    fitted.fit_features(FEATURES, CLASSES)
    return fitted.predict_features(TESTS)


@pytest.mark.parametrize("name", WITH_CLASSIFIER)
def test_scores_are_those_of_pytorch_ood_with_the_sign_of_normality(name, head):
    expected = -outlier_scores(name, head).detach()
    if name == "gen":  # which pytorch-ood averages over the classes; the paper has the sum
        expected *= K
    torch.testing.assert_close(SCORES[name](RUN), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize("name", WITH_CLASSIFIER)
def test_known_images_score_higher_than_images_of_nothing(name):
    noise = torch.randn(200, D, generator=GENERATOR).relu()
    known, nothing = (SCORES[name](replace(RUN, tests=x)) for x in (FEATURES, noise))
    assert (known[:, None] > nothing).float().mean() > 0.6


def test_evaluators_predict_the_class_of_the_largest_logit():
    torch.manual_seed(0)
    relation = RelationalTransformer(D, ModelConfig(embed_dim=12, depth=1, num_heads=2)).eval()
    options = EvaluatorOptions(classifier=CLASSIFIER)
    references = References(FEATURES, CLASSES, K)
    found = evaluate(WITH_CLASSIFIER, relation, references, TESTS, options)
    largest = (TESTS @ CLASSIFIER.weight.T + CLASSIFIER.bias).argmax(dim=1)
    for name in WITH_CLASSIFIER:
        assert torch.equal(found[name].normality, SCORES[name](RUN))
        assert torch.equal(found[name].predicted, largest)


def test_generalized_entropy_is_that_of_the_hundred_most_likely_classes():
    identity = LinearClassifier(torch.eye(150), torch.zeros(150))
    logits = torch.randn(4, 150, generator=GENERATOR)
    run = replace(RUN, classifier=identity, tests=logits)
    expected = -peers.GEN.score(logits, M=100) * 100
    torch.testing.assert_close(CLASSIFIER_SCORES["gen"](run), expected)


def test_a_class_that_is_never_recognized_stores_all_its_references():
    aside = CLASSIFIER.bias.clone()
    aside[0] = -100
    never = replace(RUN, classifier=replace(CLASSIFIER, bias=aside))
    scores = CLASSIFIER_SCORES["she"](never)
    assert torch.isfinite(scores).all()
    only = replace(RUN, classifier=LinearClassifier(torch.zeros(K, D), torch.eye(K)[0]))
    mean = FEATURES[CLASSES == 0].mean(dim=0)
    torch.testing.assert_close(CLASSIFIER_SCORES["she"](only), TESTS @ mean)


def test_virtual_logit_with_few_references_keeps_half_their_number_as_principal_space(head):
    few = replace(RUN, references=FEATURES[:8], classes=CLASSES[:8])
    peer = peers.ViM(None, 4, CLASSIFIER.weight, CLASSIFIER.bias)
    peer.fit_features(FEATURES[:8], CLASSES[:8])
    expected = -peer.predict_features(TESTS)
    torch.testing.assert_close(CLASSIFIER_SCORES["vim"](few), expected, rtol=1e-3, atol=1e-4)


def test_boundaries_between_equal_classes_count_nothing():
    twice = LinearClassifier(torch.eye(2, D)[[0, 1, 1]], torch.zeros(3))
    scores = CLASSIFIER_SCORES["fdbd"](replace(RUN, classifier=twice))
    leads = (TESTS[:, 0] - TESTS[:, 1]).abs() / 2**0.5
    boundaries = torch.where(TESTS[:, 0] > TESTS[:, 1], 2, 1)
    expected = leads * boundaries / 2 / (TESTS - FEATURES.mean(dim=0)).norm(dim=1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("run", "name", "message"),
    [
        (
            replace(RUN, classifier=replace(CLASSIFIER, bias=torch.full((K,), np.nan))),
            "energy",
            "NaN or infinite logits for 25 of 25 images",
        ),
        (replace(RUN, references=FEATURES[:1].expand(R, D)), "vim", "no virtual logit"),
        (RUN, "odin", "odin needs images"),
        (RUN, "gram", "gram needs images"),
    ],
)
def test_what_cannot_be_scored_is_refused(run, name, message):
    with pytest.raises(EvaluatorError, match=message):
        SCORES[name](run)
