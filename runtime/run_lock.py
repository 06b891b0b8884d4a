"""One training per run folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.distributed import Process
from runtime.errors import ConfigError, first_line

LOCK = "lock"


@contextmanager
def run_lock(run: Path, process: Process) -> Iterator[None]:
    """Create the run's folder and keep other trainings out of it, on behalf of all processes.

    Process 0 holds the lock; the system releases it when that process ends, however it ends.

    Raises:
        ConfigError: another training has the lock, or the folder cannot be written.
    """
    with ExitStack() as stack:
        failure = _take(run, stack) if process.is_first else None
        if process.maximum(float(failure is not None)):
            raise failure or ConfigError(f"process 0 could not lock {run}; see its message")
        yield


def _take(run: Path, stack: ExitStack) -> ConfigError | None:
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        stack.callback(os.close, file)
    except OSError as error:
        return ConfigError(f"cannot write to {run}: {first_line(error)}; choose another --out")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ConfigError(
            f"another training is writing to {run}; wait for it, or choose another --out"
        )
    except OSError as error:  # a file system without locks, as some clusters mount theirs
        print(
            f"cannot lock {run} ({first_line(error)}); make sure that no other training uses it",
            flush=True,
        )
    return None
