"""Metrics of training steps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from runtime.distributed import Process


class StepMetrics(NamedTuple):
    """Metrics of one step or, with a leading dimension n, of n steps.

    Attributes:
        loss: scalar, the mean over the batch.
        gradient_norm: scalar, before clipping.
        counts: (A, 2), (correct, total) of each of the task's A accuracies.
    """

    loss: Tensor
    gradient_norm: Tensor
    counts: Tensor

    @staticmethod
    def gather(steps: Sequence["StepMetrics"], process: Process) -> "StepMetrics":
        """The ``steps`` of all processes, summed, float64 on the host: loss and gradient_norm (n,),
        counts (n, A, 2). One all-reduce; it waits for the device."""
        stacked = [torch.stack(values) for values in zip(*steps, strict=True)]
        flat = [values.flatten(1) if values.ndim > 1 else values[:, None] for values in stacked]
        summed = process.sum_(torch.cat(flat, dim=1)).double().cpu()
        parts = summed.split([values.shape[1] for values in flat], dim=1)
        return StepMetrics(
            *(part.reshape(like.shape) for part, like in zip(parts, stacked, strict=True))
        )

    def accuracies(self) -> list[float]:
        """Each accuracy over n steps; 0 where its total is 0."""
        totals = self.counts.sum(0)
        return (totals[:, 0] / totals[:, 1].clamp(min=1)).tolist()
