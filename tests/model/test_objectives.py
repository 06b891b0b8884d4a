import math

import pytest
import torch
from torch.nn import functional

from model.config import ObjectiveConfig
from model.objectives import build_objective

LOGITS = torch.tensor([0.3, -0.2, 0.05, -1.5])
DIFFERENT = torch.tensor([True, True, False, False])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def truths() -> list[float]:
    """The logit of each pair's truth: high where the model is right."""
    return [z if d else -z for z, d in zip(LOGITS.tolist(), DIFFERENT.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("config", "term"),
    [
        (ObjectiveConfig(), lambda t: (2 * sigmoid(10 * t) - 2) ** 2),
        (ObjectiveConfig(compression=1.0), lambda t: (2 * sigmoid(t) - 2) ** 2),
        (ObjectiveConfig("hinge", margin=0.1), lambda t: max(0.0, 0.1 - t)),
        (ObjectiveConfig("bce"), lambda t: -math.log(sigmoid(t))),
        (ObjectiveConfig("focal"), lambda t: -((1 - sigmoid(t)) ** 3) * math.log(sigmoid(t))),
    ],
)
def test_objective_is_the_mean_of_its_formula(config, term):
    expected = sum(term(t) for t in truths()) / 4
    assert build_objective(config)(LOGITS, DIFFERENT).item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_on_the_difference_is_that_of_two_logits():
    pair = torch.randn(4, 2)
    expected = functional.cross_entropy(pair, DIFFERENT.long())
    objective = build_objective(ObjectiveConfig("cross_entropy"))
    torch.testing.assert_close(objective(pair[:, 1] - pair[:, 0], DIFFERENT), expected)


@pytest.mark.parametrize("name", ["mse", "hinge", "bce", "cross_entropy", "focal"])
def test_extreme_logits_keep_loss_and_gradient_finite(name):
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = build_objective(ObjectiveConfig(name))(logits, DIFFERENT)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "l1"}, "choose mse, hinge"),
        ({"margin": 0.0}, "objective.margin is 0.0"),
        ({"compression": float("nan")}, "objective.compression"),
    ],
)
def test_unusable_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**options)
