"""The files that were not packed, `rejects.jsonl`: one JSON object per line."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.files import atomic_file, file_sha256
from sharding.format.files import MalformedError, open_regular
from sharding.format.manifest import Manifest
from sharding.format.strict_json import exact_keys, parse

FILE_NAME = "rejects.jsonl"
_MAX_LINE = 1 << 16  # bytes; a path has at most 4096, a reason is a sentence


@dataclass(frozen=True)
class Reject:
    """A source that was not packed, and why."""

    source: str
    reason: str


class RejectsInfo(NamedTuple):
    """The number of rejects and the sha256 (hex) of their file."""

    number: int
    sha256: str


def max_bytes(rejects: int) -> int:
    """The most bytes that the file can have."""
    return rejects * _MAX_LINE


def write_rejects(pack: Path, rejects: Iterable[Reject]) -> RejectsInfo:
    """Write the file of ``rejects`` into the folder ``pack``."""
    count, digest = 0, hashlib.sha256()
    with atomic_file(Path(pack) / FILE_NAME) as file:
        for reject in rejects:
            line = json.dumps(vars(reject)).encode() + b"\n"
            file.write(line)
            digest.update(line)
            count += 1
    return RejectsInfo(count, digest.hexdigest())


def rejects_problem(pack: Path, manifest: Manifest) -> str | None:
    """Describe what is wrong with the rejects file in ``pack``; None if nothing is."""
    try:
        with open_regular(Path(pack) / FILE_NAME) as file:
            if os.fstat(file.fileno()).st_size > max_bytes(manifest.rejects):
                return f"{FILE_NAME} is damaged: it is too large for {manifest.rejects} rejects"
            if manifest.rejects_sha256 is not None:
                intact = file_sha256(file) == manifest.rejects_sha256
                return None if intact else f"{FILE_NAME} is damaged"
            count = 0
            while line := file.readline(_MAX_LINE):
                exact_keys(parse(line), Reject.__dataclass_fields__.keys(), "a line")
                count += 1
    except OSError as error:
        return f"{FILE_NAME} cannot be read: {error.strerror}"
    except MalformedError as error:
        return f"{FILE_NAME} is damaged: line {count + 1}: {error}"
    if count != manifest.rejects:
        return f"{FILE_NAME} has {count} lines instead of {manifest.rejects}"
    return None


def read_rejects(pack: Path, manifest: Manifest) -> list[Reject]:
    """Read the rejects file in ``pack``.

    Raises:
        MalformedError: the file is not the one that ``manifest`` describes.
    """
    if problem := rejects_problem(pack, manifest):
        raise MalformedError(problem)
    with open_regular(Path(pack) / FILE_NAME) as file:
        lines = [parse(line) for line in file]
    for line in lines:
        exact_keys(line, Reject.__dataclass_fields__.keys(), "a line")
        if not all(isinstance(value, str) for value in line.values()):
            raise MalformedError(f"{FILE_NAME} is damaged: a value is not a string")
    return [Reject(**line) for line in lines]
