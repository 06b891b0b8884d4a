"""Distances between features, the baselines that need no relational module."""

from typing import NamedTuple

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn import functional

from model.errors import EvaluatorError

_TESTS_AT_ONCE = 1024
_SINGULAR = 1e-6  # a smaller ratio of two standard deviations is rounding


def euclidean(tests: Tensor, references: Tensor) -> Tensor:
    """Euclidean distances (T, M) of tests (T, D) and references (M, D)."""
    return torch.cdist(tests, references, compute_mode="donot_use_mm_for_euclid_dist")


def cosine(tests: Tensor, references: Tensor) -> Tensor:
    """Cosine distances 1 - cos (T, M) of tests (T, D) and references (M, D)."""
    return 1 - functional.normalize(tests, dim=1) @ functional.normalize(references, dim=1).T


def mahalanobis(tests: Tensor, features: Tensor, classes: Tensor, means: Tensor) -> Tensor:
    """Squared Mahalanobis distances (T, K) to the class means under one shared covariance.

    The covariance is the within-class covariance of the references, with Ledoit-Wolf shrinkage
    (2004) towards a multiple of the identity; arXiv 1807.03888 uses it without shrinkage.

    Args:
        tests: (T, D) features.
        features: (R, D) reference features.
        classes: int64 (R,), their classes.
        means: (K, D), the class means.

    Raises:
        EvaluatorError: the references of the same class differ in too few ways.
    """
    return _squared_mahalanobis(tests, means, features - means[classes]).to(tests.dtype)


def relative_mahalanobis(tests: Tensor, features: Tensor, classes: Tensor, means: Tensor) -> Tensor:
    """``mahalanobis`` minus the same distance to the mean of all references under the covariance
    of all references whatever their class, (T, K) (arXiv 2106.09022, there without shrinkage).

    Raises:
        EvaluatorError: see ``mahalanobis``.
    """
    to_classes = _squared_mahalanobis(tests, means, features - means[classes])
    center = features.double().mean(dim=0, keepdim=True)
    to_center = _squared_mahalanobis(tests, center, features.double() - center)
    return (to_classes - to_center).to(tests.dtype)


def _squared_mahalanobis(tests: Tensor, means: Tensor, residuals: Tensor) -> Tensor:
    """Float64 (T, M): from ``tests`` (T, D) to ``means`` (M, D) under the Ledoit-Wolf covariance of
    ``residuals`` (R, D), whose mean is zero."""
    factor = _covariance_factor(residuals.double().cpu()).to(tests.device)
    white_tests, white_means = (
        torch.linalg.solve_triangular(factor, values.double().T, upper=False).T
        for values in (tests, means)
    )
    return torch.cdist(white_tests, white_means).square()


def _covariance_factor(residuals: Tensor) -> Tensor:
    """L, lower triangular, where L L^T is the Ledoit-Wolf covariance of ``residuals`` (R, D)."""
    if residuals.any():
        covariance, _ = ledoit_wolf(residuals.numpy(), assume_centered=True)
        factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
        scales = factor.diagonal()
        if not failed and scales.min() > _SINGULAR * scales.max():
            return factor
    raise EvaluatorError(
        "the references of the same class differ in too few ways, so there is no covariance for "
        "mahalanobis; give more references or leave it out"
    )


class Nearest(NamedTuple):
    """The k nearest references of T tests, by ascending distance.

    Attributes:
        distances: float32 (T, k), Euclidean.
        positions: int64 (T, k), positions among the references.
    """

    distances: Tensor
    positions: Tensor


def nearest(tests: Tensor, references: Tensor, count: int) -> Nearest:
    """The ``count`` references (M, D) nearest to each of ``tests`` (T, D)."""
    found = [
        torch.topk(euclidean(chunk, references), count, dim=1, largest=False)
        for chunk in tests.split(_TESTS_AT_ONCE)
    ]
    return Nearest(*(torch.cat(parts) for parts in zip(*found, strict=True)))
