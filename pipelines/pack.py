"""A pack opened for reading: its manifest, its index, and the images' bytes by row."""

import mmap
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from runtime.errors import PackError
from sharding.format.files import open_regular
from sharding.format.index import key_name
from sharding.format.opening import open_pack


class Location(NamedTuple):
    """Where a sample lies: the pack itself, never a joined one, and the row of its index."""

    pack: "Pack"
    row: int

    @property
    def key(self) -> str:
        """The key by which ``python -m sharding verify`` knows the sample."""
        return self.pack.keys(np.array([self.row]))[0]


class Pack:
    """Read access to the samples of a pack, in any order, without copying them.

    Attributes:
        path: the pack's folder.
        manifest: what the pack holds.
        index: where each sample lies; code refers to a sample by its row in the index.
        members: the packs that are read as one (see ``pipelines.packs``); usually the pack itself.
        first_rows: the row at which the samples of each member begin, ascending.

    Raises:
        PackError: the folder is not a complete pack, or it is damaged; see ``open_pack``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._contents = open_pack(self.path)
        self.manifest, self.index = self._contents.manifest, self._contents.index
        self.members: tuple[Pack, ...] = (self,)
        self.first_rows: tuple[int, ...] = (0,)
        self._shards: dict[int, tuple[mmap.mmap, np.ndarray]] = {}

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """The encoded images of ``rows``, int64 (n,): n read-only uint8 arrays (size,), views of
        the memory-mapped shards that stay valid as long as they are referenced."""
        index = self.index
        return [
            self._shard(shard)[1][offset : offset + size]
            for shard, offset, size in zip(
                index.shard[rows].tolist(),
                index.offset[rows].tolist(),
                index.size[rows].tolist(),
                strict=True,
            )
        ]

    def prefetch(self, rows: np.ndarray) -> None:
        """Prefetch the images of ``rows``, int64 (n,), into the page cache in the background."""
        index = self.index
        for shard, offset, size in zip(
            index.shard[rows].tolist(),
            index.offset[rows].tolist(),
            index.size[rows].tolist(),
            strict=True,
        ):
            start = offset - offset % mmap.PAGESIZE
            self._shard(shard)[0].madvise(mmap.MADV_WILLNEED, start, offset + size - start)

    def keys(self, rows: np.ndarray) -> list[str]:
        """The keys of ``rows``, int64 (n,)."""
        return [key_name(number) for number in self.index.key[rows].tolist()]

    def sources(self, rows: np.ndarray) -> list[str]:
        """The source paths of ``rows``, int64 (n,), relative to the packed tree."""
        return [self._sources[row].as_py() for row in rows.tolist()]

    def locate(self, row: int) -> Location:
        """In which of the ``members`` the sample at ``row`` lies, and where."""
        number = bisect_right(self.first_rows, row) - 1
        return Location(self.members[number], row - self.first_rows[number])

    @cached_property
    def _sources(self) -> pa.ChunkedArray:
        return self._contents.read_sources()

    def _shard(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        if number not in self._shards:
            self._shards[number] = self._map(number)
        return self._shards[number]

    def _map(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        info = self.manifest.shards[number]
        path = self.path / info.name
        try:
            with open_regular(path) as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PackError(f"cannot map shard {path}: {error}") from error
        if len(mapping) != info.bytes:
            raise PackError(
                f"shard {path} has {len(mapping)} bytes, the manifest says {info.bytes}; "
                f"run `python -m sharding verify {self.path}`"
            )
        return mapping, np.frombuffer(mapping, dtype=np.uint8)
