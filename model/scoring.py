"""From relational logits to normality: the one place where the sign turns.

The relational module's logit is high for *different* classes. Normality is high for *known*.
"""

import torch
from torch import Tensor
from torch.nn import functional

from model.relation import RelationalTransformer


def max_softmax(logits: Tensor) -> Tensor:
    """Normality (T,) of logits (T, K) to K prototypes: the largest softmax(-z) over the K."""
    return torch.softmax(-logits, dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """Normality (T,) of logits (T, K) to K prototypes: the largest -z over the K."""
    return (-logits).amax(dim=1)


def cosine_logits(tests: Tensor, references: Tensor) -> Tensor:
    """-cos (T, K) of tests (T, D) and references (K, D): like a relation, low for alike."""
    return -functional.normalize(tests, dim=1) @ functional.normalize(references, dim=1).T


@torch.no_grad()
def relational_logits(
    relation: RelationalTransformer, tests: Tensor, references: Tensor, *, pairs: int = 4096
) -> Tensor:
    """Logits (T, K) of every test (T, D) against every reference (K, D).

    ``pairs`` bounds how many pairs are held at a time.
    """
    step = max(1, pairs // len(references))
    rows = []
    for chunk in tests.split(step):
        a = chunk.repeat_interleave(len(references), dim=0)
        b = references.repeat(len(chunk), 1)
        rows.append(relation(a, b).view(len(chunk), -1))
    return torch.cat(rows)
