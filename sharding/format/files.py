"""How the files of a pack are read: they are regular files, never symbolic links."""

import stat
from pathlib import Path
from typing import BinaryIO

from runtime import files


class MalformedError(Exception):
    """A file's content is not what it must be; the message says what is wrong."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a pack for reading; see ``runtime.files.open_regular``."""
    return files.open_regular(path, follow_links=False)


def regular_size(path: Path) -> int | None:
    """Size in bytes of ``path``; None if it does not exist or is not a regular file."""
    try:
        state = path.lstat()
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None
