"""From logits and distances to normality: the one place where the sign is flipped.

The relational logit, like a distance, is high for *different* classes. Normality is high for
*known*.
"""

import torch
from torch import Tensor


def normality(distances: Tensor) -> Tensor:
    """Normality of distances or relational logits of any shape: larger distance, lower
    normality."""
    return -distances


def max_softmax(distances: Tensor) -> Tensor:
    """Normality (T,) of distances (T, K) to K classes: the largest softmax(-z) over the K."""
    return torch.softmax(normality(distances), dim=1).amax(dim=1)


def max_logit(distances: Tensor) -> Tensor:
    """Normality (T,) of distances (T, K) to K classes: the largest -z over the K."""
    return normality(distances).amax(dim=1)


def mean_of_best(distances: Tensor) -> Tensor:
    """Normality (T,) of distances (T, k) to the k best references: the mean of -z."""
    return normality(distances).mean(dim=1)
