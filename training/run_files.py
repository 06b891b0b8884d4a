"""The small files that a run writes beside its checkpoints."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import UserError, first_line


class LogError(UserError):
    """The log cannot be written."""


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON file into the run's folder.

    Raises:
        LogError: it cannot be written.
    """
    with writing(path):
        path.write_text(json.dumps(content) + "\n")


def remove_report(path: Path) -> None:
    """Delete an earlier run's report, if there is one; LogError where that fails."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise LogError(f"cannot delete {path}: {first_line(error)}") from error


class AppendedFile:
    """A file opened for appending without a buffer, so that a write that fails fails at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            # Without O_NONBLOCK a FIFO would wait for a reader.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)

    def write(self, content: bytes) -> None:
        with writing(self._path):
            if self._file.write(content) != len(content):
                raise OSError("only a part could be written; the disk may be full")

    def end_line(self) -> None:
        """End the last line if a killed process or a full disk left it incomplete."""
        with writing(self._path):
            size = self._file.seek(0, os.SEEK_END)
            if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
                self._file.write(b"\n")

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report what keeps ``path`` from being written as a LogError."""
    try:
        yield
    except OSError as error:
        raise LogError(f"cannot write {path}: {first_line(error)}") from error
