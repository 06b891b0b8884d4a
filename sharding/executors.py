"""Write shards with processes of this machine or on a Dask cluster."""

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from functools import partial
from typing import Any

from runtime.errors import PackError
from sharding.shard import Progress, ShardTask
from sharding.workers import CONTEXT, processes, submit

_POLL_SECONDS = 0.2
_counts: Any = None  # in a worker: images, bytes and rejects so far, shared by all workers


def run_local(task: ShardTask, numbers: Iterable[int], workers: int) -> Iterator[Progress]:
    """Write the shards ``numbers`` with ``workers`` processes.

    Periodically yields the progress of all workers so far.

    Raises:
        PackError: a worker died, or a source has changed since it was listed.
        OSError: a worker could not write.
    """
    counts = CONTEXT.Array("q", 3)
    with processes(workers, partial(_share, counts)) as pool:
        pending = set(submit(pool, partial(_ensure, task), numbers))
        while pending:
            done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            yield Progress(*counts[:])


def run_dask(task: ShardTask, numbers: Iterable[int], scheduler: str) -> Iterator[Progress]:
    """Write the shards ``numbers`` on the Dask cluster at ``scheduler``. The shards of a
    lost worker are written by another. Otherwise as ``run_local``."""
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise PackError(
            "--executor dask needs the package distributed: pip install distributed"
        ) from error
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise PackError(f"no Dask scheduler at {scheduler}: {error}; see --scheduler") from error
    with client:
        total = Progress()
        try:
            for future in as_completed(client.map(task.ensure, list(numbers), pure=False)):
                total += future.result()
                yield total
        except KilledWorker as error:
            raise PackError(
                "a shard kept killing its Dask workers; give them more memory and rerun the same "
                "command to resume"
            ) from error


def _share(counts: Any) -> None:
    global _counts
    _counts = counts


def _ensure(task: ShardTask, number: int) -> None:
    task.ensure(number, _count)


def _count(done: Progress) -> None:
    with _counts.get_lock():
        _counts[0] += done.images
        _counts[1] += done.bytes
        _counts[2] += done.rejects
