"""The files of a pack, read and written by their published format."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST, INDEX, REJECTS = "manifest.json", "index.parquet", "rejects.jsonl"
SHARD, DALI_INDEX = "shard-000000.tar", "shard-000000.idx"
BLOCK = 512
SPARSE_BYTES = 9 << 30


@contextmanager
def manifest(pack: Path) -> Iterator[dict[str, Any]]:
    """The manifest, to be changed; its fingerprint is then renewed, as a careful forger would."""
    path = pack / MANIFEST
    content = json.loads(path.read_text())
    yield content
    if content.pop("fingerprint", None):
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(content))


def read_index(pack: Path) -> pa.Table:
    return pq.read_table(pack / INDEX)


def write_index(pack: Path, index: pa.Table, **options: Any) -> None:
    pq.write_table(index, pack / INDEX, **options)


def change_column(
    pack: Path, name: str, change: Callable[[pa.Array], Any], type_: pa.DataType | None = None
) -> None:
    """Replace a column by what ``change`` makes of it, of its type or ``type_``."""
    index = read_index(pack)
    position = index.schema.get_field_index(name)
    old = index.column(name).combine_chunks()
    new = pa.array(change(old), type_ or old.type)
    write_index(pack, index.set_column(position, name, new))


def change_values(pack: Path, name: str, rows: slice | Sequence[int], value: Any) -> None:
    """Set a column's ``rows`` to ``value``, or to what ``value`` makes of them."""

    def change(column: pa.Array) -> list:
        values = np.array(column.to_pylist(), dtype=object)
        values[rows] = value(values[rows]) if callable(value) else value
        return values.tolist()

    change_column(pack, name, change)


def reseal_index(pack: Path) -> None:
    """Let the manifest say of the index what is true, as a careful forger would."""
    content = (pack / INDEX).read_bytes()
    with manifest(pack) as fields:
        if "index" in fields:
            fields["index"]["sha256"] = hashlib.sha256(content).hexdigest()


def reseal_shard(pack: Path, number: int = 0) -> None:
    """Let the manifest say of a shard what is true."""
    with manifest(pack) as fields:
        info = fields["shards"][number]
        content = (pack / info["name"]).read_bytes()
        fields["bytes"] += len(content) - info["bytes"]
        info["bytes"] = len(content)
        info["sha256"] = hashlib.sha256(content).hexdigest()


def to_version_1(pack: Path) -> None:
    """The manifest of a pack that was made before the index had a checksum."""
    with manifest(pack) as fields:
        for name in ("index", "rejects_sha256", "fingerprint"):
            fields.pop(name, None)
        fields["schema_version"] = 1


def row(pack: Path, number: int) -> dict[str, Any]:
    return read_index(pack).slice(number, 1).to_pylist()[0]


def find_row(pack: Path, suffix: str) -> int:
    """The first row of the first shard whose source ends with ``suffix``."""
    sources = read_index(pack).column("source").to_pylist()
    return next(number for number, source in enumerate(sources) if source.endswith(suffix))


def shard_of(pack: Path, number: int) -> Path:
    with manifest(pack) as fields:
        return pack / fields["shards"][row(pack, number)["shard"]]["name"]


def read_image(pack: Path, number: int) -> bytes:
    place = row(pack, number)
    content = shard_of(pack, number).read_bytes()
    return content[place["offset"] : place["offset"] + place["size"]]


def write_image(pack: Path, number: int, content: bytes) -> None:
    """Replace an image by ``content`` of no more bytes, zeros after it; no checksum follows."""
    place = row(pack, number)
    assert len(content) <= place["size"]
    overwrite(shard_of(pack, number), place["offset"], content.ljust(place["size"], b"\0"))


def reseal_image(pack: Path, number: int) -> None:
    """Let index and manifest have the checksums of an image that was replaced."""
    change_values(pack, "crc32", [number], zlib.crc32(read_image(pack, number)))
    reseal_shard(pack, row(pack, number)["shard"])
    reseal_index(pack)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def make_sparse(path: Path, size: int = SPARSE_BYTES) -> None:
    """Let ``path`` grow to ``size`` bytes that take no room."""
    with path.open("ab"):
        os.truncate(path, size)
