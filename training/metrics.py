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
        rows = torch.stack(
            [
                torch.cat([torch.stack([step.loss, step.gradient_norm]), step.counts.flatten()])
                for step in steps
            ]
        )
        rows = process.sum_(rows).double().cpu()
        return StepMetrics(rows[:, 0], rows[:, 1], rows[:, 2:].unflatten(1, (-1, 2)))

    def accuracies(self) -> list[float]:
        """Each accuracy over n steps; 0 where its total is 0."""
        totals = self.counts.sum(0)
        return (totals[:, 0] / totals[:, 1].clamp(min=1)).tolist()
