"""The files that a pack consists of, for those who copy it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from runtime.errors import PackError
from sharding.dali_index import dali_index_problem
from sharding.format import index as index_file
from sharding.format import rejects as rejects_file
from sharding.format.files import MalformedError, open_regular, regular_size
from sharding.format.manifest import Manifest, dali_index_name
from sharding.format.opening import PackContents
from sharding.format.tar import max_index_bytes

CHUNK = 4 * 1024**2  # bytes read at once


class PackFile(NamedTuple):
    """A file of a pack: its bytes, and its sha256 (hex) where the manifest has one."""

    name: str
    size: int
    sha256: str | None


def pack_files(manifest: Manifest, size_of: Callable[[str], int | None]) -> list[PackFile]:
    """The pack's files but its manifest, those of the shards last.

    Args:
        size_of: bytes of the file of that name; None where there is none.

    Raises:
        MalformedError: a file is missing, or has a size that it cannot have by the manifest.
    """
    index = manifest.index.sha256 if manifest.index else None
    files = [
        _file(index_file.FILE_NAME, index, index_file.max_bytes(manifest.samples), size_of),
        _file(
            *(rejects_file.FILE_NAME, manifest.rejects_sha256),
            *(rejects_file.max_bytes(manifest.rejects), size_of),
        ),
    ]
    for info in manifest.shards:
        shard = _file(info.name, info.sha256, info.bytes, size_of)
        if shard.size != info.bytes:
            raise MalformedError(f"{info.name} has {shard.size} bytes instead of {info.bytes}")
        dali_index = dali_index_name(info.name)
        files += [shard, _file(dali_index, None, max_index_bytes(info.samples), size_of)]
    return files


def local_files(contents: PackContents) -> list[PackFile]:
    """The files of an open pack but its manifest; PackError where one cannot be right."""
    pack, manifest = contents.path, contents.manifest
    try:
        if problem := rejects_file.rejects_problem(pack, manifest):
            raise MalformedError(problem)
        files = pack_files(manifest, lambda name: regular_size(pack / name))
        if problem := dali_index_problem(pack, manifest, contents.index):
            raise MalformedError(problem)
        return files
    except MalformedError as error:
        raise PackError(f"{pack}: {error}; run `python -m sharding verify {pack}`") from error


def file_names(manifest: Manifest) -> list[str]:
    """The names of the pack's files but its manifest, those of the shards last."""
    shards = [[info.name, dali_index_name(info.name)] for info in manifest.shards]
    return [
        index_file.FILE_NAME,
        rejects_file.FILE_NAME,
        *(name for pair in shards for name in pair),
    ]


def hash_file(path: Path, bar: tqdm) -> str:
    """The sha256 (hex) of the file ``path``; ``bar`` advances by its bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _file(
    name: str, sha256: str | None, most: int, size_of: Callable[[str], int | None]
) -> PackFile:
    size = size_of(name)
    if size is None:
        raise MalformedError(f"{name} is missing")
    if size > most:
        raise MalformedError(f"{name} has {size} bytes, more than {most}")
    return PackFile(name, size, sha256)
