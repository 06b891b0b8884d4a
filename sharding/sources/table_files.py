"""Rows of a table in a file: CSV, TSV, JSON Lines or Parquet, read one after the other.

CSV is RFC 4180, UTF-8 (with or without a byte order mark), with the columns' names in the first
line; TSV is the same with tabs. Every field becomes text: numbers only where they are integers.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.errors import PackError, first_line

_BATCH = 16_384  # rows of a Parquet file in memory at a time


class Row(NamedTuple):
    """A row: where it is in its file, for messages, and its ``fields``, "" where there is none."""

    place: str
    fields: tuple[str, ...]


class TableFile(Protocol):
    """A table in a file."""

    def columns(self) -> list[str]:
        """Names of the columns."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """The rows with these ``columns``, at least two, in the order of the file."""


def open_table(path: Path) -> TableFile:
    """The table in the file ``path``, whose format follows from the extension.

    Its methods raise PackError, with file and line, for what is not such a table.

    Raises:
        PackError: the extension is unknown.
    """
    kinds: dict[str, TableFile] = {
        ".csv": _Delimited(path, ","),
        ".tsv": _Delimited(path, "\t"),
        ".jsonl": _JsonLines(path),
        ".parquet": _Parquet(path),
    }
    try:
        return kinds[path.suffix.lower()]
    except KeyError as error:
        raise PackError(f"{path}: expected a table called {', '.join(kinds)}") from error


class _Delimited:
    def __init__(self, path: Path, delimiter: str) -> None:
        self._path, self._delimiter = path, delimiter

    def columns(self) -> list[str]:
        for _, names in self._records():
            return names
        raise PackError(f"{self._path} is empty; its first line has to name the columns")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        names = self.columns()
        pick = itemgetter(*(names.index(column) for column in columns))
        records = self._records()
        next(records)
        for number, record in records:
            if len(record) != len(names):
                raise PackError(
                    f"{self._path}, line {number}: {len(record)} fields instead of {len(names)}; "
                    "put a field that has the delimiter into double quotes"
                )
            yield Row(f"line {number}", pick(record))

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        with _reported(self._path), self._path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            try:
                for record in reader:
                    if record:  # a blank line is no record
                        yield reader.line_num, record
            except csv.Error as error:
                raise PackError(f"{self._path}, line {reader.line_num}: {error}") from error


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._path = path

    def columns(self) -> list[str]:
        for _, names in self._objects():
            return list(names)
        raise PackError(f"{self._path} is empty; expected a JSON object in each line")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for number, record in self._objects():
            place = f"line {number}"
            fields = [_text(self._path, place, column, record.get(column)) for column in columns]
            yield Row(place, tuple(fields))

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with _reported(self._path), self._path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
                    raise PackError(f"{self._path}, line {number}: not a JSON object")
                yield number, record


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path

    def columns(self) -> list[str]:
        with _reported(self._path), pq.ParquetFile(self._path) as file:
            return list(file.schema_arrow.names)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        with _reported(self._path), pq.ParquetFile(self._path) as file:
            batches = file.iter_batches(_BATCH, columns=list(columns))
            for number, record in enumerate(_records(batches, columns), start=1):
                place = f"row {number}"
                fields = [
                    _text(self._path, place, column, value)
                    for column, value in zip(columns, record, strict=True)
                ]
                yield Row(place, tuple(fields))


def _records(batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> Iterator[tuple]:
    for batch in batches:
        yield from zip(*(batch.column(column).to_pylist() for column in columns), strict=True)


def _text(path: Path, place: str, column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise PackError(
        f"{path}, {place}: {column!r} is neither text nor an integer but {type(value).__name__}"
    )


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Report that the file ``path`` cannot be read, or is not UTF-8 or not Parquet."""
    try:
        yield
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise PackError(
            f"{path}, line {_first_undecodable(path)}: not UTF-8; convert the table, e.g. with "
            "`iconv -t utf-8`"
        ) from error
    except pa.ArrowException as error:
        raise PackError(f"{path} is not a readable Parquet table: {first_line(error)}") from error


def _first_undecodable(path: Path) -> int:
    """Number of the first line of the file that is not UTF-8."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1  # the file was replaced
