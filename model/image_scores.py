"""What ODIN and Gram matrices read of images: gradients and hidden layers, reduced to tensors that
scores can be computed from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ODIN_TEMPERATURE = 1000.0
_ODIN_STEP = 0.001  # of pixels on a scale of 0 to 1
_GRAM_POWERS = range(1, 11)
_EPSILON = 1e-6


@dataclass(frozen=True)
class ImageStatistics:
    """What a classifier that was trained with its backbone computes of the images of T tests.

    Attributes:
        perturbed: float32 (T, D), the features of the images that ``perturb`` returns; None where
            odin is not asked for.
        deviations: float32 (T, L), how far the Gram matrices of each hidden layer are outside their
            bounds, in units of what is expected of known images; None where gram is not asked for.
    """

    perturbed: Tensor | None = None
    deviations: Tensor | None = None


def perturb(logits_of: Callable[[Tensor], Tensor], images: Tensor, std: Sequence[float]) -> Tensor:
    """Images (N, 3, S, S) after a step that raises the largest softmax probability at temperature
    1000 (ODIN, arXiv 1706.02690): 0.001 up or down for every pixel of the image before ``std``, the
    preprocessing's, divides it.

    Args:
        logits_of: class logits (N, K) of images (N, 3, S, S).
        images: float32, preprocessed.
        std: of each channel.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = logits_of(images).float() / ODIN_TEMPERATURE
        loss = functional.cross_entropy(logits, logits.argmax(dim=1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    step = _ODIN_STEP / images.new_tensor(std)[:, None, None]
    return images.detach() - step * gradient.sign()


def gram_rows(maps: Tensor) -> Tensor:
    """Row sums of the Gram matrices of p-th powers, to the power 1/p, for p = 1 .. 10 (arXiv
    1912.12510): float32 (N, 10 C) of feature maps (N, C, H, W).

    Row i of the matrix sums x_i x_j over all channels j and places, x being the p-th power; that is
    x_i times the sum over the channels. The maps are divided by their largest value, whose powers
    would overflow, and the result is multiplied by its square.
    """
    maps = maps.float().flatten(2)
    largest = maps.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
    rows = []
    for power in _GRAM_POWERS:
        powers = (maps / largest) ** power
        sums = (powers * powers.sum(dim=1, keepdim=True)).sum(dim=2)
        rows.append(sums.sign() * sums.abs() ** (1 / power) * largest.squeeze(2) ** 2)
    return torch.cat(rows, dim=1)


class GramBounds:
    """The smallest and largest Gram row sums that images of each class have had so far.

    Args:
        num_classes: K.
        widths: 10 C of each of L hidden layers.
        device: where the bounds are kept.

    Attributes:
        low, high: float32 (K, 10 C) for each layer; inf and -inf before the first image of a class.
    """

    def __init__(self, num_classes: int, widths: Sequence[int], device: torch.device) -> None:
        def full(value: float) -> list[Tensor]:
            return [torch.full((num_classes, width), value, device=device) for width in widths]

        self.low, self.high = full(torch.inf), full(-torch.inf)

    def add(self, layers: Sequence[Tensor], classes: Tensor) -> None:
        """Widen the bounds by images of ``classes``, int64 (N,), whose ``gram_rows`` (N, 10 C) in
        each hidden layer are ``layers``."""
        for rows, low, high in zip(layers, self.low, self.high, strict=True):
            places = classes[:, None].expand_as(rows)
            low.scatter_reduce_(0, places, rows, "amin")
            high.scatter_reduce_(0, places, rows, "amax")

    def deviations(self, layers: Sequence[Tensor], classes: Tensor) -> Tensor:
        """(N, L): by which fraction of the bound of their class images are outside it, summed over
        the row sums of a layer."""
        found = []
        for rows, low, high in zip(layers, self.low, self.high, strict=True):
            below = (low[classes] - rows).relu() / (low[classes] + _EPSILON).abs()
            above = (rows - high[classes]).relu() / (high[classes] + _EPSILON).abs()
            found.append((below + above).sum(dim=1))
        return torch.stack(found, dim=1)
