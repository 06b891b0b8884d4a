"""Training objectives: push a pair's logit up when the classes differ, down when they match.

Every objective takes logits (B,) and ``different`` (B,) bool and returns the mean over the batch,
a scalar. arXiv 2307.06179 compares them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from model.config import ObjectiveConfig

Objective = Callable[[Tensor, Tensor], Tensor]


def build_objective(config: ObjectiveConfig) -> Objective:
    """The configured objective: (logits (B,), different (B,) bool) → scalar."""
    if config.name == "mse":
        return lambda logits, different: mse(logits, different, config.compression)
    if config.name == "hinge":
        return lambda logits, different: hinge(logits, different, config.margin)
    if config.name == "focal":
        return lambda logits, different: focal(logits, different, config.gamma)
    if config.name in ("bce", "cross_entropy"):  # on the difference of two logits they are equal
        return bce
    raise ValueError(f"there is no objective {config.name!r}")


def mse(logits: Tensor, different: Tensor, compression: float) -> Tensor:
    """mean((2 sigmoid(c z) - 1 - y)²) with y = +1 different, -1 same (ReSeND, ECCV 2022)."""
    return (2 * torch.sigmoid(compression * logits) - 1 - _sign(different, logits)).square().mean()


def hinge(logits: Tensor, different: Tensor, margin: float) -> Tensor:
    """mean(max(0, m - y z)) with y = +1 different, -1 same."""
    return functional.relu(margin - _sign(different, logits) * logits).mean()


def bce(logits: Tensor, different: Tensor) -> Tensor:
    """mean(-log sigmoid(y z)) with y = +1 different, -1 same."""
    return functional.softplus(-_sign(different, logits) * logits).mean()


def focal(logits: Tensor, different: Tensor, gamma: float) -> Tensor:
    """mean(-(1 - p)^gamma log p), where p = sigmoid(y z) is the probability given to the true
    answer (arXiv 1708.02002)."""
    truth = _sign(different, logits) * logits
    return (torch.sigmoid(-truth).pow(gamma) * functional.softplus(-truth)).mean()


def _sign(different: Tensor, like: Tensor) -> Tensor:
    return different.to(like.dtype) * 2 - 1
