"""The ways that are compared compute the same, and their arithmetic is counted right."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import original
from benchmarks.evaluation import plain_batched, plain_flops, relation_ways, tiled_flops
from model.config import ModelConfig
from model.network import build_network
from model.pairwise import relational_logits


@pytest.fixture(scope="module", params=[1, 3], ids=["one block", "three blocks"])
def relation(request):
    torch.manual_seed(0)
    config = ModelConfig("test_resnet", embed_dim=96, depth=request.param, num_heads=4)
    return build_network(config).relation.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def features(relation):
    tests, prototypes = (torch.randn(count, relation.proj.in_features) for count in (40, 30))
    return tests, prototypes


def test_all_ways_give_the_same_logits(relation, features):
    expected = original.score(relation, *features)
    for name, way in relation_ways(relation, torch.device("cpu")).items():
        tolerance = 1e-5 if way.dtype == torch.float32 else 0.1 * expected.std()
        assert (way.score(*features) - expected).abs().max() < tolerance, name


def test_the_plain_forwards_arithmetic_is_counted(relation, features):
    assert flops_per_pair(plain_batched, relation, features) == pytest.approx(
        plain_flops(relation), rel=0.02
    )


def test_the_tiled_arithmetic_is_counted(relation, features):
    def ours(relation, tests, prototypes):
        return relational_logits(relation, tests, prototypes, dtype=torch.bfloat16)

    embed_dim, feature_dim = relation.proj.weight.shape
    per_image = 2 * (feature_dim * embed_dim + 3 * embed_dim**2)
    tests, prototypes = map(len, features)
    expected = tiled_flops(relation) + per_image * (tests + prototypes) / (tests * prototypes)
    assert flops_per_pair(ours, relation, features) == pytest.approx(expected, rel=0.02)


def flops_per_pair(score, relation, features):
    tests, prototypes = features
    counter = FlopCounterMode(display=False)
    with counter:
        score(relation, tests, prototypes)
    return counter.get_total_flops() / (len(tests) * len(prototypes))
