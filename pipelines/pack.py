"""A pack opened for reading: its manifest, its index, and the images' bytes by sample number."""

import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import PackError
from sharding.format.index import Index, read_strings
from sharding.format.manifest import Manifest

_FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PN")  # of JPEG and PNG files


class Pack:
    """Read access to the samples of a pack, in any order, without copying them.

    Attributes:
        path: the pack's folder.
        manifest: what the pack holds.
        index: where each sample lies; a sample's row in it is its number everywhere.

    Raises:
        PackError: the folder is no finished pack, or a shard is missing or of another size.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = Manifest.load(self.path)
        self.index = Index.load(self.path)
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

    def intact(self, row: int, image: np.ndarray, *, check_crc: bool = False) -> bool:
        """Whether ``image``, uint8 (size,) as read from ``row``, can be what was packed: it starts
        as a JPEG or PNG file does and, when asked, has the checksum of the index."""
        starts_well = image[:3].tobytes() in _FIRST_BYTES
        return starts_well and (
            not check_crc or zlib.crc32(image.data) == int(self.index.crc32[row])
        )

    def announce(self, rows: np.ndarray) -> None:
        """Tell the kernel that ``rows``, int64 (n,), are read soon, so that it loads them."""
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
        return read_strings(self.path, "key", rows)

    def sources(self, rows: np.ndarray) -> list[str]:
        """The source paths of ``rows``, int64 (n,), relative to the packed tree."""
        return read_strings(self.path, "source", rows)

    def _shard(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        if number not in self._shards:
            self._shards[number] = self._map(number)
        return self._shards[number]

    def _map(self, number: int) -> tuple[mmap.mmap, np.ndarray]:
        info = self.manifest.shards[number]
        path = self.path / info.name
        try:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PackError(f"cannot map shard {path}: {error}") from error
        if len(mapping) != info.bytes:
            raise PackError(
                f"shard {path} has {len(mapping)} bytes, the manifest says {info.bytes}; "
                f"run `python -m sharding verify {self.path}`"
            )
        return mapping, np.frombuffer(mapping, dtype=np.uint8)


def names_to_positions(wanted: Sequence[str], known: Sequence[str], what: str) -> np.ndarray:
    """Positions of the ``wanted`` names among the ``known``; ``what`` names them in the error."""
    position = {name: number for number, name in enumerate(known)}
    if missing := [name for name in wanted if name not in position]:
        shown = ", ".join(known[:10]) + (f", … ({len(known)} in all)" if len(known) > 10 else "")
        raise PackError(f"the pack has no {what} {', '.join(missing)}; it has: {shown}")
    return np.array([position[name] for name in wanted], dtype=np.int64)
