"""Where the shards are written: by processes of this machine, or on a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait as wait_for_any
from typing import Any, TypeVar

from runtime.errors import PackError
from sharding.shard import ShardTask

_POLL_SECONDS = 0.2
_CONTEXT = multiprocessing.get_context("forkserver")  # a fork would inherit the folder's lock
_counts: Any = None

T = TypeVar("T")
R = TypeVar("R")


def run_local(task: ShardTask, numbers: Iterable[int], workers: int) -> Iterator[tuple[int, ...]]:
    """Write the shards ``numbers`` with ``workers`` processes.

    Yields now and then the images, bytes and rejects so far.

    Raises:
        PackError: a worker died.
        OSError: a worker could not write.
    """
    counts = _CONTEXT.Array("q", 3)
    with processes(workers, counts) as pool:
        pending = set(submit(pool, partial(_write, task), numbers))
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            yield tuple(counts[:])


@contextmanager
def processes(workers: int, counts: Any = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that end with this one, and to which a Ctrl-C means nothing: this one
    decides. What has not begun when the block is left is not done.

    Raises:
        PackError: a worker died.
    """
    _CONTEXT.set_forkserver_preload(["__main__", "sharding.shard"])
    pool = ProcessPoolExecutor(workers, _CONTEXT, _begin, (counts,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise PackError(
            "a worker process died (out of memory?); run the same command again to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def submit(
    pool: ProcessPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> list[Future[R]]:
    """``function`` of each of ``items``, by the processes of ``pool``, which are started here. A
    Ctrl-C waits until they are: half-started ones could not be ended, and would see it."""
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if main:  # another thread may take the signal, and Python raises it here in any case
        handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by the processes
    try:
        futures = [pool.submit(function, item) for item in items]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt
    return futures


def run_dask(task: ShardTask, numbers: Iterable[int], scheduler: str) -> Iterator[tuple[int, ...]]:
    """Write the shards ``numbers`` on the Dask cluster at ``scheduler``. Shards of a
    lost worker are written by another. Otherwise as ``run_local``."""
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise PackError("--executor dask needs the extra: pip install 'resend[dask]'") from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise PackError(f"no Dask scheduler at {scheduler}: {error}; see --scheduler") from error
    with client:
        totals = [0, 0, 0]
        try:
            for future in as_completed(client.map(task, list(numbers), pure=False)):
                totals = [total + new for total, new in zip(totals, future.result(), strict=True)]
                yield tuple(totals)
        except KilledWorker as error:
            raise PackError(
                "workers of the cluster die on a shard; give them more memory and run the same "
                "command again to go on"
            ) from error


def _begin(counts: Any) -> None:
    global _counts
    _counts = counts
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed command must not leave processes behind that go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    os._exit(1)


def _write(task: ShardTask, number: int) -> None:
    task(number, _count)


def _count(*done: int) -> None:
    with _counts.get_lock():
        for place, new in enumerate(done):
            _counts[place] += new
