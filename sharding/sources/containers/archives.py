"""The members of tar archives: names and places, from the headers alone, and nothing unsafe.

An archive may come from anywhere and may be cut short. What it holds is listed completely or not at
all: an archive that is damaged, or has a member that is neither a file nor a folder, is an error.
"""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from runtime.errors import PackError, first_line

_BLOCK = 512
_MAX_READ = 1 << 20  # bytes; more than any name or extended header takes
_MAX_EMPTY_READS = 4
_CHUNK = 1 << 20
_SHOWN = 40
_SIZE, _CHECKSUM, _MAGIC = slice(124, 136), slice(148, 156), slice(257, 265)  # of a POSIX header
_TYPE, _PREFIX = 156, 345
_AGAIN = "get it again"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
# What tarfile raises for damaged and for hostile archives.
_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, LookupError, RecursionError)


class Member(NamedTuple):
    """A file in a tar archive: its name, its first byte's place in the archive, its size in bytes.

    ``name`` is relative, has no `..`, no empty and no `.` parts, and may have surrogates where its
    bytes are not UTF-8.
    """

    name: str
    offset: int
    size: int


class Seekable(Protocol):
    """What is needed of an open archive; positions and sizes in bytes."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; fewer only at the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to ``offset``."""

    def tell(self) -> int:
        """Where the next byte is read."""


def members(file: Seekable, title: str, within: Member | None = None) -> Iterator[Member]:
    """The files in an uncompressed tar archive, in their order; no content is read.

    Args:
        file: the open archive.
        title: what messages call it, e.g. its path.
        within: the member of ``file`` that is itself the archive to list; by default ``file``.

    Yields:
        Members whose offsets count from the beginning of ``file``. Folders are not among them.

    Raises:
        PackError: it is not a tar archive, it is damaged or truncated, or it has a member with an
            absolute name or `..`, a link, a device, a pipe or a sparse file.
    """
    section = _Section(file, title, within)
    last = None
    try:
        with tarfile.TarFile(fileobj=section, tarinfo=_Entry) as archive:  # type: ignore[arg-type]
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or all would be kept
                if (member := _member(entry, section)) is not None:
                    last = member
                    yield member
            section.expect_end(archive.offset)
    except _DAMAGE as error:
        raise section.damaged(last, error) from error


class _Entry(tarfile.TarInfo):
    """A header, of which only what is needed here is read where it is a plain one: with a million
    members, ``tarfile`` takes longer for the rest than for all else."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """As in ``tarfile``; owner, mode, time and the like are left at their defaults."""
        plain = len(buf) == _BLOCK and buf[_MAGIC] == b"ustar\x0000"
        plain = plain and buf[_PREFIX] == 0 and buf[_TYPE] in b"0x"
        size, stated = buf[_SIZE], buf[_CHECKSUM].strip(b"\0 ")
        if not (plain and size[:11].isdigit() and size[11] in b"\0 " and stated.isdigit()):
            return super().frombuf(buf, encoding, errors)
        if sum(buf) - sum(buf[_CHECKSUM]) + 8 * ord(" ") != int(stated, 8):
            return super().frombuf(buf, encoding, errors)
        entry = cls(buf[:100].partition(b"\0")[0].decode(encoding, errors))
        entry.size, entry.type = int(size[:11], 8), buf[_TYPE : _TYPE + 1]
        return entry


class _Section:
    """An archive as ``tarfile`` reads it: a file, or a part of it, in small reads only."""

    def __init__(self, file: Seekable, title: str, within: Member | None) -> None:
        self._file = file
        self.title = f"{within.name} in {title}" if within else title
        self.start = within.offset if within else 0
        self._size = within.size if within else None
        self._position = 0
        self._empty_reads = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise EOFError(f"a header of {size:,} bytes")
        if self._size is not None:
            size = max(min(size, self._size - self._position), 0)
        self._file.seek(self.start + self._position)
        content = self._file.read(size)
        self._position += len(content)
        self._empty_reads += not content
        if self._empty_reads > _MAX_EMPTY_READS:  # tarfile would ask for the rest forever
            raise EOFError("it ends too early")
        return content

    def seek(self, offset: int) -> int:
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Leave the file open: it is its owner's."""

    def expect_end(self, offset: int) -> None:
        """Raise EOFError unless the archive ends at ``offset``, and only zeros follow."""
        self.seek(offset)
        content = first = self.read(_BLOCK)
        if len(first) < _BLOCK:
            raise EOFError("it lacks its end")
        while content:
            if content.count(0) != len(content):
                raise EOFError("no header" if content is first else "data after its end")
            content = self.read(_CHUNK)

    def damaged(self, last: Member | None, error: Exception) -> PackError:
        """The error for an archive that cannot be read after its member ``last``."""
        if last is not None:
            place = f"after {last.name!r}"
            return PackError(
                f"{self.title} is truncated or damaged {place}: {first_line(error)}; {_AGAIN}"
            )
        self._file.seek(self.start)
        content = self._file.read(_SHOWN)
        if content.startswith(_COMPRESSED):
            return PackError(f"{self.title} is compressed; decompress it first")
        beginning = content.decode("latin-1").split("\n")[0]
        begins = f", it begins with {beginning!r}" if beginning.isprintable() and beginning else ""
        return PackError(f"{self.title} is not a tar archive{begins}; {_AGAIN}")


def _member(entry: tarfile.TarInfo, section: _Section) -> Member | None:
    """The member of a header, or None for a folder."""
    path = PurePosixPath(entry.name)
    said = f"{section.title} holds {entry.name!r}, "
    if path.is_absolute() or ".." in path.parts:
        raise PackError(f"{said}a name that leads out of the archive; do not use this archive")
    if entry.isdir():
        return None
    if entry.issparse():
        raise PackError(f"{said}a sparse file; make the archive without --sparse")
    if not entry.isreg():
        kind = "a link" if entry.islnk() or entry.issym() else "not a file"
        raise PackError(f"{said}{kind}; make the archive of regular files (tar --dereference)")
    if entry.size < 0 or not path.parts:
        raise EOFError(f"{entry.name!r} of {entry.size:,} bytes")
    return Member(str(path), section.start + entry.offset_data, entry.size)
