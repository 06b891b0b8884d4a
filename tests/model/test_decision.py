"""Decisions that can be traced equal the evaluators'."""

import pytest
import torch

from model.config import BASELINES, BY_MEANS, PAPER_PREPROCESSING, EvaluatorOptions, ModelConfig
from model.decision import FeatureDecision, ImageDecision
from model.errors import EvaluatorError
from model.evaluators import References, evaluate
from model.prototypes import class_means
from model.relation import RelationalTransformer
from model.whitening import Whitening

WIDTH, CLASSES = 16, 5


@pytest.fixture(scope="module")
def relation():
    torch.manual_seed(0)
    config = ModelConfig(embed_dim=24, depth=2, num_heads=3, similarity_start="whitened")
    relation = RelationalTransformer(WIDTH, config)
    for parameter in relation.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    relation.whitening.matrix.copy_(torch.randn(WIDTH, WIDTH))
    return relation.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def references():
    classes = torch.arange(20) % CLASSES
    return References(torch.randn(20, WIDTH), classes, CLASSES)


@pytest.fixture(scope="module")
def means(references):
    return class_means(references.features, references.classes, CLASSES)


@pytest.mark.parametrize(
    ("name", "top"),
    [*((name, None) for name in BY_MEANS), ("relation-logit", 2), ("relation-softmax", 3)],
)
def test_a_decision_equals_the_evaluators(relation, references, means, name, top):
    tests = torch.randn(7, WIDTH)
    options = EvaluatorOptions(top=top)
    expected = evaluate([name], relation, references, tests, options)[name]
    normality, nearest = FeatureDecision(name, relation, means, options)(tests)
    torch.testing.assert_close(normality, expected.normality)
    assert torch.equal(nearest, expected.predicted)


def test_a_given_whitening_takes_the_place_of_the_relations(relation, means):
    tests, own = torch.randn(7, WIDTH), Whitening(WIDTH)
    options = EvaluatorOptions(whitening=own)  # the identity
    found = FeatureDecision("whitened-cosine", relation, means, options)(tests)
    expected = FeatureDecision("cosine", relation, means, EvaluatorOptions())(tests)
    torch.testing.assert_close(found, expected)


def test_pixels_are_normalized(relation, means):
    decide = FeatureDecision("cosine", None, means, EvaluatorOptions())
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((2, 2)), torch.nn.Flatten())
    backbone.append(torch.nn.Linear(12, WIDTH))
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(v) for v in (PAPER_PREPROCESSING.mean, PAPER_PREPROCESSING.std))
    pixels = (images.permute(0, 2, 3, 1) / 255 - mean) / std
    expected = decide(backbone(pixels.permute(0, 3, 1, 2)))
    found = ImageDecision(backbone, PAPER_PREPROCESSING, decide)(images)
    torch.testing.assert_close(found, expected)


def test_tensors_of_a_decision_share_no_memory(relation, means):
    decide = FeatureDecision("relation-logit", relation, means[:1], EvaluatorOptions())
    for buffer in decide.buffers():
        assert buffer.untyped_storage().nbytes() == buffer.nbytes


@pytest.mark.parametrize(("count", "top"), [(CLASSES, 1), (1, None)])
def test_a_softmax_over_one_class_is_refused(relation, means, count, top):
    with pytest.raises(EvaluatorError, match="is 1 for every image"):
        FeatureDecision("relation-softmax", relation, means[:count], EvaluatorOptions(top=top))


@pytest.mark.parametrize("name", sorted({*BASELINES, "relation-knn"} - set(BY_MEANS)))
def test_evaluators_of_single_references_are_refused(relation, means, name):
    with pytest.raises(EvaluatorError, match=f"{name} compares with single references"):
        FeatureDecision(name, relation, means, EvaluatorOptions())


@pytest.mark.parametrize(
    ("name", "top", "message"),
    [
        ("cosine", 2, "top is for relational evaluators"),
        ("relation-logit", 6, "top is 6, but there are 5 known classes"),
        ("relation-logit", None, "relation-logit needs"),
        ("whitened-cosine", None, "whitened-cosine needs"),
    ],
)
def test_what_cannot_be_compared_is_refused(relation, means, name, top, message):
    given = relation if top else None
    with pytest.raises(EvaluatorError, match=message):
        FeatureDecision(name, given, means, EvaluatorOptions(top=top))
