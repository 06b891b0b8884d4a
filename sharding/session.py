"""Locks a pack's folder while it is written, and cleans up after runs that ended early."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import PackError
from sharding.format.manifest import FILE_NAME, Manifest

WORK = ".work"
LISTING = "listing"


@dataclass(frozen=True)
class Part:
    """Slice ``number`` of ``count`` slices of the shards; numbers start at 1."""

    number: int
    count: int


@contextmanager
def packing_session(out: Path, part: Part | None = None) -> Iterator[Manifest | None]:
    """Keep other runs out of the pack's folder ``out`` while a ``part`` or all of it is written.

    Yields None, or the manifest if the pack is already complete. Nothing is locked or written then;
    only the leftovers of a run that was killed right after writing the manifest are removed. A run
    that fails before it has a listing leaves nothing behind.

    Raises:
        PackError: as ``locked``.
    """
    if (out / FILE_NAME).exists() and not (out / WORK).exists():
        yield Manifest.load(out)
        return
    with locked(out, part):
        if (out / FILE_NAME).exists():
            shutil.rmtree(out / WORK)
            yield Manifest.load(out)
            return
        if part is None:
            for leftover in out.glob(".*.tmp"):  # left by a run that was killed
                leftover.unlink()
        try:
            yield None
        except BaseException:
            if part is None and not (out / WORK / LISTING).exists():
                shutil.rmtree(out / WORK)
                with contextlib.suppress(OSError):  # it holds other files
                    out.rmdir()
            raise


@contextmanager
def locked(out: Path, part: Part | None = None) -> Iterator[None]:
    """Create the folder ``out`` and its subfolder ``WORK``, and keep other runs out of them. Runs
    that write different parts do not exclude each other.

    Raises:
        PackError: another process holds the lock; also wraps any OSError raised inside, since an
            unwritable folder is for the user to fix.
    """
    work = out / WORK
    locks = [("lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX)]
    if part:
        locks.append((f"part-{part.number}-of-{part.count}.lock", fcntl.LOCK_EX))
    try:
        work.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for name, kind in locks:
                lock = stack.enter_context((work / name).open("w"))
                if not _lock(lock.fileno(), work / name, kind):
                    raise PackError(f"another process is writing into {out}; wait for it")
            yield
    except OSError as error:
        raise PackError(
            f"cannot write to {out}: {error.strerror or error}; fix this and rerun the same "
            "command to resume"
        ) from error


def _lock(descriptor: int, path: Path, kind: int) -> bool:
    """Take the lock; returns whether it was free and is still the file at ``path``, which the run
    that held it may just have removed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
