"""Predictions as CSV, JSON lines and Parquet files, written while they are made."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.detectors.outputs import writing
from evaluation.report.text import csv_cell, plain
from runtime.files import atomic_file

KNOWN, NOVEL = "known", "novel"
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("decision", pa.string()),
        ("normality", pa.float32()),
        ("nearest", pa.string()),
        ("nearest_score", pa.float32()),
        ("second", pa.string()),
        ("second_score", pa.float32()),
        ("third", pa.string()),
        ("third_score", pa.float32()),
    ]
)
_RANKED = 3


@dataclass(frozen=True)
class Prediction:
    """What a detector says about an image.

    Attributes:
        image: its path, or its key in a pack.
        known: whether its normality reaches the threshold.
        normality: high for known.
        nearest: up to three known classes and their scores, nearest first.
    """

    image: str
    known: bool
    normality: float
    nearest: tuple[tuple[str, float], ...]

    def values(self) -> list[str | float | None]:
        """The values of ``SCHEMA``; None for a class that there is not."""
        ranked = [value for pair in self.nearest for value in pair]
        missing = [None] * (2 * _RANKED - len(ranked))
        return [self.image, KNOWN if self.known else NOVEL, self.normality, *ranked, *missing]


class Writer(Protocol):
    """A file of predictions that is being written."""

    def write(self, predictions: Sequence[Prediction]) -> None:
        """Append predictions."""


@contextmanager
def prediction_file(path: Path) -> Iterator[Writer]:
    """Write predictions to ``path``, in the format of its extension; it appears, or replaces a
    file, when the block ends without an exception.

    Raises:
        ConfigError: it cannot be written.
    """
    open_writer = _FORMATS[path.suffix]
    with writing(path, "predictions", "--out"), atomic_file(path) as file, open_writer(file) as own:
        yield own


class _Csv:
    def __init__(self, file: io.TextIOBase) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(SCHEMA.names)

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            values = prediction.values()
            self._writer.writerow(csv_cell(v) if isinstance(v, str) else v for v in values)


@contextmanager
def _csv(file: BinaryIO) -> Iterator[Writer]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        yield _Csv(text)
    finally:
        text.detach()


class _JsonLines:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            values = dict(zip(SCHEMA.names, prediction.values(), strict=True))
            self._file.write(json.dumps(values).encode() + b"\n")


@contextmanager
def _json_lines(file: BinaryIO) -> Iterator[Writer]:
    yield _JsonLines(file)


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, predictions: Sequence[Prediction]) -> None:
        columns = zip(*(prediction.values() for prediction in predictions), strict=True)
        arrays = [
            pa.array([plain(v) if isinstance(v, str) else v for v in column], field.type)
            for column, field in zip(columns, SCHEMA, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Writer]:
    with pq.ParquetWriter(file, SCHEMA) as writer:
        yield _Parquet(writer)


_FORMATS = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
