"""The relational module with each image projected once equals its plain forward, gradients too."""

import pytest
import torch

from model.config import ModelConfig
from model.relation import RelationalTransformer
from model.shared_head import first_block, linear, pair_logits, with_means


def relation(feature_dim=16, **options) -> RelationalTransformer:
    torch.manual_seed(0)
    module = RelationalTransformer(feature_dim, ModelConfig(**options))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if feature_dim == 16 else 0.03)
    for buffer in module.buffers():
        torch.nn.init.normal_(buffer)
    return module


def logits_and_gradients(score, module, features):
    features = features.clone().requires_grad_()
    logits = score(features)
    weights = torch.linspace(-1, 1, len(logits))
    gradients = torch.autograd.grad((logits * weights).sum(), [features, *module.parameters()])
    return logits, gradients


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"depth": 2},
        {"depth": 3, "head": "mlp"},
        {"depth": 2, "num_logits": 2, "similarity_start": True},
        {"depth": 2, "similarity_start": "whitened"},
        {"embed_dim": 768, "depth": 4, "num_heads": 12, "feature_dim": 512},
    ],
)
def test_logits_and_gradients_are_those_of_the_plain_forward(options):
    module = relation(**{"embed_dim": 24, "num_heads": 3} | options)
    features = torch.randn(6, options.get("feature_dim", 16))
    left, right = torch.tensor([0, 0, 1, 4, 5, 2, 0]), torch.tensor([1, 2, 3, 0, 1, 4, 5])
    plain, expected = logits_and_gradients(lambda x: module(x[left], x[right]), module, features)
    shared, found = logits_and_gradients(
        lambda x: pair_logits(module, first_block(module, x), left, right), module, features
    )
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        atol = min(1e-5, 1e-4 * theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4)


def test_a_linear_layer_of_a_cpu_has_the_gradients_of_torchs():
    torch.manual_seed(0)
    values = torch.randn(5, 3, 7), torch.randn(4, 7), torch.randn(4)
    found = []
    for apply in (linear, torch.nn.functional.linear):
        inputs = [value.clone().requires_grad_() for value in values]
        y = apply(*inputs)
        found.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_means_are_of_consecutive_images_of_one_class():
    features = torch.randn(6, 5)  # two classes of three
    table = with_means(features, 3)
    assert torch.equal(table[:6], features)
    expected = [features[[a, b]].mean(0) for a, b in [(0, 1), (1, 2), (2, 0)]]
    expected += [features[[a, b]].mean(0) for a, b in [(3, 4), (4, 5), (5, 3)]]
    torch.testing.assert_close(table[6:], torch.stack(expected))
