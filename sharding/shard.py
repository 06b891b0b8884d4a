"""Writing one shard: a pure function of the listing, the options and the shard's number."""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharding.format import tar
from sharding.format.files import atomic_file, write_atomically
from sharding.format.index import SCHEMA, key_name
from sharding.format.manifest import ShardInfo, shard_name
from sharding.images import ImageOptions, PackedImage, Rejected, pack_image
from sharding.listing import Listing

Tell = Callable[[int, int, int], None]
_TELL_EVERY = 32


@dataclass(frozen=True)
class Shard:
    """A written shard.

    Attributes:
        info: what the manifest says of it.
        columns: its rows of the index, by column.
        rejects: the sources that are not in it, and why.
    """

    info: ShardInfo
    columns: dict[str, list[Any]]
    rejects: list[dict[str, str]]

    @staticmethod
    def load(work: Path, pack: Path, number: int) -> "Shard | None":
        """The record of a shard that was written in full, or None."""
        try:
            fields = json.loads(_record(work, number).read_text())
            shard = Shard(ShardInfo(**fields["info"]), fields["columns"], fields["rejects"])
            size = (pack / shard.info.name).stat().st_size
            (pack / shard.info.name).with_suffix(".idx").stat()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return shard if size == shard.info.bytes else None


class _Writer:
    """Appends samples to a tar file and keeps its index, size and sha256 along."""

    def __init__(self, file: Any, number: int) -> None:
        self._file, self._number = file, number
        self._digest = hashlib.sha256()
        self.size = 0
        self.lines: list[str] = []
        self.columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def add(self, key: str, image: PackedImage, source: str, record: Any) -> None:
        label, size = int(record["label"]), len(image.content)
        label_text, offset = b"%d" % label, self.size + tar.BLOCK
        self._write(tar.header(f"{key}.{image.extension}", size))
        self._write(image.content)
        self._write(
            tar.padding(size)
            + tar.header(f"{key}.cls", len(label_text))
            + label_text
            + tar.padding(len(label_text))
        )
        self.lines.append(tar.index_line(key, image.extension, offset, size, label_text))
        row = (
            key,
            self._number,
            offset,
            size,
            label,
            int(record["domain"]),
            int(record["split"]),
            image.width,
            image.height,
            zlib.crc32(image.content),
            readable(source),
        )
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)

    def close(self) -> str:
        """End the tar file; returns its sha256 (hex)."""
        self._write(tar.end(self.size))
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


def readable(source: str) -> str:
    """``source`` as text; bytes of a file name that are no UTF-8 become escapes."""
    return source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class ShardTask:
    """Writes any shard of a pack; can be sent to another process or machine.

    Attributes:
        pack: folder of the pack.
        work: folder with the listing and the records of the shards.
        read: gives a source's encoded image.
        options: treatment of the images.
    """

    pack: Path
    work: Path
    read: Callable[[str], bytes]
    options: ImageOptions

    def __call__(self, number: int, tell: Tell = lambda *_: None) -> tuple[int, int, int]:
        """Write ``shard-<number>.tar`` and ``.idx`` and its record, unless they are there already.

        ``tell`` is called now and then with what was done since: images, bytes, rejects.

        Returns:
            Images, bytes and rejects of the shard.
        """
        shard = Shard.load(self.work, self.pack, number)
        if shard is None:
            shard = self._write(number, tell)
        else:
            tell(shard.info.samples, shard.info.bytes, len(shard.rejects))
        return shard.info.samples, shard.info.bytes, len(shard.rejects)

    def write(self, number: int, tell: Tell = lambda *_: None) -> Shard:
        """Write the tar file and the DALI index of shard ``number``."""
        listing = Listing.load(self.work / "listing")
        name = shard_name(number)
        rejects: list[dict[str, str]] = []
        with atomic_file(self.pack / name) as file:
            writer = _Writer(file, number)
            told = (0, 0, 0)
            for count, sample in enumerate(listing.shard(number).tolist(), start=1):
                source = listing.source(sample)
                try:
                    image = pack_image(self.read(source), self.options)
                except (Rejected, OSError) as error:
                    rejects.append({"source": readable(source), "reason": str(error)})
                else:
                    writer.add(key_name(sample), image, source, listing.records[sample])
                if count % _TELL_EVERY == 0:
                    told = _tell(tell, told, (len(writer.lines), writer.size, len(rejects)))
            sha256 = writer.close()
        _tell(tell, told, (len(writer.lines), writer.size, len(rejects)))
        lines = [f"v1.2 {len(writer.lines)}", *writer.lines, ""]
        write_atomically((self.pack / name).with_suffix(".idx"), "\n".join(lines).encode())
        info = ShardInfo(name, len(writer.lines), writer.size, sha256)
        return Shard(info, writer.columns, rejects)

    def _write(self, number: int, tell: Tell) -> Shard:
        shard = self.write(number, tell)
        write_atomically(_record(self.work, number), json.dumps(shard, default=vars).encode())
        return shard


def _tell(tell: Tell, before: tuple[int, ...], now: tuple[int, int, int]) -> tuple[int, int, int]:
    tell(*(new - old for new, old in zip(now, before, strict=True)))
    return now


def _record(work: Path, number: int) -> Path:
    return work / f"shard-{number:06d}.json"
