"""The files that commands on detectors write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import ConfigError, first_line
from runtime.files import write_atomically


def check_free(path: Path, overwrite: bool) -> None:
    """Raise ConfigError if a file must not be written to ``path``: it is a folder, or exists and
    ``overwrite`` is not set."""
    if os.path.isdir(path):  # never raises, unlike Path.is_dir
        raise ConfigError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not overwrite:
        raise ConfigError(f"{path} exists; choose another file, or give --overwrite")


@contextmanager
def writing(path: Path, what: str, option: str) -> Iterator[None]:
    """Make the folder of ``path``; a file that cannot be written there is a ConfigError, which
    calls it ``what`` and names the ``option`` to change."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write the {what} to {path}: {first_line(error)}; choose another {option}"
        ) from error


def write(path: Path, content: bytes, what: str, option: str) -> None:
    """Write ``content`` to ``path``, complete or not at all; ConfigError as by ``writing``."""
    with writing(path, what, option):
        write_atomically(path, content)
