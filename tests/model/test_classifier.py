"""The classifier of the known classes, trained on the features of the references."""

import numpy as np
import pytest
import torch

from model.classifier import BATCH_SIZE, draw_batches, train_classifier
from model.errors import EvaluatorError

K, D, R = 3, 8, 30
CLASSES = torch.arange(R) % K
FEATURES = 5 * torch.eye(K, D)[CLASSES] + torch.randn(
    R, D, generator=torch.Generator().manual_seed(0)
)


def test_it_learns_what_slow_softmax_regression_learns():
    x, y = FEATURES.double().numpy(), np.eye(K)[CLASSES]
    weight, bias = np.zeros((K, D)), np.zeros(K)
    velocity = [np.zeros_like(weight), np.zeros_like(bias)]
    for batch in draw_batches(R, 20).numpy():
        logits = x[batch] @ weight.T + bias
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        slope = (softmax - y[batch]) / len(batch)
        # SGD as in PyTorch: weight decay joins the gradient, momentum sums gradients.
        gradients = [slope.T @ x[batch] + 5e-4 * weight, slope.sum(axis=0) + 5e-4 * bias]
        velocity = [0.9 * v + g for v, g in zip(velocity, gradients)]
        weight, bias = weight - 0.003 * velocity[0], bias - 0.003 * velocity[1]
    trained = train_classifier(FEATURES, CLASSES, K, 20)
    np.testing.assert_allclose(trained.weight, weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.bias, bias, rtol=1e-4, atol=1e-6)


def test_it_recognizes_separate_classes_after_the_papers_budget():
    trained = train_classifier(FEATURES, CLASSES, K, 100)
    assert torch.equal(trained.logits(FEATURES).argmax(dim=1), CLASSES)
    assert not trained.weight.requires_grad


def test_training_again_gives_the_same_bits_even_where_gradients_are_off():
    with torch.no_grad():
        again = train_classifier(FEATURES, CLASSES, K, 10)
    trained = train_classifier(FEATURES, CLASSES, K, 10)
    assert torch.equal(trained.weight, again.weight)
    assert torch.equal(trained.bias, again.bias)


@pytest.mark.parametrize("count", [1, 5, 64, 1000])
def test_every_reference_is_drawn_equally_often(count):
    steps = 25
    drawn = draw_batches(count, steps)
    assert drawn.shape == (steps, BATCH_SIZE)
    times = torch.bincount(drawn.flatten(), minlength=count)
    assert len(times) == count
    assert times.max() - times.min() <= 1


def test_one_class_is_refused():
    with pytest.raises(EvaluatorError, match="two known classes and there is one"):
        train_classifier(FEATURES, torch.zeros(R, dtype=torch.int64), 1, 10)
