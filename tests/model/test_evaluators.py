"""Each evaluator against the same thing written out slowly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import evaluators
from model.classifier import train_classifier
from model.config import BASELINES, EVALUATORS, EvaluatorOptions, ModelConfig
from model.errors import EvaluatorError
from model.evaluators import References, evaluate, num_pairs
from model.image_scores import ImageStatistics
from model.prototypes import most_significant
from model.relation import RelationalTransformer
from model.whitening import ResidualMoments, whitening

K, D, R, T = 4, 6, 30, 9
GENERATOR = torch.Generator().manual_seed(0)
CLASSES = torch.arange(R) % K
FEATURES = torch.randn(R, D, generator=GENERATOR) + 2 * torch.eye(K, D)[CLASSES]
TESTS = torch.randn(T, D, generator=GENERATOR) + torch.eye(K, D)[torch.arange(T) % K]
REFERENCES = References(FEATURES, CLASSES, K)
MEANS = np.stack([FEATURES[number == CLASSES].numpy().mean(axis=0) for number in range(K)])
TRAINED = torch.randn(50, D, generator=GENERATOR) @ torch.randn(D, D, generator=GENERATOR)
WHITENING = whitening(
    TRAINED.mean(dim=0),
    ResidualMoments.of(TRAINED, torch.zeros(50, dtype=torch.int64), TRAINED.mean(0, keepdim=True)),
)
OPTIONS = EvaluatorOptions(
    significant=3,
    neighbors=5,
    whitening=WHITENING,
    classifier=train_classifier(FEATURES, CLASSES, K, 20),
    images=ImageStatistics(TESTS + 0.1, torch.rand(T, 3, generator=GENERATOR)),
)


@pytest.fixture(scope="module")
def relation():
    torch.manual_seed(1)
    module = RelationalTransformer(D, ModelConfig(embed_dim=12, depth=2, num_heads=2)).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def logit(relation, a, b) -> float:
    with torch.no_grad():
        return relation(torch.as_tensor(a)[None], torch.as_tensor(b)[None]).item()


def logits_to_means(relation) -> np.ndarray:
    return np.array([[logit(relation, test, mean) for mean in MEANS] for test in TESTS])


def logits_to_significant(relation) -> np.ndarray:
    positions, classes = most_significant(FEATURES, CLASSES, K, 3)
    return np.array(
        [
            [
                min(logit(relation, test, FEATURES[p]) for p in positions[classes == number])
                for number in range(K)
            ]
            for test in TESTS
        ]
    )


def largest_softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(-z)
    return (e / e.sum(axis=1, keepdims=True)).max(axis=1)


def sorted_distances(features: np.ndarray, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = np.linalg.norm(tests[:, None] - features[None], axis=2)
    return np.sort(distances, axis=1), distances.argmin(axis=1)


def score(name, relation):
    found = evaluate([name], relation, REFERENCES, TESTS, OPTIONS)[name]
    return found.normality.numpy(), found.predicted.numpy()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["relation", "significant"])
def test_relational_scores_are_the_best_over_the_classes(family, relation):
    z = logits_to_means(relation) if family == "relation" else logits_to_significant(relation)
    for reading, expected in (("softmax", largest_softmax(z)), ("logit", (-z).max(axis=1))):
        normality, predicted = score(f"{family}-{reading}", relation)
        close(normality, expected)
        assert predicted.tolist() == z.argmin(axis=1).tolist()


@pytest.mark.parametrize("memory", [1, 1 << 14, 1 << 26])
def test_relation_knn_is_the_mean_of_the_best(relation, memory):
    z = np.array([[logit(relation, test, feature) for feature in FEATURES] for test in TESTS])
    options = EvaluatorOptions(neighbors=5, memory=memory)
    found = evaluate(["relation-knn"], relation, REFERENCES, TESTS, options)["relation-knn"]
    close(found.normality, -np.sort(z, axis=1)[:, :5].mean(axis=1))
    assert found.predicted.tolist() == CLASSES[z.argmin(axis=1)].tolist()


def test_cosine_is_that_to_the_nearest_mean(relation):
    tests = TESTS.numpy()
    cosines = tests @ MEANS.T
    cosines /= np.linalg.norm(tests, axis=1)[:, None] * np.linalg.norm(MEANS, axis=1)[None]
    normality, predicted = score("cosine", relation)
    close(normality, cosines.max(axis=1) - 1)
    assert predicted.tolist() == cosines.argmax(axis=1).tolist()


def whitened_cosines() -> np.ndarray:
    mean, matrix = WHITENING.mean.numpy(), WHITENING.matrix.numpy()
    tests, means = ((x - mean) @ matrix.T for x in (TESTS.numpy(), MEANS))
    lengths = np.linalg.norm(tests, axis=1)[:, None] * np.linalg.norm(means, axis=1)[None]
    return tests @ means.T / lengths


def test_whitened_cosine_is_that_after_the_map_of_the_options(relation):
    normality, predicted = score("whitened-cosine", relation)
    close(normality, whitened_cosines().max(axis=1) - 1)
    assert predicted.tolist() == whitened_cosines().argmax(axis=1).tolist()


def test_whitened_cosine_takes_the_relations_own_map_where_the_options_have_none():
    config = ModelConfig(embed_dim=12, depth=1, num_heads=2, similarity_start="whitened")
    whitened = RelationalTransformer(D, config).eval()
    whitened.whitening.load_state_dict(WHITENING.state_dict())
    found = evaluate(["whitened-cosine", "relation-logit"], whitened, REFERENCES, TESTS)
    close(found["whitened-cosine"].normality, whitened_cosines().max(axis=1) - 1)
    close(found["relation-logit"].normality, 8 * whitened_cosines().max(axis=1) - 5)


def test_euclidean_is_that_to_the_nearest_mean(relation):
    distances, nearest = sorted_distances(MEANS, TESTS.numpy())
    normality, predicted = score("euclidean", relation)
    close(normality, -distances[:, 0])
    assert predicted.tolist() == nearest.tolist()


def test_knn_is_the_distance_to_the_kth_reference(relation):
    for name, of in (
        ("knn", lambda x: x.numpy()),
        ("knn-normalized", lambda x: (x / x.norm(dim=1, keepdim=True)).numpy()),
    ):
        distances, nearest = sorted_distances(of(FEATURES), of(TESTS))
        normality, predicted = score(name, relation)
        close(normality, -distances[:, 4])
        assert predicted.tolist() == CLASSES[nearest].tolist()


def squared_mahalanobis(tests: np.ndarray, means: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    sample = residuals.T @ residuals / R
    scale = np.trace(sample) / D
    # Ledoit and Wolf (2004), lemma 3.2 and section 3.3.
    spread = ((sample - scale * np.eye(D)) ** 2).sum()
    noise = sum(((np.outer(r, r) - sample) ** 2).sum() for r in residuals) / R**2
    shrinkage = min(noise, spread) / spread
    inverse = np.linalg.inv((1 - shrinkage) * sample + shrinkage * scale * np.eye(D))
    differences = tests[:, None] - means[None]
    return np.einsum("tkd,de,tke->tk", differences, inverse, differences)


@pytest.mark.parametrize("relative", ["", "relative-"])
@pytest.mark.parametrize("normalized", ["", "-normalized"])
def test_mahalanobis_follows_its_definition(relation, relative, normalized):
    features, tests = FEATURES.numpy().astype(float), TESTS.numpy().astype(float)
    if normalized:
        features, tests = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, tests))
    means = np.stack([features[k == CLASSES].mean(axis=0) for k in range(K)])
    distances = squared_mahalanobis(tests, means, features - means[CLASSES])
    if relative:
        center = features.mean(axis=0, keepdims=True)
        distances -= squared_mahalanobis(tests, center, features - center)
    name = f"{relative}mahalanobis{normalized}"
    normality, predicted = score(name, relation)
    close(normality, -distances.min(axis=1))
    assert predicted.tolist() == distances.argmin(axis=1).tolist()


def test_all_at_once_equal_each_alone_and_share_their_pairs(relation):
    done: list[int] = []
    found = evaluate(EVALUATORS, relation, REFERENCES, TESTS, OPTIONS, progress=done.append)
    assert list(found) == list(EVALUATORS)
    for name in EVALUATORS:
        close(found[name].normality, score(name, relation)[0])
    assert sum(done) == num_pairs(EVALUATORS, CLASSES, T, OPTIONS) == T * (K + 3 * K + R)


def test_scores_do_not_depend_on_the_order_of_the_references(relation):
    order = torch.randperm(R, generator=GENERATOR)
    shuffled = References(FEATURES[order], CLASSES[order], K)
    found = evaluate(EVALUATORS, relation, REFERENCES, TESTS, OPTIONS)
    again = evaluate(EVALUATORS, relation, shuffled, TESTS, OPTIONS)
    for name in EVALUATORS:
        close(again[name].normality, found[name].normality)
        assert torch.equal(again[name].predicted, found[name].predicted)


def test_the_names_known_without_torch_are_the_registry():
    assert tuple(evaluators.EVALUATORS) == EVALUATORS


def test_baselines_compare_no_pairs():
    assert num_pairs(BASELINES, CLASSES, T, OPTIONS) == 0


@pytest.mark.parametrize(
    ("names", "references", "message"),
    [
        (["distance"], REFERENCES, "no evaluator is called distance; choose from relation-"),
        ([], REFERENCES, "no evaluator given"),
        (["cosine"], References(FEATURES, CLASSES, K + 1), "class 4 has no reference"),
        (["knn"], References(FEATURES[:4], CLASSES[:4], K), "needs 5 neighbors, but there are 4"),
        (
            ["relation-knn"],
            References(FEATURES[:4], CLASSES[:4], K),
            "needs 5 neighbors, but there are 4",
        ),
        (["mahalanobis"], References(FEATURES[:4], CLASSES[:4], K), "no covariance"),
        (["mahalanobis"], References(FEATURES[:2], torch.zeros(2).long(), 1), "no covariance"),
        (["relative-mahalanobis"], References(FEATURES[:4], CLASSES[:4], K), "no covariance"),
    ],
)
def test_what_cannot_be_scored_is_refused(relation, names, references, message):
    with pytest.raises(ValueError, match=message):
        evaluate(names, relation, references, TESTS, OPTIONS)


def test_whitened_cosine_without_a_map_is_refused(relation):
    with pytest.raises(EvaluatorError, match="the relational module has none"):
        evaluate(["whitened-cosine"], relation, REFERENCES, TESTS)


@pytest.mark.parametrize("name", ["relation-softmax", "significant-logit", "euclidean"])
def test_the_ranking_has_the_three_nearest_classes(name, relation):
    found = evaluate([name], relation, REFERENCES, TESTS, OPTIONS)[name]
    if name == "euclidean":
        distances = np.linalg.norm(TESTS.numpy()[:, None] - MEANS[None], axis=2)
    else:
        z = logits_to_means if name.startswith("relation") else logits_to_significant
        distances = z(relation)
    order = distances.argsort(axis=1)[:, :3]
    assert found.ranking.classes.tolist() == order.tolist()
    close(found.ranking.scores, -np.take_along_axis(distances, order, axis=1))


@pytest.mark.parametrize("name", ["knn", "relation-knn"])
def test_the_ranking_of_neighbors_takes_the_nearest_of_each_class(name, relation):
    found = evaluate([name], relation, REFERENCES, TESTS, OPTIONS)[name]
    if name == "knn":
        distances = np.linalg.norm(TESTS.numpy()[:, None] - FEATURES.numpy()[None], axis=2)
    else:
        distances = np.array([[logit(relation, t, f) for f in FEATURES] for t in TESTS])
    for test in range(T):
        neighbors = distances[test].argsort()[: OPTIONS.neighbors]
        nearest = {}
        for neighbor in neighbors:
            nearest.setdefault(int(CLASSES[neighbor]), -distances[test, neighbor])
        expected = list(nearest.items())[:3]
        count = len(expected)
        assert found.ranking.classes[test, :count].tolist() == [pair[0] for pair in expected]
        close(found.ranking.scores[test, :count], [pair[1] for pair in expected])
        assert found.ranking.scores[test, count:].isinf().all()


def test_the_ranking_of_fewer_classes_is_shorter(relation):
    references = References(FEATURES[CLASSES < 2], CLASSES[CLASSES < 2], 2)
    found = evaluate(["cosine"], relation, references, TESTS)["cosine"]
    assert found.ranking.classes.shape == found.ranking.scores.shape == (T, 2)


@pytest.mark.parametrize("memory", [1, None])
@pytest.mark.parametrize("top", [1, 3, K])
def test_relations_of_the_top_classes_are_those_nearest_by_cosine(relation, top, memory):
    tests = TESTS.numpy()
    cosines = tests @ MEANS.T / np.linalg.norm(MEANS, axis=1)
    beyond = np.argsort(np.argsort(-cosines, axis=1), axis=1) >= top
    options = replace(OPTIONS, top=top, memory=memory)
    names = ["relation-softmax", "relation-logit", "significant-softmax", "significant-logit"]
    done: list[int] = []
    found = evaluate(names, relation, REFERENCES, TESTS, options, progress=done.append)
    for family, z in (
        ("relation", logits_to_means(relation)),
        ("significant", logits_to_significant(relation)),
    ):
        z[beyond] = np.inf
        close(found[f"{family}-softmax"].normality, largest_softmax(z))
        close(found[f"{family}-logit"].normality, (-z).max(axis=1))
        assert found[f"{family}-logit"].predicted.tolist() == z.argmin(axis=1).tolist()
    assert sum(done) == num_pairs(names, CLASSES, T, options) == T * (top + 3 * top)


@pytest.mark.parametrize("top", [0, K + 1])
def test_more_top_classes_than_there_are_are_refused(relation, top):
    for action in (
        lambda options: evaluate(["relation-logit"], relation, REFERENCES, TESTS, options),
        lambda options: num_pairs(["relation-logit"], CLASSES, T, options),
    ):
        with pytest.raises(EvaluatorError, match=f"top is {top}, but there are 4 known classes"):
            action(replace(OPTIONS, top=top))
