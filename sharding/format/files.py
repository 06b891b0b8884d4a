"""Atomic writing, and reading of files that cannot be trusted."""

import contextlib
import errno
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BUFFER = 1 << 20


class MalformedError(Exception):
    """A file's content is not what it must be; the message says what is wrong."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing under a temporary name in the same folder; on success, flush it to
    disk and rename it; on any exception, remove it. Concurrent writers cannot collide: the
    temporary name contains host and process ID."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb", buffering=_BUFFER) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, which readers see complete or not at all."""
    with atomic_file(path) as file:
        file.write(content)


def open_regular(path: Path) -> BinaryIO:
    """Open ``path`` for reading if it is a regular file. Symbolic links are not followed, and a
    FIFO does not block.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def file_sha256(file: BinaryIO) -> str:
    """sha256 (hex) of the rest of an open file."""
    digest = hashlib.sha256()
    while chunk := file.read(_BUFFER):
        digest.update(chunk)
    return digest.hexdigest()


def regular_size(path: Path) -> int | None:
    """Size in bytes of ``path``; None if it does not exist or is not a regular file."""
    try:
        state = path.lstat()
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None
