"""Which files hold a data set's images, and the split that a file's name states."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from braceexpand import braceexpand

from runtime.errors import PackError
from sharding.sources.containers.container import Container
from sharding.sources.split_folders import SPLITS

_MAX_FILES = 1_000_000
_WORDS = re.compile("[a-z]+")


class ContainerFile(NamedTuple):
    """A file with images: its name below the folder of all of them, and its split by that name, or
    None."""

    container: Container
    name: str
    split: str | None


def container_files(root: Path, suffix: str) -> list[ContainerFile]:
    """The files that ``root`` means, with names that end in ``suffix``.

    ``root`` is a file, a folder, of which it means all such files at any depth by name, or a
    pattern with `*`, `?`, `[…]`, `{000..099}` or `{a,b}`, in the order of its braces.

    Raises:
        PackError: a file does not exist, is not a regular file, or is there twice, or there are
            none.
    """
    paths = list(islice(_paths(root, suffix), _MAX_FILES + 1))
    if len(paths) > _MAX_FILES:
        raise PackError(f"{root} means more than {_MAX_FILES:,} files")
    if not paths:
        raise PackError(f"{root} holds no files *{suffix}; is --root right?")
    if missing := [path for path in paths if not path.exists()]:
        raise PackError(
            f"{len(missing):,} of the {len(paths):,} files of {root} do not exist, {missing[0]} is "
            "the first; get them, or narrow the pattern"
        )
    top = os.path.commonpath([path.parent for path in paths])
    names = [str(path.relative_to(top)) for path in paths]
    if len(set(names)) < len(names):
        raise PackError(f"{root} means a file twice; use a pattern without overlaps")
    return [
        ContainerFile(Container.at(path), name, _split(name))
        for path, name in zip(paths, names, strict=True)
    ]


def splits_of(files: Sequence[ContainerFile]) -> tuple[str, ...]:
    """The splits of ``files``, ``("all",)`` unless each has one."""
    if any(file.split is None for file in files):
        return ("all",)
    return tuple(split for split in SPLITS if split in {file.split for file in files})


def _paths(root: Path, suffix: str) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(
            path for path in root.rglob(f"*{suffix}") if not path.name.startswith(".")
        )
        return
    if root.exists():
        yield root
        return
    try:
        patterns = braceexpand(str(root))
        for pattern in patterns:
            if glob.has_magic(pattern):
                yield from map(Path, sorted(glob.glob(pattern)))
            else:
                yield Path(pattern)
    except ValueError as error:
        raise PackError(f"{root}: the braces do not match: {error}") from error


def _split(name: str) -> str | None:
    words = _WORDS.findall(name.lower())
    return next((split for split in SPLITS if split in words), None)
