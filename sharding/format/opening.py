"""The only way to open a pack: nothing in it is used before it is checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from runtime.errors import PackError
from sharding.format import index as index_file
from sharding.format.files import MalformedError, regular_size
from sharding.format.index import Index
from sharding.format.manifest import Manifest


@dataclass(frozen=True)
class PackContents:
    """The checked manifest and index of the pack in the folder ``path``."""

    path: Path
    manifest: Manifest
    index: Index

    def read_sources(self) -> pa.ChunkedArray:
        """The source path of each sample, N strings, dictionary-encoded.

        Raises:
            PackError: the index was replaced, or its sources are damaged.
        """
        with _reported(self.path):
            return index_file.read_sources(self.path, self.manifest)


def open_pack(pack: Path) -> PackContents:
    """Read and check the manifest and the index of the folder ``pack``; shards are not read.

    Afterwards readers can rely on this: every shard is a regular file of the size in the manifest;
    the index matches its checksum (schema version 2); and each of its rows has a named label,
    domain and split, at least one pixel, a unique key, and bytes that lie inside its shard and
    overlap no other row's.

    Raises:
        PackError: the folder is not a complete pack, or it is damaged.
    """
    manifest = Manifest.load(pack)
    for shard in manifest.shards:
        if problem := size_problem(pack, shard.name, shard.bytes):
            raise PackError(f"{pack}: {problem}; {_advice(pack)}")
    with _reported(pack):
        if not index_file.has_checksum(pack, manifest):
            raise MalformedError("it does not match its checksum")
        index = Index.read(pack, manifest)
        if problems := index.problems(manifest):
            raise MalformedError(problems[0])
    return PackContents(pack, manifest, index)


def size_problem(pack: Path, name: str, expected: int) -> str | None:
    """What is wrong with the file ``name`` of ``pack``, which must have ``expected`` bytes."""
    size = regular_size(pack / name)
    if size is None:
        return f"{name} is missing, or it is not a regular file"
    return None if size == expected else f"{name} has {size} bytes instead of {expected}"


@contextmanager
def _reported(pack: Path) -> Iterator[None]:
    """Turn MalformedError, raised for the index of ``pack``, into a PackError with advice."""
    try:
        yield
    except MalformedError as error:
        path = pack / index_file.FILE_NAME
        raise PackError(f"{path} is damaged: {error}; {_advice(pack)}") from error


def _advice(pack: Path) -> str:
    return f"run `python -m sharding verify {pack} --repair --root TREE`"
