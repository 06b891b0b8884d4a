"""Threads that work on a list until all is done or one fails."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """A number of threads; when the block is left, what has not started is cancelled.

    Attributes:
        stopped: set when the block is left, by an exception too; what runs should end early then.
    """

    def __init__(self, number: int) -> None:
        self.stopped = threading.Event()
        self._pool = ThreadPoolExecutor(number)

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``function`` of each of the ``items``; the first exception ends it."""
        futures = [self._pool.submit(function, item) for item in items]
        for done in as_completed(futures):
            done.result()
        return [future.result() for future in futures]

    def __enter__(self) -> "Threads":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopped.set()
        self._pool.shutdown(cancel_futures=True)
