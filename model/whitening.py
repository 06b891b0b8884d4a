"""The linear map after which features of one class spread equally in all directions.

Cosine similarity after this map is the closed form of a learned relation: it is the space of linear
discriminant analysis, which speaker verification uses before comparing by cosine. It needs the
features of the training classes once, and none of the known classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.distances import as_compared
from model.errors import ModelError

_AT_ONCE = 4096  # features converted to float64 at a time
# Below this ratio of two standard deviations, rounding decides; Ledoit-Wolf stays far above it
# unless there are only a few features.
_SINGULAR = 1e-6


class Whitening(nn.Module):
    """x -> matrix (x - mean), in float32 whatever the precision around it.

    ``whitening`` gives its values; before that it is the identity. They are buffers, which no
    optimizer changes: a map that is trained fits the training classes and serves new ones less.

    Args:
        width: D, the width of a feature.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    def forward(self, features: Tensor) -> Tensor:
        """Whitened features, float32 (N, D), of ``features`` (N, D)."""
        with torch.autocast("cuda" if features.is_cuda else "cpu", enabled=False):
            return (features.float() - self.mean) @ self.matrix.T


@dataclass(frozen=True)
class ResidualMoments:
    """Sums over n residuals r, the differences of features from the means of their classes.

    The sums of several parts of the features add up to those of all of them.

    Attributes:
        count: float64 (), n.
        scatter: float64 (D, D), the sum of r r^T.
        fourth: float64 (), the sum of |r|^4.
    """

    count: Tensor
    scatter: Tensor
    fourth: Tensor

    @staticmethod
    def of(
        features: Tensor, classes: Tensor, means: Tensor, *, normalized: bool = False
    ) -> "ResidualMoments":
        """The sums over ``features`` (n, D), L2-normalized if so asked, of ``classes``, int64 (n,),
        with means (K, D)."""
        width = features.shape[1]
        moments = ResidualMoments(
            *(features.new_zeros(shape, dtype=torch.float64) for shape in ((), (width, width), ()))
        )
        for some, of_class in zip(features.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True):
            residuals = as_compared(some, normalized).double() - means[of_class].double()
            moments.count.add_(len(residuals))
            moments.scatter.addmm_(residuals.T, residuals)
            moments.fourth.add_(residuals.square().sum(dim=1).square().sum())
        return moments


def ledoit_wolf(moments: ResidualMoments) -> Tensor:
    """The covariance, float64 (D, D), of residuals with mean zero, shrunk towards a multiple of the
    identity (Ledoit and Wolf, 2004), as ``sklearn.covariance.ledoit_wolf`` computes it from the
    residuals themselves."""
    width = len(moments.scatter)
    empirical = moments.scatter / moments.count
    target = torch.eye(width, dtype=empirical.dtype, device=empirical.device)
    target = target * empirical.trace() / width
    squared_norm = empirical.square().sum()
    variance = (moments.fourth / moments.count - squared_norm) / moments.count
    distance = (empirical - target).square().sum()
    shrinkage = 1.0 if variance >= distance else float(variance / distance)
    return (1 - shrinkage) * empirical + shrinkage * target


def whitening(mean: Tensor, moments: ResidualMoments) -> Whitening:
    """The map with matrix L^-1, where L L^T is the Ledoit-Wolf covariance of the residuals.

    Args:
        mean: (D,), the mean of the features.
        moments: of their residuals.

    Raises:
        ModelError: the covariance is singular, or there is no feature.
    """
    factor, failed = torch.linalg.cholesky_ex(ledoit_wolf(moments))
    scales = factor.diagonal()
    if failed or not scales.min() > _SINGULAR * scales.max():
        raise ModelError(
            "the features of the same class differ in too few ways for a within-class covariance; "
            "give more images of each class"
        )
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    learned = Whitening(len(mean)).to(mean.device)
    learned.mean.copy_(mean)
    learned.matrix.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
    return learned
