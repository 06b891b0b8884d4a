"""Images in the rows of Parquet files, as Hugging Face stores them: listed without reading them,
then read one row group at a time.

An image is a column of bytes, or a struct with the fields `bytes` and `path`.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from runtime.errors import PackError, first_line
from sharding.sources.containers.container import Container, expect_image_size
from sharding.sources.dataset import Sample

_MAX_ROW_GROUP = 4 * 2**30  # bytes of the images of one row group, which a worker holds in memory
_BATCH = 4096


class Row(NamedTuple):
    """A row without its image.

    Attributes:
        number: the row's number in its file.
        size: bytes of the image, on average over its row group.
        path: the image's path as the file states it, or None.
        values: the row's values in the other columns that were asked for.
    """

    number: int
    size: int
    path: str | None
    values: tuple[Any, ...]


def schema(container: Container) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        PackError: it is not a Parquet file, or is damaged.
    """
    with _damage_named(container), _opened(container) as file:
        return file.schema_arrow


def rows(container: Container, image: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a Parquet file, in their order; of its column ``image`` only the paths are read.

    Raises:
        PackError: it is not a Parquet file, is damaged, lacks a column, has no images in the column
            ``image``, or has row groups that a worker cannot hold in memory.
    """
    with _damage_named(container), _opened(container) as file:
        if missing := [name for name in (image, *columns) if name not in file.schema_arrow.names]:
            raise PackError(
                f"{container.path} has no column {missing[0]!r}; its columns are "
                f"{', '.join(file.schema_arrow.names)}"
            )
        stored = _image_column(container, file.schema_arrow, image)
        wanted = [*columns, *([f"{image}.path"] if _has_paths(file.schema_arrow, image) else [])]
        first = 0
        for group in range(file.num_row_groups):
            size = _mean_size(container, file.metadata.row_group(group), stored)
            batches = file.iter_batches(
                _BATCH, row_groups=[group], columns=wanted, use_threads=False
            )
            for batch in batches:
                yield from _rows(batch, first, size, image, columns)
                first += batch.num_rows


@dataclass(frozen=True)
class ParquetReader:
    """Reads samples that are images in Parquet files: ``Sample.container`` is the file's place in
    ``containers``, ``Sample.offset`` the row's number in it, and ``image`` the column."""

    containers: tuple[Container, ...]
    image: str

    def __call__(self, sample: Sample) -> bytes:
        """The image's bytes, which never exceed ``MAX_BYTES``.

        Raises:
            OSError: the row has no image, or a larger one.
            PackError: the file has changed since it was found, or is damaged.
        """
        container = self.containers[sample.container]
        with _damage_named(container):
            starts = _group_starts(container)
            group = bisect_right(starts, sample.offset) - 1
            images = _images(container, group, self.image)
            content = images[sample.offset - starts[group]].as_py()
        if content is None:
            raise OSError("the row holds no bytes of an image")
        expect_image_size(len(content))
        return content


def _opened(container: Container) -> Any:
    return parquet.ParquetFile(container.open(), pre_buffer=False)


def _has_paths(columns: pa.Schema, image: str) -> bool:
    kind = columns.field(image).type
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _image_column(container: Container, columns: pa.Schema, image: str) -> str:
    """The name below which Parquet stores the bytes of the images."""
    kind, name = columns.field(image).type, image
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, name = kind.field("bytes").type, f"{image}.bytes"
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise PackError(
            f"{container.path}: column {image!r} holds {kind}; expected encoded images, as bytes "
            "or as a struct with the field `bytes`"
        )
    return name


def _mean_size(container: Container, group: Any, stored: str) -> int:
    """Mean bytes of an image in a row group, at least 1."""
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema == stored:
            if column.total_uncompressed_size > _MAX_ROW_GROUP:
                raise PackError(
                    f"{container.path} has a row group with {column.total_uncompressed_size:,} "
                    f"bytes of images, more than {_MAX_ROW_GROUP:,}; write it again with a "
                    "smaller row_group_size"
                )
            return max(column.total_uncompressed_size // max(group.num_rows, 1), 1)
    raise OSError(f"a row group lacks the column {stored!r}")


def _rows(
    batch: pa.RecordBatch, first: int, size: int, image: str, columns: Sequence[str]
) -> Iterator[Row]:
    """The rows of a batch, numbered from ``first``."""
    values = list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
    with_paths = image in batch.schema.names
    paths = batch.column(image).field("path").to_pylist() if with_paths else None
    for place in range(batch.num_rows):
        path = paths[place] if paths else None
        yield Row(first + place, size, path, values[place] if values else ())


@lru_cache(maxsize=16)
def _group_starts(container: Container) -> tuple[int, ...]:
    """The first row of each row group."""
    with _opened(container) as file:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return tuple(accumulate(counts, initial=0))


@lru_cache(maxsize=1)
def _images(container: Container, group: int, image: str) -> pa.ChunkedArray:
    """The encoded images of a row group; samples are read in order, so that one is enough."""
    with _opened(container) as file:
        stored = _image_column(container, file.schema_arrow, image)
        column = file.read_row_group(group, columns=[stored], use_threads=False).column(image)
    if stored == image:
        return column
    return pa.chunked_array([chunk.field("bytes") for chunk in column.chunks])


@contextmanager
def _damage_named(container: Container) -> Iterator[None]:
    """Make what pyarrow raises for a damaged file an error that names the ``container``."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PackError(
            f"{container.path} is not a Parquet file, or is damaged: {first_line(error)}; "
            "get it again"
        ) from error
