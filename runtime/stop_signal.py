"""Signals that end a run after the step in progress, on all processes alike."""

import signal
from types import FrameType
from typing import Any, cast

import torch
import torch.distributed as dist

from runtime.distributed import Process

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignal:
    """A context in which SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) let all processes stop after the
    same step.

    Repeated signals change nothing: a terminal and torchrun both send SIGINT for one Ctrl-C.

    Attributes:
        received: the name of the signal that this process got, if any.
    """

    def __init__(self, process: Process) -> None:
        self.received: str | None = None
        self._world_size = process.world_size
        self._group: dist.ProcessGroup | None = None
        if process.world_size > 1:
            self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
        self._vote = torch.zeros(1)
        self._pending: dist.Work | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process was signalled before its previous call; the same answer for all.

        The answer lags by one call, so that no process ever waits for the others here.
        """
        if self._group is None:
            return self.received is not None
        stop = False
        if self._pending is not None:
            self._pending.wait()
            stop = bool(self._vote.item())
        self._vote = torch.full((1,), float(self.received is not None))
        self._pending = dist.all_reduce(self._vote, group=self._group, async_op=True)
        return stop

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
