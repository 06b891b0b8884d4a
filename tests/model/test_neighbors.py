"""Searches that share one product of tests and references find what comparing each pair does."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from model import intermediates
from model.classifier import train_classifier
from model.config import EvaluatorOptions
from model.evaluators import References, evaluate
from model.neighbors import best_references, by_cosine, by_distance, nearest
from tests.memory import PeakMemory

GENERATOR = torch.Generator().manual_seed(0)
TESTS, REFERENCES = torch.randn(340, 8, generator=GENERATOR).split((40, 300))
K = 5


def found_nearest(tests, references, *, normalized=False, memory=1 << 20):
    criterion = (by_cosine if normalized else by_distance)(references, K)
    best = best_references(tests, references, {"best": criterion}, memory)["best"]
    return nearest(tests, references, best, K, normalized=normalized, memory=memory)


def assert_nearest(found, tests, references):
    tests, references = tests.double().numpy(), references.double().numpy()
    distances = np.linalg.norm(tests[:, None] - references[None], axis=2)
    expected = np.sort(distances, axis=1)[:, :K]
    np.testing.assert_allclose(found.distances, expected, rtol=1e-5, atol=1e-9)
    of_positions = np.take_along_axis(distances, found.positions.numpy(), axis=1)
    np.testing.assert_allclose(of_positions, expected, rtol=1e-5, atol=1e-9)
    assert all(len(set(row)) == K for row in found.positions.tolist())


@pytest.mark.parametrize("memory", [1, 1 << 12, 1 << 16, 1 << 26])
def test_any_tiles_find_the_same(memory):
    assert_nearest(found_nearest(TESTS, REFERENCES, memory=memory), TESTS, REFERENCES)
    unit_tests, unit_references = (functional.normalize(x, dim=1) for x in (TESTS, REFERENCES))
    found = found_nearest(TESTS, REFERENCES, normalized=True, memory=memory)
    assert_nearest(found, unit_tests, unit_references)


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-5])
def test_features_that_hardly_differ_are_compared_by_their_differences(spread):
    tests, references = 3 + spread * TESTS, 3 + spread * REFERENCES
    assert_nearest(found_nearest(tests, references), tests, references)


def test_references_that_are_equal_to_tests_and_to_each_other_are_at_distance_zero():
    references = torch.cat((TESTS[:3].repeat(30, 1), REFERENCES))
    assert_nearest(found_nearest(TESTS, references), TESTS, references)


def test_a_feature_of_zeros_is_at_distance_one_from_normalized_ones():
    references = -torch.rand(300, 8, generator=GENERATOR)
    references[7] = 0
    tests = torch.rand(40, 8, generator=GENERATOR)
    found = found_nearest(tests, references, normalized=True)
    assert (found.positions[:, 0] == 7).all()
    torch.testing.assert_close(found.distances[:, 0], torch.ones(40))


def test_no_more_memory_is_taken_than_allowed():
    memory = 1 << 18
    tests, references = torch.rand(100, 64), torch.rand(3000, 64)
    found_nearest(tests, references, memory=memory)
    with PeakMemory() as peak:
        found_nearest(tests, references, memory=memory)
    given = tests.nbytes + references.nbytes  # of which tiles are views
    results, per_reference = 2 * 100 * (K + 16) * 12, 3 * 4 * 3000
    assert peak.bytes - given < memory + results + per_reference < 4 * 100 * 3000


def test_evaluators_that_search_for_references_share_their_products(monkeypatch):
    searches = []

    def counted(tests, references, criteria, memory):
        searches.append(set(criteria))
        return best_references(tests, references, criteria, memory)

    monkeypatch.setattr(intermediates, "best_references", counted)
    classes = torch.arange(300) % K
    options = EvaluatorOptions(classifier=train_classifier(REFERENCES, classes, K, 3))
    names = ["knn", "cosine", "knn-normalized", "nnguide"]
    evaluate(names, None, References(REFERENCES, classes, K), TESTS, options)
    assert searches == [{"knn", "knn-normalized", "nnguide"}]
