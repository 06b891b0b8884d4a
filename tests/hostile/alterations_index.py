"""Alterations of ``index.parquet``; each is also tried with a manifest that was sealed again."""

import io
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from alterations import FOUND, GOOD, REFUSED, Registry, expect
from pack_expectations import FORGED_IMAGE, HARMLESS, INVALID, RELABELED, UNDETECTABLE, UNREAD
from pack_files import (
    INDEX,
    change_column,
    change_values,
    find_row,
    manifest,
    read_index,
    write_index,
)

from tests.common import flip

INDEXES = Registry()
NUMBERS = ("shard", "offset", "size", "label", "domain", "split", "width", "height", "crc32")
ALL = slice(None)
ANY = expect([GOOD, REFUSED], verify=(GOOD, FOUND, REFUSED), decode=(GOOD, FOUND, REFUSED))


def _values(name: str, rows: Any, value: Any, pack: Path) -> None:
    change_values(pack, name, rows, value)


def _typed(name: str, kind: pa.DataType, change: Callable[[list], list], pack: Path) -> None:
    change_column(pack, name, lambda column: change(column.to_pylist()), kind)


def _drop(name: str, pack: Path) -> None:
    index = read_index(pack)
    write_index(pack, index.drop_columns([name]))


def _rows(change: Callable[[np.ndarray], np.ndarray], pack: Path) -> None:
    index = read_index(pack)
    write_index(pack, index.take(pa.array(change(np.arange(len(index))))))


for name in ("key", "source", *NUMBERS):
    expectation = UNREAD if name == "source" else INVALID
    INDEXES.add(f"index-lacks-{name}", INVALID, partial(_drop, name))
    INDEXES.add(f"{name}-has-a-null", INVALID, partial(_values, name, [3], None))

for name, slug, kind, change in (
    ("offset", "floats", pa.float64(), lambda values: [float(value) for value in values]),
    ("offset", "fractions", pa.float64(), lambda values: [value + 0.5 for value in values]),
    ("offset", "nan", pa.float64(), lambda values: [float("nan")] * len(values)),
    ("offset", "text", pa.string(), lambda values: [str(value) for value in values]),
    ("offset", "beyond-int64", pa.uint64(), lambda values: [2**63 + value for value in values]),
    ("offset", "times", pa.timestamp("s"), lambda values: values),
    ("size", "lists", pa.list_(pa.int64()), lambda values: [[value] for value in values]),
    ("size", "structs", pa.struct({"a": pa.int64()}), lambda values: [{"a": v} for v in values]),
    ("label", "floats", pa.float32(), lambda values: values),
    ("label", "infinite", pa.float64(), lambda values: [float("inf")] * len(values)),
    ("label", "text", pa.string(), lambda values: ["ant"] * len(values)),
    ("domain", "bytes", pa.binary(), lambda values: [b"day"] * len(values)),
    ("split", "nulls", pa.null(), lambda values: [None] * len(values)),
    ("width", "truths", pa.bool_(), lambda values: [True] * len(values)),
    ("height", "decimals", pa.decimal128(38, 20), lambda values: values),
    ("shard", "dates", pa.date32(), lambda values: values),
    ("crc32", "signed", pa.int64(), lambda values: [-value for value in values]),
    ("key", "numbers", pa.int64(), lambda values: list(range(len(values)))),
    ("key", "lists", pa.list_(pa.string()), lambda values: [[value] for value in values]),
):
    INDEXES.add(f"{name}-holds-{slug}", INVALID, partial(_typed, name, kind, change))

for name, kind in (("label", pa.int64()), ("offset", pa.int32()), ("key", pa.large_string())):
    slug = f"{name}-has-another-width-of-its-type"
    INDEXES.add(slug, HARMLESS, partial(_typed, name, kind, lambda values: values))

for name, slug, rows, value in (
    ("offset", "negative", [0], -512),
    ("offset", "before-the-first-header", [0], 0),
    ("offset", "just-beyond-the-shard", [5], 10**6),
    ("offset", "2-to-62", [0], 2**62),
    ("offset", "where-it-overflows-with-the-size", [2], 2**63 - 10),
    ("offset", "the-same-twice", [0, 1], 512),
    ("offset", "all-negative", ALL, -1),
    ("size", "zero", [0], 0),
    ("size", "negative", [1], -1),
    ("size", "2-to-62", [2], 2**62),
    ("size", "larger-than-the-shard", [0], 10**7),
    ("size", "into-the-next-sample", [0], lambda sizes: sizes + 4096),
    ("shard", "negative", [0], -1),
    ("shard", "one-too-many", [-1], lambda shards: shards + 1),
    ("shard", "a-million", ALL, 10**6),
    ("shard", "of-another-number-of-samples", [0], 1),
    ("label", "negative", [0], -1),
    ("label", "one-too-many", [4], 4),
    ("label", "2-to-30", ALL, 2**30),
    ("domain", "negative", [0], -1),
    ("domain", "one-too-many", [0], 2),
    ("domain", "all-32767", ALL, 2**15 - 1),
    ("split", "negative", [3], -1),
    ("split", "one-too-many", [3], 1),
    ("width", "zero", [0], 0),
    ("width", "negative", [1], -40),
    ("width", "all-zero", ALL, 0),
    ("height", "zero", [3], 0),
    ("height", "all-negative", ALL, lambda heights: -heights),
    ("key", "the-same-twice", [0, 1], "000000000"),
    ("key", "all-the-same", ALL, "000000000"),
    ("key", "empty", [0], ""),
    ("key", "a-path", [0], "../../etc/passwd"),
    ("key", "with-zero-byte-and-escape", [0], "0\0\x1b[2J"),
    ("key", "of-two-lines", [0], "000000000\nerror: all is well"),
    ("key", "not-ascii", [0], "\N{SNOWMAN}"),
):
    INDEXES.add(f"{name}-is-{slug}", INVALID, partial(_values, name, rows, value))

for name, slug, rows, value in (
    ("offset", "one-byte-late", [0], lambda offsets: offsets + 1),
    ("offset", "one-block-early", [0], lambda offsets: offsets - 512),
    ("size", "one-byte-short", [0], lambda sizes: sizes - 1),
    ("size", "one-byte-long", [2], lambda sizes: sizes + 1),
    ("crc32", "another", [0], lambda checksums: checksums ^ 1),
    ("crc32", "zero-everywhere", ALL, 0),
    ("width", "2-to-31-less-1", [0], 2**31 - 1),
    ("width", "halved", [0], lambda widths: widths // 2),
    ("width", "one-too-large", [6], lambda widths: widths + 1),
    ("height", "halved-everywhere", ALL, lambda heights: heights // 2),
    ("height", "2-to-31-less-1-everywhere", ALL, 2**31 - 1),
    ("height", "1-everywhere", ALL, 1),
):
    INDEXES.add(f"{name}-is-{slug}", FORGED_IMAGE, partial(_values, name, rows, value))

INDEXES.add("label-is-another", RELABELED, partial(_values, "label", [0], 1))
INDEXES.add("label-is-the-same-everywhere", RELABELED, partial(_values, "label", ALL, 1))
INDEXES.add("domain-is-another", UNDETECTABLE, partial(_values, "domain", [0, 1], 1))
INDEXES.add("source-is-another", HARMLESS, partial(_values, "source", [0], "../../etc/passwd"))
INDEXES.add("source-is-markup", HARMLESS, partial(_values, "source", [0], "\x1b[2J[/red]\n=1"))

INDEXES.add("index-lacks-its-last-row", INVALID, partial(_rows, lambda rows: rows[:-1]))
INDEXES.add(
    "index-repeats-its-last-row", INVALID, partial(_rows, lambda rows: np.r_[rows, rows[-1]])
)
INDEXES.add("index-is-of-no-rows", INVALID, partial(_rows, lambda rows: rows[:0]))
INDEXES.add("index-is-backwards", UNREAD, partial(_rows, lambda rows: rows[::-1]))
INDEXES.add("two-rows-change-places", UNREAD, partial(_rows, lambda rows: np.r_[1, 0, rows[2:]]))


@INDEXES(INVALID)
def index_and_manifest_are_of_no_samples(pack: Path) -> None:
    _rows(lambda rows: rows[:0], pack)
    with manifest(pack) as fields:
        fields.update(samples=0, bytes=0, shards=[])
        if "index" in fields:
            fields["index"]["rows"] = 0


@INDEXES(RELABELED)
def two_keys_change_places(pack: Path) -> None:
    change_values(pack, "key", [0, 1], lambda keys: keys[::-1])


@INDEXES(UNREAD)
def keys_are_renumbered(pack: Path) -> None:
    change_values(pack, "key", ALL, lambda keys: np.array([f"{int(k) + 500:09d}" for k in keys]))


@INDEXES(RELABELED)
def two_images_change_labels(pack: Path) -> None:
    rows = [find_row(pack, "ant/0.jpg"), find_row(pack, "bee/0.jpg")]
    change_values(pack, "label", rows, lambda labels: labels[::-1])


@INDEXES(INVALID)
def a_row_points_at_the_image_of_another(pack: Path) -> None:
    for name in ("offset", "size", "width", "height", "crc32"):
        change_values(pack, name, [1], lambda values: 0)
        first = read_index(pack).column(name)[0].as_py()
        change_values(pack, name, [1], first)


@INDEXES(INVALID)
def a_key_is_not_unicode(pack: Path) -> None:
    def change(keys: pa.Array) -> pa.Array:
        raw = keys.cast(pa.binary()).to_pylist()
        broken = pa.array([b"\xff\xfe", *raw[1:]], pa.binary())
        return pa.Array.from_buffers(pa.string(), len(broken), broken.buffers())

    change_column(pack, "key", change)


@INDEXES(HARMLESS)
def a_source_is_not_unicode(pack: Path) -> None:
    def change(sources: pa.Array) -> pa.Array:
        raw = sources.cast(pa.binary()).to_pylist()
        broken = pa.array([b"\xff\xfe", *raw[1:]], pa.binary())
        return pa.Array.from_buffers(pa.string(), len(broken), broken.buffers())

    change_column(pack, "source", change)


@INDEXES(INVALID)
def a_key_is_ten_megabytes_long(pack: Path) -> None:
    change_values(pack, "key", [0], "0" * 10**7)


@INDEXES(HARMLESS)
def index_has_a_column_more(pack: Path) -> None:
    index = read_index(pack)
    write_index(pack, index.append_column("note", pa.array(["[red]"] * len(index))))


@INDEXES(HARMLESS)
def columns_are_in_another_order(pack: Path) -> None:
    index = read_index(pack)
    write_index(pack, index.select(index.column_names[::-1]))


@INDEXES(ANY)
def a_column_comes_twice(pack: Path) -> None:
    index = read_index(pack)
    write_index(pack, index.append_column("offset", index.column("size")))


@INDEXES(HARMLESS)
def index_is_written_in_other_row_groups(pack: Path) -> None:
    write_index(pack, read_index(pack), row_group_size=7, compression="gzip")


@INDEXES(INVALID)
def index_is_a_table_of_other_columns(pack: Path) -> None:
    write_index(pack, pa.table({"path": ["a.jpg", "b.jpg"], "class": ["ant", "bee"]}))


@INDEXES(INVALID)
def footer_is_longer_than_the_file(pack: Path) -> None:
    path = pack / INDEX
    content = bytearray(path.read_bytes())
    content[-8:-4] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)


def _flip(share: float, bit: int, pack: Path) -> None:
    path = pack / INDEX
    flip(path, int(share * path.stat().st_size), bit)


for percent in range(2, 100, 8):
    INDEXES.add(f"a-bit-is-flipped-at-{percent}-percent", ANY, partial(_flip, percent / 100, 3))


def many_rows(rows: int, pack: Path) -> None:
    """The first row of the index again and again, so that columns shrink to almost nothing."""
    first = read_index(pack).slice(0, 1)
    content = _repeated(first.schema, tuple(first.to_pylist()[0].values()), rows)
    (pack / INDEX).write_bytes(content)


@lru_cache
def _repeated(schema: pa.Schema, row: tuple, rows: int) -> bytes:
    once = pa.table([[value] for value in row], schema=schema)
    group = pa.concat_tables([once] * 1000).combine_chunks()
    group = pa.concat_tables([group] * 1000).combine_chunks()
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for _ in range(rows // len(group)):
            writer.write_table(group, row_group_size=len(group))
    return file.getvalue()


def many_rows_that_the_manifest_confirms(rows: int, pack: Path) -> None:
    many_rows(rows, pack)
    with manifest(pack) as fields:
        fields["samples"] = rows
        for info in fields["shards"]:
            info["samples"] = rows // len(fields["shards"])
        if "index" in fields:
            fields["index"]["rows"] = rows


INDEXES.add("index-has-30-million-rows", INVALID, partial(many_rows, 30_000_000))
INDEXES.add(
    "index-has-30-million-rows-and-the-manifest-agrees",
    INVALID,
    partial(many_rows_that_the_manifest_confirms, 30_000_000),
)
