"""The loss of many pairs that share their images: one pass through the backbone, one back."""

from typing import Any

import torch
from torch import Tensor, nn

from model.network import ReSeND
from model.objectives import Objective
from model.shared_head import MAX_PAIRS, FirstBlock, first_block, pair_logits, with_means
from training.hard_negatives import HardNegatives


class PairLoss(nn.Module):
    """A network and its objective on pairs that share images.

    Args:
        network: its backbone sees each image once.
        objective: the loss of logits (P,), given which pairs are different.
        means_of: K, if partners may be means of the K images of a class; see ``with_means``.
        pairs_at_once: pairs of which the relational module keeps activations; None for all.
        hard_negatives: chooses partners by the features of the step; None for those of the plan.
    """

    def __init__(
        self,
        network: ReSeND,
        objective: Objective,
        means_of: int | None,
        pairs_at_once: int | None,
        hard_negatives: HardNegatives | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._objective, self._means_of = objective, means_of
        self._hard_negatives = hard_negatives
        self._at_once = min(pairs_at_once or MAX_PAIRS, MAX_PAIRS)

    def forward(
        self, images: Tensor, left: Tensor, right: Tensor, different: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss, a scalar; the logits, float32 (P,), which have no gradient; and the places
        of the partners, int64 (P,), which are ``right`` unless hard negatives were chosen.

        Args:
            images: (n, 3, H, W).
            left: int64 (P,), the place of each pair's first image.
            right: int64 (P,), that of its partner.
            different: bool (P,).
        """
        features, relation = self.network.backbone(images), self.network.relation
        if self._hard_negatives is not None:
            compared = relation.similarity_space(features.detach())
            right = self._hard_negatives.choose(compared, left, right)
        if self._means_of is not None:
            features = with_means(features, self._means_of)
        if len(left) <= self._at_once:
            logits = pair_logits(relation, first_block(relation, features), left, right).float()
            return self._objective(logits, different), logits.detach(), right
        parameters = tuple(relation.parameters())
        return *_InParts.apply(self, (left, right, different), features, *parameters), right

    def in_parts(
        self, pairs: tuple[Tensor, ...], features: Tensor, parameters: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Loss, logits, and the loss's gradients of ``features`` and of the relational module's
        ``parameters``; the activations of ``pairs_at_once`` pairs are alive at a time."""
        relation, total = self.network.relation, len(pairs[0])
        features = features.detach().requires_grad_()
        with torch.enable_grad():
            images = first_block(relation, features)
        leaves = FirstBlock(*(part.detach().requires_grad_() for part in images))
        of_leaves = [torch.zeros_like(leaf, dtype=torch.float32) for leaf in leaves]
        of_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        losses, logits = [], []
        for left, right, different in zip(*(p.split(self._at_once) for p in pairs), strict=True):
            with torch.enable_grad():
                part = pair_logits(relation, leaves, left, right).float()
                loss = self._objective(part, different) * (len(left) / total)
            found = torch.autograd.grad(loss, [*leaves, *parameters], allow_unused=True)
            _add([*of_leaves, *of_parameters], found)
            losses.append(loss.detach())
            logits.append(part.detach())
        of_images = [sums.to(leaf.dtype) for sums, leaf in zip(of_leaves, leaves, strict=True)]
        of_features, *rest = torch.autograd.grad(
            images, [features, *parameters], of_images, allow_unused=True
        )
        _add(of_parameters, rest)
        return torch.stack(losses).sum(), torch.cat(logits), [of_features, *of_parameters]


class _InParts(torch.autograd.Function):
    """``PairLoss.in_parts`` as one operation, whose gradients are found in the forward pass, since
    DistributedDataParallel takes each parameter's gradient once."""

    @staticmethod
    def forward(
        ctx: Any,
        module: PairLoss,
        pairs: tuple[Tensor, ...],
        features: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        loss, logits, gradients = module.in_parts(pairs, features, parameters)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(logits)
        return loss, logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.saved_tensors, gradients[0])


def _add(sums: list[Tensor], gradients: Any) -> None:
    """Add to each of the ``sums`` its gradient; None counts as zero."""
    for total, gradient in zip(sums, gradients, strict=True):
        if gradient is not None:
            total += gradient
