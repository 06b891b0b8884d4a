"""Where the shards are written: by processes of this machine, or on a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from sharding.errors import PackError
from sharding.shard import ShardTask

_POLL_SECONDS = 0.2
_counts: Any = None


def run_local(task: ShardTask, numbers: Iterable[int], workers: int) -> Iterator[tuple[int, ...]]:
    """Write the shards ``numbers`` with ``workers`` processes.

    Yields now and then the images, bytes and rejects so far.

    Raises:
        PackError: a worker died.
        OSError: a worker could not write.
    """
    context = multiprocessing.get_context("forkserver")  # a fork would inherit the folder's lock
    context.set_forkserver_preload(["__main__", "sharding.shard"])
    counts = context.Array("q", 3)
    pool = ProcessPoolExecutor(workers, context, _begin, (counts,))
    try:
        with _interrupts_held():
            pending = {pool.submit(_write, task, number) for number in numbers}
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            yield tuple(counts[:])
    except BrokenProcessPool as error:
        raise PackError(
            "a worker process died (out of memory?); run the same command again to go on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of the block: half-started processes could not be ended. Those
    started in it inherit the mask and never see one, since the command decides what it means."""
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if main:  # another thread may take the signal, and Python raises it here in any case
        handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


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
