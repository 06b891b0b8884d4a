"""Configuration of networks, objectives and evaluators; importing it loads no torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

HeadName = Literal["linear", "mlp"]
ObjectiveName = Literal["mse", "hinge", "bce", "cross_entropy", "focal"]

RELATIONAL = (
    "relation-softmax",
    "relation-logit",
    "significant-softmax",
    "significant-logit",
    "relation-knn",
)
BASELINES = ("cosine", "euclidean", "mahalanobis", "knn", "knn-normalized")
EVALUATORS = RELATIONAL + BASELINES  # the keys of model.evaluators.EVALUATORS

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class ModelConfig:
    """What ``build_network`` builds; the defaults are the paper's.

    Attributes:
        backbone: the name of a timm model.
        embed_dim: width of the relational module's tokens.
        depth: transformer blocks of the relational module.
        num_heads: attention heads of each block.
        head: ``linear`` (the paper) or ``mlp`` (the follow-up, arXiv 2307.06179).
        num_logits: outputs of the head, 1 or 2 (same, different).
        similarity_start: begin at cosine similarity instead of at random.
    """

    backbone: str = "resnet18"
    embed_dim: int = 768
    depth: int = 4
    num_heads: int = 12
    head: HeadName = "linear"
    num_logits: int = 1
    similarity_start: bool = False

    def __post_init__(self) -> None:
        for name, largest in (
            ("embed_dim", 8192),
            ("depth", 128),
            ("num_heads", 512),
            ("num_logits", 2),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not 1 <= value <= largest:
                raise ValueError(
                    f"model.{name} must be a whole number from 1 to {largest}, not {value}"
                )


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which objective, and the number that shapes it.

    Attributes:
        name: ``mse`` is the paper's, ``hinge`` the follow-up's choice. ``cross_entropy`` is the
            softmax cross-entropy of a head with two logits; the network returns their
            difference, on which it equals ``bce``. ``focal`` is the focal form of both.
        compression: c of ``mse``, how steep the sigmoid is.
        margin: m of ``hinge``.
        gamma: exponent of ``focal``.

    Raises:
        ValueError: an unknown name, or a number that is not positive.
    """

    name: ObjectiveName = "mse"
    compression: float = 10.0
    margin: float = 0.01
    gamma: float = 3.0

    def __post_init__(self) -> None:
        names = get_args(ObjectiveName)
        if self.name not in names:
            raise ValueError(f"objective {self.name!r} is unknown; choose {', '.join(names)}")
        for field in ("compression", "margin", "gamma"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(
                    f"objective.{field} is {getattr(self, field)}; it must be finite and > 0"
                )


@dataclass(frozen=True)
class EvaluatorOptions:
    """Numbers that evaluators take.

    Attributes:
        significant: references per class for ``significant-*``.
        neighbors: k of the k-NN scores.
        memory: bytes for the intermediate values of relational scoring; None takes
            ``model.pairwise.tile_memory`` of the device.
        precision: of the relational module's matrix products.
    """

    significant: int = 5
    neighbors: int = 50
    memory: int | None = None
    precision: Precision = "float32"
