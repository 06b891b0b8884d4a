"""Each part in a process of its own, so that a crash or a hang of one leaves the others alone.

The processes are forked from a server that has imported everything and never touches the GPU.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.gpu.node import Budget, Node, Row
from runtime.errors import first_line

_GRACE = 120.0  # seconds; a part that gives no row for its share and this long counts as hanging
_CONTEXT = multiprocessing.get_context("forkserver")

PartFunction = Callable[[Node, Budget], Iterable[Row]]


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        name: in the table.
        function: ``package.module.function`` of a ``PartFunction``, imported where it runs.
        share: of the time, relative to the other parts.
    """

    name: str
    function: str
    share: float

    @property
    def module(self) -> str:
        return self.function.rpartition(".")[0]

    def load(self) -> PartFunction:
        return getattr(importlib.import_module(self.module), self.function.rpartition(".")[2])


class PartError(Exception):
    """A part failed; ``details`` say more than the message."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class _Failure:
    message: str
    details: str


def preload(parts: Iterable[Part]) -> None:
    """Import the modules of ``parts`` once for all processes, and wait until that is done."""
    _CONTEXT.set_forkserver_preload(sorted({part.module for part in parts}))
    first = _CONTEXT.Process(target=int)
    first.start()
    first.join()


def run(part: Part, node: Node, seconds: float, log: Path) -> Iterator[Row]:
    """The rows of ``part`` as it measures them for about ``seconds``; what it prints goes to the
    end of ``log``.

    Raises:
        PartError: it raised an exception, its process died, or it hangs.
    """
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_work, args=(sender, part, node, seconds, log))
    process.start()
    sender.close()
    try:
        while True:
            if not wait([receiver, process.sentinel], seconds + _GRACE):
                raise PartError(f"gave no result for {seconds + _GRACE:.0f} s and was stopped")
            try:
                message = receiver.recv() if receiver.poll() else _death(process.exitcode, log)
            except EOFError:
                process.join()
                message = _death(process.exitcode, log)
            if message is None:
                return
            if isinstance(message, _Failure):
                raise PartError(message.message, message.details)
            yield message
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def _death(exitcode: int | None, log: Path) -> _Failure:
    if exitcode is not None and exitcode < 0:
        return _Failure(f"its process died of {signal.Signals(-exitcode).name}; see {log}", "")
    return _Failure(f"its process ended with status {exitcode}; see {log}", "")


def _work(sender: Connection, part: Part, node: Node, seconds: float, log: Path) -> None:
    os.setpgid(0, 0)  # so that it is ended together with the processes that it starts
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    print(f"== {part.name}", flush=True)
    # This process inherited its parent's choice; a part's DataLoader shall fork, as it does alone.
    multiprocessing.set_start_method("fork", force=True)
    budget = Budget(seconds)
    try:
        for row in part.load()(node, budget):
            sender.send(row)
        if budget.left_out:
            sender.send(Row("out of time", {"not measured": budget.left_out}))
        sender.send(None)
    except Exception as error:  # whatever a part raises is its result
        traceback.print_exc()
        line = f"{type(error).__name__}: {first_line(error)}"
        sender.send(_Failure(line, traceback.format_exc()))
