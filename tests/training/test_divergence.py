import pytest
import torch

from training.divergence import first_bad_step
from training.metrics import StepMetrics


def measured(*losses, norms=(1.0, 1.0, 1.0)):
    return StepMetrics(torch.tensor(losses), torch.tensor(norms), torch.zeros(3, 1, 2))


def test_finite_losses_within_the_limit_are_good():
    assert first_bad_step(measured(0.5, 9.9, 10.0), max_loss=10) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 10.1])
def test_the_first_bad_loss_is_found(bad):
    assert first_bad_step(measured(0.5, bad, bad), max_loss=10) == 1


def test_a_gradient_that_is_not_finite_is_bad():
    nan = float("nan")
    assert first_bad_step(measured(0.5, 0.5, 0.5, norms=(1.0, 1.0, nan)), max_loss=10) == 2
