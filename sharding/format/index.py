"""A pack's index, `index.parquet`: one row per sample, in shard order.

An index may come from an untrusted source. Its rows are counted before they are read, so that the
manifest bounds the memory they take, and ``problems`` compares their values with the manifest.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runtime.errors import first_line
from runtime.files import atomic_file, file_sha256
from sharding.format import tar
from sharding.format.files import MalformedError, open_regular
from sharding.format.manifest import IndexInfo, Manifest

FILE_NAME = "index.parquet"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("label", pa.int32()),
        ("domain", pa.int16()),
        ("split", pa.int16()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crc32", pa.uint32()),
        ("source", pa.string()),
    ]
)
MAX_PIXELS = 2**29  # per image; 1.5 GiB when decoded
_STRINGS = ("key", "source")
_KEY = r"^(\d{9}|[1-9]\d{9,17})$"  # what key_name returns
_MAX_STRING = {"key": 64, "source": 20_000}  # a path of 4096 bytes, all escaped
_MAX_OVERHEAD = 1 << 20  # bytes besides the rows, of the file and of a column in memory


@dataclass(frozen=True)
class Index:
    """A pack's index without the sources: columns of N rows, in shard order.

    Attributes:
        key: int64 (N,), number in the sorted listing; ``key_name`` turns it into the key.
        shard: int32 (N,), index into the manifest's ``shards``.
        offset: int64 (N,), first byte of the encoded image inside the tar file.
        size: int64 (N,), bytes of the encoded image.
        label: int32 (N,), index into the manifest's ``classes``.
        domain: int16 (N,), index into the manifest's ``domains``.
        split: int16 (N,), index into the manifest's ``splits``.
        width, height: int32 (N,), pixels.
        crc32: uint32 (N,), of the encoded image.
    """

    key: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    label: np.ndarray
    domain: np.ndarray
    split: np.ndarray
    width: np.ndarray
    height: np.ndarray
    crc32: np.ndarray

    def __len__(self) -> int:
        return len(self.shard)

    @staticmethod
    def read(pack: Path, manifest: Manifest) -> "Index":
        """Read the index of the folder ``pack``; the values are not compared with ``manifest``.

        Raises:
            MalformedError: there is no index, or it has different columns, a different number of
                rows, nulls, or keys that are not plain numbers.
        """
        columns = [name for name in SCHEMA.names if name not in _STRINGS]
        with _opened(pack, manifest.samples) as file:
            table = _read(file, manifest, ["key", *columns])
            arrays = {name: table.column(name).to_numpy() for name in columns}
            return Index(key=_key_numbers(table.column("key")), **arrays)

    def __getitem__(self, rows: slice) -> "Index":
        """The index of only these ``rows``."""
        return Index(**{name: column[rows] for name, column in vars(self).items()})

    def problems(self, manifest: Manifest) -> list[str]:
        """What contradicts ``manifest``: one line per kind of mistake, naming its first row.

        The samples of a shard follow one another without gaps (see ``sharding.format.tar``), so
        their sizes alone determine where each begins and where the shard ends.
        """
        found = []
        for ok, mistake in self._checks(manifest):
            if not ok.all():
                row = int(np.argmin(ok))
                more = int(len(ok) - np.count_nonzero(ok)) - 1
                suffix = f", and {more} more" if more else ""
                found.append(f"row {row} (sample {key_name(self.key[row])}{suffix}) {mistake}")
        ordered = np.sort(self.key)
        if repeated := ordered[1:][ordered[1:] == ordered[:-1]].tolist():
            found.append(f"sample {key_name(repeated[0])} occurs twice")
        return found

    def _checks(self, manifest: Manifest) -> Iterator[tuple[np.ndarray, str]]:
        """Yield for each check bool (N,), which rows pass it, and what is wrong with the others."""
        for column, names in (
            ("label", manifest.classes),
            ("domain", manifest.domains),
            ("split", manifest.splits),
        ):
            value = getattr(self, column)
            yield (value >= 0) & (value < len(names)), f"has a {column} that has no name"
        yield (self.width > 0) & (self.height > 0), "has no pixels"
        pixels = self.width.astype(np.int64) * self.height
        yield pixels <= MAX_PIXELS, f"has more than {MAX_PIXELS} pixels"
        samples = np.array([shard.samples for shard in manifest.shards])
        shard = np.repeat(np.arange(len(samples)), samples)
        yield self.shard == shard, "is not in the shard that the manifest implies"
        sound = (self.size > 0) & (self.size <= tar.MAX_SIZE)
        yield sound, "has an impossible size"
        if sound.all():
            yield from self._layout_checks(manifest, samples, shard)

    def _layout_checks(
        self, manifest: Manifest, samples: np.ndarray, shard: np.ndarray
    ) -> Iterator[tuple[np.ndarray, str]]:
        """As ``_checks``; ``samples`` is int64 (S,), per shard, ``shard`` int64 (N,), per row."""
        taken = np.concatenate([[0], np.cumsum(tar.sample_bytes(self.size))])
        first = np.concatenate([[0], np.cumsum(samples)])
        begin, end = taken[first[:-1]], taken[first[1:]]  # (S,), per shard
        expected = taken[:-1] - begin[shard] + tar.BLOCK
        yield self.offset == expected, "does not begin where the sample before it ends"
        stated = np.array([info.bytes for info in manifest.shards])
        yield (tar.file_bytes(end - begin) == stated)[shard], "is in a shard of a different size"


@dataclass
class IndexColumns:
    """Rows of an index as they are written: the columns of ``SCHEMA``, in its order."""

    key: list[str] = field(default_factory=list)
    shard: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    domain: list[int] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    height: list[int] = field(default_factory=list)
    crc32: list[int] = field(default_factory=list)
    source: list[str] = field(default_factory=list)


def key_name(number: int) -> str:
    """The key of sample ``number`` of the sorted listing."""
    return f"{number:09d}"


def max_bytes(samples: int) -> int:
    """The most bytes that the file can have."""
    return _MAX_OVERHEAD + samples * sum(map(_row_bytes, SCHEMA.names))


def has_checksum(pack: Path, manifest: Manifest) -> bool:
    """Whether the index matches its checksum in ``manifest``; True if that has none (schema 1).

    Raises:
        MalformedError: there is no readable index, or it is too large for its rows.
    """
    if manifest.index is None:
        return True
    with _opened(pack, manifest.samples) as file:
        return file_sha256(file) == manifest.index.sha256


def read_sources(pack: Path, manifest: Manifest) -> pa.ChunkedArray:
    """The source path of each sample, N strings, dictionary-encoded.

    Raises:
        MalformedError: there is no index, or its sources contradict ``manifest``.
    """
    with _opened(pack, manifest.samples) as file:
        return _read(file, manifest, ["source"]).column("source")


def write_index(pack: Path, shards: Iterable[IndexColumns]) -> IndexInfo:
    """Write the index of the folder ``pack``, one row group per shard.

    Returns:
        What the manifest records about it.
    """
    rows = 0
    with (
        atomic_file(Path(pack) / FILE_NAME) as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        for columns in shards:
            table = pa.table(vars(columns), schema=SCHEMA)
            rows += len(table)
            writer.write_table(table)
    with open_regular(Path(pack) / FILE_NAME) as file:
        return IndexInfo(rows, file_sha256(file))


@contextmanager
def _opened(pack: Path, samples: int) -> Iterator[BinaryIO]:
    """Open the index of ``pack`` unless it is too large for its ``samples``."""
    try:
        with open_regular(Path(pack) / FILE_NAME) as file:
            if os.fstat(file.fileno()).st_size > max_bytes(samples):
                raise MalformedError(f"it is too large for {samples} samples")
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise MalformedError(f"it cannot be read: {reason or first_line(error)}") from error


def _read(file: BinaryIO, manifest: Manifest, columns: list[str]) -> pa.Table:
    """Read ``columns``. Strings are dictionary-encoded, so that a long string that occurs in many
    rows is in memory only once.

    No thread of pyarrow's reads the file: one that still holds a Python object when the interpreter
    ends may abort the process.
    """
    rows = manifest.samples
    metadata = pq.ParquetFile(file, pre_buffer=False)
    if not metadata.schema_arrow.equals(SCHEMA):
        raise MalformedError("it does not have the columns of an index")
    _check_sizes(metadata.metadata, manifest, columns)
    table = pq.ParquetFile(
        file, metadata=metadata.metadata, read_dictionary=_STRINGS, pre_buffer=False
    ).read(columns, use_threads=False)
    if len(table) != rows or any(column.null_count for column in table.columns):
        raise MalformedError("it has nulls, or a different number of rows than it states")
    for name in set(columns) & set(_STRINGS):
        for chunk in table.column(name).chunks:
            chunk.validate(full=True)
            longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
            if longest > _row_bytes(name):
                raise MalformedError(f"it has a {name} of {longest} bytes")
    return table


def _check_sizes(metadata: pq.FileMetaData, manifest: Manifest, columns: list[str]) -> None:
    """Refuse an index with a different number of rows than the manifest, or whose ``columns`` take
    more memory than their rows can need."""
    if metadata.num_rows != manifest.samples:
        raise MalformedError(
            f"it has {metadata.num_rows} rows, the manifest {manifest.samples} samples"
        )
    if metadata.num_row_groups > len(manifest.shards):
        raise MalformedError("it has more row groups than the pack has shards")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for group in groups:  # sources are rarely read, but their nulls are always checked
        statistics = group.column(SCHEMA.get_field_index("source")).statistics
        if statistics is not None and statistics.null_count:
            raise MalformedError("it has nulls")
    for name in columns:
        chunks = [group.column(SCHEMA.get_field_index(name)) for group in groups]
        stated = sum(max(chunk.total_uncompressed_size, 0) for chunk in chunks)
        if stated > _MAX_OVERHEAD + manifest.samples * _row_bytes(name):
            raise MalformedError(f"its column {name} takes {stated} bytes")


def _row_bytes(column: str) -> int:
    """The maximum number of bytes that a row can need in this column of the file."""
    return _MAX_STRING.get(column, 16)


def _key_numbers(keys: pa.ChunkedArray) -> np.ndarray:
    """int64 (N,), the numbers from which ``key_name`` made ``keys``."""
    names = keys.cast(pa.string())
    if not pc.all(pc.match_substring_regex(names, _KEY)).as_py():
        raise MalformedError("it has a key that is not a number of nine digits or more")
    return names.cast(pa.int64()).to_numpy()
