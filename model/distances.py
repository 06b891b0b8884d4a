"""Distances between features, the baselines that need no relational module."""

import torch
from torch import Tensor
from torch.nn import functional


def as_compared(features: Tensor, normalized: bool) -> Tensor:
    """``features`` (N, D), of length 1 if ``normalized``."""
    return functional.normalize(features, dim=1) if normalized else features


def euclidean(tests: Tensor, references: Tensor) -> Tensor:
    """Euclidean distances (T, M) of tests (T, D) and references (M, D)."""
    return torch.cdist(tests, references, compute_mode="donot_use_mm_for_euclid_dist")


def cosine(tests: Tensor, references: Tensor) -> Tensor:
    """Cosine distances 1 - cos (T, M) of tests (T, D) and references (M, D)."""
    return 1 - functional.normalize(tests, dim=1) @ functional.normalize(references, dim=1).T
