"""An image data set of Hugging Face on disk: Parquet files, each row with an image and a label."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from runtime.errors import PackError
from sharding.sources.containers.contained import Fault, Found, contained_dataset, name_of
from sharding.sources.containers.files import ContainerFile, container_files
from sharding.sources.containers.parquet_images import ParquetReader, rows, schema
from sharding.sources.dataset import Dataset
from sharding.sources.names import may_be_name

_NUMBERED = re.compile(r"(.*-)(\d{5})-of-(\d{5}).*\.parquet")


@dataclass(frozen=True)
class HuggingFaceOptions:
    """Which columns mean what."""

    image_column: str = field(
        default="image", metadata={"metavar": "NAME", "help": "column of encoded images"}
    )
    label_column: str = field(
        default="label", metadata={"metavar": "NAME", "help": "column of classes"}
    )
    domain_column: str | None = field(
        default=None, metadata={"metavar": "NAME", "help": "column of domains"}
    )


def huggingface(root: Path, options: HuggingFaceOptions) -> Dataset:
    """Parquet files as Hugging Face stores images: the root is one of them, a folder of them, or a
    pattern such as 'data/train-*.parquet'. File names that have train, val, validation or test in
    them give the splits. A row without an image or a class is rejected by name.

    Raises:
        PackError: there are no such files, one of those that a folder's file names count is
            missing, one of them is damaged or lacks a column, or no row has a class.
    """
    _refuse_arrow(root)
    files = container_files(root, ".parquet")
    if root.is_dir():
        _refuse_incomplete(files)
    for file in files:
        _expect_columns(file, options)
    columns = [name for name in (options.label_column, options.domain_column) if name is not None]
    names = _names(files, columns)
    return contained_dataset(
        "huggingface",
        files,
        partial(_found, options.image_column, columns, names),
        ParquetReader(tuple(file.container for file in files), options.image_column),
        names[columns[0]],
    )


_Names = Mapping[str, tuple[str, ...] | None]  # of a column's numbers, where its type states them


def _found(image: str, columns: list[str], names: _Names, file: ContainerFile) -> Iterator[Found]:
    """The rows of a Parquet file."""
    for row in rows(file.container, image, columns):
        source = f"{row.number:06d}/{row.path}" if row.path else f"{row.number:06d}"
        try:
            texts = [
                name_of(_text(column, value), names[column])
                for column, value in zip(columns, row.values, strict=True)
            ]
        except Fault as fault:
            yield Found(source, fault=str(fault))
        else:
            yield Found(source, row.size, row.number, *texts)


def _text(column: str, value: Any) -> str:
    if isinstance(value, str) or type(value) is int:
        return str(value)
    what = "is empty" if value is None else "is neither text nor an integer"
    raise Fault(f"{column!r} {what}")


def _names(files: list[ContainerFile], columns: list[str]) -> dict[str, tuple[str, ...] | None]:
    """For each column the class names in the files' metadata, which have to be the same in all."""
    found: dict[str, tuple[str, ...] | None] = {}
    for number, file in enumerate(files):
        features = _features(schema(file.container))
        for column in columns:
            names = _class_label(features.get(column))
            if number and found[column] != names:
                raise PackError(
                    f"{file.container.path}: other class names in {column!r} than in "
                    f"{files[0].container.path}; pack them separately"
                )
            found[column] = names
    return found


def _features(columns: pa.Schema) -> dict[str, Any]:
    """The types of the columns as Hugging Face states them; empty where it does not."""
    try:
        features = json.loads((columns.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_label(feature: Any) -> tuple[str, ...] | None:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    sound = names and len(set(names)) == len(names) and all(map(may_be_name, names))
    return tuple(names) if sound else None


def _expect_columns(file: ContainerFile, options: HuggingFaceOptions) -> None:
    there = schema(file.container).names
    for option, name in vars(options).items():
        if name is not None and name not in there:
            raise PackError(
                f"{file.container.path} has no column {name!r} but {', '.join(map(repr, there))}; "
                f"say which with --{option.replace('_', '-')}"
            )


def _refuse_incomplete(files: list[ContainerFile]) -> None:
    there: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if found := _NUMBERED.fullmatch(file.name):
            before, number, count = found.groups()
            there.setdefault((before, count), set()).add(int(number))
    for (before, count), numbers in there.items():
        if missing := sorted(set(range(int(count))) - numbers):
            raise PackError(
                f"{len(missing)} of the {int(count)} files {before}*-of-{count} are missing, "
                f"number {missing[0]} is the first; complete the download, or give a pattern of "
                "the files to pack"
            )


def _refuse_arrow(root: Path) -> None:
    if root.is_dir() and not any(root.rglob("*.parquet")) and any(root.rglob("*.arrow")):
        raise PackError(
            f"{root} was made by `save_to_disk` and holds Arrow files; write Parquet files with "
            "`dataset.to_parquet(FILE)` and pack those"
        )
