"""Splits n items over the processes and gathers the results, each item computed exactly once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.distributed import Process


@dataclass(frozen=True)
class Chunk:
    """One process's run of consecutive items.

    Attributes:
        slice: which of them.
        total: n, of all processes.
    """

    slice: slice
    total: int


def chunk_of(total: int, process: Process) -> Chunk:
    """The process's chunk of ``total`` items; chunks differ by one item at most."""
    first, last = (
        total * number // process.world_size for number in (process.rank, process.rank + 1)
    )
    return Chunk(slice(first, last), total)


def all_gather(own: Tensor, chunk: Chunk, process: Process) -> Tensor:
    """All-gather: the values (n, ...) of all items from each process's ``own``, on every process.

    Raises:
        RuntimeError: an item was computed by no process or by several.
    """
    values = own.new_zeros(chunk.total, *own.shape[1:])
    values[chunk.slice] = own
    counts = torch.zeros(chunk.total, dtype=torch.int64, device=own.device)
    counts[chunk.slice] += 1
    process.sum_(counts)
    if (counts != 1).any():
        raise RuntimeError(
            f"{int((counts != 1).sum())} of {chunk.total} samples were not computed exactly once"
        )
    return process.sum_(values)
