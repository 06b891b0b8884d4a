"""Negatives chosen by similarity, against a selection that looks at one pair after another."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from model.config import ModelConfig, ObjectiveConfig, Preprocessing
from model.network import ReSeND
from model.objectives import build_objective
from model.relation import RelationalTransformer
from pipelines.class_plan import ClassPlan
from pipelines.config import SamplingConfig
from training.hard_negatives import HardNegatives
from training.pair_loss import PairLoss

GROUPS = 3


def pairs_of(sampling):
    """Left and right places of three groups, of 5 classes."""
    labels = torch.arange(5).repeat_interleave(6).numpy()
    domains = torch.arange(len(labels)).numpy() % 2
    pairs = ClassPlan(labels, domains, sampling, seed=0).pairs(0, GROUPS)
    return torch.from_numpy(pairs.left), torch.from_numpy(pairs.right)


def slow_choice(sampling, features, left, right):
    """The partners, pair by pair."""
    per_group, num_images = sampling.images_per_group, sampling.images
    seen, chosen = Counter(), right.tolist()
    for pair, anchor in enumerate(left.tolist()):
        if not 1 <= pair % (1 + sampling.negatives) <= sampling.hard_negatives:
            continue
        others = [
            place
            for place in range(len(features))
            if place // per_group == anchor // per_group
            and place // num_images != anchor // num_images
        ]
        cosines = functional.cosine_similarity(features[others], features[anchor], dim=1)
        ranked = [others[i] for i in cosines.argsort(descending=True).tolist()]
        mean_of = chosen[pair] // len(features)
        chosen[pair] = ranked[seen[anchor] % len(ranked)] + mean_of * len(features)
        seen[anchor] += 1
    return chosen


SAMPLINGS = [
    SamplingConfig("classes", 4, 3, 3, 1),
    SamplingConfig("classes", 3, 4, 2, 2, mean_partners=True),
    SamplingConfig("classes", 5, 4, 5, 3, cross_domain=True, same_domain_negatives=True),
    SamplingConfig("classes", 2, 2, 9, 9),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_choice_is_that_of_a_slow_selection(sampling):
    left, right = pairs_of(sampling)
    torch.manual_seed(0)
    features = torch.randn(GROUPS * sampling.images_per_group, 8)
    chosen = HardNegatives(sampling).choose(features, left, right)
    assert chosen.tolist() == slow_choice(sampling, features, left, right)
    of_pair = torch.arange(len(left)) % (1 + sampling.negatives)
    drawn = (of_pair == 0) | (of_pair > sampling.hard_negatives)
    assert (chosen == right)[drawn].all()
    assert (chosen != right)[~drawn].any()


@pytest.mark.parametrize("cross_domain", [False, True])
def test_no_image_has_the_same_hard_negative_twice(cross_domain):
    sampling = SamplingConfig("classes", 5, 4, 2, 1, cross_domain=cross_domain)
    left, right = pairs_of(sampling)
    chosen = HardNegatives(sampling).choose(torch.randn(60, 8), left, right)
    hard = list(zip(left.view(-1, 3)[:, 1].tolist(), chosen.view(-1, 3)[:, 1].tolist()))
    assert len(set(hard)) == len(hard)


@pytest.mark.parametrize("start", ["cosine", "whitened"])
@pytest.mark.parametrize("at_once", [None, 7])
def test_the_loss_is_that_of_the_chosen_pairs_in_the_space_of_the_start(start, at_once):
    sampling = SAMPLINGS[0]
    left, right = pairs_of(sampling)
    different = torch.arange(len(left)) % 4 > 0
    torch.manual_seed(0)
    model = ModelConfig(embed_dim=24, depth=1, num_heads=2, similarity_start=start)
    relation = RelationalTransformer(8, model)
    nn.init.normal_(relation.head.weight, std=0.1)
    if relation.whitening is not None:
        relation.whitening.matrix.copy_(torch.diag(torch.logspace(-2, 2, 8)))
    network = ReSeND(nn.Identity(), relation, Preprocessing())
    features = torch.randn(GROUPS * sampling.images_per_group, 8)
    objective = build_objective(ObjectiveConfig("bce"))
    module = PairLoss(network, objective, None, at_once, HardNegatives(sampling))
    loss, logits, chosen = module(features, left, right, different)
    space = relation.similarity_space(features)
    assert chosen.tolist() == slow_choice(sampling, space, left, right)
    partners = features[chosen]
    expected = relation(features[left], partners)
    torch.testing.assert_close(logits, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, objective(expected, different), atol=1e-6, rtol=1e-5)


def test_bfloat16_chooses_as_float32():
    sampling = SamplingConfig("classes", 5, 4, 2, 1)
    pairs = pairs_of(sampling)
    features = 10 + torch.randn(60, 64)  # so much alike that bfloat16 cannot rank their cosines
    expected = HardNegatives(sampling).choose(features, *pairs)
    with torch.autocast("cpu", torch.bfloat16):
        assert (HardNegatives(sampling).choose(features, *pairs) == expected).all()
