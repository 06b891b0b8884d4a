"""Worker processes that ignore Ctrl-C and never outlive their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from runtime.errors import PackError

CONTEXT = multiprocessing.get_context(
    "forkserver"
)  # a fork would inherit the lock on the pack's folder

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def processes(
    workers: int, prepare: Callable[[], None] | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool whose workers ignore Ctrl-C and exit with this process; each first calls ``prepare``.
    Tasks that have not started when the block exits are canceled.

    Raises:
        PackError: a worker died.
    """
    CONTEXT.set_forkserver_preload(["__main__", "sharding.shard"])
    pool = ProcessPoolExecutor(workers, CONTEXT, _begin, (prepare,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise PackError(
            "a worker process died (out of memory?); rerun the same command to resume"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def submit(
    pool: ProcessPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> list[Future[R]]:
    """Submit ``function(item)`` for each of ``items``; this starts the workers. SIGINT is deferred
    until all are up, because a half-started worker would receive it and could not be shut down."""
    deferred: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if main:  # another thread may receive the signal, and Python would still raise it here
        handler = signal.signal(signal.SIGINT, lambda number, frame: deferred.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the workers inherit this
    try:
        futures = [pool.submit(function, item) for item in items]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if main:
            signal.signal(signal.SIGINT, handler)
    if deferred:
        raise KeyboardInterrupt
    return futures


def _begin(prepare: Callable[[], None] | None) -> None:
    if prepare:
        prepare()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit with the parent: after a command is killed, no process must keep writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
