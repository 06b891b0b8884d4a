"""A linear classifier of the known classes on features, trained on the references.

The recipe is that of the paper's table 3: SGD with momentum on 64 references a step. The weights
begin at zero, so that they depend on the references and their order alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.errors import EvaluatorError

BATCH_SIZE = 64
_LEARNING_RATE = 0.003
_MOMENTUM = 0.9
_WEIGHT_DECAY = 5e-4
_SEED = 0


@dataclass(frozen=True)
class LinearClassifier:
    """logits = features @ weight^T + bias.

    Attributes:
        weight: float32 (K, D).
        bias: float32 (K,).
    """

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Class logits (N, K), high for the likely class, of ``features`` (N, D)."""
        return functional.linear(features, self.weight, self.bias)


def train_classifier(
    features: Tensor, classes: Tensor, num_classes: int, steps: int
) -> LinearClassifier:
    """The classifier of the references after ``steps`` steps of softmax regression.

    Args:
        features: float32 (R, D), of the references.
        classes: int64 (R,), their classes 0 .. K-1.
        num_classes: K.
        steps: of SGD; each takes ``BATCH_SIZE`` references.

    Raises:
        EvaluatorError: there is only one class.
    """
    layer = zero_layer(features.shape[1], num_classes).to(features.device)
    optimizer = sgd(layer.parameters())
    with torch.enable_grad():
        for batch in draw_batches(len(features), steps).to(features.device):
            optimizer.zero_grad()
            functional.cross_entropy(layer(features[batch]), classes[batch]).backward()
            optimizer.step()
    return LinearClassifier(layer.weight.detach(), layer.bias.detach())


def zero_layer(width: int, num_classes: int) -> nn.Linear:
    """A linear layer from D = ``width`` to K = ``num_classes`` values, all of its weights zero.

    Raises:
        EvaluatorError: there is only one class.
    """
    if num_classes < 2:
        raise EvaluatorError(
            "a classifier needs two known classes and there is one; leave out the evaluators that "
            "need a classifier"
        )
    layer = nn.Linear(width, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the recipe."""
    return torch.optim.SGD(
        parameters, lr=_LEARNING_RATE, momentum=_MOMENTUM, weight_decay=_WEIGHT_DECAY
    )


def draw_batches(count: int, steps: int) -> Tensor:
    """Which of ``count`` references each step takes, int64 (steps, BATCH_SIZE): consecutive parts
    of one random order of them after another, always the same."""
    generator = torch.Generator().manual_seed(_SEED)
    orders = -(-steps * BATCH_SIZE // count)
    drawn = torch.cat([torch.randperm(count, generator=generator) for _ in range(orders)])
    return drawn[: steps * BATCH_SIZE].view(steps, BATCH_SIZE)
