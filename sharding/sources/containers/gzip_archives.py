"""Reading `.tar.gz` archives at any place.

Inflating can only begin where 32 KiB of what came before are known. One pass over an archive keeps
such access points at every ``SPACING`` bytes; what lies between two of them is inflated at once.
"""

import io
import os
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from runtime.errors import PackError
from runtime.files import write_atomically
from sharding.sources.containers.archives import Member, members
from sharding.sources.containers.container import Container, expect_image_size
from sharding.sources.dataset import Sample

SPACING = 64 * 2**20
_INFLATED_AT_ONCE = 2 * SPACING
_BEYOND = 2**62


class GzipArchive:
    """A gzip file as it is inflated, readable at any place.

    Args:
        container: the file.
        points: a file with its access points, as ``points`` gives them; by default they are found
            by inflating the archive once, which checks it as well.

    Raises:
        PackError: it is not a gzip file, it is damaged or truncated, or indexed_gzip is missing.
    """

    def __init__(self, container: Container, points: Path | None = None) -> None:
        self._container = container
        self._file = container.open()
        try:
            self._inflated = _indexed_gzip()(
                fileobj=self._file, index_file=str(points) if points else None, spacing=SPACING
            )
            if points is None:
                self._inflated.seek(_BEYOND)  # this builds the index, and lets other threads run
            offsets = [offset for offset, _ in self._inflated.seek_points()]
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        container.check(self._file)
        self._starts = [
            start
            for point, following in pairwise([*offsets, offsets[-1] + 1])
            for start in range(point, following, _INFLATED_AT_ONCE)
        ]
        self._position, self._block_number, self._block = 0, -1, b""

    def points(self) -> bytes:
        """The access points, as a file of them holds them."""
        file = io.BytesIO()
        self._inflated.export_index(fileobj=file)
        return file.getvalue()

    def read(self, size: int, /) -> bytes:
        """At most ``size`` inflated bytes; fewer only at the end."""
        pieces = []
        while size:
            skipped = self._position - self._load(self._position)
            piece = self._block[skipped : skipped + size]
            if not piece:
                break
            pieces.append(piece)
            self._position += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to the inflated byte ``offset``."""
        self._position = offset
        return offset

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def _load(self, position: int) -> int:
        """Inflate the block with the byte ``position``, unless it is loaded; returns its start."""
        number = bisect_right(self._starts, position) - 1
        start = self._starts[number]
        if number != self._block_number:
            last = number == len(self._starts) - 1
            size = _INFLATED_AT_ONCE if last else self._starts[number + 1] - start
            try:
                self._inflated.seek(start)
                self._block = self._inflated.read(size)
            except (OSError, ValueError) as error:
                raise self._damaged() from error
            self._container.check(self._file)
            self._block_number = number
        return start

    def _damaged(self) -> PackError:
        return PackError(
            f"{self._container.path} is not a gzip file, or is truncated or damaged; get it again"
        )


@dataclass(frozen=True)
class GzipReader:
    """Reads samples inside of gzip files, at ``Sample.offset`` in the inflated bytes.

    Attributes:
        containers: the files.
        points: folder with their access points, as ``GzipScan.keep`` writes them; None to find them
            before the first sample of a file is read.
    """

    containers: tuple[Container, ...]
    points: Path | None = None

    def __call__(self, sample: Sample) -> bytes:
        """The sample's bytes, which never exceed ``MAX_BYTES``.

        Raises:
            OSError: it is larger.
            PackError: the file has changed since it was found, or is damaged.
        """
        expect_image_size(sample.size)
        points = self.points / _name(sample.container) if self.points else None
        archive = _archive(self.containers[sample.container], points)
        archive.seek(sample.offset)
        return archive.read(sample.size)


class GzipScan:
    """Lists what ``containers`` hold, and keeps the access points for those who read it."""

    def __init__(self, containers: tuple[Container, ...]) -> None:
        self._containers = containers
        self._points: list[bytes] = []

    def members(self) -> Iterator[tuple[int, Member]]:
        """The place of each file's container and the file, in their order; offsets are those of
        inflated bytes. As many containers as there are processors are inflated at a time.

        Raises:
            PackError: as ``GzipArchive`` and ``sharding.sources.containers.archives.members``.
        """
        self._points = []
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for number, archive in enumerate(pool.map(GzipArchive, self._containers)):
                for member in members(archive, self._containers[number].path):
                    yield number, member
                self._points.append(archive.points())

    def keep(self, folder: Path) -> GzipReader:
        """Write the access points found by ``members`` into ``folder``; returns what reads by
        them."""
        for number, points in enumerate(self._points):
            write_atomically(folder / _name(number), points)
        return GzipReader(self._containers, folder)


def _name(number: int) -> str:
    return f"access-points-{number}"


@lru_cache(maxsize=1)
def _archive(container: Container, points: Path | None) -> GzipArchive:
    """Samples are read in their order, so that one archive at a time is enough."""
    return GzipArchive(container, points)


def _indexed_gzip() -> Any:
    try:
        from indexed_gzip import IndexedGzipFile
    except ImportError as error:
        raise PackError("reading .tar.gz needs a package: pip install indexed_gzip") from error
    return IndexedGzipFile
