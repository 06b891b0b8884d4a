"""Scale and offset of a similarity start, fitted to training pairs."""

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from model.relation import RelationalTransformer


@torch.no_grad()
def calibrate(
    relation: RelationalTransformer, left: Tensor, right: Tensor, different: Tensor, slope: float
) -> None:
    """Make ``slope`` times the starting logit the log-odds that two images differ in class.

    The similarity start is offset - scale * cosine, whose constants suit cosines up to 1. Cosines
    of whitened features are close to 0 even within a class, so that all pairs start as different.
    Logistic regression of ``different`` on the cosines gives the constants instead.

    Args:
        relation: with a similarity start; the whitening is final.
        left, right: (P, D), the features of training pairs.
        different: bool (P,).
        slope: by which the objective multiplies the logit.
    """
    cosine = functional.cosine_similarity(
        relation.similarity_space(left), relation.similarity_space(right)
    )
    fit = LogisticRegression(C=1e6).fit(cosine[:, None].cpu().numpy(), different.cpu().numpy())
    relation.similarity_scale.fill_(-float(fit.coef_[0, 0]) / slope)
    relation.similarity_offset.fill_(float(fit.intercept_[0]) / slope)
