"""The files that were not packed, `rejects.jsonl`: a JSON object per line, with source, reason."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sharding.format.files import MalformedError, atomic_file, file_sha256, open_regular
from sharding.format.manifest import Manifest
from sharding.format.strict_json import exact_keys, parse

FILE_NAME = "rejects.jsonl"
_MAX_LINE = 1 << 16  # bytes; a path has at most 4096, a reason is a sentence


class RejectsInfo(NamedTuple):
    """Number of rejects, and the sha256 (hex) of their file."""

    number: int
    sha256: str


def write_rejects(pack: Path, rejects: Iterable[Mapping[str, str]]) -> RejectsInfo:
    """Write the ``rejects``, each with its ``source`` and ``reason``."""
    count, digest = 0, hashlib.sha256()
    with atomic_file(Path(pack) / FILE_NAME) as file:
        for reject in rejects:
            line = json.dumps(reject).encode() + b"\n"
            file.write(line)
            digest.update(line)
            count += 1
    return RejectsInfo(count, digest.hexdigest())


def rejects_problem(pack: Path, manifest: Manifest) -> str | None:
    """What is wrong with the rejects of the folder ``pack``."""
    try:
        with open_regular(Path(pack) / FILE_NAME) as file:
            if os.fstat(file.fileno()).st_size > manifest.rejects * _MAX_LINE:
                return f"{FILE_NAME} is damaged: it is too large for {manifest.rejects} rejects"
            if manifest.rejects_sha256 is not None:
                intact = file_sha256(file) == manifest.rejects_sha256
                return None if intact else f"{FILE_NAME} is damaged"
            count = 0
            while line := file.readline(_MAX_LINE):
                exact_keys(parse(line), {"source", "reason"}, "a line")
                count += 1
    except OSError as error:
        return f"{FILE_NAME} cannot be read: {error.strerror}"
    except MalformedError as error:
        return f"{FILE_NAME} is damaged: line {count + 1}: {error}"
    if count != manifest.rejects:
        return f"{FILE_NAME} has {count} lines instead of {manifest.rejects}"
    return None


def read_rejects(pack: Path, manifest: Manifest) -> list[dict[str, str]]:
    """The rejects of the folder ``pack``, each with its ``source`` and ``reason``.

    Raises:
        MalformedError: the file is not the one that ``manifest`` describes.
    """
    if problem := rejects_problem(pack, manifest):
        raise MalformedError(problem)
    with open_regular(Path(pack) / FILE_NAME) as file:
        rejects: list[dict[str, Any]] = [parse(line) for line in file]
    for reject in rejects:
        exact_keys(reject, {"source", "reason"}, "a line")
        if not all(isinstance(value, str) for value in reject.values()):
            raise MalformedError(f"{FILE_NAME} is damaged: a value is not a string")
    return rejects
