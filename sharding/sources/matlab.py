"""Variables of MATLAB files, read in a process with little memory and time: the parser is not made
for hostile files."""

import io
import resource
from pathlib import Path
from typing import Any

from runtime.errors import first_line
from sharding.workers import processes

_MAX_MEMORY = 2**30  # bytes, and seconds, that reading may take
_MAX_SECONDS = 60


def strings(content: bytes, variable: str) -> list[str]:
    """The elements of an array of text in the MATLAB file ``content``.

    Raises:
        ValueError: it is not such a file, or lacks the variable.
        PackError: reading it took too much time.
    """
    return [text for (text,) in _read(content, variable, {})]


def records(content: bytes, variable: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    """Of each element of an array of structures the ``fields``, by their name and type: str or int.

    Raises:
        ValueError, PackError: as ``strings``; an element lacks a field of such a type.
    """
    return _read(content, variable, fields)


def _read(content: bytes, variable: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    with processes(1, _limit) as pool:
        try:
            return pool.submit(_parse, content, variable, fields).result()
        except MemoryError as error:
            raise ValueError(first_line(error)) from error


def _parse(content: bytes, variable: str, fields: dict[str, type]) -> list[tuple[Any, ...]]:
    """Runs in the process; without ``fields`` an element is text."""
    import numpy as np
    from scipy.io import loadmat

    try:
        found = loadmat(io.BytesIO(content), variable_names=[variable], simplify_cells=True)
    except Exception as error:  # whatever a parser raises on untrusted bytes
        raise ValueError(first_line(error)) from None
    if variable not in found:
        raise ValueError(f"it has no variable {variable}")
    elements = np.atleast_1d(found[variable]).tolist()
    if not fields:
        return [(str(element),) for element in elements]
    try:
        return [tuple(type_(e[name]) for name, type_ in fields.items()) for e in elements]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        names = " or ".join(f"`{name}`" for name in fields)
        raise ValueError(f"an element of {variable} lacks {names}") from None


def _limit() -> None:
    import scipy.io  # noqa: F401  # before the limit: libraries reserve memory they do not use

    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MAX_MEMORY, used + _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))
