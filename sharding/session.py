"""The right to write into a pack's folder, and what a run that ends leaves behind."""

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
    """Slice ``number`` of ``count``, from 1 on."""

    number: int
    count: int


@contextmanager
def packing_session(out: Path, part: Part | None = None) -> Iterator[Manifest | None]:
    """Keep other runs out of the pack's folder ``out`` while a ``part`` or all of it is written.

    Yields the manifest if the pack is already complete; nothing is locked or written then, except
    that what a run left that was killed right after writing the manifest is removed. A run that
    fails before it has a listing leaves nothing behind.

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
            for leftover in out.glob(".*.tmp"):  # of a run that was killed
                leftover.unlink()
        try:
            yield None
        except BaseException:
            if part is None and not (out / WORK / LISTING).exists():
                shutil.rmtree(out / WORK)
                with contextlib.suppress(OSError):  # it holds something else
                    out.rmdir()
            raise


@contextmanager
def locked(out: Path, part: Part | None = None) -> Iterator[None]:
    """Make the folder ``out`` and its folder ``WORK``, and keep other runs out of them; parts keep
    out each other only where they are the same.

    Raises:
        PackError: another process has the lock; or for any OSError inside, as an unwritable folder
            is for the user to fix.
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
    """Whether the lock was free and is still the file at ``path``: the run that had it may just
    have removed it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
