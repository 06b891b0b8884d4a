"""Tests and references as evaluators compare them, raw or L2-normalized, and what several read."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model.distances import as_compared
from model.errors import EvaluatorError
from model.prototypes import class_means
from model.whitening import ResidualMoments, ledoit_wolf

_AT_ONCE = 1024  # features converted to float64 at a time
_SINGULAR = 1e-6  # a smaller ratio of two standard deviations is rounding


@dataclass(frozen=True)
class References:
    """Reference images of the known classes.

    Attributes:
        features: float32 (R, D).
        classes: int64 (R,), 0 .. K-1; each class occurs.
        num_classes: K.
    """

    features: Tensor
    classes: Tensor
    num_classes: int


@dataclass(frozen=True)
class FeatureSpace:
    """T tests and R references of K classes; what is derived from them is computed once.

    Beside its results, it takes the memory of a few thousand features and of four D x D matrices
    in float64; features are normalized as many at a time.

    Attributes:
        tests: float32 (T, D), of any length.
        references: of any length.
        normalized: compare features of length 1.
    """

    tests: Tensor
    references: References
    normalized: bool = False

    @cached_property
    def means(self) -> Tensor:
        """(K, D), the class means of the references."""
        known = self.references
        return class_means(
            known.features, known.classes, known.num_classes, normalized=self.normalized
        )

    @cached_property
    def to_means(self) -> Tensor:
        """Float64 (T, K), squared Mahalanobis distances to the class means under the within-class
        covariance of the references, with Ledoit-Wolf shrinkage (2004) towards a multiple of the
        identity; arXiv 1807.03888 uses it without shrinkage.

        EvaluatorError if the references of the same class differ in too few ways.
        """
        return self._squared_mahalanobis(self.means, self._within)

    @cached_property
    def to_center(self) -> Tensor:
        """Float64 (T, 1), the same to the mean of all references under the covariance of all
        references, whatever their class (arXiv 2106.09022)."""
        counts = torch.bincount(self.references.classes).double()
        means = self.means.double()
        center = (counts / counts.sum()) @ means
        from_center = means - center
        # the scatter of all is that within the classes and that of their means
        scatter = self._within.scatter + (from_center.T * counts) @ from_center
        fourth = sum(
            (as_compared(some, self.normalized).double() - center).square().sum(1).square().sum()
            for some in self.references.features.split(_AT_ONCE)
        )
        moments = ResidualMoments(self._within.count, scatter, torch.as_tensor(fourth))
        return self._squared_mahalanobis(center[None], moments)

    @cached_property
    def _within(self) -> ResidualMoments:
        known = self.references
        return ResidualMoments.of(
            known.features, known.classes, self.means, normalized=self.normalized
        )

    def _squared_mahalanobis(self, means: Tensor, moments: ResidualMoments) -> Tensor:
        factor = _covariance_factor(moments)
        white_means = _whitened(means, factor)
        parts = []
        for some in self.tests.split(_AT_ONCE):
            white = _whitened(as_compared(some, self.normalized), factor)
            parts.append(torch.cdist(white, white_means).square())
        return torch.cat(parts)


def _whitened(features: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, features.double().T, upper=False).T


def _covariance_factor(moments: ResidualMoments) -> Tensor:
    """L, lower triangular, where L L^T is the Ledoit-Wolf covariance of the residuals."""
    if moments.fourth:
        factor, failed = torch.linalg.cholesky_ex(ledoit_wolf(moments))
        scales = factor.diagonal()
        if not failed and scales.min() > _SINGULAR * scales.max():
            return factor
    raise EvaluatorError(
        "the references of the same class differ in too few ways, so there is no covariance for "
        "mahalanobis; give more references or leave it out"
    )
