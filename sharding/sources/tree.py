"""Image trees `<domain>/<class>/<image>` and `<class>/<image>`, listed one folder at a time."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.errors import PackError
from sharding.sources.dataset import Dataset, Sample
from sharding.sources.files import FileReader, FileState, state_of

_DEBRIS = {"Thumbs.db", "desktop.ini"}
_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_IMAGES = "images"  # Tiny-ImageNet keeps a class's images in a folder of this name
HELD_OUT = {"val", "valid", "validation", "test"}


class Content(NamedTuple):
    """What a folder holds: names, sorted; links to folders count as folders."""

    folders: list[str]
    files: list[str]

    @property
    def images(self) -> list[str]:
        """The files whose extension is that of an image."""
        return [name for name in self.files if Path(name).suffix.lower() in _IMAGE_SUFFIXES]


class Group(NamedTuple):
    """A folder with class folders, below the root, and the domain and the split that it is of."""

    folder: str
    domain: int = 0
    split: int = 0


def folders(path: Path) -> list[str]:
    """Names of the folders in ``path``, sorted; links to folders count, hidden ones do not."""
    return content_of(path).folders


def entries(path: Path) -> list[str]:
    """Names of the folders and files in ``path``, folders first, each sorted."""
    content = content_of(path)
    return content.folders + content.files


def files(path: Path) -> list[tuple[str, FileState]]:
    """Name and state of everything in the class folder ``path``, sorted by name.

    Non-files and dangling links are listed too, so that reading them fails and they are reported
    as rejects instead of being skipped silently.
    """
    with _scan(path) as entries:
        return sorted((entry.name, state_of(entry)) for entry in entries if visible(entry.name))


def visible(name: str) -> bool:
    """Whether a file or folder of this name counts: hidden ones and what file managers leave behind
    do not."""
    return not name.startswith(".") and name not in _DEBRIS


def class_folder(
    folder: str, root: Path, label: int, *, domain: int = 0, split: int = 0
) -> Iterator[Sample]:
    """The samples of the class folder ``root/folder``, by name."""
    for name, (size, modified) in files(root / folder):
        yield Sample(f"{folder}/{name}", size, label, domain, split, modified)


def left_out(root: Path, used: Sequence[str] = ()) -> tuple[str, ...]:
    """A note on the folders of ``root`` that seem to hold a validation or test set and are not
    among ``used``; empty if there are none."""
    names = [name for name in folders(root) if name.lower() in HELD_OUT and name not in used]
    return left_out_note(root, names)


def loose_images(root: Path) -> tuple[str, ...]:
    """A note on the images of ``root`` that are not in a class folder; empty if there are none."""
    images = content_of(root).images
    if not images:
        return ()
    return (
        f"{len(images):,} images directly in {root} are left out, {images[0]} is the first; only "
        "those in class folders are packed",
    )


def class_tree(
    name: str, root: Path, places: dict[str, str], *, notes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of class folders below ``root``: ``places`` gives each class, in label order,
    its folder."""

    def samples() -> Iterator[Sample]:
        for label, folder in enumerate(places.values()):
            yield from class_folder(folder, root, label)

    return Dataset(
        name, tuple(places), ("default",), ("all",), samples, FileReader(root), notes=notes
    )


def domain_tree(
    name: str,
    root: Path,
    domains: Sequence[str],
    domain_names: Sequence[str] | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of `<domain>/<class>/<image>` folders below ``root``; classes by name, domains
    under the names of their folders or under ``domain_names``.

    Raises:
        PackError: there is no class folder at all.
    """
    groups = [Group(folder, domain=number) for number, folder in enumerate(domains)]
    return group_tree(name, root, groups, tuple(domain_names or domains), notes=notes)


def group_tree(
    name: str,
    root: Path,
    groups: Sequence[Group],
    domains: tuple[str, ...],
    splits: tuple[str, ...] = ("all",),
    *,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of ``groups`` of class folders below ``root``; classes by name.

    Raises:
        PackError: there is no class folder at all.
    """
    found = [
        {class_: class_place(root / folder, class_) or class_ for class_ in folders(root / folder)}
        for folder, _, _ in groups
    ]
    classes = sorted(set().union(*found))
    if not classes:
        raise PackError(
            f"{root} holds no images; expected <class>/<image> or <domain>/<class>/<image>"
        )
    label = {class_: number for number, class_ in enumerate(classes)}

    def samples() -> Iterator[Sample]:
        for (folder, domain, split), places in zip(groups, found, strict=True):
            for class_, place in places.items():
                yield from class_folder(
                    f"{folder}/{place}", root, label[class_], domain=domain, split=split
                )

    return Dataset(name, tuple(classes), domains, splits, samples, FileReader(root), notes=notes)


def class_place(root: Path, name: str) -> str | None:
    """The folder below ``root`` with the images of class ``name``, or None if it is not a class
    folder: those hold images, or files and no folders, or a single folder `images`."""
    content = content_of(root / name)
    if content.folders == [_IMAGES] and not content.images:
        return f"{name}/{_IMAGES}"
    return name if content.images or (content.files and not content.folders) else None


def left_out_note(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A note that the folders ``names`` of ``root`` are left out; empty if there are none."""
    if not names:
        return ()
    listed = ", ".join(f"{name}/" for name in names)
    return (f"{root}: {listed} left out, not part of the class folders that are packed",)


def content_of(path: Path) -> Content:
    """What the folder ``path`` holds; hidden files and the debris of file managers do not count.

    Raises:
        PackError: it cannot be listed.
    """
    with _scan(path) as entries:
        found = sorted((entry.name, _is_folder(entry)) for entry in entries if visible(entry.name))
    return Content(
        [name for name, is_folder in found if is_folder],
        [name for name, is_folder in found if not is_folder],
    )


def _scan(path: Path) -> "os._ScandirIterator[str]":
    try:
        return os.scandir(path)
    except OSError as error:
        raise PackError(f"cannot list {path}: {error.strerror}; is --root right?") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; it is listed as a file, and rejected by name
        return False
