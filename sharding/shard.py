"""Writes one shard: a pure function of the listing, the options and the shard's number."""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.files import atomic_file, write_atomically
from sharding.format import tar
from sharding.format.index import IndexColumns, key_name
from sharding.format.manifest import ShardInfo, dali_index_name, shard_name
from sharding.format.rejects import Reject
from sharding.images import ImageOptions, PackedImage, Rejected, pack_image
from sharding.listing import Listing
from sharding.sources.dataset import Sample

_REPORT_EVERY = 32


@dataclass(frozen=True)
class Progress:
    """Images packed, bytes written and sources rejected."""

    images: int = 0
    bytes: int = 0
    rejects: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(
            self.images + other.images, self.bytes + other.bytes, self.rejects + other.rejects
        )

    def __sub__(self, other: "Progress") -> "Progress":
        return Progress(
            self.images - other.images, self.bytes - other.bytes, self.rejects - other.rejects
        )


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Shard:
    """A written shard.

    Attributes:
        info: its entry in the manifest.
        columns: its rows of the index.
        rejects: the sources that were left out, and why.
    """

    info: ShardInfo
    columns: IndexColumns
    rejects: list[Reject]

    @property
    def progress(self) -> Progress:
        """The progress that writing it made."""
        return Progress(self.info.samples, self.info.bytes, len(self.rejects))

    @staticmethod
    def load(pack: Path, work: Path, number: int) -> "Shard | None":
        """Shard ``number`` as recorded in ``work``; None unless it is complete in ``pack``."""
        try:
            fields = json.loads(_record(work, number).read_text())
            shard = Shard(
                ShardInfo(**fields["info"]),
                IndexColumns(**fields["columns"]),
                [Reject(**reject) for reject in fields["rejects"]],
            )
            size = (pack / shard.info.name).stat().st_size
            (pack / shard.info.name).with_suffix(".idx").stat()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return shard if size == shard.info.bytes else None


class _Writer:
    """Appends samples to a tar file and keeps track of its index, size and sha256."""

    def __init__(self, file: Any, number: int) -> None:
        self._file, self._number = file, number
        self._digest = hashlib.sha256()
        self.size = 0
        self.lines: list[str] = []
        self.columns = IndexColumns()

    def add(self, key: str, image: PackedImage, sample: Sample) -> None:
        label_text, size = b"%d" % sample.label, len(image.content)
        offset = self.size + tar.BLOCK
        self._write(tar.header(f"{key}.{image.extension}", size))
        self._write(image.content)
        self._write(
            tar.padding(size)
            + tar.header(f"{key}.cls", len(label_text))
            + label_text
            + tar.padding(len(label_text))
        )
        self.lines.append(tar.index_line(key, image.extension, offset, size, label_text))
        self.columns.key.append(key)
        self.columns.shard.append(self._number)
        self.columns.offset.append(offset)
        self.columns.size.append(size)
        self.columns.label.append(sample.label)
        self.columns.domain.append(sample.domain)
        self.columns.split.append(sample.split)
        self.columns.width.append(image.width)
        self.columns.height.append(image.height)
        self.columns.crc32.append(zlib.crc32(image.content))
        self.columns.source.append(readable(sample.source))

    def close(self) -> str:
        """End the tar file; returns its sha256 (hex)."""
        self._write(tar.end(self.size))
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


def readable(source: str) -> str:
    """``source`` as text; bytes that are not valid UTF-8 are backslash-escaped."""
    return source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class ShardTask:
    """Writes any shard of a pack; can be sent to another process or machine.

    Attributes:
        pack: folder of the pack.
        work: folder of the listing and of the shards' records.
        read: returns a sample's encoded image, as ``Dataset.read``.
        options: how images are checked and converted.
    """

    pack: Path
    work: Path
    read: Callable[[Sample], bytes]
    options: ImageOptions

    def ensure(self, number: int, on_progress: OnProgress = lambda _: None) -> Progress:
        """Write shard ``number`` and its record, unless both exist.

        ``on_progress`` is called periodically with the progress since the last call.

        Raises:
            PackError: a source has changed since it was listed.
            OSError: the shard cannot be written.
        """
        shard = Shard.load(self.pack, self.work, number)
        if shard is None:
            shard = self.write(number, on_progress)
            record = json.dumps(shard, default=vars).encode()
            write_atomically(_record(self.work, number), record)
        else:
            on_progress(shard.progress)
        return shard.progress

    def write(self, number: int, on_progress: OnProgress = lambda _: None) -> Shard:
        """Write ``shard-<number>.tar`` and its DALI index ``.idx``. Otherwise as ``ensure``."""
        listing = Listing.load(self.work / "listing")
        name = shard_name(number)
        rejects: list[Reject] = []
        reported = Progress()
        with atomic_file(self.pack / name) as file:
            writer = _Writer(file, number)
            for count, listed in enumerate(listing.shard(number).tolist(), start=1):
                sample = listing.sample(listed)
                try:
                    image = pack_image(self.read(sample), self.options)
                except (Rejected, OSError) as error:
                    reason = getattr(error, "strerror", None) or str(error)
                    rejects.append(Reject(readable(sample.source), reason))
                else:
                    writer.add(key_name(listed), image, sample)
                if count % _REPORT_EVERY == 0:
                    done = Progress(len(writer.lines), writer.size, len(rejects))
                    on_progress(done - reported)
                    reported = done
            sha256 = writer.close()
        lines = [f"v1.2 {len(writer.lines)}", *writer.lines, ""]
        write_atomically(self.pack / dali_index_name(name), "\n".join(lines).encode())
        info = ShardInfo(name, len(writer.lines), writer.size, sha256)
        shard = Shard(info, writer.columns, rejects)
        on_progress(shard.progress - reported)
        return shard


def _record(work: Path, number: int) -> Path:
    return work / f"shard-{number:06d}.json"
