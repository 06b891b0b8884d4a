"""Files that hold many images each: archives and tables, opened only as they were listed."""

import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from runtime.errors import PackError, first_line
from sharding.sources.dataset import Sample
from sharding.sources.files import MAX_BYTES, changed


@dataclass(frozen=True)
class Container:
    """A file that holds images, as it was when it was found.

    Attributes:
        path: where it is.
        size: bytes.
        modified: modification time in ns since 1970.
    """

    path: str
    size: int
    modified: int

    @staticmethod
    def at(path: Path) -> "Container":
        """The container at ``path``, links followed.

        Raises:
            PackError: there is no regular file.
        """
        try:
            status = os.stat(path)
        except OSError as error:
            raise PackError(f"cannot read {path}: {first_line(error)}") from error
        if not stat.S_ISREG(status.st_mode):
            raise PackError(f"{path} is not a regular file; get it again")
        return Container(str(path), status.st_size, status.st_mtime_ns)

    def open(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            PackError: it cannot be opened, or has changed since it was found.
        """
        try:
            file = os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK), "rb")
        except OSError as error:
            raise PackError(f"cannot read {self.path}: {first_line(error)}") from error
        self.check(file)
        return file

    def check(self, file: BinaryIO) -> None:
        """Raise PackError unless the open ``file`` still has this size and time."""
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            raise changed(self.path)


@dataclass(frozen=True)
class ContainerReader:
    """Reads samples that are stored as they are in a container, at ``Sample.offset`` in bytes."""

    containers: tuple[Container, ...]

    def __call__(self, sample: Sample) -> bytes:
        """The sample's bytes, which never exceed ``MAX_BYTES``.

        Raises:
            OSError: it cannot be read, or is larger.
            PackError: its container has changed since it was found.
        """
        expect_image_size(sample.size)
        container = self.containers[sample.container]
        file = _opened(container)
        content = os.pread(file.fileno(), sample.size, sample.offset)
        container.check(file)
        if len(content) != sample.size:
            raise OSError(f"does not have the {sample.size:,} bytes that its archive says")
        return content


def expect_image_size(size: int) -> None:
    """Raise OSError if ``size``, in bytes, is more than an image may have."""
    if size > MAX_BYTES:
        raise OSError(f"{size:,} bytes are more than an image may have ({MAX_BYTES:,})")


@lru_cache(maxsize=16)
def _opened(container: Container) -> BinaryIO:
    """Kept open between samples; what falls out of the cache is closed with its last reference."""
    return container.open()
