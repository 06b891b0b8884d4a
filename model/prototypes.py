"""Class prototypes: the mean reference feature, or a few representative references."""

from typing import NamedTuple

import torch
from torch import Tensor

from model.distances import as_compared
from model.errors import EvaluatorError

_AT_ONCE = 4096  # features converted to float64 at a time


def class_means(
    features: Tensor, classes: Tensor, num_classes: int, *, normalized: bool = False
) -> Tensor:
    """The mean feature of each class, (K, D).

    Args:
        features: (R, D) reference features.
        classes: int64 (R,), the class of each, 0 .. K-1.
        num_classes: K.
        normalized: take the means of L2-normalized features.

    Raises:
        EvaluatorError: a class has no feature.
    """
    counts = _class_counts(classes, num_classes)
    sums = features.new_zeros(num_classes, features.shape[1], dtype=torch.float64)
    for some, of_class in zip(features.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True):
        sums.index_add_(0, of_class, as_compared(some, normalized).double())
    return (sums / counts[:, None]).to(features.dtype)


class Significant(NamedTuple):
    """M representative references, class by class.

    Attributes:
        positions: int64 (M,), positions among the references.
        classes: int64 (M,), their classes.
    """

    positions: Tensor
    classes: Tensor


def most_significant(
    features: Tensor, classes: Tensor, num_classes: int, count: int
) -> Significant:
    """Up to ``count`` representative references of each class.

    The first is the one nearest to the class mean; each further one is the farthest from those
    already chosen (greedy farthest-point selection, Euclidean).

    Args:
        features: (R, D) reference features.
        classes: int64 (R,), the class of each, 0 .. K-1.
        num_classes: K.
        count: references per class; a class with fewer contributes all of them.

    Raises:
        EvaluatorError: a class has no feature.
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; choose at least one prototype per class")
    means = class_means(features, classes, num_classes)
    chosen = []
    for number in range(num_classes):
        members = torch.nonzero(classes == number).flatten()
        chosen.append(members[_spread(features[members], means[number], count)])
    positions = torch.cat(chosen)
    return Significant(positions, classes[positions])


def _spread(features: Tensor, mean: Tensor, count: int) -> Tensor:
    order = [torch.linalg.vector_norm(features - mean, dim=1).argmin()]
    nearest = torch.full_like(features[:, 0], torch.inf)
    for _ in range(min(count, len(features)) - 1):
        distance = torch.linalg.vector_norm(features - features[order[-1]], dim=1)
        nearest = torch.minimum(nearest, distance)
        nearest[order[-1]] = -1  # of two equal features, the second may still be chosen
        order.append(nearest.argmax())
    return torch.stack(order)


def _class_counts(classes: Tensor, num_classes: int) -> Tensor:
    counts = torch.bincount(classes, minlength=num_classes)
    if (counts == 0).any():
        raise EvaluatorError(f"class {int(counts.argmin())} has no reference; add at least one")
    return counts
