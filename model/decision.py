"""A detector's answer as modules of tensors alone, which ``torch.export`` can trace.

They compare with class means, which hold nothing of single images and take the least memory. What
the relational module needs of the means is computed once and becomes part of the module.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.config import BY_MEANS, WHITENED_COSINE, EvaluatorOptions, Preprocessing
from model.errors import EvaluatorError
from model.intermediates import check_distinguishes, check_top
from model.relation import RelationalTransformer
from model.scoring import max_logit, max_softmax
from model.shared_head import FirstBlock, all_logits, first_block, pair_logits

M = TypeVar("M", bound=nn.Module)


class FeatureDecision(nn.Module):
    """Compares features with the class means, as ``model.evaluators`` does.

    Args:
        evaluator: one of ``BY_MEANS``.
        relation: the relational module, in evaluation mode; None for a bare backbone.
        means: float32 (K, D), the mean feature of each known class.
        options: ``top`` and ``whitening`` are used, as by ``model.evaluators``.

    Raises:
        EvaluatorError: the evaluator needs more than class means, or for relation-softmax more than
            one class; ``top`` is out of range or given to an evaluator that compares by distances;
            or a relational module or a whitening is missing.
    """

    def __init__(
        self,
        evaluator: str,
        relation: RelationalTransformer | None,
        means: Tensor,
        options: EvaluatorOptions,
    ) -> None:
        super().__init__()
        if evaluator not in BY_MEANS:
            raise EvaluatorError(
                f"{evaluator} compares with single references, and this needs class means alone; "
                f"choose from {', '.join(BY_MEANS)}"
            )
        self._softmax = evaluator == "relation-softmax"
        check_distinguishes(evaluator, min(options.top or len(means), len(means)))
        self._distances: nn.Module
        if evaluator.startswith("relation-"):
            check_top(options.top, len(means))
            self._distances = _Relation(_needed(relation, evaluator), means, options.top)
        elif options.top is not None:
            raise EvaluatorError(f"top is for relational evaluators, and this one is {evaluator}")
        elif evaluator == "euclidean":
            self._distances = _Euclidean(means)
        elif evaluator == WHITENED_COSINE:
            stored = None if relation is None else relation.whitening
            self._distances = _Cosine(means, _needed(options.whitening or stored, evaluator))
        else:
            self._distances = _Cosine(means, nn.Identity())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Normality, float32 (N,), high for known, and the nearest known class, int64 (N,), of
        ``features``, float32 (N, D)."""
        distances = self._distances(features)
        normality = max_softmax(distances) if self._softmax else max_logit(distances)
        return normality, distances.argmin(dim=1)


class ImageDecision(nn.Module):
    """A backbone and a ``FeatureDecision``.

    Args:
        backbone: maps images (N, 3, S, S) to features (N, D), in evaluation mode.
        preprocessing: its input's.
        decide: the decision from features.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, preprocessing: Preprocessing, decide: FeatureDecision
    ) -> None:
        super().__init__()
        self.backbone, self.decide = backbone, decide
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name))
            self.register_buffer(name, values[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same of ``images``, uint8 (N, 3, S, S), RGB, resized and cropped."""
        return self.decide(self.backbone(self.normalized(images)))

    def normalized(self, images: Tensor) -> Tensor:
        """The backbone's input, float32 (N, 3, S, S)."""
        # float() is traced with a check of the type, so that a program refuses other images
        return (images.float() / 255 - self.mean) / self.std


class _Cosine(nn.Module):
    """Cosine distances (N, K) after the map ``space``."""

    means: Tensor

    def __init__(self, means: Tensor, space: nn.Module) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("means", functional.normalize(space(means), dim=1))

    def forward(self, features: Tensor) -> Tensor:
        return 1 - functional.normalize(self.space(features), dim=1) @ self.means.T


class _Euclidean(nn.Module):
    """Euclidean distances (N, K)."""

    means: Tensor

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)

    def forward(self, features: Tensor) -> Tensor:
        return (features[:, None] - self.means).square().sum(dim=2).sqrt()


class _Relation(nn.Module):
    """Relational logits (N, K); with ``top``, infinite to classes beyond the nearest by cosine."""

    def __init__(self, relation: RelationalTransformer, means: Tensor, top: int | None) -> None:
        super().__init__()
        self.relation = relation
        self.num_classes = len(means)
        self.top = None if top in (None, len(means)) else top
        for name, value in first_block(relation, means)._asdict().items():
            # a copy, so that no buffer is a view of a larger tensor
            self.register_buffer(name, value.clone(memory_format=torch.contiguous_format))
        self.cosine = _Cosine(means, nn.Identity()) if self.top else None

    def forward(self, features: Tensor) -> Tensor:
        images = first_block(self.relation, features)
        means = FirstBlock(*(getattr(self, name) for name in FirstBlock._fields))
        if self.cosine is None:
            return all_logits(self.relation, images, means)
        to_means = self.cosine(features)
        chosen = to_means.topk(self.top, dim=1, largest=False).indices
        both = FirstBlock(*map(torch.cat, zip(means, images, strict=True)))
        rows = self.num_classes + torch.arange(features.shape[0], device=features.device)
        left = rows[:, None].expand_as(chosen).flatten()
        logits = pair_logits(self.relation, both, left, chosen.flatten()).view_as(chosen)
        return torch.full_like(to_means, torch.inf).scatter(1, chosen, logits)


def _needed(module: M | None, evaluator: str) -> M:
    if module is None:
        raise EvaluatorError(f"{evaluator} needs what the network does not have; choose cosine")
    return module
