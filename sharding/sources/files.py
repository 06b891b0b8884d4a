"""Lists and reads source files, and notices when one has changed in between."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.dataset import UNKNOWN_TIME, Sample

MAX_BYTES = 2**30  # 1 GiB; 100 million uncompressed pixels of 8 bytes take 0.8 GB


class FileState(NamedTuple):
    """Size in bytes and modification time in ns; 0 and ``UNKNOWN_TIME`` if it cannot be read."""

    size: int
    modified: int


_UNREADABLE = FileState(0, UNKNOWN_TIME)


def file_state(status: os.stat_result) -> FileState:
    """What the listing records about a file. Only regular files of at most ``MAX_BYTES`` count as
    readable; folders, devices, pipes and larger files do not."""
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
        return FileState(status.st_size, status.st_mtime_ns)
    return _UNREADABLE


def state_of(path: str | os.DirEntry[str]) -> FileState:
    """The state of the file at ``path``, following links; a dangling link is unreadable."""
    try:
        return file_state(os.stat(path))
    except OSError:
        return _UNREADABLE


@dataclass(frozen=True)
class FileReader:
    """Reads samples whose sources are files below ``root``."""

    root: Path

    def __call__(self, sample: Sample) -> bytes:
        """The content of the file ``sample.source``, at most ``MAX_BYTES``.

        Raises:
            OSError: it cannot be read, or is not a regular file of at most ``MAX_BYTES``.
            PackError: its size or modification time has changed since it was listed.
        """
        path = f"{self.root}/{sample.source}"
        listed = FileState(sample.size, sample.modified)
        if listed == _UNREADABLE:
            if state_of(path) != _UNREADABLE:
                raise changed(path)
            raise _why_unreadable(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block
        except FileNotFoundError as error:
            raise changed(path) from error
        with open(descriptor, "rb") as file:
            if file_state(os.fstat(descriptor)) != listed:
                raise changed(path)
            content = file.read(sample.size + 1)
            if file_state(os.fstat(descriptor)) != listed:
                raise changed(path)
        if len(content) != sample.size:
            raise OSError(f"does not have the {sample.size:,} bytes that its size states")
        return content


def _why_unreadable(path: str) -> OSError:
    try:
        status = os.stat(path)
    except OSError as error:
        return error
    if stat.S_ISREG(status.st_mode):
        return OSError(
            f"{status.st_size:,} bytes are more than the limit for an image, {MAX_BYTES:,}"
        )
    return OSError("not a regular file")


def changed(path: str) -> PackError:
    """The error for a file at ``path`` that is not the one that was listed."""
    return PackError(
        f"{path} changed after the tree was listed; pack again when nothing writes to the tree"
    )
