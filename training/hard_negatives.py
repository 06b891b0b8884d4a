"""Negative pairs of images that the network finds similar, in place of drawn ones."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config import SamplingConfig


@dataclass(frozen=True)
class HardNegatives:
    """Chooses partners of negative pairs within groups of classes.

    The first H = ``hard_negatives`` negatives of each positive pair keep their first image and take
    as partner an image of another class of the group with a high cosine to it. Images are in
    several positive pairs: the hard negatives of one image take its most similar ones in order,
    the first the most similar, the second the next.

    Args:
        sampling: how the plan draws the groups.
    """

    sampling: SamplingConfig

    @torch.no_grad()
    def choose(self, features: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The places of the partners, int64 (P,), where the plan has ``right``.

        A partner that is the mean of s images stays such a mean, from the chosen image on.

        Args:
            features: (n, D), between which the cosine is taken, of the images of complete groups.
            left, right: int64 (P,), the places of ``pipelines.class_plan.GroupPairs``.
        """
        shape, hard = (-1, 1 + self.sampling.negatives), slice(1, 1 + self.sampling.hard_negatives)
        anchor = left.view(shape)[:, hard]  # (positive pairs, H)
        nearest = self._nearest(features)
        turn = _occurrence(anchor.flatten()).view_as(anchor) % nearest.shape[1]
        chosen = right.clone()
        partner = chosen.view(shape)[:, hard]
        partner.copy_(nearest[anchor, turn] + partner // len(features) * len(features))
        return chosen

    def _nearest(self, features: Tensor) -> Tensor:
        """The places (n, k) of the most similar images of other classes of the same group, as many
        as an image can have hard negatives, or all."""
        sampling, per_group = self.sampling, self.sampling.images_per_group
        direction = functional.normalize(features.float(), dim=1).unflatten(0, (-1, per_group))
        with torch.autocast(features.device.type, enabled=False):
            cosine = direction @ direction.mT  # (groups, P * K, P * K)
        place = torch.arange(per_group, device=features.device)
        class_ = place // sampling.images
        cosine.masked_fill_(class_[:, None] == class_, -torch.inf)
        positives = sampling.images * (sampling.images - 1) // 2  # of a class
        count = positives * sampling.hard_negatives
        nearest = cosine.topk(min(count, per_group - sampling.images)).indices
        first = torch.arange(len(direction), device=features.device) * per_group
        return (nearest + first[:, None, None]).flatten(0, 1)


def _occurrence(values: Tensor) -> Tensor:
    """How often each of ``values`` (m,) occurs before, int64 (m,)."""
    ordered, order = values.sort(stable=True)
    before = torch.arange(len(values), device=values.device) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(0, order, before)
