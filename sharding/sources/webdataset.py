"""An existing WebDataset: tar files in which the files of a sample follow each other.

The name of a sample's files is equal up to the first dot after the last slash; what follows is the
kind of file, as in webdataset's own readers.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from runtime.errors import PackError, first_line
from sharding.sources.containers.archives import Member, members
from sharding.sources.containers.contained import Fault, Found, contained_dataset, name_of
from sharding.sources.containers.container import ContainerReader
from sharding.sources.containers.files import ContainerFile, container_files
from sharding.sources.dataset import Dataset
from sharding.sources.names import check_name

_MAX_CLS, _MAX_JSON = 2000, 1 << 20  # bytes


@dataclass(frozen=True)
class WebDatasetOptions:
    """Which files of a sample are its image and its label."""

    image_extensions: tuple[str, ...] = field(
        default=("jpg", "jpeg", "png", "webp"),
        metadata={
            "nargs": "+",
            "metavar": "EXT",
            "help": "kinds of files that are images; of several in a sample the first counts",
        },
    )
    label_key: str | None = field(
        default=None,
        metadata={"metavar": "KEY", "help": "the class is this value in .json, instead of .cls"},
    )
    label_folder: bool = field(
        default=False,
        metadata={"action": "store_true", "help": "the class is the folder inside the archive"},
    )
    class_names: Path | None = field(
        default=None,
        metadata={
            "type": Path,
            "metavar": "FILE",
            "help": "a class name in each line, in label order; by default labels are the names",
        },
    )


def webdataset(root: Path, options: WebDatasetOptions) -> Dataset:
    """A WebDataset: tar files with an image and `.cls` for each sample. The root is one of them, a
    folder of them, or a pattern such as 'shards/{000000..000099}.tar' or 'shards/*.tar'. A sample
    without an image or a class is rejected by name.

    Raises:
        PackError: there are no such files, one of them is not a sound tar archive, or no sample has
            an image and a class.
    """
    if options.label_key is not None and options.label_folder:
        raise PackError("--label-key and --label-folder exclude each other; give one of them")
    names = _class_names(options.class_names) if options.class_names else None
    files = container_files(root, ".tar")
    return contained_dataset(
        "webdataset",
        files,
        partial(_found, options, names),
        ContainerReader(tuple(file.container for file in files)),
        names,
    )


def _found(
    options: WebDatasetOptions, names: tuple[str, ...] | None, file: ContainerFile
) -> Iterator[Found]:
    """The samples of an archive."""
    kinds = [kind.lower().lstrip(".") for kind in options.image_extensions]
    with file.container.open() as archive:
        for key, group in groupby(members(archive, file.container.path), _key):
            if not key:  # files without a dot are not part of a sample
                continue
            files = list(group)
            parts = {member.name[len(key) + 1 :].lower(): member for member in files}
            if len(parts) < len(files):  # which one counts is not certain
                yield Found(key, fault="two files of the same kind in the sample")
                continue
            image = next((parts[kind] for kind in kinds if kind in parts), None)
            if image is None:
                yield Found(key, fault=f"no image: none of {', '.join(kinds)}")
                continue
            try:
                class_ = name_of(_label(options, image, parts, archive), names)
            except Fault as fault:
                yield Found(image.name, fault=str(fault))
            else:
                yield Found(image.name, image.size, image.offset, class_)


def _key(member: Member) -> str:
    """What the names of a sample's files have in common; "" for a name without it."""
    folder, slash, name = member.name.rpartition("/")
    key, dot, _ = name.partition(".")
    return folder + slash + key if key and dot else ""


def _label(
    options: WebDatasetOptions, image: Member, parts: dict[str, Member], archive: BinaryIO
) -> str:
    if options.label_folder:
        folder = image.name.rpartition("/")[0].rpartition("/")[2]
        if not folder:
            raise Fault("no label: it is in no folder")
        return folder
    if options.label_key is None:
        return _content(parts, "cls", _MAX_CLS, archive).strip()
    try:
        value = json.loads(_content(parts, "json", _MAX_JSON, archive))[options.label_key]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Fault(f"no label: its .json has no value {options.label_key!r}") from error
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise Fault(f"no label: {options.label_key!r} in .json is neither text nor an integer")


def _content(parts: dict[str, Member], kind: str, most: int, archive: BinaryIO) -> str:
    """The text of a sample's file of a ``kind``."""
    if kind not in parts:
        raise Fault(f"no label: it has no .{kind}")
    if parts[kind].size > most:
        raise Fault(f"no label: its .{kind} has more than {most:,} bytes")
    try:
        return os.pread(archive.fileno(), parts[kind].size, parts[kind].offset).decode()
    except UnicodeDecodeError as error:
        raise Fault(f"no label: its .{kind} is not UTF-8") from error


def _class_names(path: Path) -> tuple[str, ...]:
    """The names in a file, one in each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PackError(f"cannot read {path}: {first_line(error)}") from error
    names = [line.strip() for line in lines]
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        check_name(name, f"{path}, line {number}")
        if first.setdefault(name, number) != number:
            raise PackError(f"{path}, line {number}: {name!r} stands in line {first[name]} already")
    if not names:
        raise PackError(f"{path} is empty; expected a class name in each line")
    return tuple(names)
