"""Image trees `<domain>/<class>/<image>` and `<class>/<image>`, listed one folder at a time."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, FileReader, Sample

_DEBRIS = {"Thumbs.db", "desktop.ini"}


def folders(path: Path) -> list[str]:
    """Names of the folders in ``path``, sorted; links to folders count, hidden ones do not."""
    with _scan(path) as entries:
        return sorted(entry.name for entry in entries if _visible(entry) and entry.is_dir())


def files(path: Path) -> list[tuple[str, int]]:
    """(name, bytes) of all that is in the class folder ``path``, sorted by name.

    What is no file, or a link that leads nowhere, is listed too, with 0 bytes: reading it will
    fail, and so it is rejected by name and not passed over in silence.
    """
    with _scan(path) as entries:
        return sorted((entry.name, _size(entry)) for entry in entries if _visible(entry))


def holds_files(path: Path) -> bool:
    """Whether ``path`` holds anything but folders."""
    with _scan(path) as entries:
        return any(_visible(entry) and not entry.is_dir() for entry in entries)


def class_folder(root: Path, folder: str, label: int, domain: int = 0) -> Iterator[Sample]:
    """The samples of the class folder ``root/folder``, by name."""
    for name, size in files(root / folder):
        yield Sample(f"{folder}/{name}", size, label, domain)


def imagefolder(root: Path) -> Dataset:
    """The data set of a `<domain>/<class>/<image>` or `<class>/<image>` tree; classes and domains
    are sorted by name.

    Raises:
        PackError: ``root`` is no such tree; says what was found.
    """
    top = folders(root)
    with_files = [name for name in top if holds_files(root / name)]
    if with_files and len(with_files) < len(top):
        odd = next(name for name in top if name not in with_files)
        raise PackError(
            f"{root}: {with_files[0]}/ holds files but {odd}/ does not; expected "
            "<class>/<image> or <domain>/<class>/<image> throughout; move or remove the odd folders"
        )
    if with_files:
        return class_tree("imagefolder", root, top)
    return domain_tree("imagefolder", root, [name for name in top if folders(root / name)])


def class_tree(name: str, root: Path, classes: Sequence[str], *, shuffled: bool = False) -> Dataset:
    """The data set of `<class>/<image>` folders below ``root``, labelled in the order given."""

    def samples() -> Iterator[Sample]:
        for label, folder in enumerate(classes):
            yield from class_folder(root, folder, label)

    return Dataset(
        name, tuple(classes), ("default",), ("all",), samples, FileReader(root), shuffled
    )


def domain_tree(
    name: str, root: Path, domains: Sequence[str], domain_names: Sequence[str] | None = None
) -> Dataset:
    """The data set of `<domain>/<class>/<image>` folders below ``root``; classes by name, domains
    under the names of their folders or under ``domain_names``.

    Raises:
        PackError: there is no class folder at all.
    """
    found = {domain: folders(root / domain) for domain in domains}
    classes = sorted(set().union(*found.values()))
    if not classes:
        raise PackError(
            f"{root} holds no images; expected <class>/<image> or <domain>/<class>/<image>"
        )
    label = {folder: number for number, folder in enumerate(classes)}

    def samples() -> Iterator[Sample]:
        for number, domain in enumerate(domains):
            for folder in found[domain]:
                yield from class_folder(root, f"{domain}/{folder}", label[folder], number)

    names = tuple(domain_names or domains)
    return Dataset(name, tuple(classes), names, ("all",), samples, FileReader(root))


def _scan(path: Path) -> "os._ScandirIterator[str]":
    try:
        return os.scandir(path)
    except OSError as error:
        raise PackError(f"cannot list {path}: {error.strerror}; is --root right?") from error


def _visible(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name not in _DEBRIS


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else 0
    except OSError:
        return 0
