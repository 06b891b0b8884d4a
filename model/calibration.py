"""Scale and offset of a similarity start, fitted to pairs of training images.

The starting logit is offset - scale * cosine, with constants that suit cosines up to 1. In a
whitened space of many dimensions cosines are close to 0 even within a class, so that with those
constants every pair starts as different, and the relation learns the constants before anything
else.
"""

from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from model.config import ObjectiveConfig
from model.relation import RelationalTransformer

_ANCHORS = 2048
# Weak enough to change nothing where classes overlap; separable ones would have no finite scale.
_INVERSE_PENALTY = 1000.0


class Pairs(NamedTuple):
    """P pairs of images.

    Attributes:
        left, right: int64 (P,), their numbers.
        different: bool (P,), whether they differ in class.
    """

    left: Tensor
    right: Tensor
    different: Tensor


@torch.no_grad()
def calibrate(
    relation: RelationalTransformer,
    features: Tensor,
    classes: Tensor,
    negatives: int,
    objective: ObjectiveConfig,
) -> None:
    """Make the starting logit of ``relation``, as the objective reads it, the log-odds that two
    images differ in class: a logistic regression on the cosines of drawn pairs.

    Args:
        relation: with a similarity start, whose whitening is final.
        features: (N, D), of training images.
        classes: int64 (N,).
        negatives: negative pairs per positive pair in training.
        objective: of the training; that of ``mse`` multiplies the logit by its compression.
    """
    pairs = draw_pairs(classes.cpu(), negatives)
    space = functional.normalize(relation.similarity_space(features), dim=1).cpu()
    cosine = (space[pairs.left] * space[pairs.right]).sum(dim=1)
    fit = LogisticRegression(C=_INVERSE_PENALTY).fit(
        cosine[:, None].numpy(), pairs.different.numpy()
    )
    slope = objective.compression if objective.name == "mse" else 1.0
    relation.similarity_scale.fill_(-float(fit.coef_[0, 0]) / slope)
    relation.similarity_offset.fill_(float(fit.intercept_[0]) / slope)


def draw_pairs(classes: Tensor, negatives: int) -> Pairs:
    """Pairs of some images of ``classes``, int64 (N,) on the CPU: each with another of its class
    and ``negatives`` of other classes; always the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(classes), generator=generator)
    order = order[classes[order].argsort(stable=True)]
    left, right = order[:-1], order[1:]
    same = classes[left] == classes[right]
    left, right = left[same], right[same]
    chosen = torch.randperm(len(left), generator=generator)[:_ANCHORS]
    left, right = left[chosen], right[chosen]
    anchors = left.repeat(negatives)
    others = torch.randint(len(classes), (len(anchors),), generator=generator)
    apart = classes[anchors] != classes[others]
    return Pairs(
        torch.cat((left, anchors[apart])),
        torch.cat((right, others[apart])),
        torch.arange(len(left) + int(apart.sum())) >= len(left),
    )
