"""A data set listed in a table: a path and a class in each row, perhaps a domain and a split."""

import os
import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.files import FileReader, state_of
from sharding.sources.names import check_name, in_order, is_number
from sharding.sources.table_files import TableFile, open_table

_WITHOUT_COLUMN = ("", "", "default", "all", "")


@dataclass(frozen=True)
class TableOptions:
    """Where the table is, and what its columns are called."""

    list: Path = field(
        metadata={"type": Path, "metavar": "FILE", "help": "table: .csv, .tsv, .jsonl or .parquet"}
    )
    path_column: str = field(
        default="path", metadata={"metavar": "NAME", "help": "column of paths below --root"}
    )
    class_column: str = field(
        default="class", metadata={"metavar": "NAME", "help": "column of class names"}
    )
    domain_column: str | None = field(
        default=None,
        metadata={"metavar": "NAME", "help": "column of domains; `domain` if that exists"},
    )
    split_column: str | None = field(
        default=None,
        metadata={"metavar": "NAME", "help": "column of splits; `split` if that exists"},
    )
    label_column: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "help": "column of the classes' numbers, from 0; `label` if that exists; without one "
            "the classes are in the order of their names",
        },
    )


def table(root: Path, options: TableOptions) -> Dataset:
    """Images below the root that `--list` names: a table with the columns path and class and, if it
    has them, domain, split and label. A listed file that does not exist is rejected by name.

    Raises:
        PackError: it is not such a table, or it names a file twice; says where.
    """
    listed = _Table.open(options)
    state = state_of(str(listed.path))
    names = _read_names(listed)
    label, domain, split = ({name: i for i, name in enumerate(of)} for of in names)

    def samples() -> Iterator[Sample]:
        if state_of(str(listed.path)) != state:
            raise PackError(f"{listed.path} changed while it was read; run the command again")
        for entry in listed.entries():
            size, modified = state_of(f"{root}/{entry.path}")
            numbers = label[entry.class_], domain[entry.domain], split[entry.split]
            yield Sample(entry.path, size, *numbers, modified)

    return Dataset("table", *names, samples, FileReader(root))


class _Columns(NamedTuple):
    """The columns' names; None for a column that the table does not have."""

    path: str
    class_: str
    domain: str | None
    split: str | None
    label: str | None


class _Entry(NamedTuple):
    """A row: where it stands, and its fields."""

    place: str
    path: str
    class_: str
    domain: str
    split: str
    label: str


class _Names(NamedTuple):
    """The names of a data set, in order."""

    classes: tuple[str, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """The file of a table, and which of its columns mean what."""

    path: Path
    file: TableFile
    columns: _Columns

    @staticmethod
    def open(options: TableOptions) -> "_Table":
        """Find the columns that the options name.

        Raises:
            PackError: one of them does not exist, or exists twice.
        """
        path = options.list.absolute()
        file = open_table(path)
        found = file.columns()
        domain, split, label = (
            chosen if chosen is not None else usual if usual in found else None
            for usual, chosen in (
                ("domain", options.domain_column),
                ("split", options.split_column),
                ("label", options.label_column),
            )
        )
        if label == options.class_column:  # the class names themselves are called so
            label = None
        columns = _Columns(options.path_column, options.class_column, domain, split, label)
        for name, option in zip(columns, _Columns._fields, strict=True):
            if name is not None and found.count(name) != 1:
                raise PackError(
                    f"{path} has {'two columns' if name in found else 'no column'} {name!r} but "
                    f"{', '.join(map(repr, found))}; say which with "
                    f"--{option.strip('_')}-column"
                )
        return _Table(path, file, columns)

    def entries(self) -> Iterator[_Entry]:
        """The rows, each checked by itself.

        Raises:
            PackError: a field is empty, or a path does not lie below a root.
        """
        meanings = [number for number, name in enumerate(self.columns) if name is not None]
        names = [name for name in self.columns if name is not None]
        values = list(_WITHOUT_COLUMN)
        for place, fields in self.file.rows(names):
            if "" in fields:
                raise self.error(place, f"{names[fields.index('')]!r} is empty; fill it in")
            for meaning, value in zip(meanings, fields, strict=True):
                values[meaning] = value
            values[0] = self._below_root(place, values[0])
            yield _Entry(place, *values)

    def error(self, place: str, text: str) -> PackError:
        """The error for what is wrong in a row."""
        return PackError(f"{self.path}, {place}: {text}")

    def _below_root(self, place: str, path: str) -> str:
        """``path`` in its shortest form."""
        if path.startswith("/") or ".." in path.split("/"):
            raise self.error(place, f"{path!r} is absolute or has `..`; write paths below --root")
        try:
            possible = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise self.error(place, f"{path!a:.80} cannot be the path of a file")
        return posixpath.normpath(path)


def _read_names(listed: _Table) -> _Names:
    """Read the table once and compare its rows with each other.

    Raises:
        PackError: a class has two labels, a file is named twice, or there are no rows.
    """
    classes: dict[str, _Entry] = {}
    domains: dict[str, _Entry] = {}
    splits: dict[str, _Entry] = {}
    hashes = array("q")  # of the paths, which themselves would take much memory
    for entry in listed.entries():
        for names, name in (
            (classes, entry.class_),
            (domains, entry.domain),
            (splits, entry.split),
        ):
            if names.setdefault(name, entry) is entry:
                check_name(name, f"{listed.path}, {entry.place}")
        first = classes[entry.class_]
        if first.label != entry.label:
            raise listed.error(
                entry.place,
                f"class {entry.class_!r} has label {entry.label}, in {first.place} it has "
                f"{first.label}",
            )
        hashes.append(hash(entry.path))
    if not classes:
        raise PackError(f"{listed.path} has no rows below the columns' names")
    _refuse_repeated_paths(listed, np.frombuffer(hashes, dtype=np.int64))
    where = str(listed.path)
    return _Names(
        _by_label(listed, classes) if listed.columns.label else in_order(classes, "classes", where),
        in_order(domains, "domains", where),
        in_order(splits, "splits", where),
    )


def _by_label(listed: _Table, classes: dict[str, _Entry]) -> tuple[str, ...]:
    """The classes in the order of their labels, which have to be 0 .. C - 1."""
    column = listed.columns.label
    named: dict[int, _Entry] = {}
    for entry in classes.values():
        if not is_number(entry.label) or int(entry.label) >= len(classes):
            raise listed.error(
                entry.place,
                f"{entry.label!r:.80} in {column!r} is not one of 0 to {len(classes) - 1}, for "
                f"{len(classes)} classes; number them without gaps, or remove the column",
            )
        if (other := named.setdefault(int(entry.label), entry)) is not entry:
            raise listed.error(
                entry.place,
                f"label {entry.label} stands for class {entry.class_!r}, in {other.place} for "
                f"{other.class_!r}",
            )
    return tuple(named[label].class_ for label in range(len(classes)))


def _refuse_repeated_paths(listed: _Table, hashes: np.ndarray) -> None:
    """Of int64 (N,), the hash of each row's path, the equal ones are looked at again."""
    ordered = np.sort(hashes)
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    first: dict[str, str] = {}
    for entry in listed.entries() if repeated else ():
        if hash(entry.path) in repeated:
            place = first.setdefault(entry.path, entry.place)
            if place != entry.place:
                raise listed.error(
                    entry.place, f"{entry.path!r} stands in {place} already; remove one of them"
                )
