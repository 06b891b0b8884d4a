"""Lists image trees `<domain>/<class>/<image>` and `<class>/<image>`, a folder at a time."""

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
    """The sorted names of what a folder holds; links to folders count as folders."""

    folders: list[str]
    files: list[str]

    @property
    def images(self) -> list[str]:
        """The files with an image's extension."""
        return [name for name in self.files if has_image_suffix(name)]


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


def files(path: Path) -> dict[str, FileState]:
    """The state of everything in the class folder ``path``, by name and sorted by it.

    Non-files and dangling links are listed too, so that reading them fails and they are reported
    as rejects instead of being skipped silently.
    """
    with _scan(path) as entries:
        states = {entry.name: state_of(entry) for entry in entries if visible(entry.name)}
    return dict(sorted(states.items()))


def has_image_suffix(name: str) -> bool:
    """Whether a file of this name has an image's extension."""
    return Path(name).suffix.lower() in _IMAGE_SUFFIXES


def visible(name: str) -> bool:
    """Whether a file or folder of this name counts: hidden ones and what file managers leave behind
    do not."""
    return not name.startswith(".") and name not in _DEBRIS


def class_folder(
    folder: str, root: Path, label: int, *, domain: int = 0, split: int = 0
) -> Iterator[Sample]:
    """The samples of the class folder ``root/folder``, sorted by name."""
    for name, (size, modified) in files(root / folder).items():
        yield Sample(f"{folder}/{name}", size, label, domain, split, modified)


def left_out(root: Path, used: Sequence[str] = ()) -> tuple[str, ...]:
    """A note on folders of ``root`` that seem to hold a validation or test set and are not among
    ``used``; empty if there are none."""
    names = [name for name in folders(root) if name.lower() in HELD_OUT and name not in used]
    return left_out_note(root, names)


def loose_images(root: Path) -> tuple[str, ...]:
    """A note on images in ``root`` outside any class folder; empty if there are none."""
    images = content_of(root).images
    if not images:
        return ()
    return (
        f"{len(images):,} images directly in {root} are left out, {images[0]} is the first; only "
        "images in class folders are packed",
    )


def class_tree(
    name: str, root: Path, folder_of: dict[str, str], *, notes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of class folders below ``root``; ``folder_of`` maps each class, in label order,
    to its folder."""

    def samples() -> Iterator[Sample]:
        for label, folder in enumerate(folder_of.values()):
            yield from class_folder(folder, root, label)

    return Dataset(
        name, tuple(folder_of), ("default",), ("all",), samples, FileReader(root), notes=notes
    )


def domain_tree(
    name: str,
    root: Path,
    domains: Sequence[str],
    domain_names: Sequence[str] | None = None,
    *,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """The data set of `<domain>/<class>/<image>` folders below ``root``, classes sorted by name.
    Domains are named after their folders, or by ``domain_names``.

    Raises:
        PackError: there are no class folders.
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
    """The data set of ``groups`` of class folders below ``root``; classes sorted by name.

    Raises:
        PackError: there are no class folders.
    """
    found = [
        {
            class_: images_folder(root / folder, class_) or class_
            for class_ in folders(root / folder)
        }
        for folder, _, _ in groups
    ]
    classes = sorted(set().union(*found))
    if not classes:
        raise PackError(
            f"{root} holds no images; expected <class>/<image> or <domain>/<class>/<image>"
        )
    label = {class_: number for number, class_ in enumerate(classes)}

    def samples() -> Iterator[Sample]:
        for (parent, domain, split), folder_of in zip(groups, found, strict=True):
            for class_, folder in folder_of.items():
                yield from class_folder(
                    f"{parent}/{folder}", root, label[class_], domain=domain, split=split
                )

    return Dataset(name, tuple(classes), domains, splits, samples, FileReader(root), notes=notes)


def images_folder(root: Path, name: str) -> str | None:
    """The folder below ``root`` that holds the images of class ``name``; None if ``name`` is not a
    class folder. A class folder holds images, or files and no folders, or one folder `images`."""
    content = content_of(root / name)
    if content.folders == [_IMAGES] and not content.images:
        return f"{name}/{_IMAGES}"
    return name if content.images or (content.files and not content.folders) else None


def left_out_note(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A note that the folders ``names`` of ``root`` are left out; empty if there are none."""
    if not names:
        return ()
    listed = ", ".join(f"{name}/" for name in names)
    return (f"{root}: {listed} left out, not among the class folders that are packed",)


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
    except OSError:  # a link to itself; listed as a file, so that it is reported as a reject
        return False
