"""Writing one shard: a pure function of the listing, the options and the shard's number."""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sharding import tar
from sharding.files import atomic_file, write_atomically
from sharding.images import ImageOptions, PackedImage, Rejected, pack_image
from sharding.index import SCHEMA
from sharding.listing import Listing
from sharding.manifest import ShardInfo


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
        label = int(record["label"])
        offset, line = self._member(key, image.extension, image.content)
        _, label_line = self._member(key, "cls", str(label).encode())
        self.lines.append(f"{line} {label_line}")
        row = (
            key,
            self._number,
            offset,
            len(image.content),
            label,
            int(record["domain"]),
            int(record["split"]),
            image.width,
            image.height,
            zlib.crc32(image.content),
            *image.mean,
            source,
        )
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)

    def close(self) -> str:
        """End the tar file; returns its sha256 (hex)."""
        self._write(tar.end(self.size))
        return self._digest.hexdigest()

    def _member(self, key: str, extension: str, content: bytes) -> tuple[int, str]:
        name = f"{key}.{extension}"
        self._write(tar.header(name, len(content)))
        offset = self.size
        self._write(content)
        self._write(tar.padding(len(content)))
        return offset, f"{extension} {offset} {len(content)} {name}"

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


def write_shard(
    pack: Path, work: Path, read: Callable[[str], bytes], options: ImageOptions, number: int
) -> tuple[int, int, int]:
    """Write ``shard-<number>.tar`` and ``.idx`` into ``pack`` and its record into ``work``, unless
    they are there already. ``read`` gives a source's encoded image.

    Returns:
        Samples, rejects and bytes of the shard.
    """
    shard = Shard.load(work, pack, number)
    if shard is None:
        shard = _write(pack, work, read, options, number)
    return shard.info.samples, len(shard.rejects), shard.info.bytes


def _write(
    pack: Path, work: Path, read: Callable[[str], bytes], options: ImageOptions, number: int
) -> Shard:
    listing = Listing.load(work / "listing")
    name = f"shard-{number:06d}"
    rejects = []
    with atomic_file(pack / f"{name}.tar") as file:
        writer = _Writer(file, number)
        for sample in listing.shard(number).tolist():
            source = listing.source(sample)
            try:
                image = pack_image(read(source), options)
            except (Rejected, OSError) as error:
                rejects.append({"source": source, "reason": str(error)})
            else:
                writer.add(f"{sample:09d}", image, source, listing.records[sample])
        sha256 = writer.close()
    lines = [f"v1.2 {len(writer.lines)}", *writer.lines, ""]
    write_atomically(pack / f"{name}.idx", "\n".join(lines).encode())
    info = ShardInfo(f"{name}.tar", len(writer.lines), writer.size, sha256)
    shard = Shard(info, writer.columns, rejects)
    write_atomically(_record(work, number), json.dumps(asdict(shard)).encode())
    return shard


def _record(work: Path, number: int) -> Path:
    return work / f"shard-{number:06d}.json"
