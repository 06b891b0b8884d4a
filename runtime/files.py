"""Files that appear complete or not at all, and files that are read without trusting them."""

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


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing under a temporary name in the same folder; on success flush it to
    disk and rename it, on any exception remove it. Concurrent writers cannot collide: the temporary
    name contains host and process ID."""
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
    """Write ``content`` to ``path`` so that no reader ever sees a part of it."""
    with atomic_file(path) as file:
        file.write(content)


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(
    path: Path, *, max_bytes: int | None = None, follow_links: bool = True
) -> BinaryIO:
    """Open a regular file for reading; a FIFO or a device is refused without waiting for it.

    Args:
        path: the file.
        max_bytes: its largest size; None for any.
        follow_links: whether ``path`` itself may be a symbolic link.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is too large.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (max_bytes is None or status.st_size <= max_bytes):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    message = f"it has {status.st_size:,} bytes, more than {max_bytes:,}"
    raise OSError(errno.EFBIG, message, str(path))


def file_sha256(file: BinaryIO) -> str:
    """sha256 (hex) of the rest of an open file."""
    digest = hashlib.sha256()
    while chunk := file.read(_BUFFER):
        digest.update(chunk)
    return digest.hexdigest()
