"""A pack's index, `index.parquet`: one row a sample, in shard order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import PackError, first_line
from sharding.format.files import atomic_file

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
_STRINGS = ("key", "source")


@dataclass(frozen=True)
class Index:
    """The numeric columns of a pack's index; arrays of N samples in shard order.

    Attributes:
        shard: int32 (N,), position in the manifest's ``shards``.
        offset: int64 (N,), first byte of the encoded image inside the tar file.
        size: int64 (N,), bytes of the encoded image.
        label: int32 (N,), position in the manifest's ``classes``.
        domain: int16 (N,), position in the manifest's ``domains``.
        split: int16 (N,), position in the manifest's ``splits``.
        width, height: int32 (N,), pixels.
        crc32: uint32 (N,), of the encoded image.
    """

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
    def load(pack: Path) -> "Index":
        """Read the index of the folder ``pack``; the strings stay on disk.

        Raises:
            PackError: there is no index, or it is no index of a pack.
        """
        names = [name for name in SCHEMA.names if name not in _STRINGS]
        table = _read(pack, names)
        return Index(**{name: table.column(name).to_numpy() for name in names})


def read_strings(pack: Path, column: str, rows: np.ndarray | None = None) -> list[str]:
    """The ``column`` ("key" or "source") of all samples, or of ``rows``, int (n,), in their order.

    Raises:
        PackError: there is no index, or it is no index of a pack.
    """
    strings = _read(pack, [column]).column(column)
    return (strings if rows is None else strings.take(pa.array(rows))).to_pylist()


def write_index(pack: Path, shards: Iterable[Mapping[str, Sequence[Any]]]) -> None:
    """Write the index, one row group a shard; each shard gives all columns of ``SCHEMA``."""
    with (
        atomic_file(Path(pack) / FILE_NAME) as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        for columns in shards:
            writer.write_table(pa.table(dict(columns), schema=SCHEMA))


def _read(pack: Path, columns: list[str]) -> pa.Table:
    path = Path(pack) / FILE_NAME
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise PackError(f"cannot read {path}: {first_line(error)}; pack the tree again") from error
